//! Every document that can be sealed is sealed, and others agree: GİB's own samples, the oddities of the field, and the
//! samples of this project. Nothing but the seal's place changes in any of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use muhurdar_proto::seal::v1::{AnswerKind, SealOptions, SealRequest, seal_response::Answer as Body};
use muhurdar_tests::{
    Appliance, Branch, Builder, Output, Python, files, invalid, muhurdar, refused, sealer_of, shared, xmlsec1,
};

/// Whom the documents in `../shared/data/ubl-tr` name as their sealers, with a key of either kind.
const SEALERS: [&str; 7] = [
    "1288331521",
    "1111111157",
    "3333333888:p384",
    "9999999999",
    "9205121120:p384",
    "1460415308",
    "0000000000",
];

/// Documents without `cac:Signature`: their own identity fields name the sealer (`cac:SenderParty`, `oa:LogicalID`,
/// `hazirlayan`).
const BY_IDENTITY: [(&str, &str); 8] = [
    ("IHRACAT_GTB_UygulamaYaniti_KABUL.xml", "1460415308"),
    ("IHRACAT_GTB_UygulamaYaniti_RED.xml", "1460415308"),
    ("IadeUygulamaYanitiOrnegi.xml", "9205121120"),
    ("KabulUygulamaYanitiOrnegi.xml", "9205121120"),
    ("RedUygulamaYanitiOrnegi.xml", "9205121120"),
    ("YOLCUBERABER_UygulamaYaniti.xml", "1460415308"),
    (USER_ACCOUNT, "0000000000"),
    ("rapor-unsigned.xml", "9999999999"),
];

/// Not a UBL document: its seal has another place, and a test of its own.
const USER_ACCOUNT: &str = "hrxml-ProcessUserAccount.xml";

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| SEALERS.iter().fold(Builder::default(), |b, s| b.taxpayer(s)).start())
}

/// A document, before and after.
struct Sealed {
    given: PathBuf,
    sealed: PathBuf,
}

fn before_and_after(all: &[Sealed]) -> (Vec<&Path>, Vec<&Path>) {
    all.iter().map(|s| (s.given.as_path(), s.sealed.as_path())).unzip()
}

fn samples() -> Vec<PathBuf> {
    files(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples")),
        "xml",
    )
}

fn ubl_documents() -> Option<Vec<PathBuf>> {
    let (unsigned, variants) = (shared("data/ubl-tr/unsigned")?, shared("data/ubl-tr/variants")?);
    let mut all = files(&unsigned, "xml");
    all.extend(files(&variants, "xml"));
    all.retain(|f| !f.ends_with(USER_ACCOUNT));
    Some(all)
}

fn sealer(file: &Path, document: &[u8]) -> String {
    let by_identity = BY_IDENTITY.iter().find(|(name, _)| file.ends_with(name));
    let sealer = by_identity
        .map(|(_, sealer)| (*sealer).to_owned())
        .or_else(|| sealer_of(document));
    sealer.unwrap_or_else(|| panic!("{}: names no sealer", file.display()))
}

/// Seals every file as its own sealer, into a folder.
async fn seal_all(given: Vec<PathBuf>, out: &Path) -> Vec<Sealed> {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let mut all = Vec::new();
    for file in given {
        let document = fs::read(&file).unwrap();
        let request = Branch::request(&sealer(&file, &document), document);
        let answer = client
            .seal(request)
            .await
            .unwrap_or_else(|s| panic!("{}: {:?}", file.display(), refused(&s)));
        let Some(Body::SealedDocument(sealed)) = answer.into_inner().answer else {
            panic!("no document")
        };
        let to = out.join(file.file_name().unwrap());
        fs::write(&to, sealed).unwrap();
        all.push(Sealed {
            given: file,
            sealed: to,
        });
    }
    all
}

/// By the name of the file, what a schema or a Schematron has against it.
type Findings = BTreeMap<String, Vec<String>>;

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

