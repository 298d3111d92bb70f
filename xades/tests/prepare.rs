//! Documents of every kind, sealed and judged by xmlsec1; and what is refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fmt::Write as _;

use common::{Identity, shared, xml_files, xmlsec1};
use muhurdar_xades::c14n::{Method, Subset, canonicalize};
use muhurdar_xades::{
    DocumentType, Doubt, Encoding, KeyType, Limits, Policy, Prepared, Preparer, Reason, Refusal, RefusalKind, Seal,
    Sealer, Sealing, prepare,
};

struct Desk {
    identity: Identity,
    policy: Policy,
    limits: Limits,
}

impl Desk {
    fn new(key_type: KeyType) -> Self {
        Self {
            identity: Identity::new(key_type),
            policy: Policy::default(),
            limits: Limits::default(),
        }
    }

    fn sealing(&self) -> Sealing<'_> {
        Sealing {
            certificate: &self.identity.certificate,
            policy: &self.policy,
            limits: &self.limits,
            signing_time: "2026-11-21T09:00:00Z".parse().unwrap(),
            expect: None,
        }
    }

    fn prepare(&self, document: &[u8]) -> Result<Prepared, Refusal> {
        prepare(document, &self.sealing())
    }

    fn finish(&self, prepared: Prepared) -> Seal {
        let algorithm = prepared.signature_algorithm();
        let value = self.identity.sign(algorithm, prepared.signed_info());
        if prepared.wants_countersignature() {
            return self.finish(prepared.countersign(&value).unwrap());
        }
        prepared.finish(&value).unwrap()
    }

    fn seal(&self, document: &[u8]) -> Vec<u8> {
        self.finish(self.prepare(document).unwrap()).splice(document)
    }
}

/// Fails where xmlsec1 is there and says no.
fn verifies(name: &str, sealed: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sealed.xml");
    std::fs::write(&file, sealed).unwrap();
    if let Some(Err(why)) = xmlsec1(&file) {
        panic!(
            "{name}: {why}\n{}",
            String::from_utf8_lossy(&sealed[..sealed.len().min(6000)])
        );
    }
}

fn canonical(document: &[u8], subset: Subset) -> Vec<u8> {
    canonicalize(document, &Method::INCLUSIVE, subset, &Limits::default(), Vec::new()).unwrap()
}

/// The number of the seal among the elements.
fn seal_number(sealed: &[u8]) -> u64 {
    let text = String::from_utf8(canonical(sealed, Subset::Document)).unwrap();
    let before = &text[..text.find("<ds:Signature ").unwrap()];
    before
        .match_indices('<')
        .filter(|(at, _)| !matches!(before.as_bytes()[at + 1], b'/' | b'?' | b'!'))
        .count() as u64
}

const EXT: &str = "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2";
const CAC: &str = "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2";
const CBC: &str = "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2";

/// An invoice with this in the place of its extensions, and more attributes of its root.
fn invoice(extensions: &str, attributes: &str) -> String {
    format!(
        "<Invoice xmlns=\"urn:oasis:names:specification:ubl:schema:xsd:Invoice-2\" xmlns:cac=\"{CAC}\" \
         xmlns:cbc=\"{CBC}\"{attributes}>\r\n{extensions}<cbc:ID>ABC2026000000001</cbc:ID><cbc:Note a='1'>Ünlü Ğ \
         &gt; <![CDATA[<x>]]><!-- c --></cbc:Note><cac:Signature><cbc:ID schemeID=\"VKN_TCKN\"> 1234567801\n</cbc:ID>\
         <cac:DigitalSignatureAttachment><cac:ExternalReference><cbc:URI>#Signature_1</cbc:URI></cac:ExternalReference>\
         </cac:DigitalSignatureAttachment></cac:Signature><cac:AccountingSupplierParty><cac:Party>\
         <cac:PartyIdentification><cbc:ID schemeID=\"MERSISNO\">0</cbc:ID></cac:PartyIdentification>\
         <cac:PartyIdentification><cbc:ID schemeID=\"VKN\">9999999999</cbc:ID></cac:PartyIdentification></cac:Party>\
         </cac:AccountingSupplierParty></Invoice>\n"
    )
}

