//! Kamu SM's own test seals, imported as an operator would: those in force seal, those past their end are refused with
//! the date.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use muhurdar_proto::seal::v1::{ListSealsRequest, SealState, seal_response::Answer as Body};
use muhurdar_tests::{Branch, Builder, Output, binary, files, invoice, refused, shared, xmlsec1};
use tonic::Code;

/// A certificate, as openssl reads it.
struct Given {
    file: PathBuf,
    taxpayer: String,
    in_force: bool,
    /// Year, month and day of its end.
    end: String,
}

fn openssl(arguments: &[&str], input: &Path) -> Output {
    Output::of(Command::new("openssl").args(arguments).arg("-in").arg(input))
}

/// The password is the number after the last underscore.
fn password(file: &Path) -> &str {
    file.file_stem().and_then(|s| s.to_str()?.rsplit('_').next()).unwrap()
}

fn read(file: PathBuf, scratch: &Path) -> Given {
    let pem = scratch.join("certificate.pem");
    let pass = format!("pass:{}", password(&file));
    let out = pem.to_str().unwrap();
    let found = openssl(
        &[
            "pkcs12", "-legacy", "-nokeys", "-clcerts", "-passin", &pass, "-out", out,
        ],
        &file,
    );
    assert!(found.status.success(), "{}: {}", file.display(), found.text);
    let text = openssl(
        &[
            "x509",
            "-noout",
            "-subject",
            "-nameopt",
            "multiline",
            "-enddate",
            "-dateopt",
            "iso_8601",
        ],
        &pem,
    )
    .text;
    let after = |name: &str| text.split_once(name).unwrap_or_else(|| panic!("{name} in {text}")).1;
    let taxpayer = after("serialNumber")
        .trim_start_matches([' ', '='])
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let end = after("notAfter=").get(..10).unwrap().to_owned();
    let in_force = openssl(&["x509", "-noout", "-checkend", "0"], &pem).status.success();
    Given {
        file,
        taxpayer,
        in_force,
        end,
    }
}

#[tokio::test]
async fn test_seals_in_force_seal_and_expired_ones_are_refused_with_the_date() {
    let Some(folder) = shared("data/kamusm-test-certs") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let given: Vec<_> = files(&folder, "pfx")
        .into_iter()
        .map(|f| read(f, scratch.path()))
        .collect();
    let prepared = Builder::default().taxpayers(0).prepare();
    let config = prepared.dir().join("muhurdar.toml");
    for (n, one) in given.iter().enumerate() {
        // Some taxpayers have an RSA and an EC seal, side by side: each gets a label of its own.
        let label = format!("{}SIGN{n}", one.taxpayer);
        let mut import = Command::new(binary("muhurdar"));
        import.args(["token", "import", "--label", &label, "--config"]);
        import.arg(&config).arg(&one.file);
        let output = Output::of(import.args(["--password-env", "PFX"]).env("PFX", password(&one.file)));
        assert!(output.status.success(), "{}: {}", one.file.display(), output.text);
        assert!(
            !output.text.contains(password(&one.file)),
            "a password is not repeated: {}",
            output.text
        );
    }
    let appliance = prepared.start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;

    let mut expected: BTreeMap<&str, bool> = BTreeMap::new();
    for one in &given {
        *expected.entry(&one.taxpayer).or_default() |= one.in_force;
    }
    let listed = client
        .list_seals(ListSealsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .seals;
    let mut said = BTreeMap::<_, bool>::new();
    for seal in &listed {
        *said.entry(seal.taxpayer.as_str()).or_default() |= seal.state() == SealState::Usable;
    }
    assert_eq!(said, expected, "who can seal, by ListSeals and by openssl's calendar");

    for (taxpayer, in_force) in expected {
        let answer = client.seal(Branch::request(taxpayer, invoice(taxpayer, ""))).await;
        if in_force {
            let Some(Body::SealedDocument(sealed)) = answer.unwrap().into_inner().answer else {
                panic!("no document")
            };
            let to = scratch.path().join("sealed.xml");
            fs::write(&to, sealed).unwrap();
            xmlsec1(&to).unwrap_or_else(|e| panic!("{taxpayer}: {e}"));
        } else {
            let refused = refused(&answer.unwrap_err());
            let told = (refused.code, refused.reason.as_str());
            assert_eq!(told, (Code::FailedPrecondition, "CERTIFICATE_UNUSABLE"), "{refused:?}");
            let mut ends = given.iter().filter(|g| g.taxpayer == taxpayer).map(|g| &g.end);
            assert!(
                ends.any(|end| refused.message.contains(end.as_str())),
                "the date of its end: {refused:?}"
            );
        }
    }
}

#[test]
fn a_pkcs12_with_the_wrong_password_is_refused_in_words() {
    let Some(folder) = shared("data/kamusm-test-certs") else {
        return;
    };
    let prepared = Builder::default().taxpayers(0).prepare();
    let mut import = Command::new(binary("muhurdar"));
    import
        .args(["token", "import", "--config"])
        .arg(prepared.dir().join("muhurdar.toml"));
    let file = files(&folder, "pfx").remove(0);
    let output = Output::of(import.arg(file).args(["--password-env", "PFX"]).env("PFX", "yanlış"));
    assert_eq!(output.status.code(), Some(64), "{}", output.text);
    assert!(
        output.text.contains("password") && !output.text.contains("panicked"),
        "{}",
        output.text
    );
    assert!(!output.text.contains("yanlış"), "{}", output.text);
}