/// What the UBL-TR schemas have against these files.
fn schema(files: &[&Path]) -> Option<Findings> {
    let schemas = shared("data/ubl-tr/xsd/maindoc")?;
    let mut by_root: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for file in files {
        let root = Output::of(Command::new("xmllint").args(["--xpath", "local-name(/*)"]).arg(file)).text;
        by_root.entry(root.trim().to_owned()).or_default().push(file);
    }
    let found = by_root
        .into_iter()
        .flat_map(|(root, files)| invalid(&schemas.join(format!("UBL-{root}-2.1.xsd")), files));
    Some(found.map(|(file, complaints)| (name(&file), complaints)).collect())
}

/// What GİB's Schematron has against these files; e-Arşiv invoices by their own rules. `only` keeps some of its rules.
fn schematron(python: &Python, files: &[&Path], only: Option<&str>) -> Option<Findings> {
    let (tool, rules) = (
        shared("tools/schematron-check")?,
        shared("data/ubl-tr/schematron/UBL-TR_Main_Schematron.xml")?,
    );
    let archived = |f: &&Path| fs::read(f).unwrap().windows(12).any(|w| w == b"EARSIVFATURA");
    let (earchive, efatura): (Vec<_>, Vec<_>) = files.iter().copied().partition(archived);
    let mut findings = Findings::new();
    for (profile, files) in [("earchive", earchive), ("efatura", efatura)] {
        if files.is_empty() {
            continue;
        }
        let mut arguments = vec![Path::new("--type"), Path::new(profile)];
        arguments.extend(only.iter().flat_map(|o| [Path::new("--only"), Path::new(o)]));
        arguments.push(&rules);
        arguments.extend(&files);
        let output = python.run(&tool, arguments);
        let mut failed = 0;
        for file in &files {
            let prefix = format!("{}: ", file.display());
            let found: Vec<_> = output
                .text
                .lines()
                .filter_map(|l| Some(l.strip_prefix(&prefix)?.to_owned()))
                .collect();
            failed += usize::from(!found.is_empty());
            findings.insert(name(file), found);
        }
        let verdict = format!("{} passed, {failed} failed\n", files.len() - failed);
        assert!(output.text.ends_with(&verdict), "{verdict}{}", output.text);
    }
    Some(findings)
}

fn without_seal_equal(python: &Python, all: &[Sealed]) {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/unseal.py"));
    let pairs = all.iter().flat_map(|s| [s.given.as_path(), s.sealed.as_path()]);
    let output = python.run(script, pairs);
    assert!(output.status.success(), "{}", output.text);
    assert!(
        output.text.ends_with(&format!("{} equal, 0 differ\n", all.len())),
        "{}",
        output.text
    );
}

#[tokio::test]
async fn every_sample_is_sealed_verifies_and_satisfies_schema_and_schematron() {
    let out = tempfile::tempdir().unwrap();
    let all = seal_all(samples(), out.path()).await;
    assert!(all.len() >= 8, "the demo shows at least eight documents");
    for document in &all {
        xmlsec1(&document.sealed).unwrap_or_else(|e| panic!("{}: {e}", document.sealed.display()));
    }
    let (given, sealed) = before_and_after(&all);
    if let Some(found) = schema(&sealed) {
        assert!(found.is_empty(), "{found:?}");
    }
    let Some(python) = Python::find() else { return };
    without_seal_equal(&python, &all);
    for files in [given, sealed] {
        for (file, findings) in schematron(&python, &files, None).unwrap_or_default() {
            assert!(findings.is_empty(), "{file}: {findings:?}");
        }
    }
}

#[tokio::test]
async fn a_digit_changed_after_sealing_is_noticed() {
    let out = tempfile::tempdir().unwrap();
    for document in seal_all(samples(), out.path()).await {
        let mut bytes = fs::read(&document.sealed).unwrap();
        let at = bytes.windows(11).position(|w| w == b":IssueDate>").unwrap() + 14;
        bytes[at] ^= 1;
        fs::write(&document.sealed, bytes).unwrap();
        let name = document.sealed.display();
        xmlsec1(&document.sealed).expect_err(&format!("{name}: by xmlsec1"));
        let own = muhurdar(&["verify", document.sealed.to_str().unwrap()]);
        assert_eq!(own.status.code(), Some(1), "{name}: {}", own.text);
    }
}

