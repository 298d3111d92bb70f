//! The programs that `muhurdar dev` writes, each run as their README says, with packages that tests/interop/setup.sh has fetched in place
//! of those that the README's first lines fetch.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use muhurdar_tests::{Appliance, Output, copy, muhurdar, skipped};

use super::{ROOT, read};

/// A copy of the shared appliance's folder of examples.
struct Examples {
    folder: tempfile::TempDir,
}

impl Examples {
    fn of_the_appliance() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&Appliance::shared().dir().join("clients/examples"), folder.path());
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `setup.sh` has made ready, in its place here. False, and a line that says so, where it has not.
    fn has(&self, name: &str, ready: &str) -> bool {
        let made = Path::new(ROOT).join("target").join(ready);
        if made.exists() {
            symlink(made.canonicalize().unwrap(), self.at(name)).unwrap();
            return true;
        }
        skipped(&format!(
            "there is no {}; tests/interop/setup.sh makes it",
            made.display()
        ));
        false
    }

    /// Runs what README.md says for a language, behind what it fetches.
    fn run(&self, language: &str) {
        let readme = fs::read_to_string(self.at("README.md")).unwrap();
        let (_, section) = readme.split_once(&format!("## {language}\n\n```sh\n")).unwrap();
        let (block, _) = section.split_once("```").unwrap();
        let (_fetches, runs) = block.split_once("\n\n").unwrap();
        self.shell(runs);
    }

    fn shell(&self, script: &str) {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(self.folder.path());
        // What is not here is not fetched: the network is no part of a test.
        command.env("GOPROXY", "off").env("GOTOOLCHAIN", "local");
        let output = Output::of(&mut command);
        assert!(output.status.success(), "{script}\n{}", output.text);
    }

    /// Others than the program find a seal in its file.
    fn is_sealed(&self) {
        let (sealed, authority) = (self.at("sealed.xml"), Appliance::shared().dir().join("ca.crt"));
        let [sealed, authority] = [&sealed, &authority].map(|path| path.to_str().unwrap());
        let output = muhurdar(&["verify", "--trust", authority, sealed]);
        assert!(output.status.success(), "{}", output.text);
    }
}

#[test]
fn what_dev_writes_in_python_seals_without_being_told_anything() {
    let examples = Examples::of_the_appliance();
    if examples.has("venv", "interop-venv") {
        examples.run("Python");
        examples.is_sealed();
    }
}

#[test]
fn what_dev_writes_in_node_seals_without_being_told_anything() {
    let examples = Examples::of_the_appliance();
    if examples.has("node_modules", "interop-node/node_modules") {
        examples.run("Node");
        examples.is_sealed();
    }
}

#[test]
fn what_dev_writes_in_go_seals_without_being_told_anything() {
    let examples = Examples::of_the_appliance();
    if !examples.has("venv", "interop-venv") || !examples.has("bin", "interop-go/bin") {
        return;
    }
    // The versions that are here, in place of the newest.
    let known = read("tests/interop/clients/go/go.mod");
    let ours = "github.com/muhurdar/muhurdar/proto";
    let (module, rest) = known.split_once('\n').unwrap();
    assert!(module.starts_with("module "), "{module}");
    let rest = rest.lines().filter(|line| !line.contains(ours));
    let rest: String = rest.flat_map(|line| [line, "\n"]).collect();
    fs::write(examples.at("go/go.mod"), format!("module {ours}\n{rest}")).unwrap();
    fs::write(examples.at("go/go.sum"), read("tests/interop/clients/go/go.sum")).unwrap();
    examples.run("Go");
    examples.is_sealed();
}

/// Which nobody packages for Debian: tried where somebody has it.
#[test]
fn what_dev_says_of_grpcurl_seals_without_being_told_anything() {
    for tool in ["grpcurl", "jq"] {
        if Command::new(tool).arg("--version").output().is_err() {
            skipped(&format!("there is no {tool}"));
            return;
        }
    }
    let examples = Examples::of_the_appliance();
    examples.run("grpcurl");
    examples.is_sealed();
}

/// Maven's own work is that of the tests' client, whose pom this is.
#[test]
fn what_dev_writes_in_java_seals_without_being_told_anything() {
    let examples = Examples::of_the_appliance();
    if !examples.has("made", "interop-java") {
        return;
    }
    examples.shell("javac -d classes -cp 'made/classes:made/lib/*' java/src/main/java/tr/muhurdar/example/*.java");
    examples.shell("java -cp 'classes:made/classes:made/lib/*' tr.muhurdar.example.Main invoice.xml sealed.xml");
    examples.is_sealed();
}

/// Whoever has a client of an older start gets one that reaches this one.
#[test]
fn each_start_of_dev_renews_what_it_wrote() {
    let appliance = Appliance::shared();
    let address = appliance.address().to_string();
    for program in [
        "go/main.go",
        "java/src/main/java/tr/muhurdar/example/Main.java",
        "node/first_seal.js",
        "python/first_seal.py",
    ] {
        let text = fs::read_to_string(appliance.dir().join("clients/examples").join(program)).unwrap();
        assert!(text.contains(&address), "{program} has another address than {address}");
    }
    assert!(
        appliance.log().contains("clients/examples/README.md"),
        "dev says where they are"
    );
}
