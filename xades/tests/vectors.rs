//! The canonical forms that others have published: the W3C's own examples, and Merlin Hughes's interoperability vectors.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod corpus;

use std::path::Path;

use aws_lc_rs::digest;
use base64::Engine as _;
use muhurdar_xades::c14n::{Form, Method, Subset, canonicalize};
use muhurdar_xades::{Limits, RefusalKind};

/// An example of Canonical XML 1.0, chapter 3. Documents with a document type declaration are refused here, so what the
/// declaration would have done is written out in `document`, and `declared` is the specification's own with it.
struct Example {
    section: &'static str,
    declared: Option<&'static str>,
    document: &'static str,
    canonical: &'static str,
    /// Where comments stay, if that is another form.
    commented: Option<&'static str>,
}

// The sections up to 3.6. Section 3.7 chooses single nodes by an XPath expression, which nothing here expresses.
const EXAMPLES: &[Example] = &[
    Example {
        section: "3.1 PIs, Comments, and Outside of Document Element",
        declared: Some(
            r#"<?xml version="1.0"?>

<?xml-stylesheet   href="doc.xsl"
   type="text/xsl"   ?>

<!DOCTYPE doc SYSTEM "doc.dtd">

<doc>Hello, world!<!-- Comment 1 --></doc>

<?pi-without-data     ?>

<!-- Comment 2 -->

<!-- Comment 3 -->
"#,
        ),
        document: r#"<?xml version="1.0"?>

<?xml-stylesheet   href="doc.xsl"
   type="text/xsl"   ?>

<doc>Hello, world!<!-- Comment 1 --></doc>

<?pi-without-data     ?>

<!-- Comment 2 -->

<!-- Comment 3 -->
"#,
        canonical: r#"<?xml-stylesheet href="doc.xsl"
   type="text/xsl"   ?>
<doc>Hello, world!</doc>
<?pi-without-data?>"#,
        commented: Some(
            r#"<?xml-stylesheet href="doc.xsl"
   type="text/xsl"   ?>
<doc>Hello, world!<!-- Comment 1 --></doc>
<?pi-without-data?>
<!-- Comment 2 -->
<!-- Comment 3 -->"#,
        ),
    },
    Example {
        section: "3.2 Whitespace in Document Content",
        declared: None,
        document: r"<doc>
   <clean>   </clean>
   <dirty>   A   B   </dirty>
   <mixed>
      A
      <clean>   </clean>
      B
      <dirty>   A   B   </dirty>
      C
   </mixed>
</doc>",
        canonical: r"<doc>
   <clean>   </clean>
   <dirty>   A   B   </dirty>
   <mixed>
      A
      <clean>   </clean>
      B
      <dirty>   A   B   </dirty>
      C
   </mixed>
</doc>",
        commented: None,
    },
    Example {
        section: "3.3 Start and End Tags",
        declared: Some(
            r#"<!DOCTYPE doc [<!ATTLIST e9 attr CDATA "default">]>
<doc>
   <e9 xmlns="" xmlns:a="http://www.ietf.org"/>
</doc>"#,
        ),
        // The default that the declaration gives to e9 stands in the document.
        document: r#"<doc>
   <e1   />
   <e2   ></e2>
   <e3   name = "elem3"   id="elem3"   />
   <e4   name="elem4"   id="elem4"   ></e4>
   <e5 a:attr="out" b:attr="sorted" attr2="all" attr="I'm"
      xmlns:b="http://www.ietf.org"
      xmlns:a="http://www.w3.org"
      xmlns="http://example.org"/>
   <e6 xmlns="" xmlns:a="http://www.w3.org">
      <e7 xmlns="http://www.ietf.org">
         <e8 xmlns="" xmlns:a="http://www.w3.org">
            <e9 xmlns="" xmlns:a="http://www.ietf.org" attr="default"/>
         </e8>
      </e7>
   </e6>
</doc>"#,
        canonical: r#"<doc>
   <e1></e1>
   <e2></e2>
   <e3 id="elem3" name="elem3"></e3>
   <e4 id="elem4" name="elem4"></e4>
   <e5 xmlns="http://example.org" xmlns:a="http://www.w3.org" xmlns:b="http://www.ietf.org" attr="I'm" attr2="all" b:attr="sorted" a:attr="out"></e5>
   <e6 xmlns:a="http://www.w3.org">
      <e7 xmlns="http://www.ietf.org">
         <e8 xmlns="">
            <e9 xmlns:a="http://www.ietf.org" attr="default"></e9>
         </e8>
      </e7>
   </e6>
</doc>"#,
        commented: None,
    },
    Example {
        section: "3.4 Character Modifications and Character References",
        declared: Some(
            r"<!DOCTYPE doc [
<!ATTLIST normId id ID #IMPLIED>
<!ATTLIST normNames attr NMTOKENS #IMPLIED>
]>
<doc>
   <normNames attr='   A   &#x20;&#13;&#xa;&#9;   B   '/>
   <normId id=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/>
</doc>",
        ),
        document: r#"<doc>
   <text>First line&#x0d;&#10;Second line</text>
   <value>&#x32;</value>
   <compute><![CDATA[value>"0" && value<"10" ?"valid":"error"]]></compute>
   <compute expr='value>"0" &amp;&amp; value&lt;"10" ?"valid":"error"'>valid</compute>
   <norm attr=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/>
   <normNames attr='   A   &#x20;&#13;&#xa;&#9;   B   '/>
   <normId id=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/>
</doc>"#,
        // Without their declarations the last two attributes are CDATA as the first is, and keep their spaces.
        canonical: r#"<doc>
   <text>First line&#xD;
Second line</text>
   <value>2</value>
   <compute>value&gt;"0" &amp;&amp; value&lt;"10" ?"valid":"error"</compute>
   <compute expr="value>&quot;0&quot; &amp;&amp; value&lt;&quot;10&quot; ?&quot;valid&quot;:&quot;error&quot;">valid</compute>
   <norm attr=" '    &#xD;&#xA;&#x9;   ' "></norm>
   <normNames attr="   A    &#xD;&#xA;&#x9;   B   "></normNames>
   <normId id=" '    &#xD;&#xA;&#x9;   ' "></normId>
</doc>"#,
        commented: None,
    },
    Example {
        section: "3.5 Entity References",
        declared: Some(
            r#"<!DOCTYPE doc [
<!ATTLIST doc attrExtEnt ENTITY #IMPLIED>
<!ENTITY ent1 "Hello">
<!ENTITY ent2 SYSTEM "world.txt">
<!ENTITY entExt SYSTEM "earth.gif" NDATA gif>
<!NOTATION gif SYSTEM "viewgif.exe">
]>
<doc attrExtEnt="entExt">
   &ent1;, &ent2;!
</doc>

<!-- Let world.txt contain "world" (excluding the quotes) -->
"#,
        ),
        document: r#"<doc attrExtEnt="entExt">
   Hello, world!