#[tokio::test]
async fn every_document_of_the_tax_authority_is_sealed_and_xmlsec1_takes_it() {
    let Some(given) = ubl_documents() else { return };
    let out = tempfile::tempdir().unwrap();
    let all = seal_all(given, out.path()).await;
    assert_eq!(all.len(), 48, "all of unsigned and variants but the user account");
    for document in &all {
        xmlsec1(&document.sealed).unwrap_or_else(|e| panic!("{}: {e}", document.sealed.display()));
    }
}

#[tokio::test]
async fn the_seal_taken_out_again_leaves_the_document_that_came_in() {
    let Some(given) = ubl_documents() else { return };
    let Some(python) = Python::find() else { return };
    let out = tempfile::tempdir().unwrap();
    without_seal_equal(&python, &seal_all(given, out.path()).await);
}

#[tokio::test]
async fn the_schematron_says_the_same_before_and_after_and_nothing_about_the_seal() {
    let Some(given) = ubl_documents() else { return };
    let Some(python) = Python::find() else { return };
    let out = tempfile::tempdir().unwrap();
    let all = seal_all(given, out.path()).await;
    let (given, sealed) = before_and_after(&all);
    let before = schematron(&python, &given, None).unwrap();
    assert!(
        before.values().any(|f| !f.is_empty()),
        "the authority's own samples do not all satisfy its own rules"
    );
    assert_eq!(before, schematron(&python, &sealed, None).unwrap(), "business content");

    // What is said of `cac:Signature`, the document's own words about its seal, was said before.
    let only = Some("Signature|X509|Transform");
    let before = schematron(&python, &given, only).unwrap();
    assert_eq!(before, schematron(&python, &sealed, only).unwrap(), "the seal");
    let own = before.values().flatten().all(|f| f.starts_with("ARSignatureCheck: "));
    assert!(own, "only answers without cac:Signature are found wanting: {before:?}");
}

#[tokio::test]
async fn a_document_that_was_valid_stays_valid_and_one_that_only_lacked_its_seal_becomes_so() {
    let Some(given) = ubl_documents() else { return };
    let out = tempfile::tempdir().unwrap();
    let all = seal_all(given, out.path()).await;
    let (given, sealed) = before_and_after(&all);
    let Some(before) = schema(&given) else { return };
    for (file, complaints) in before {
        let errors: Vec<_> = complaints
            .iter()
            .filter(|l| l.contains("Schemas validity error"))
            .collect();
        let lacks = "ExtensionContent': Missing child element(s)";
        assert!(
            errors.len() == 1 && errors[0].contains(lacks),
            "{file}: what a seal does not mend: {complaints:?}"
        );
    }
    let after = schema(&sealed).unwrap();
    assert!(after.is_empty(), "{after:?}");
}

#[tokio::test]
async fn a_user_account_and_a_report_are_sealed_in_places_of_their_own() {
    let Some(report) = shared("data/earsiv/rapor-unsigned.xml") else {
        return;
    };
    let Some(account) = shared("data/ubl-tr/unsigned").map(|folder| folder.join(USER_ACCOUNT)) else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let all = seal_all(vec![account, report], out.path()).await;
    for document in &all {
        xmlsec1(&document.sealed).unwrap_or_else(|e| panic!("{}: {e}", document.sealed.display()));
    }
    let place = |file: &Path, path: &str| Output::of(Command::new("xmllint").args(["--xpath", path]).arg(file)).text;
    let account = "count(/*/*[local-name()='ApplicationArea']/*[local-name()='Signature']/*[local-name()='Signature'])";
    assert_eq!(place(&all[0].sealed, account).trim(), "1");
    let counter = "count(//*[local-name()='CounterSignature']/*[local-name()='Signature'])";
    assert_eq!(
        place(&all[0].sealed, counter).trim(),
        "1",
        "a user account is counter-signed"
    );
    let report = "local-name(/*/*[local-name()='baslik']/*[last()])";
    assert_eq!(place(&all[1].sealed, report).trim(), "Signature");
    // The schema of user accounts imports none of XML Signature, so it can say nothing of a seal, GİB's own included.
    let schema = shared("data/ubl-tr/xsd/hrxml/UserAccount.xsd").unwrap();
    let others = shared("data/signed/4_KULLANICI_ACMA.xml").unwrap();
    for (file, complaints) in invalid(&schema, [all[0].sealed.as_path(), &others]) {
        let about_the_seal = |c: &String| c.contains("xmldsig#}Signature': No matching global element declaration");
        assert!(
            complaints.iter().all(about_the_seal),
            "{}: {complaints:?}",
            file.display()
        );
    }
    let Some(python) = Python::find() else { return };
    without_seal_equal(&python, &all);
    let found = schematron(&python, &[all[0].sealed.as_path()], None).unwrap();
    assert!(found.values().all(Vec::is_empty), "{found:?}");
}

