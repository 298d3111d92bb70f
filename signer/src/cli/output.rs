//! Files that a command writes: under their own names when they are whole, and not before; never two of them under one name, and none over
//! what it is made from.
//!
//! Nothing here waits for the disk: what goes down with the machine can be made again, and what does not fit fails while it is written.

use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::Failure;

/// What everybody may have, less what the process's umask takes.
const PUBLIC: u32 = 0o666;
/// For its owner only.
const SECRET: u32 = 0o600;

/// A file on its way. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(super) struct Output {
    /// As the caller named it.
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    /// A file beside the place that it takes when it is whole: renamed within one folder, so at once or not at all.
    File(NamedTempFile, PathBuf),
    /// A device or a pipe is written to as it comes: a name that was put over it would be another thing.
    Stream(File),
}

impl Output {
    /// Begins a file that everybody may read.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        Self::with_mode(path, PUBLIC)
    }

    fn with_mode(path: &Path, mode: u32) -> Result<Self, Failure> {
        let at = |e: std::io::Error| Failure::io(path.display(), &e);
        let to = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(Failure::usage(format_args!("{}: is a folder", path.display()))),
            Ok(found) if !found.is_file() => To::Stream(File::options().write(true).open(path).map_err(at)?),
            _ => {
                let place = place(path);
                let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
                let part = tempfile::Builder::new()
                    .prefix(".muhurdar-")
                    .suffix(".part")
                    .permissions(Permissions::from_mode(mode))
                    .tempfile_in(folder.unwrap_or(Path::new(".")));
                To::File(part.map_err(at)?, place)
            }
        };
        Ok(Self {
            path: path.to_owned(),
            to,
        })
    }

    /// Where its bytes go.
    pub(super) fn file(&self) -> &File {
        match &self.to {
            To::File(part, _) => part.as_file(),
            To::Stream(file) => file,
        }
    }

    /// Gives it its name.
    pub(super) fn finish(self) -> Result<PathBuf, Failure> {
        if let To::File(part, place) = self.to {
            let named = part.persist(&place);
            named.map_err(|e| Failure::io(self.path.display(), &e.error))?;
        }
        Ok(self.path)
    }
}

/// Writes a file that everybody may read.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_with_mode(path, bytes, PUBLIC)
}

/// Writes a file that only its owner may read, from its first byte on.
pub(super) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_with_mode(path, bytes, SECRET)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let output = Output::with_mode(path, mode)?;
    output
        .file()
        .write_all(bytes)
        .map_err(|e| Failure::io(path.display(), &e))?;
    output.finish().map(drop)
}

/// What a path stands for, however it is written: links are followed, and what is not there yet has its place all the same.
fn place(path: &Path) -> PathBuf {
    let beside = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    path.canonicalize()
        .ok()
        .or_else(|| beside(path))
        .or_else(|| std::path::absolute(path).ok())
        .unwrap_or_else(|| path.to_owned())
}

/// Whether two paths stand for the same file.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    place(one) == place(other)
}

/// Looks, before anything is done, whether each of these inputs gets an output of its own, and none takes the place of an input.
pub(super) fn each_apart(outputs: &[(&Path, PathBuf)]) -> Result<(), Failure> {
    let inputs: HashMap<PathBuf, &Path> = outputs.iter().map(|(input, _)| (place(input), *input)).collect();
    let mut taken: HashMap<PathBuf, &Path> = HashMap::new();
    for (input, output) in outputs {
        let place = place(output);
        if let Some(other) = inputs.get(&place) {
            return Err(Failure::usage(format_args!(
                "{} would be written over {}; choose another --out",
                input.display(),
                other.display()
            )));
        }
        if let Some(other) = taken.insert(place, input) {
            return Err(Failure::usage(format_args!(
                "{} and {} would both be written to {}; seal them one after the other, each with its own --out",
                other.display(),
                input.display(),
                output.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outputs: &[(&Path, PathBuf)]) -> String {
        each_apart(outputs).map_or_else(|failure| failure.message().to_owned(), |()| String::new())
    }

    #[test]
    fn two_inputs_never_have_one_output_and_none_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).unwrap();
        fs::create_dir(at("b")).unwrap();
        for name in ["a/x.xml", "b/x.xml"] {
            fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink(at("a/x.xml"), at("link.xml")).unwrap();
        let (a, b) = (at("a/x.xml"), at("b/x.xml"));
        assert_eq!(said(&[(&a, at("a/y.xml")), (&b, at("b/y.xml"))]), "");
        // The folder that it goes to need not be there yet.
        let both = said(&[(&a, at("out/x.xml")), (&b, at("out/x.xml"))]);
        assert!(
            both.contains(&a.display().to_string()) && both.contains(&b.display().to_string()),
            "{both}"
        );
        assert!(said(&[(&a, at("a/y.xml")), (&b, at("b/../a/y.xml"))]).contains("both"));
        for over in [at("b/x.xml"), at("a/../b/x.xml"), a.clone()] {
            let said = said(&[(&a, over), (&b, at("b/y.xml"))]);
            assert!(said.contains("would be written over"), "{said}");
        }
        assert!(
            said(&[(&a, at("link.xml"))]).contains("over"),
            "a link to the input is the input"
        );
        assert!(same(&at("link.xml"), &a) && !same(&a, &b));
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let begun = Output::create(&path).unwrap();
        begun.file().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(begun);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of it");
        write(&path, b"whole").unwrap();
        write(&path, b"another").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"another");
        write_secret(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // A device stays one, and a full one says so.
        let full = write(Path::new("/dev/full"), b"x").unwrap_err();
        assert!(full.message().contains("/dev/full"), "{}", full.message());
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
    }
}
