//! Who holds a token's journal: one process at a time, by a lock on its file that ends with the process however it ends; or, without a
//! folder, one caller at a time in this process.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::journal::{Deed, Identity, Journal, Line, State};
use crate::module::lock;

/// How often to look whether another has let go.
const LOOK: Duration = Duration::from_millis(10);

/// Where a token's journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File(PathBuf),
    /// In this process, by the name that its file would have.
    Memory(String),
}

static MEMORY: Mutex<BTreeMap<String, Remembered>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Remembered {
    lines: Vec<Line>,
    held: bool,
}

/// Where this token's journal is.
pub(super) fn place(dir: Option<&Path>, identity: &Identity) -> Place {
    let name = identity.file_name();
    match dir {
        Some(dir) => Place::File(dir.join(name)),
        None => Place::Memory(name),
    }
}

/// Every journal that there is.
pub(super) fn places(dir: Option<&Path>) -> io::Result<Vec<Place>> {
    let Some(dir) = dir else {
        return Ok(lock(&MEMORY).keys().cloned().map(Place::Memory).collect());
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", dir.display()))),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("pin-") && name.ends_with(".latch") {
            found.push(Place::File(path));
        }
    }
    Ok(found)
}

/// Why a journal is not held.
#[derive(Debug)]
pub(super) enum NotHeld {
    /// This process is inside `C_Login`.
    Busy(u32),
    Io(PathBuf, io::Error),
}

impl NotHeld {
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Busy(pid) => io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("process {pid} is inside C_Login on this token and has not come back; end it first"),
            ),
            Self::Io(path, e) => io::Error::new(e.kind(), format!("{}: {e}", path.display())),
        }
    }
}

impl Place {
    /// What is written there now.
    pub(super) fn journal(&self) -> io::Result<Journal> {
        match self {
            Self::File(path) => match fs::read(path) {
                Ok(text) => Ok(Journal::parse(&text).0),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Journal::default()),
                Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            },
            Self::Memory(name) => Ok(Journal::of(
                lock(&MEMORY).get(name).map(|of| of.lines.clone()).unwrap_or_default(),
            )),
        }
    }

    /// Why the PIN must not be tried, for people. A try that is still going on is no reason.
    pub(super) fn standing(&self) -> Option<String> {
        let why = match self.journal().map(|journal| journal.state()) {
            Ok(State::Latched(why)) => why,
            Ok(State::Tries { pid, at }) if !self.is_held() => super::ended_inside(pid, at),
            Ok(_) => return None,
            // A latch that cannot be read is a latch.
            Err(error) => error.to_string(),
        };
        Some(self.located(why))
    }

    /// Whether nothing is written against a try, nor that one is going on.
    pub(super) fn is_open(&self) -> bool {
        let state = self.journal().map(|journal| journal.state());
        matches!(state, Ok(State::Free | State::Allowed | State::Interrupted))
    }

    fn located(&self, why: String) -> String {
        match self {
            Self::File(path) => format!("{why} (latch file {})", path.display()),
            Self::Memory(_) => why,
        }
    }

    fn is_held(&self) -> bool {
        match self {
            Self::File(path) => File::open(path).is_ok_and(|file| {
                matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(e) if e == rustix::io::Errno::WOULDBLOCK)
            }),
            Self::Memory(name) => lock(&MEMORY).get(name).is_some_and(|of| of.held),
        }
    }

    /// Holds it, and makes it where it is not there; waits for another that does, as long as it may.
    pub(super) fn hold(&self, wait: Duration) -> Result<Held, NotHeld> {
        let until = Instant::now() + wait;
        loop {
            if let Some(held) = self.try_hold()? {
                return Ok(held);
            }
            if Instant::now() >= until {
                let tries = self.journal().map(|journal| journal.state());
                return Err(NotHeld::Busy(match tries {
                    Ok(State::Tries { pid, .. }) => pid,
                    _ => 0,
                }));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn try_hold(&self) -> Result<Option<Held>, NotHeld> {
        let held = |journal, whole, file| {
            Some(Held {
                place: self.clone(),
                file,
                journal,
                whole,
            })
        };
        match self {
            Self::Memory(name) => {
                let mut memory = lock(&MEMORY);
                let of = memory.entry(name.clone()).or_default();
                if std::mem::replace(&mut of.held, true) {
                    return Ok(None);
                }
                Ok(held(Journal::of(of.lines.clone()), 0, None))
            }
            Self::File(path) => {
                let fails = |e: io::Error| NotHeld::Io(path.clone(), e);
                let mut file = open(path).map_err(fails)?;
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                    Err(e) => return Err(fails(e.into())),
                }
                // Whoever held it before may have removed the file: then this lock is on nothing.
                let own = file.metadata().map_err(fails)?;
                match fs::metadata(path) {
                    Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {}
                    _ => return self.try_hold(),
                }
                let mut text = Vec::new();
                file.read_to_end(&mut text).map_err(fails)?;
                let (journal, whole) = Journal::parse(&text);
                Ok(held(journal, whole as u64, Some(file)))
            }
        }
    }
}

/// Opens a journal, for its owner's eyes only; the folder's owner is its owner, so that a command of root's leaves nothing behind that the
/// service cannot read.
fn open(path: &Path) -> io::Result<File> {
    let dir = path.parent().unwrap_or(Path::new("."));
    if !dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
            let above = File::open(above)?;
            above.sync_all()?;
            as_its_folder(&File::open(dir)?, &above)?;
        }
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    as_its_folder(&file, &File::open(dir)?)?;
    Ok(file)
}