</doc>

<!-- Let world.txt contain "world" (excluding the quotes) -->
"#,
        canonical: r#"<doc attrExtEnt="entExt">
   Hello, world!
</doc>"#,
        commented: Some(
            r#"<doc attrExtEnt="entExt">
   Hello, world!
</doc>
<!-- Let world.txt contain "world" (excluding the quotes) -->"#,
        ),
    },
    Example {
        section: "3.6 UTF-8 Encoding",
        declared: None,
        document: r#"<?xml version="1.0" encoding="ISO-8859-1"?>
<doc>&#169;</doc>"#,
        canonical: "<doc>\u{a9}</doc>",
        commented: None,
    },
];

fn canonical(document: &[u8], method: &Method, subset: Subset) -> Vec<u8> {
    canonicalize(document, method, subset, &Limits::default(), Vec::new()).unwrap()
}

#[test]
fn the_examples_of_the_specification_come_out_as_it_prints_them() {
    for example in EXAMPLES {
        for comments in [false, true] {
            for form in [Form::Inclusive, Form::Inclusive11] {
                let method = Method {
                    form,
                    comments,
                    inclusive_prefixes: Vec::new(),
                };
                let ours = canonical(example.document.as_bytes(), &method, Subset::Document);
                let printed = example.commented.filter(|_| comments).unwrap_or(example.canonical);
                assert_eq!(
                    String::from_utf8(ours).unwrap(),
                    printed,
                    "section {}, {method:?}",
                    example.section
                );
            }
        }
    }
}

