//! `clients/examples/`: a first seal in four languages, as the tests run it, with an appliance's own folder and address in place of the
//! usual ones. It holds what it needs, the proto and an invoice too, so that it can be given to somebody who has nothing else.

use std::{fs, net::SocketAddr, path::Path};

use super::{Failure, pki};

/// What the programs say where nobody tells them: the folder and address of the documents.
const USUAL_HOME: &str = "\"/tmp/muhurdar\"";
const USUAL_ADDRESS: &str = "\"127.0.0.1:7443\"";
/// Where the tests' pom looks for the proto, and its place here.
const ROOT: (&str, &str) = (
    "<root>${project.basedir}/../../../..</root>",
    "<root>${project.basedir}/..</root>",
);

/// A file of the folder, and what is in it.
type File = (&'static str, &'static str);

/// The same for every appliance.
const COMMON: [File; 5] = [
    (
        "invoice.xml",
        include_str!("../../../../../deploy/samples/efatura-temel.xml"),
    ),
    (
        "proto/muhurdar/seal/v1/reason.proto",
        include_str!("../../../../../proto/muhurdar/seal/v1/reason.proto"),
    ),
    (
        "proto/muhurdar/seal/v1/seal.proto",
        include_str!("../../../../../proto/muhurdar/seal/v1/seal.proto"),
    ),
    (
        "go/first_seal.go",
        include_str!("../../../../../tests/interop/clients/go/first_seal.go"),
    ),
    (
        "java/src/main/java/tr/muhurdar/example/FirstSeal.java",
        include_str!("../../../../../tests/interop/clients/java/src/main/java/tr/muhurdar/example/FirstSeal.java"),
    ),
];

const POM: File = (
    "java/pom.xml",
    include_str!("../../../../../tests/interop/clients/java/pom.xml"),
);

/// Those that know where the appliance is.
const PROGRAMS: [File; 4] = [
    ("go/main.go", include_str!("main.go")),
    (
        "java/src/main/java/tr/muhurdar/example/Main.java",
        include_str!("Main.java"),
    ),
    (
        "node/first_seal.js",
        include_str!("../../../../../tests/interop/clients/node/first_seal.js"),
    ),
    (
        "python/first_seal.py",
        include_str!("../../../../../tests/interop/clients/python/first_seal.py"),
    ),
];

/// How each is made ready, and run; of the last nothing is written but this.
const RUNS: [File; 5] = [
    ("Go", include_str!("go.sh")),
    ("Java", include_str!("java.sh")),
    ("Node", include_str!("node.sh")),
    ("Python", include_str!("python.sh")),
    ("grpcurl", include_str!("grpcurl.sh")),
];

/// Writes the folder, or renews what is there.
pub(super) fn write(folder: &Path, home: &Path, address: SocketAddr) -> Result<(), Failure> {
    let files = COMMON.map(|(name, text)| (name, text.to_owned()));
    let programs = PROGRAMS.map(|(name, text)| (name, told(text, home, address)));
    let others = [
        (POM.0, POM.1.replace(ROOT.0, ROOT.1)),
        ("README.md", readme(home, address)),
    ];
    for (name, text) in files.into_iter().chain(programs).chain(others) {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| Failure::io(parent.display(), &e))?;
        }
        pki::write(&path, text.as_bytes())?;
    }
    Ok(())
}

/// A program with this appliance's folder and address.
fn told(program: &str, home: &Path, address: SocketAddr) -> String {
    // A string of JSON is one of Go, Java, JavaScript and Python too.
    let text = |value: String| serde_json::Value::from(value).to_string();
    program
        .replace(USUAL_HOME, &text(home.display().to_string()))
        .replace(USUAL_ADDRESS, &text(address.to_string()))
}

fn readme(home: &Path, address: SocketAddr) -> String {
    let runs = RUNS.map(|(language, run)| format!("\n## {language}\n\n```sh\n{}```\n", told(run, home, address)));
    format!(
        "# A first seal from your own program\n\
         \n\
         Written by `muhurdar dev` at each start, for the appliance in {}: copy what you want to change. In this folder, while the\n\
         appliance runs, each of these seals `invoice.xml`, which is taxpayer 1000000000's, into `sealed.xml`. What a program for\n\
         every day needs beyond it is in Mühürdar's docs/clients.md.\n\
         {}",
        home.display(),
        runs.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_is_told_where_its_appliance_is_once() {
        for (name, text) in PROGRAMS.into_iter().chain([RUNS[4]]) {
            for usual in [USUAL_HOME, USUAL_ADDRESS] {
                assert_eq!(text.matches(usual).count(), 1, "{usual} in {name}");
            }
        }
        let home = Path::new("/srv/a \"b\"");
        let told = told(PROGRAMS[3].1, home, SocketAddr::from(([127, 0, 0, 1], 9)));
        assert!(told.contains(r#""MUHURDAR_HOME", "/srv/a \"b\"""#), "{told}");
        assert!(told.contains(r#""MUHURDAR_ADDRESS", "127.0.0.1:9""#), "{told}");
    }

    #[test]
    fn the_pom_finds_the_proto_in_its_new_place() {
        assert_eq!(POM.1.matches(ROOT.0).count(), 1);
    }
}