fn as_its_folder(file: &File, folder: &File) -> io::Result<()> {
    let (own, folder) = (file.metadata()?, folder.metadata()?);
    if (own.uid(), own.gid()) != (folder.uid(), folder.gid()) {
        // Only root may.
        let _ = std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
    Ok(())
}

/// A journal that nobody else writes to. Dropped, it is let go, and removed where nothing is in it.
#[derive(Debug)]
pub(super) struct Held {
    place: Place,
    file: Option<File>,
    journal: Journal,
    /// Bytes of the file that are whole lines.
    whole: u64,
}

impl Held {
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Place::File(path) => path.clone(),
            Place::Memory(_) => PathBuf::from("memory"),
        }
    }

    pub(super) fn located(&self, why: String) -> String {
        self.place.located(why)
    }

    /// Adds a line about the token that the lines before it are about.
    pub(super) fn append(&mut self, token: &str, deed: Deed, why: &str) -> io::Result<()> {
        let of = self.journal.lines.last().map(|line| line.of.clone());
        let of = of.ok_or_else(|| io::Error::other("it cannot be read"))?;
        self.append_of(&of, token, deed, why)
    }

    /// Adds a line; when this returns, it outlives a power cut.
    pub(super) fn append_of(&mut self, of: &Identity, token: &str, deed: Deed, why: &str) -> io::Result<()> {
        let line = Line {
            at: jiff::Timestamp::now(),
            pid: std::process::id(),
            token: token.to_owned(),
            of: of.clone(),
            deed,
            why: why.to_owned(),
        };
        match (&mut self.file, &self.place) {
            (Some(file), Place::File(path)) => {
                let text = text(&line)?;
                // What a machine that stopped has left of a line goes.
                file.set_len(self.whole)?;
                file.seek(io::SeekFrom::End(0))?;
                file.write_all(&text)?;
                file.sync_all()?;
                if self.journal.is_empty() {
                    sync_folder(path)?;
                }
                self.whole += text.len() as u64;
            }
            (_, Place::Memory(name)) => lock(&MEMORY).entry(name.clone()).or_default().lines.push(line.clone()),
            (None, Place::File(_)) => return Err(io::ErrorKind::NotFound.into()),
        }
        self.journal.lines.push(line);
        Ok(())
    }

    /// Takes the last line back.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        let Some(line) = self.journal.lines.last() else {
            return Ok(());
        };
        if let Some(file) = &self.file {
            self.whole = self.whole.saturating_sub(text(line)?.len() as u64);
            file.set_len(self.whole)?;
            file.sync_all()?;
        }
        if let Place::Memory(name) = &self.place {
            lock(&MEMORY).entry(name.clone()).or_default().lines.pop();
        }
        self.journal.lines.pop();
        Ok(())
    }

    /// Forgets everything. The file is emptied before it goes: whichever of the two a power cut leaves, nothing stands in it.
    pub(super) fn clear(mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.set_len(0)?;
            file.sync_all()?;
        }
        self.journal = Journal::default();
        Ok(())
    }
}

/// A line as it is written.
fn text(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

impl Drop for Held {
    fn drop(&mut self) {
        match &self.place {
            Place::File(path) => {
                if self.journal.is_empty() {
                    // Still under the lock: who waits for it sees that the file is another one.
                    let _ = fs::remove_file(path);
                }
            }
            Place::Memory(name) => {
                let mut memory = lock(&MEMORY);
                if self.journal.is_empty() {
                    memory.remove(name);
                } else if let Some(of) = memory.get_mut(name) {
                    of.held = false;
                }
            }
        }
    }
}