#[tokio::test]
async fn nothing_outside_the_seals_own_place_changes() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    for file in samples().into_iter().chain(ubl_documents().into_iter().flatten()) {
        let document = fs::read(&file).unwrap();
        let request = SealRequest {
            options: Some(SealOptions {
                answer: AnswerKind::Patch.into(),
                ..SealOptions::default()
            }),
            ..Branch::request(&sealer(&file, &document), document.clone())
        };
        let answer = client.seal(request).await.unwrap().into_inner();
        let Some(Body::Patch(seal)) = answer.answer else {
            panic!("no seal")
        };
        let (start, length) = (
            usize::try_from(seal.offset).unwrap(),
            usize::try_from(seal.length).unwrap(),
        );
        let replaced = String::from_utf8_lossy(&document[start..start + length]);
        let harmless = replaced.split_whitespace().collect::<String>();
        let placeholders = [
            "",
            "/>",
            "<n4:auto-generated_for_wildcard/>",
            "<auto-generated_for_wildcard/>",
            "<ext:ExtensionContent/>",
        ];
        assert!(
            placeholders.contains(&harmless.as_str()),
            "{}: {replaced:?} gave way to the seal",
            file.display()
        );

        let mut sealed = document;
        sealed.splice(start..start + length, seal.replacement);
        let to = tempfile::NamedTempFile::new().unwrap();
        fs::write(to.path(), &sealed).unwrap();
        xmlsec1(to.path()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

#[tokio::test]
async fn an_answer_says_of_the_seal_what_stands_in_it() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    for file in samples() {
        let document = fs::read(&file).unwrap();
        let sealer = sealer(&file, &document);
        let answer = client
            .seal(Branch::request(&sealer, document))
            .await
            .unwrap()
            .into_inner();
        let Some(Body::SealedDocument(sealed)) = answer.answer else {
            panic!("no document")
        };
        let to = tempfile::NamedTempFile::new().unwrap();
        fs::write(to.path(), &sealed).unwrap();

        let sum = Output::of(Command::new("sha256sum").arg(to.path())).text;
        let answer = answer.result.unwrap();
        let told: String = answer
            .sealed_document_sha256
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            sum.split(' ').next(),
            Some(told.as_str()),
            "the digest that an e-Arşiv report quotes"
        );

        let text = String::from_utf8_lossy(&sealed);
        let within = |element: &str| {
            let (_, rest) = text.split_once(&format!("{element}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        assert_eq!(within("<xades:SigningTime"), answer.signing_time);
        assert_eq!(within("<ds:X509SerialNumber"), answer.certificate_serial_number);
        let receipt = answer.receipt.unwrap();
        assert_eq!(receipt.taxpayer, sealer);
        assert_eq!(receipt.client, "branch-1");
        assert!(text.contains(&format!("<cbc:ID>{}</cbc:ID>", receipt.document_id)));
        assert!(text.contains(&format!(
            "<ds:SignatureMethod Algorithm=\"{}\"",
            receipt.signature_algorithm
        )));
    }
}