/// Every way in which an invoice may have, or lack, a place for its seal.
fn invoices() -> Vec<(&'static str, String)> {
    let ext = format!(" xmlns:ext=\"{EXT}\"");
    let content = |inner: &str| {
        format!(
            "<ext:UBLExtensions><ext:UBLExtension>{inner}</ext:UBLExtension></ext:UBLExtensions>",
            inner = inner
        )
    };
    let real = "<ext:ExtensionContent><own xmlns='urn:own'>x</own></ext:ExtensionContent>";
    vec![
        ("an empty tag", invoice(&content("<ext:ExtensionContent/>"), &ext)),
        (
            "an empty tag with a space",
            invoice(&content("<ext:ExtensionContent />"), &ext),
        ),
        (
            "nothing in it",
            invoice(&content("<ext:ExtensionContent></ext:ExtensionContent>"), &ext),
        ),
        (
            "white space",
            invoice(
                &content("<ext:ExtensionContent>\r\n\t&#32;</ext:ExtensionContent>"),
                &ext,
            ),
        ),
        (
            "a placeholder",
            invoice(
                &content(
                    "<ext:ExtensionContent>\r\n<n4:auto-generated_for_wildcard xmlns:n4='urn:n4'/>\r\n\
                     </ext:ExtensionContent>",
                ),
                &ext,
            ),
        ),
        (
            "a comment",
            invoice(
                &content("<ext:ExtensionContent><!-- seal here --></ext:ExtensionContent >"),
                &ext,
            ),
        ),
        ("something else", invoice(&content(real), &ext)),
        ("something else, and then a free one", {
            let both =
                format!("{real}</ext:UBLExtension>\n<ext:UBLExtension><ext:ExtensionContent> </ext:ExtensionContent>");
            invoice(&content(&both), &ext)
        }),
        (
            "text",
            invoice(&content("<ext:ExtensionContent>mine</ext:ExtensionContent>"), &ext),
        ),
        (
            "no extension",
            invoice("<ext:UBLExtensions> </ext:UBLExtensions>", &ext),
        ),
        ("no extension at all", invoice("<ext:UBLExtensions/>", &ext)),
        (
            "an extension without content",
            invoice(&content("<cbc:ID>x</cbc:ID>"), &ext),
        ),
        ("no extensions", invoice("", &ext)),
        ("no extensions and no prefix", invoice("", "")),
        (
            "no extensions and the prefix taken",
            invoice("", " xmlns:ext='urn:other'"),
        ),
        ("no extensions, a child with declarations", {
            invoice(
                "<x:y xmlns:x='urn:x' xmlns:ext='urn:child' xml:lang='de'/>",
                " xml:lang='tr'",
            )
        }),
        ("xml attributes and a redeclared default", {
            let place =
                "<ext:ExtensionContent xmlns='urn:d' xml:lang='en' xml:space='default'> </ext:ExtensionContent>";
            invoice(&content(place), &format!("{ext} xml:lang='tr'"))
        }),
        ("another prefix, ds taken", {
            let place = content("<ext:ExtensionContent/>").replace("ext:", "e:");
            invoice(
                &place,
                &format!(" xmlns:e='{EXT}' xmlns:ds='urn:taken' xmlns:xades='http://uri.etsi.org/01903/v1.3.2#'"),
            )
        }),
        ("the default prefix", {
            invoice(
                &format!(
                    "<UBLExtensions xmlns='{EXT}'><UBLExtension><ExtensionContent/></UBLExtension></UBLExtensions>"
                ),
                "",
            )
        }),
        ("comments and instructions around", {
            format!(
                "<?xml version='1.0'?>\n<?xml-stylesheet href='a.xslt'  type='text/xsl' ?>\n<!-- c -->\n{}<?z?>",
                invoice("", "")
            )
        }),
        ("an empty default prefix on every level", {
            format!(
                "\u{feff}{}",
                invoice(
                    &content("<ext:ExtensionContent xmlns=''>\n</ext:ExtensionContent>"),
                    &ext
                )
            )
        }),
    ]
}

