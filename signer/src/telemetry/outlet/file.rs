//! The audit log in a file of its own: begun anew when it is large enough or a day is over, the old ones kept for so many.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{OWN, Sink};

/// Read by whoever collects logs, and by nobody else: taxpayers' numbers are in it.
const MODE: u32 = 0o640;
/// After a rotation that failed: how long it goes on with the file that it has.
const PAUSE: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400;

/// When a file is followed by another.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) struct Rotation {
    /// Bytes; none: whatever it has.
    pub(in crate::telemetry) size: Option<u64>,
    /// When a day of UTC is over.
    pub(in crate::telemetry) daily: bool,
    /// How many old ones are kept.
    pub(in crate::telemetry) keep: usize,
}

/// A file, and those before it beside it: `audit.log.20261128T235959Z`.
#[derive(Debug)]
pub(in crate::telemetry) struct AuditFile {
    path: PathBuf,
    rotation: Rotation,
    now: fn() -> Timestamp,
    file: File,
    bytes: u64,
    /// Of its last line.
    day: i64,
    /// Devices and the like are not renamed.
    regular: bool,
    not_before: Option<Instant>,
}

impl AuditFile {
    /// Opens it for what comes behind what is there.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(in crate::telemetry) fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        Self::with_clock(path, rotation, Timestamp::now)
    }

    pub(super) fn with_clock(path: PathBuf, rotation: Rotation, now: fn() -> Timestamp) -> io::Result<Self> {
        let file = append(&path)?;
        let mut opened = Self {
            path,
            rotation,
            now,
            file,
            bytes: 0,
            day: 0,
            regular: false,
            not_before: None,
        };
        opened.look()?;
        opened.remove_the_oldest();
        Ok(opened)
    }

    /// What is in the file that it has now.
    fn look(&mut self) -> io::Result<()> {
        let found = self.file.metadata()?;
        self.regular = found.is_file();
        self.bytes = if self.regular { found.len() } else { 0 };
        self.day = if self.bytes == 0 {
            self.today()
        } else {
            found.mtime().div_euclid(DAY)
        };
        Ok(())
    }

    fn today(&self) -> i64 {
        (self.now)().as_second().div_euclid(DAY)
    }

    fn is_due(&mut self, next: usize) -> bool {
        if !self.regular || self.bytes == 0 || self.not_before.is_some_and(|then| Instant::now() < then) {
            return false;
        }
        let full = |bytes: u64| self.rotation.size.is_some_and(|size| bytes + next as u64 > size);
        if full(self.bytes) {
            // Somebody may have emptied it meanwhile.
            let bytes = self.file.metadata().map_or(self.bytes, |found| found.len());
            self.bytes = bytes;
            return bytes > 0 && full(bytes);
        }
        self.rotation.daily && self.day != self.today()
    }

    /// Makes room for the next file under its name. One rename: at each moment every line is in one file or the other.
    fn rotate(&mut self) -> io::Result<()> {
        if self.is_where_its_name_says() {
            fs::rename(&self.path, self.free_name())?;
        }
        self.reopen()?;
        self.remove_the_oldest();
        Ok(())
    }

    /// Somebody else may have moved it already.
    fn is_where_its_name_says(&self) -> bool {
        let (own, named) = (self.file.metadata(), fs::metadata(&self.path));
        matches!((own, named), (Ok(own), Ok(named)) if (own.dev(), own.ino()) == (named.dev(), named.ino()))
    }

    fn free_name(&self) -> PathBuf {
        let time = (self.now)().strftime("%Y%m%dT%H%M%SZ").to_string();
        let name = |number: u32| {
            let mut name = OsString::from(&self.path);
            name.push(format!(".{time}"));
            if number > 0 {
                name.push(format!("-{number:04}"));
            }
            PathBuf::from(name)
        };
        let mut names = (0..=u32::MAX).map(name);
        let free = names.find(|name| fs::symlink_metadata(name).is_err());
        free.unwrap_or_else(|| name(0))
    }

    fn remove_the_oldest(&self) {
        for old in before(&self.path).iter().rev().skip(self.rotation.keep) {
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(target: OWN, file = %old.display(), %error, "an old audit log cannot be removed");
            }
        }
    }
}

impl Sink for AuditFile {
    fn to(&self) -> String {
        self.path.display().to_string()
    }

    fn between_lines(&mut self, next: usize) {
        if !self.is_due(next) {
            return;
        }
        // A line is worth more than its place: where it does not work, it goes on with the file that it has.
        self.not_before = None;
        if let Err(error) = self.rotate() {
            let file = self.path.display();
            tracing::error!(target: OWN, %file, %error, "the audit log cannot begin its next file, and goes on with this one");
            self.not_before = Some(Instant::now() + PAUSE);
        }
    }

    fn room(&self) -> usize {
        let left = self.rotation.size.map(|size| size.saturating_sub(self.bytes));
        left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let written = self.file.write(piece)?;
        self.bytes += written as u64;
        if self.rotation.daily {
            self.day = self.today();
        }
        Ok(written)
    }

    fn reopen(&mut self) -> io::Result<bool> {
        self.file = append(&self.path)?;
        self.look()?;
        Ok(true)
    }
}

/// Opens a file to write behind its end, where a whole line is.
fn append(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        // Opening one waits for somebody who reads it.
        return Err(io::Error::other(
            "is a pipe; where a process takes the lines, name its socket",
        ));
    }
    let mut options = OpenOptions::new();
    options.append(true).mode(MODE);
    let mut file = match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whatever the umask leaves: who collects logs is in the file's group.
            file.set_permissions(Permissions::from_mode(MODE))?;
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.create(true).open(path)?,
        Err(error) => return Err(error),
    };
    if ends_in_a_half(path) {
        // A process or a machine has ended in the middle of it.
        let _ = file.write(b"\n");
    }
    Ok(file)
}

fn ends_in_a_half(path: &Path) -> bool {
    let last = || {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
            return Ok(b'\n');
        }
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last).map(|()| last[0])
    };
    // One that cannot be read is written to all the same.
    last().is_ok_and(|last: u8| last != b'\n')
}

/// The files before this one, the oldest first.
fn before(path: &Path) -> Vec<PathBuf> {
    let Some(prefix) = path.file_name().map(|name| format!("{}.", name.to_string_lossy())) else {
        return Vec::new();
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten();
    let ours = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(is_a_time)
    });
    let mut found: Vec<_> = ours.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// What nobody else's file is called, such as one that was compressed.
fn is_a_time(name: &str) -> bool {
    let (time, number) = name.split_once('-').unwrap_or((name, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let time = time.strip_suffix('Z').and_then(|time| time.split_once('T'));
    time.is_some_and(|(date, time)| date.len() == 8 && time.len() == 6 && is_digits(date) && is_digits(time))
        && is_digits(number)
}