#[test]
fn the_examples_that_declare_a_document_type_are_refused_for_it() {
    let declared: Vec<_> = EXAMPLES.iter().filter_map(|e| Some((e.section, e.declared?))).collect();
    assert_eq!(declared.len(), 4);
    for (section, document) in declared {
        let limits = Limits::default();
        let refusal = canonicalize(
            document.as_bytes(),
            &Method::INCLUSIVE,
            Subset::Document,
            &limits,
            Vec::new(),
        );
        assert_eq!(
            refusal.unwrap_err().kind(),
            RefusalKind::DtdForbidden,
            "section {section}"
        );
    }
}

/// The number of the element that begins at `tag`, in a document without `<` outside of markup.
fn number(document: &str, tag: &str) -> u64 {
    let before = &document[..document.find(tag).unwrap()];
    let begun = before
        .split('<')
        .skip(1)
        .filter(|markup| !markup.starts_with(['/', '!', '?']));
    begun.count() as u64
}

/// What stands between two markers, for each time they occur.
fn all_between<'d>(document: &'d str, from: &str, to: &str) -> Vec<&'d str> {
    let parts = document.split(from).skip(1);
    parts.map(|part| &part[..part.find(to).unwrap()]).collect()
}

/// XML Signature's digest of its time: what the vectors were published with.
fn sha1(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    base64::engine::general_purpose::STANDARD.encode(digest)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn merlins_elements_come_out_as_he_published_them() {
    let Some(root) = corpus::root() else { return };
    let folder = root.join("c14n/merlin-c14n-three");
    let document = read(&folder.join("signature.xml"));
    // One file for what each reference chooses, in their order, and a last one for SignedInfo.
    let expected = |number: usize| read(&folder.join(format!("c14n-{number}.txt")));

    let signed_info = canonical(
        document.as_bytes(),
        &Method::INCLUSIVE,
        Subset::Element(number(&document, "<SignedInfo")),
    );
    assert_eq!(String::from_utf8(signed_info).unwrap(), expected(27));

    let something = Subset::Element(number(&document, "<bar:Something"));
    let references = all_between(&document, "<Reference ", "</Reference>");
    assert_eq!(references.len(), 27);
    let mut compared = Vec::new();
    for (number, reference) in references.iter().enumerate() {
        // Digests are of the files byte for byte: they came here unharmed.
        let digest = all_between(reference, "<DigestValue>", "</DigestValue>")[0];
        assert_eq!(sha1(expected(number).as_bytes()), digest, "c14n-{number}.txt");

        // All others choose among the nodes of the element (namespace nodes without the elements that declare them,
        // elements without their text): node-sets, which a signature of a whole document or element cannot come to, and
        // which nothing here expresses.
        if all_between(reference, "<XPath>", "</XPath>")[0].trim() != "ancestor-or-self::bar:Something" {
            continue;
        }
        let prefixes = all_between(reference, "PrefixList=\"", "\"");
        let method = Method {
            form: if reference.contains("http://www.w3.org/2001/10/xml-exc-c14n#") {
                Form::Exclusive
            } else {
                Form::Inclusive
            },
            comments: false,
            inclusive_prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
        };
        let ours = canonical(document.as_bytes(), &method, something);
        assert_eq!(
            String::from_utf8(ours).unwrap(),
            expected(number),
            "c14n-{number}.txt, {method:?}"
        );
        compared.push(number);
    }
    // Inclusive, exclusive, and exclusive with the default namespace as inclusive. Node-sets: 1 to 8, 10 to 17, 19 to 26.
    assert_eq!(compared, [0, 9, 18]);
}

#[test]
fn merlins_exclusive_element_has_the_digests_that_he_published() {
    let Some(root) = corpus::root() else { return };
    let document = read(&root.join("c14n/merlin-exc-c14n-one/exc-signature.xml"));
    let element = Subset::Element(number(&document, "<dsig:Object Id=\"to-be-signed\""));
    let references = all_between(&document, "<dsig:Reference ", "</dsig:Reference>");
    assert_eq!(references.len(), 4);
    for reference in references {
        let transform = all_between(reference, "<dsig:Transform Algorithm=\"", "\"")[0];
        let mut method = Method::from_uri(transform).unwrap();
        for list in all_between(reference, "PrefixList=\"", "\"") {
            method.inclusive_prefixes = list.split(' ').map(str::to_owned).collect();
        }
        let ours = canonical(document.as_bytes(), &method, element);
        let digest = all_between(reference, "<dsig:DigestValue>", "</dsig:DigestValue>")[0];
        assert_eq!(sha1(&ours), digest, "{method:?}: {}", String::from_utf8_lossy(&ours));
    }
}