#[test]
fn every_place_of_an_invoice_takes_a_seal_that_xmlsec1_verifies() {
    for key_type in [KeyType::Rsa2048, KeyType::EcP384] {
        let desk = Desk::new(key_type);
        for (name, document) in invoices() {
            let prepared = desk
                .prepare(document.as_bytes())
                .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            assert_eq!(prepared.document_id(), Some("ABC2026000000001"), "{name}");
            assert_eq!(*prepared.sealer(), Sealer::Signature("1234567801".to_owned()), "{name}");
            let seal = desk.finish(prepared);
            let sealed = seal.splice(document.as_bytes());
            verifies(name, &sealed);
            // Every byte outside the range is as it came.
            assert!(sealed.starts_with(&document.as_bytes()[..seal.range().start]));
            assert!(sealed.ends_with(&document.as_bytes()[seal.range().end..]));
            let again = desk.prepare(&sealed).unwrap_err();
            assert_eq!(again.kind(), RefusalKind::AlreadySealed);
        }
    }
}

#[test]
fn a_document_in_pieces_is_prepared_as_if_it_were_whole() {
    let desk = Desk::new(KeyType::EcP256);
    for (name, document) in invoices() {
        let whole = desk.prepare(document.as_bytes()).unwrap();
        for size in [1, 2, 3, 10, 64, 333] {
            let mut preparer = Preparer::new(desk.sealing());
            for piece in document.as_bytes().chunks(size) {
                preparer.feed(piece).unwrap();
            }
            let pieces = preparer.finish().unwrap();
            assert_eq!(pieces.signed_info(), whole.signed_info(), "{name} in pieces of {size}");
            let (mine, its) = (
                desk.finish(pieces),
                desk.finish(desk.prepare(document.as_bytes()).unwrap()),
            );
            assert_eq!(mine.range(), its.range(), "{name} in pieces of {size}");
        }
    }
}

#[test]
fn with_which_certificate_and_when_may_be_said_when_the_document_has_ended() {
    let (first, successor) = (Desk::new(KeyType::EcP256), Desk::new(KeyType::EcP256));
    let other = Desk::new(KeyType::EcP384);
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    for (name, document) in invoices() {
        let digested = || {
            let mut preparer = Preparer::new(first.sealing());
            preparer.feed(document.as_bytes()).unwrap();
            preparer.digested().unwrap()
        };
        let sealing = Sealing {
            signing_time: later,
            ..successor.sealing()
        };
        let certificate = &successor.identity.certificate;
        let late = digested().draft(certificate, &first.policy, later).unwrap();
        let whole = prepare(document.as_bytes(), &sealing).unwrap();
        assert_eq!(late.signed_info(), whole.signed_info(), "{name}");
        verifies(name, &successor.finish(late).splice(document.as_bytes()));
        // Its digests are those of the curve: nobody can tell them after the document has gone.
        let certificate = &other.identity.certificate;
        assert!(!digested().fits(certificate, &first.policy));
        assert!(digested().draft(certificate, &first.policy, later).is_err());
    }
}

#[test]
fn a_seal_stands_in_the_encoding_of_its_document() {
    let desk = Desk::new(KeyType::EcP384);
    for (encoding, label) in [
        (Encoding::Utf8, "UTF-8"),
        (Encoding::Utf16Le, "UTF-16"),
        (Encoding::Utf16Be, "UTF-16"),
        (Encoding::Latin5, "ISO-8859-9"),
        (Encoding::Windows1254, "windows-1254"),
        (Encoding::Latin1, "ISO-8859-1"),
        (Encoding::Ascii, "US-ASCII"),
    ] {
        for (name, text) in invoices() {
            if text.contains("<?xml ") || text.starts_with('\u{feff}') {
                continue;
            }
            let text = format!("<?xml version=\"1.0\" encoding=\"{label}\"?>\n{text}");
            // Character references are no markup in CDATA; none of these has a letter there that an encoding lacks.
            let mark: &[u8] = match encoding {
                Encoding::Utf16Le => b"\xff\xfe",
                Encoding::Utf16Be => b"\xfe\xff",
                _ => b"",
            };
            let document = [mark, &encoding.encode(&text)].concat();
            let sealed = desk.seal(&document);
            verifies(&format!("{label}, {name}"), &sealed);
            let without = canonical(&sealed, Subset::Without(seal_number(&sealed)));
            let utf8 = desk.seal(text.replace(label, "UTF-8").as_bytes());
            assert_eq!(
                without,
                canonical(&utf8, Subset::Without(seal_number(&utf8))),
                "{label}, {name}"
            );
        }
    }
}

