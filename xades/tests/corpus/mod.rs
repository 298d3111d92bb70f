//! Documents to try things on: small ones written for this, and the large collection beside the project where it is.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several tests")]

use std::path::{Path, PathBuf};

/// Small documents, each about one rule; well-formed ones and others.
pub(crate) const SMALL: &[&str] = &[
    "<a/>",
    "<a></a >",
    "<?xml version=\"1.0\"?><a/>",
    "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<a>x</a>\n",
    "<?xml version=\"1.0\" standalone=\"maybe\"?><a/>",
    "<?xml encoding=\"UTF-8\"?><a/>",
    "<?xml version=\"1.0\" encoding=\"UTF-8\"",
    " <?xml version=\"1.0\"?><a/>",
    "\u{feff}<a/>",
    "",
    "   ",
    "text",
    "<a/>text",
    "<a/><b/>",
    "<a><b></a></b>",
    "<a><b/>",
    "</a>",
    "<a>]]></a>",
    "<a>]]&gt;]] ></a>",
    "<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x42;&#xD;&#13;&#10;</a>",
    "<a>&#0;</a>",
    "<a>&#xFFFE;</a>",
    "<a>&#xD800;</a>",
    "<a>&#x10FFFF;&#x110000;</a>",
    "<a>&#00000000000000000000000000000000065;</a>",
    "<a>&nbsp;</a>",
    "<a>& b</a>",
    "<a>&b</a>",
    "<a>\u{FFFE}</a>",
    "<a>\u{FFFD}\u{7f}\u{85}\u{2028}\u{1F600}ğüşıöç\u{EFFF}</a>",
    "<a>\u{1}</a>",
    "<a b='\u{1f}'/>",
    "<a b=\"1\" b=\"2\"/>",
    "<a xmlns:p='urn:x' xmlns:q='urn:x' p:b='1' q:b='2'/>",
    "<a xmlns:p='urn:x' xmlns:q='urn:y' q:b='2' p:b='1' b='0' a='&lt;&#10;&#x9;'/>",
    "<a b='<'/>",
    "<a b='x'c='y'/>",
    "<a b=x/>",
    "<a b/>",
    "<a b = \"it's > fine\" c='say \"x\"' d='tab\there\r\nnew&#13;'/>",
    "<p:a/>",
    "<a p:b='1'/>",
    "<p:a xmlns:p='urn:x'><p:b xmlns:p='urn:y'/><p:c/></p:a>",
    "<a xmlns='urn:x'><b xmlns=''><c xmlns=''/></b></a>",
    "<a xmlns:p=''/>",
    "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='tr'/>",
    "<a xmlns:xml='urn:x'/>",
    "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
    "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
    "<a xmlns:xmlns='urn:x'/>",
    "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
    "<a xmlns:p='relative/name'/>",
    "<a xmlns:p='http://x y/'/>",
    "<a xmlns:p='urn:x' xmlns:p='urn:y'/>",
    "<a:b:c xmlns:a='urn:x'/>",
    "<:a/>",
    "<a:/>",
    "<a:1 xmlns:a='urn:x'/>",
    "<1/>",
    "< a/>",
    "<ğ é='1'>x</ğ>",
    "<a×/>",
    "<a\u{b7}\u{300}/>",
    "<a><!-- c --></a>",
    "<!-- before --><a/><!-- after -->",
    "<a><!-- -- --></a>",
    "<a><!-- ---></a>",
    "<a><!----></a>",
    "<a><!--\r\nx\ry --></a>",
    "<a><!-- \u{2} --></a>",
    "<a><?p?><?p x?><?p  x ?y? ?></a>",
    "<?p\r\nq\rz?><a/><?p?>",
    "<a><?xml version='1.0'?></a>",
    "<a><?XML x?></a>",
    "<a><?xml-stylesheet href='x'?></a>",
    "<a><?p:q x?></a>",
    "<a><?p",
    "<a><?1?></a>",
    "<a><![CDATA[<&>]]]]]><![CDATA[]]>\r\n<![CDATA[\r\n]] >]]></a>",
    "<a><![CDATA[x</a>",
    "<a><![cdata[x]]></a>",
    "<![CDATA[x]]><a/>",
    "<!DOCTYPE a><a/>",
    "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    "<a><!DOCTYPE a></a>",
    "<a>\r\n\r\r\n\n</a>",
    "<a>\r\u{FFFD}]\u{1F600}\r\u{15F}</a>",
    "<a\r\n\tb='1'\r>x</a\n>",
    "<a/ >",
    "<a / >",
    "<a></a/>",
    "<a></a b='1'>",
    "<a></ a>",
    "<abc></ab>",
    "<ab></abc>",
    "<a b='1' />",
    "<a xml:id='x' xml:space='preserve' xml:lang=''> y </a>",
    "<a>1 > 0 ]> ]]</a>",
    "<?xml version=\"1.0\" encoding=\"US-ASCII\"?><a>x</a>",
    "<?xml version=\"1.0\" encoding=\"EBCDIC-XX\"?><a>x</a>",
    "<?xml version=\"1.1\"?><a>x</a>",
];

