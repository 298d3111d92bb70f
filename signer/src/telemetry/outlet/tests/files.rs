//! The audit log in files.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::atomic::AtomicI64,
};

use jiff::Timestamp;

use super::*;

const FOR_EVER: Rotation = Rotation {
    size: None,
    daily: false,
    keep: 1000,
};

/// The lines of a file and of those before it.
fn all_lines(path: &Path) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    // The one that is written is the last, and its name the shortest.
    files.rotate_left(1);
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn files_that_are_put_aside_under_load_have_every_line_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let rotation = Rotation {
        size: Some(5000),
        ..FOR_EVER
    };
    let outlet = outlet(AuditFile::open(path.clone(), rotation).unwrap(), false);
    let mut expected = BTreeSet::new();
    for thread in 0..4 {
        expected.extend((0..3000).map(|number| line(thread * 10_000 + number).trim_end().to_owned()));
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let outlet = &outlet;
            scope.spawn(move || {
                for number in 0..3000 {
                    outlet.push(line(thread * 10_000 + number).as_bytes(), Kind::Seal);
                    if number % 500 == 0 {
                        assert!(flushed(outlet));
                        outlet.reopen();
                    }
                }
            });
        }
    });
    assert!(flushed(&outlet));
    assert_eq!(outlet.status().lost, Lost::default());
    let lines = all_lines(&path);
    assert_eq!(lines.len(), expected.len(), "each once");
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>(), expected);
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap()).collect();
    assert!(files.len() >= 12_000 * 10 / 5000, "{files:?}");
    for file in files {
        let found = file.metadata().unwrap();
        assert!(found.len() <= 5000, "{file:?}: {}", found.len());
        assert_eq!(found.permissions().mode() & 0o777, 0o640, "{file:?}");
    }
}

#[test]
fn a_file_is_put_aside_when_its_day_is_over_also_after_a_restart_and_so_many_are_kept() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    const DAY: i64 = 86_400;
    let now = || Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap();
    // What a file says of its own time is the machine's.
    let today = Timestamp::now().as_second();
    NOW.store(today, Ordering::Relaxed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let rotation = Rotation {
        daily: true,
        keep: 2,
        ..FOR_EVER
    };
    let open = || AuditFile::with_clock(path.clone(), rotation, now).unwrap();
    let say = |file: &mut AuditFile, text: &str| {
        file.between_lines(text.len());
        assert_eq!(file.write(text.as_bytes()).unwrap(), text.len());
    };
    let read = || fs::read_to_string(&path).unwrap();
    let mut file = open();
    say(&mut file, "a\n");
    say(&mut file, "b\n");
    assert_eq!(read(), "a\nb\n");
    for (day, text) in ["c\n", "d\n", "e\n"].into_iter().enumerate() {
        NOW.store(today + DAY * (1 + i64::try_from(day).unwrap()), Ordering::Relaxed);
        say(&mut file, text);
        assert_eq!(read(), text);
    }
    assert_eq!(all_lines(&path), ["c", "d", "e"], "two before it are kept");
    // Somebody has compressed one: it is not ours any more.
    fs::write(folder.path().join("audit.log.20200101T000000Z.gz"), "").unwrap();
    drop(file);
    let mut file = open();
    say(&mut file, "f\n");
    assert_eq!(read(), "f\n", "the day of what was there was over");
    assert!(folder.path().join("audit.log.20200101T000000Z.gz").exists());
}

#[test]
fn a_file_that_somebody_has_moved_away_is_begun_anew_at_sighup_and_its_name_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let outlet = outlet(AuditFile::open(path.clone(), FOR_EVER).unwrap(), false);
    let moved = folder.path().join("moved");
    outlet.push(b"before\n", Kind::Seal);
    assert!(flushed(&outlet));
    fs::rename(&path, &moved).unwrap();
    outlet.reopen();
    until("it is there again", || path.exists());
    outlet.push(b"after\n", Kind::Seal);
    assert!(flushed(&outlet));
    assert_eq!(
        (
            fs::read_to_string(&moved).unwrap().as_str(),
            fs::read_to_string(&path).unwrap().as_str()
        ),
        ("before\n", "after\n")
    );
    // Where that does not work, it goes on where it was.
    fs::rename(&path, folder.path().join("moved again")).unwrap();
    fs::create_dir(&path).unwrap();
    outlet.reopen();
    outlet.push(b"still\n", Kind::Seal);
    assert!(flushed(&outlet));
    let still = fs::read_to_string(folder.path().join("moved again")).unwrap();
    assert_eq!(still, "after\nstill\n");
}

/// Between the rename and the file that takes its place, and where there cannot be one.
#[test]
fn a_rotation_that_fails_costs_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let path = inside.join("audit.log");
    let rotation = Rotation {
        size: Some(20),
        ..FOR_EVER
    };
    let mut file = AuditFile::open(path.clone(), rotation).unwrap();
    // No name in this folder can be made or changed any more, whoever asks.
    fs::rename(&inside, folder.path().join("elsewhere")).unwrap();
    for number in 0..10 {
        file.between_lines(10);
        assert_eq!(file.write(line(number).as_bytes()).unwrap(), 10);
    }
    let text = fs::read_to_string(folder.path().join("elsewhere/audit.log")).unwrap();
    assert_eq!(text, (0..10).map(line).collect::<String>());
}

#[test]
fn a_half_line_of_a_process_that_was_killed_does_not_spoil_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    fs::write(&path, "whole\nha").unwrap();
    let mut file = AuditFile::open(path.clone(), FOR_EVER).unwrap();
    file.write(b"next\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "whole\nha\nnext\n");
}

#[test]
fn a_device_is_not_renamed_and_a_pipe_is_refused() {
    // A day each time that it is asked.
    static NOW: AtomicI64 = AtomicI64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("audit.log");
    let rotation = Rotation {
        size: Some(20),
        daily: true,
        keep: 0,
    };
    for device in ["/dev/null", "/dev/full"] {
        symlink(device, &link).unwrap();
        let now = || Timestamp::from_second(NOW.fetch_add(86_400, Ordering::Relaxed)).unwrap();
        let mut file = AuditFile::with_clock(link.clone(), rotation, now).unwrap();
        for number in 0..5 {
            file.between_lines(10);
            let written = file.write(line(number).as_bytes()).map_err(|error| error.kind());
            let full = Err(io::ErrorKind::StorageFull);
            assert_eq!(written, if device == "/dev/full" { full } else { Ok(10) });
        }
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(device));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(&link).unwrap();
    }

    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let error = AuditFile::open(pipe, FOR_EVER).unwrap_err();
    assert!(error.to_string().contains("is a pipe"), "{error}");
}