#[test]
fn every_sealable_document_of_the_collection_takes_a_seal_and_changes_in_nothing_else() {
    let Some(folder) = shared("ubl-tr") else { return };
    let desk = Desk::new(KeyType::Rsa2048);
    let mut sealed_count = 0;
    for file in xml_files(&folder.join("unsigned"))
        .into_iter()
        .chain(xml_files(&folder.join("variants")))
    {
        let document = std::fs::read(&file).unwrap();
        let name = file.display().to_string();
        let prepared = desk
            .prepare(&document)
            .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert!(
            matches!(prepared.sealer().taxpayer(), Ok(Some(_))),
            "{name}: {:?}",
            prepared.sealer()
        );
        let seal = desk.finish(prepared);
        let sealed = seal.splice(&document);
        verifies(&name, &sealed);
        let bare = [&document[..seal.range().start], &document[seal.range().end..]].concat();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let squeeze = |bytes: Vec<u8>| {
            let skeleton = "<ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent></ext:ExtensionContent>\
                            </ext:UBLExtension></ext:UBLExtensions>";
            text(&bytes)
                .replace(skeleton, "")
                .replace("<oa:Signature></oa:Signature>", "")
        };
        // An empty tag that became two is the same to canonical XML, but cannot be cut out of the bytes.
        if !document[seal.range()].starts_with(b"/>") {
            let (ours, theirs) = (
                canonical(&sealed, Subset::Without(seal_number(&sealed))),
                canonical(&bare, Subset::Document),
            );
            assert_eq!(squeeze(ours), squeeze(theirs), "{name}");
        }
        sealed_count += 1;
    }
    assert!(sealed_count >= 49, "only {sealed_count} documents");
}

#[test]
fn the_other_families_take_their_seals_where_the_law_puts_them() {
    let desk = Desk::new(KeyType::Rsa2048);
    let xbrl = "<xbrli:xbrl xmlns:xbrli='http://www.xbrl.org/2003/instance' \
                xmlns:gl-cor='http://www.xbrl.org/int/gl/cor/2006-10-25'><xbrli:context id='ledger'><xbrli:entity>\
                <xbrli:identifier scheme='http://www.gib.gov.tr'>1234567801</xbrli:identifier></xbrli:entity></xbrli:context>\
                <gl-cor:accountingEntries><gl-cor:documentInfo><gl-cor:uniqueID contextRef='ledger'>YEV2026</gl-cor:uniqueID>\
                </gl-cor:documentInfo></gl-cor:accountingEntries></xbrli:xbrl>";
    let ds = "http://www.w3.org/2000/09/xmldsig#";
    let ledger = format!("<edefter:defter xmlns:edefter='http://www.edefter.gov.tr'>{xbrl}</edefter:defter>");
    let berat = format!(
        "<edefter:berat xmlns:edefter='http://www.edefter.gov.tr' xmlns:sig='{ds}'>{xbrl}\
         <sig:SignatureValue Id='Signature_YEV2026-SignatureValue'>AAAA</sig:SignatureValue>\n</edefter:berat>"
    );
    let report = "<r:eArsivRaporu xmlns:r='http://earsiv.efatura.gov.tr'><r:baslik><r:mukellef><r:vkn>1111111111</r:vkn>\
                  </r:mukellef><r:hazirlayan><r:vkn>1234567801</r:vkn></r:hazirlayan><r:raporNo>0c-1</r:raporNo></r:baslik>\
                  <r:fatura/></r:eArsivRaporu>";
    let account = |area: &str| {
        format!(
            "<ProcessUserAccount xmlns='http://www.hr-xml.org/3' xmlns:oa='http://www.openapplications.org/oagis/9'>\
             <oa:ApplicationArea><oa:Sender><oa:LogicalID>1234567801</oa:LogicalID></oa:Sender>{area}</oa:ApplicationArea>\
             <DataArea/></ProcessUserAccount>"
        )
    };
    for (document, kind, id, end) in [
        (
            ledger,
            DocumentType::EDefterLedger,
            Some("YEV2026"),
            "</edefter:defter>",
        ),
        (berat, DocumentType::EDefterBerat, Some("YEV2026"), "\n</edefter:berat>"),
        (
            report.to_owned(),
            DocumentType::EArsivReport,
            Some("0c-1"),
            "</r:baslik><r:fatura/></r:eArsivRaporu>",
        ),
        (
            account("<oa:Signature/>"),
            DocumentType::UserAccount,
            None,
            "</oa:Signature></oa:ApplicationArea>",
        ),
        (
            account("<oa:Signature> </oa:Signature>"),
            DocumentType::UserAccount,
            None,
            "</oa:Signature></oa:ApplicationArea>",
        ),
        (
            account("<oa:BODID/>"),
            DocumentType::UserAccount,
            None,
            "</oa:Signature><oa:BODID/>",
        ),
        (
            account(""),
            DocumentType::UserAccount,
            None,
            "</oa:Signature></oa:ApplicationArea>",
        ),
    ] {
        let prepared = desk
            .prepare(document.as_bytes())
            .unwrap_or_else(|refusal| panic!("{kind:?}: {refusal}"));
        assert_eq!(prepared.document_type(), kind);
        assert_eq!(prepared.document_id(), id);
        assert_eq!(
            *prepared.sealer(),
            Sealer::Identity("1234567801".to_owned()),
            "{kind:?}"
        );
        let sealed = desk.finish(prepared).splice(document.as_bytes());
        verifies(&format!("{kind:?}"), &sealed);
        let text = String::from_utf8(sealed).unwrap();
        let end = if kind == DocumentType::EDefterBerat {
            "</ds:Signature></edefter:berat>"
        } else {
            end
        };
        assert!(
            text.contains(&format!(
                "</ds:Signature>{}",
                end.strip_prefix("</ds:Signature>").unwrap_or(end)
            )),
            "{text}"
        );
        assert_eq!(
            text.matches("<xades:CounterSignature>").count(),
            usize::from(kind == DocumentType::UserAccount)
        );
    }
}

