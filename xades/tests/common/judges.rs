//! Verifiers that nobody here wrote, each asked about many files at once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use super::Identity;

/// A verifier and its name.
pub struct Judge {
    pub name: &'static str,
    ask: fn(&[PathBuf], &Identity) -> Option<Verdicts>,
    /// What it is known to get wrong, though the seal is right: nothing is asked about such a document.
    beyond: &'static [Beyond],
}

/// Per file: accepted, or why not.
type Verdicts = Vec<Result<(), String>>;

/// Why a document is beyond a verifier, and which documents are.
type Beyond = (&'static str, fn(&[u8]) -> bool);

/// Everybody.
pub const JUDGES: [Judge; 4] = [
    Judge {
        name: "xmlsec1",
        ask: |files, _| files.iter().map(|file| super::xmlsec1(file)).collect(),
        beyond: &[],
    },
    Judge {
        name: "javax.xml.crypto",
        ask: jdk,
        beyond: &[],
    },
    Judge {
        name: "signxml",
        ask: signxml,
        beyond: &[(
            "it loses processing instructions before the root when it copies the document",
            has_instruction,
        )],
    },
    Judge {
        name: "xml-sec",
        ask: xml_sec,
        beyond: &[],
    },
];

fn has_instruction(document: &[u8]) -> bool {
    let instruction = b"<?xml-stylesheet";
    document.windows(instruction.len()).any(|window| window == instruction)
}

impl Judge {
    /// A verdict per file; `None`, and said so, where this verifier is not installed.
    pub fn ask(&self, files: &[PathBuf], identity: &Identity) -> Option<Verdicts> {
        let verdicts = (self.ask)(files, identity)?;
        assert_eq!(verdicts.len(), files.len(), "{} answers for each file", self.name);
        Some(verdicts)
    }

    /// Those of the files that this verifier can judge; what it cannot is counted and said.
    pub fn able(&self, files: &[PathBuf]) -> Vec<PathBuf> {
        let mut able = files.to_vec();
        for (why, beyond) in self.beyond {
            able.retain(|file| !beyond(&std::fs::read(file).unwrap()));
            println!(
                "{}: {} of {} not asked about: {why}",
                self.name,
                files.len() - able.len(),
                files.len()
            );
        }
        able
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Installs what can be installed, once; what cannot is skipped by who needs it.
fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let script = root().join("tests/interop/setup.sh");
        // Cargo's own variables would reach the cargo that it calls.
        let status = Command::new(script)
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .status();
        println!("tests/interop/setup.sh: {status:?}");
    });
}

fn jdk(files: &[PathBuf], _: &Identity) -> Option<Verdicts> {
    let mut java = super::tool("java")?;
    super::tool("javac")?;
    java.arg(root().join("tests/interop/Verify.java"));
    Some(converse(java, files))
}

fn signxml(files: &[PathBuf], identity: &Identity) -> Option<Verdicts> {
    set_up();
    let python = root().join("target/interop-venv/bin/python");
    if !root().join("target/interop-venv/installed").is_file() {
        println!("SKIPPED: signxml is not installed; run tests/interop/setup.sh");
        return None;
    }
    let certificate = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(certificate.path(), identity.pem()).unwrap();
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/interop/verify_signxml.py"))
        .arg(certificate.path());
    Some(converse(command, files))
}

fn xml_sec(files: &[PathBuf], identity: &Identity) -> Option<Verdicts> {
    set_up();
    let program = root().join("target/interop-xml-sec/debug/verify-xml-sec");
    if !program.is_file() {
        println!("SKIPPED: the xml-sec verifier is not built; run tests/interop/setup.sh");
        return None;
    }
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), identity.certificate.spki_der()).unwrap();
    let mut command = Command::new(program);
    command.arg(key.path());
    Some(converse(command, files))
}

/// File names in, a verdict per line out.
fn converse(mut command: Command, files: &[PathBuf]) -> Verdicts {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(names.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let verdict = |line: &str| if line == "ok" { Ok(()) } else { Err(line.to_owned()) };
    String::from_utf8(output.stdout).unwrap().lines().map(verdict).collect()
}
