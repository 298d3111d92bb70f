//! The wire is frozen: `buf` (https://buf.build) holds its sources to their rules, and the wire to what it was when it was published.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use muhurdar_proto::COMMENTED_FILE_DESCRIPTOR_SET;
use muhurdar_tests::{Output, skipped};
use prost::Message as _;
use prost_types::FileDescriptorSet;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What tests/interop/setup.sh has made ready; none, and a line that says so, where it has not.
fn buf() -> Option<PathBuf> {
    let buf = Path::new(ROOT).join("target/interop-buf/node_modules/.bin/buf");
    if buf.exists() {
        return Some(buf);
    }
    skipped(&format!(
        "there is no {}; tests/interop/setup.sh makes it",
        buf.display()
    ));
    None
}

fn proto(path: &str) -> PathBuf {
    Path::new(ROOT).join("proto").join(path)
}

/// What `buf` says to it, where it finds fault.
fn fault(buf: &Path, arguments: &[&str]) -> Option<String> {
    let output = Output::of(Command::new(buf).args(arguments).current_dir(proto("")));
    (!output.status.success()).then_some(output.text)
}

/// The wire as this build has it, or as somebody changed it.
fn image(folder: &Path, change: impl FnOnce(&mut FileDescriptorSet)) -> String {
    let mut set = FileDescriptorSet::decode(COMMENTED_FILE_DESCRIPTOR_SET).unwrap();
    change(&mut set);
    let path = folder.join("wire.binpb");
    fs::write(&path, set.encode_to_vec()).unwrap();
    path.to_str().unwrap().to_owned()
}

type Change = fn(&mut FileDescriptorSet);

fn lint(buf: &Path, image: &str) -> Option<String> {
    fault(buf, &["lint", image, "--config", "buf.yaml"])
}

fn breaking(buf: &Path, image: &str) -> Option<String> {
    fault(
        buf,
        &["breaking", image, "--against", "baseline.binpb", "--config", "buf.yaml"],
    )
}

fn ours(set: &mut FileDescriptorSet) -> &mut prost_types::FileDescriptorProto {
    set.file
        .iter_mut()
        .find(|file| file.name().ends_with("seal.proto"))
        .unwrap()
}

#[test]
fn the_sources_are_written_as_buf_writes_them_with_a_comment_on_each_element() {
    let Some(buf) = buf() else { return };
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(fault(&buf, &["format", "--diff", "--exit-code"]), None);
    let image = image(folder.path(), |_| {});
    assert_eq!(lint(&buf, &image), None);
    // And it would see what is not.
    let image = self::image(folder.path(), |set| {
        let places = &mut ours(set).source_code_info.as_mut().unwrap().location;
        // The first field (2, 0) of the first message (4, 0) of descriptor.proto's numbers.
        let field = places.iter_mut().find(|at| at.path == [4, 0, 2, 0]).unwrap();
        field.leading_comments = None;
    });
    let said = lint(&buf, &image).expect("a field without a comment is found");
    assert!(said.contains("should have a non-empty comment"), "{said}");
}

/// proto/baseline.binpb is the wire as it was published last. `cargo run -p muhurdar-proto --example baseline > proto/baseline.binpb` takes
/// what was added since into it, with a release; what `buf breaking` complains of is a new version of the package, never a new baseline.
#[test]
fn nothing_that_was_published_is_taken_away_or_changed() {
    let Some(buf) = buf() else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), |_| {});
    assert_eq!(breaking(&buf, &image), None);
    // And it would see what is.
    let changes: [(Change, &str); 3] = [
        (|set| drop(ours(set).message_type[0].field.pop()), "was deleted"),
        (
            |set| ours(set).enum_type[0].value[1].name = Some("DOCUMENT_TYPE_ANOTHER".to_owned()),
            "changed name",
        ),
        (|set| drop(ours(set).service[0].method.pop()), "was deleted"),
    ];
    for (change, words) in changes {
        let image = self::image(folder.path(), change);
        let said = breaking(&buf, &image).expect("what breaks callers is found");
        assert!(said.contains(words), "{said}");
    }
}

/// Where somebody copies the folder, nothing of it is compiled twice into one program.
#[test]
fn the_folder_holds_this_projects_own_packages_alone() {
    let mut folders = vec![proto("")];
    let mut packages = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                let text = fs::read_to_string(&path).unwrap();
                let package = text.lines().find_map(|line| line.strip_prefix("package "));
                packages.push(package.unwrap().to_owned());
            }
        }
    }
    assert!(
        packages.len() >= 2 && packages.iter().all(|package| package == "muhurdar.seal.v1;"),
        "{packages:?}"
    );
}