#[test]
fn what_cannot_be_sealed_is_refused_with_its_reason() {
    let desk = Desk::new(KeyType::EcP256);
    let reason = |document: &str| desk.prepare(document.as_bytes()).unwrap_err();
    let envelope =
        "<e:StandardBusinessDocument xmlns:e='http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader'/>";
    assert_eq!(*reason(envelope).reason(), Reason::Envelope);
    assert_eq!(reason("<Invoice/>").kind(), RefusalKind::DocumentType);
    assert_eq!(reason("<!DOCTYPE a><a/>").kind(), RefusalKind::DtdForbidden);
    assert_eq!(reason("<a>").kind(), RefusalKind::DocumentType);
    assert_eq!(reason("<a").kind(), RefusalKind::Malformed);
    let empty = "<Invoice xmlns='urn:oasis:names:specification:ubl:schema:xsd:Invoice-2'/>";
    assert_eq!(reason(empty).kind(), RefusalKind::SealPlace);
    let uri = |uri: &str| invoice("", "").replace("#Signature_1", uri);
    assert!(matches!(reason(&uri("#1")).reason(), Reason::SealId { .. }));
    assert!(matches!(reason(&uri("#a b")).reason(), Reason::SealId { .. }));
    assert!(matches!(
        reason(&invoice("", " Id='Signature_1'")).reason(),
        Reason::SealIdTaken { .. }
    ));
    let late = invoice("", "").replace(
        "<cac:Signature>",
        &format!("<e:UBLExtensions xmlns:e='{EXT}'/><cac:Signature>"),
    );
    assert_eq!(reason(&late).kind(), RefusalKind::SealPlace);
    let mut sealing = desk.sealing();
    sealing.expect = Some(DocumentType::CreditNote);
    let refusal = prepare(invoice("", "").as_bytes(), &sealing).unwrap_err();
    assert_eq!(
        (refusal.kind(), refusal.position().unwrap().line),
        (RefusalKind::DocumentType, 1)
    );
    let berat = "<b:berat xmlns:b='http://www.edefter.gov.tr'></b:berat>";
    assert_eq!(reason(berat).kind(), RefusalKind::SealPlace);
}

