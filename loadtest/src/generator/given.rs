//! Documents of the user's own, from a folder.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

/// Larger than any document that goes over the wire in one message.
const MAX_BYTES: u64 = 64 << 20;

/// A document as it lies in a file.
#[derive(Clone)]
pub struct Given {
    /// Name of the file.
    pub name: String,
    /// Byte for byte.
    pub bytes: Bytes,
    /// The VKN or TCKN whose seal it wants; any taxpayer's where it names none.
    pub taxpayer: Option<Arc<str>>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A document's content belongs in no log.
        f.debug_struct("Given")
            .field("name", &self.name)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}: {cause}", path = .0.display(), cause = .1)]
    Read(PathBuf, std::io::Error),
    /// No document in it.
    #[error("{} holds no .xml file", .0.display())]
    Empty(PathBuf),
    /// A document that cannot be sealed.
    #[error("{} cannot be sealed: {}; take it out of the folder", .0.display(), .1)]
    Unsealable(PathBuf, String),
    /// Larger than what goes over the wire.
    #[error("{} is larger than 64 MiB", .0.display())]
    Large(PathBuf),
}

/// Reads the `.xml` files of a folder, in the order of their names. `sealer` says whom a document names, or why it cannot be sealed.
///
/// # Errors
/// [`FolderError`]: the first file that cannot be used.
pub fn read_folder(
    folder: &Path,
    sealer: impl Fn(&[u8]) -> Result<Option<String>, String>,
) -> Result<Arc<[Given]>, FolderError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |cause| FolderError::Read(path, cause)
    };
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(unread(folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ending.eq_ignore_ascii_case("xml"))
        })
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        if fs::metadata(&file).map_err(unread(&file))?.len() > MAX_BYTES {
            return Err(FolderError::Large(file));
        }
        let bytes = fs::read(&file).map_err(unread(&file))?;
        let taxpayer = sealer(&bytes).map_err(|why| FolderError::Unsealable(file.clone(), why))?;
        Ok(Given {
            name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: bytes.into(),
            taxpayer: taxpayer.map(Into::into),
        })
    };
    let found: Vec<Given> = files.into_iter().map(read).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(FolderError::Empty(folder.to_owned()));
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_xml_files_in_order_and_says_which_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let named = |bytes: &[u8]| match bytes {
            b"bad" => Err("not XML".to_owned()),
            b"nobody" => Ok(None),
            _ => Ok(Some("1234567890".to_owned())),
        };
        let read = || read_folder(folder.path(), named);
        assert!(matches!(read().unwrap_err(), FolderError::Empty(_)));
        for (name, content) in [("b.xml", "nobody"), ("a.XML", "somebody"), ("notes.txt", "bad")] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let found = read().unwrap();
        assert_eq!((found[0].name.as_str(), found[1].name.as_str()), ("a.XML", "b.xml"));
        assert_eq!(found[0].taxpayer.as_deref(), Some("1234567890"));
        assert_eq!(found[1].taxpayer, None);
        fs::write(folder.path().join("c.xml"), "bad").unwrap();
        assert!(
            read()
                .unwrap_err()
                .to_string()
                .contains("c.xml cannot be sealed: not XML")
        );
    }
}