/// Namespaces, `xml:` attributes and comments on several levels: for canonicalizing parts.
pub(crate) const NESTED: &[&str] = &[
    "<?s x?><!-- c --><a xmlns='urn:d' xmlns:p='urn:p' xmlns:q='urn:q' xml:lang='tr' xml:space='preserve'>\
     <p:b q:z='1' y='2' xml:lang='en'><!-- i --><c xmlns='' xml:foo='1'><d xmlns='urn:d'/></c></p:b>\
     <p:b xmlns:p='urn:other'><p:c><p:d xmlns:p='urn:p'/></p:c></p:b><?t  u ?></a>\n<!-- d -->\n<?v?>",
    "<p:a xmlns:p='urn:p'><b xmlns:p='urn:p'><p:c xmlns:p='urn:p' p:d='1'><e/></p:c></b></p:a>",
    "<a xml:id='i' xml:lang='x'><b xml:id='j'><c xml:space='default'><d/></c></b></a>",
    "<n0:local xmlns:n0='foo:bar' xmlns:n3='ftp://example.org'><n1:elem2 xmlns:n1='http://example.net' xml:lang='en'>\
     <n3:stuff xmlns:n3='ftp://example.org'/></n1:elem2></n0:local>",
    "<n2:pdu xmlns:n1='http://example.com' xmlns:n2='http://foo.example' xml:lang='fr' xml:space='retain'>\
     <n1:elem2 xmlns:n1='http://example.net' xml:lang='en'><n3:stuff xmlns:n3='ftp://example.org'/></n1:elem2></n2:pdu>",
];

/// The same in other encodings, and bytes that are no text.
pub(crate) const NOT_TEXT: &[&[u8]] = &[
    b"<a>\xc3</a>",
    b"<a>\xff</a>",
    b"<a>\xed\xa0\x80</a>",
    b"<a>\xf4\x90\x80\x80</a>",
    b"<a>\xc0\x80</a>",
    b"<a>\xe2\x82",
    b"<a b='1'c='\xff'/>",
    b"<?xml version='1.0' encoding='ISO-8859-9'?><a b='\xfe'>\xf0\xfc\xfe\xfd\xf6\xe7\xdd\x85</a>",
    b"<?xml version='1.0' encoding='iso-8859-1'?><\xe9>\xf0\xfc\xfe\xfd\xa0\x85</\xe9>",
    b"<?xml version='1.0' encoding='windows-1254'?><a>\xf0\xfe\xfd\x80\x93</a>",
    b"<?xml version='1.0' encoding='windows-1254'?><a>\x81</a>",
    b"\xff\xfe<\0a\0>\0\x1f\x01=\xd8\0\xde<\0/\0a\0>\0",
    b"\xfe\xff\0<\0a\0>\x01\x1f\xd8=\xde\0\0<\0/\0a\0>",
    b"\xff\xfe<\0a\0>\0=\xd8<\0/\0a\0>\0",
    b"\xff\xfe<\0a\0/\0>\0\0",
    b"\xff\xfe<\0a\0>\0\0\xde<\0/\0a\0>\0",
    b"\xff\xfe<\0a\0/\0>",
    b"<\0?\0x\0m\0l\0 \0v\0e\0r\0s\0i\0o\0n\0=\0'\x001\0.\x000\0'\0?\0>\0<\0a\0/\0>\0",
];

/// The root of the collection, if it is there.
pub(crate) fn root() -> Option<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    if !root.is_dir() {
        eprintln!("SKIPPED: the collection of documents is not there ({})", root.display());
        return None;
    }
    Some(root.to_owned())
}

/// Every XML file of the collection, by name; none where it is missing.
pub(crate) fn shared() -> Vec<(String, Vec<u8>)> {
    let Some(root) = root() else { return Vec::new() };
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| ["xml", "xsd", "sch", "tmpl"].iter().any(|known| e == *known))
            {
                found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