#[test]
fn an_id_is_made_where_the_document_gives_none() {
    let desk = Desk::new(KeyType::EcP256);
    let id = |document: &str| {
        let sealed = String::from_utf8(desk.seal(document.as_bytes())).unwrap();
        let at = sealed.find("<ds:Signature ").unwrap();
        let start = at + sealed[at..].find(" Id=\"").unwrap() + 5;
        sealed[start..start + sealed[start..].find('"').unwrap()].to_owned()
    };
    let plain = invoice("", "").replace("#Signature_1", "");
    assert_eq!(id(&plain), "Signature_ABC2026000000001");
    assert_eq!(id(&plain.replace("ABC2026000000001", "0/ş 1")), "Signature_0_ş_1");
    assert_eq!(
        id(&plain.replace("<cbc:Note ", "<cbc:Note Id='Signature_ABC2026000000001' ")),
        "Signature_ABC2026000000001-2"
    );
    assert_eq!(id(&invoice("", "").replace("#Signature_1", "ben")), "ben");
}

#[test]
fn a_wrong_value_makes_no_seal() {
    let desk = Desk::new(KeyType::Rsa2048);
    let document = invoice("", "");
    let prepared = desk.prepare(document.as_bytes()).unwrap();
    let mut value = desk
        .identity
        .sign(prepared.signature_algorithm(), prepared.signed_info());
    value[100] ^= 1;
    assert!(prepared.finish(&value).is_err());
    assert!(desk.prepare(document.as_bytes()).unwrap().finish(&[]).is_err());
}

#[test]
fn nothing_of_the_document_is_in_a_refusal_or_in_debug() {
    let desk = Desk::new(KeyType::EcP256);
    let secret = "gizli-ünlü-değer";
    for mutated in [
        "<cbc:Note a='gizli-ünlü-değer\u{1}'/>",
        "<cbc:Note>gizli-ünlü-değer&gizli;</cbc:Note>",
        "gizli-ünlü-değer]]>",
    ] {
        let document = invoice(mutated, "");
        let refusal = desk.prepare(document.as_bytes()).unwrap_err();
        let mut shown = String::new();
        write!(shown, "{refusal} {refusal:?}").unwrap();
        assert!(!shown.contains(secret), "{shown}");
    }
    let prepared = desk.prepare(invoice("", "").as_bytes()).unwrap();
    assert!(!format!("{prepared:?}").contains("ABC2026"));
}

#[test]
fn the_document_names_its_sealer_once_and_readably_or_nobody_seals() {
    let desk = Desk::new(KeyType::EcP256);
    let sealer = |document: &str| desk.prepare(document.as_bytes()).unwrap().sealer().clone();
    let doubt = |document: &str| match sealer(document) {
        Sealer::Unclear(unclear) => {
            assert!(unclear.to_string().starts_with("cac:Signature "), "{unclear}");
            Some(unclear.doubt())
        }
        _ => None,
    };
    let signature = |inner: &str| {
        let plain = invoice("", "");
        let (from, to) = (
            plain.find("<cac:Signature>").unwrap(),
            plain.find("<cac:AccountingSupplier").unwrap(),
        );
        format!("{}{inner}{}", &plain[..from], &plain[to..])
    };
    let id = |scheme: &str, number: &str| {
        signature(&format!(
            "<cac:Signature><cbc:ID{scheme}>{number}</cbc:ID></cac:Signature>"
        ))
    };
    let ours = Sealer::Signature("1234567801".to_owned());
    // The number decides, whatever stands beside it: the supplier is 9999999999.
    for scheme in [
        "",
        " schemeID=''",
        " schemeID='VKN'",
        " schemeID='vkn_tckn '",
        " schemeID='MERSISNO'",
        " schemeID='GLN'",
        " schemeName='VKN_TCKN'",
    ] {
        assert_eq!(sealer(&id(scheme, "1234567801")), ours, "{scheme}");
        assert_eq!(doubt(&id(scheme, "123456789")), Some(Doubt::Unreadable), "{scheme}");
        assert_eq!(doubt(&id(scheme, "Örnek A.Ş.")), Some(Doubt::Unreadable), "{scheme}");
        assert_eq!(doubt(&id(scheme, " ")), Some(Doubt::Nobody), "{scheme}");
    }
    assert_eq!(sealer(&id("", "12345<!-- c --><![CDATA[678]]>&#48;1")), ours);
    let one = "<cac:Signature><cbc:ID schemeID='VKN_TCKN'>1234567801</cbc:ID></cac:Signature>";
    assert_eq!(sealer(&signature(&format!("{one}{one}"))), ours);
    assert_eq!(
        doubt(&signature(&format!("{one}{}", one.replace("7801", "7802")))),
        Some(Doubt::Two)
    );
    assert_eq!(
        doubt(&signature(&format!("{one}<cac:Signature/>"))),
        Some(Doubt::Nobody)
    );
    assert_eq!(
        doubt(&signature(&format!("<cac:Signature/>{one}"))),
        Some(Doubt::Nobody)
    );
    let party = |scheme: &str, number: &str| {
        let party = format!(
            "<cac:SignatoryParty><cac:PartyIdentification><cbc:ID{scheme}>{number}</cbc:ID></cac:PartyIdentification>\
             </cac:SignatoryParty></cac:Signature>"
        );
        signature(&one.replace("</cac:Signature>", &party))
    };
    for scheme in ["", " schemeID='VKN'", " schemeID='tckn'", " schemeID='VKNO'"] {
        assert_eq!(sealer(&party(scheme, "1234567801")), ours, "{scheme}");
        assert_eq!(doubt(&party(scheme, "1234567802")), Some(Doubt::Two), "{scheme}");
    }
    assert_eq!(doubt(&party(" schemeID='VKN'", "123456780")), Some(Doubt::Unreadable));
    // Numbers of other registers, known or not, are nobody's.
    for (scheme, number) in [
        (" schemeID='MUSTERINO'", "1234567802"),
        (" schemeID='MERSISNO'", "1234567890123456"),
        (" schemeID='SEVKIYATNO'", "SE-1345840"),
        (" schemeID='YENI'", "A-1"),
        ("", "A-1"),
        (" schemeID='VKN'", ""),
    ] {
        assert_eq!(sealer(&party(scheme, number)), ours, "{scheme}");
    }
    // Without a cac:Signature it is whose document it is, read in the same way.
    let supplier = signature("");
    assert_eq!(sealer(&supplier), Sealer::Identity("9999999999".to_owned()));
    let two = supplier.replace("\"MERSISNO\">0<", "\"TCKN\">12345678901<");
    assert!(matches!(sealer(&two), Sealer::Unclear(unclear) if unclear.doubt() == Doubt::Two));
    let nobody = supplier.replace("9999999999", "");
    assert_eq!(sealer(&nobody), Sealer::Unnamed);
}

#[test]
fn who_prepares_a_report_is_not_replaced_by_whose_it_is() {
    let desk = Desk::new(KeyType::EcP256);
    let sealer = |prepared_by: &str| {
        let report = format!(
            "<r:eArsivRaporu xmlns:r='http://earsiv.efatura.gov.tr'><r:baslik><r:mukellef><r:vkn>1111111111</r:vkn>\
             </r:mukellef>{prepared_by}<r:raporNo>0c-1</r:raporNo></r:baslik><r:fatura/></r:eArsivRaporu>"
        );
        desk.prepare(report.as_bytes()).unwrap().sealer().clone()
    };
    let named = |number: &str| Sealer::Identity(number.to_owned());
    assert_eq!(sealer(""), named("1111111111"));
    assert_eq!(
        sealer("<r:hazirlayan><r:vkn>1234567801</r:vkn></r:hazirlayan>"),
        named("1234567801")
    );
    for (inner, doubt) in [
        ("", Doubt::Nobody),
        ("<r:vkn/>", Doubt::Nobody),
        ("<r:vkn>12345</r:vkn>", Doubt::Unreadable),
        ("<r:vkn>1234567801</r:vkn><r:tckn>12345678901</r:tckn>", Doubt::Two),
    ] {
        let found = sealer(&format!("<r:hazirlayan>{inner}</r:hazirlayan>"));
        assert!(
            matches!(found, Sealer::Unclear(unclear) if unclear.doubt() == doubt),
            "{inner}: {found:?}"
        );
    }
}
