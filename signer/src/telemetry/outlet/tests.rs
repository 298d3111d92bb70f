//! The queue and its writer, before sinks that stall, fail and tear lines on command.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
    sync::atomic::AtomicI64,
};

use jiff::Timestamp;

use super::*;

/// On a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a sink does next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Takes,
    /// Nobody reads: it does not come back.
    Stalls,
    /// Takes three bytes, and then fails like a disk that is full.
    Fails,
}

/// Stands in for a disk, a pipe, a socket.
#[derive(Debug, Clone, Default)]
struct Double(Arc<(Mutex<(Mood, Vec<u8>)>, Condvar)>);

impl Double {
    fn is(&self, mood: Mood) {
        self.0.0.lock().unwrap().0 = mood;
        self.0.1.notify_all();
    }

    fn written(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().1.clone()).unwrap()
    }
}

impl Sink for Double {
    fn to(&self) -> String {
        "a double".to_owned()
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let held = self.0.0.lock().unwrap();
        let mut held = self.0.1.wait_while(held, |held| held.0 == Mood::Stalls).unwrap();
        let taken = match held.0 {
            Mood::Fails if held.1.len() % 10 != 0 => return Err(io::ErrorKind::StorageFull.into()),
            Mood::Fails => 3,
            _ => piece.len(),
        };
        held.1.extend_from_slice(&piece[..taken]);
        Ok(taken)
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn flushed(outlet: &Outlet) -> bool {
    outlet.flush(Instant::now() + PATIENCE)
}

/// Ten bytes.
fn line(number: usize) -> String {
    format!("{number:09}\n")
}

const MOST: usize = 64 << 10;

fn outlet(sink: impl Sink + 'static, reserves: bool) -> Arc<Outlet> {
    Outlet::open("audit", Box::new(sink), MOST, reserves).unwrap()
}

#[test]
fn who_does_not_read_holds_up_nobody_and_what_is_lost_is_counted_by_what_it_was() {
    let sink = Double::default();
    sink.is(Mood::Stalls);
    let outlet = outlet(sink.clone(), false);
    // A tenth more than there is room for, of each.
    for number in 0..MOST / 10 * 11 / 10 {
        outlet.push(line(number).as_bytes(), Kind::Other);
        outlet.push(line(number).as_bytes(), Kind::Seal);
    }
    let status = outlet.status();
    assert!(status.queued <= MOST && status.queued > MOST - 10, "{status:?}");
    let of_each = (MOST / 10 * 11 / 10) as u64;
    assert_eq!(
        status.lost.audit_full + status.lost.other_full,
        2 * of_each - status.queued as u64 / 10
    );
    // Those who chatter leave half of it to the audit log, which had come as often by then.
    let chatter = of_each - status.lost.other_full;
    assert!(chatter.abs_diff(MOST as u64 / 40) <= 1, "{status:?}");
    assert_eq!((status.lost.audit_failed, status.lost.other_failed), (0, 0));
    assert!(!outlet.flush(Instant::now()), "the end does not wait for ever");
    until("it is seen to stall", || outlet.status().stalled > Duration::ZERO);

    sink.is(Mood::Takes);
    assert!(flushed(&outlet));
    assert_eq!(sink.written().len(), status.queued);
    assert_eq!(outlet.status().stalled, Duration::ZERO);
}

#[test]
fn a_disk_that_is_full_loses_no_line_that_finds_room_in_the_queue_and_tears_none() {
    let sink = Double::default();
    sink.is(Mood::Fails);
    let outlet = outlet(sink.clone(), false);
    let lines: Vec<_> = (0..100).map(line).collect();
    for line in &lines {
        outlet.push(line.as_bytes(), Kind::Seal);
    }
    until("it is told", || outlet.status().error.is_some());
    assert_eq!(outlet.status().lost, Lost::default());
    for number in 0..MOST / 10 {
        outlet.push(line(number).as_bytes(), Kind::Audit);
    }
    let lost = outlet.status().lost;
    assert!(lost.audit_failed >= 99 && lost.audit_full == 0, "{lost:?}");
    sink.is(Mood::Takes);
    assert!(flushed(&outlet));
    let status = outlet.status();
    assert_eq!((status.error, status.lost), (None, lost));
    assert!(sink.written().starts_with(&lines.concat()), "in their order, each once");
}

#[tokio::test]
async fn a_seal_that_has_taken_its_room_finds_it_and_others_wait_for_theirs() {
    let sink = Double::default();
    sink.is(Mood::Stalls);
    let outlet = outlet(sink.clone(), true);
    let mut reserved: Vec<_> = std::iter::from_fn(|| outlet.try_reserve()).collect();
    assert_eq!(reserved.len(), MOST / LINE);
    assert!(!outlet.has_room());
    outlet.push(b"chatter\n", Kind::Other);
    outlet.push(b"denied\n", Kind::Audit);
    assert_eq!((outlet.status().lost.other_full, outlet.status().lost.audit_full), (1, 1));
    // As long as a line may be.
    let long = format!("{}\n", "x".repeat(LINE - 1));
    for _ in 0..reserved.len() {
        outlet.push(long.as_bytes(), Kind::Seal);
    }
    assert_eq!(outlet.status().lost.audit_full, 1, "no seal's");
    let waiting = tokio::spawn({
        let outlet = Arc::clone(&outlet);
        async move { outlet.reserve().await }
    });
    // Their answers are out, their lines are not.
    reserved.clear();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished() && !outlet.has_room());
    sink.is(Mood::Takes);
    drop(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap());
    assert!(outlet.has_room());
    until("all are there", || sink.written().len() == MOST);
}

#[tokio::test]
async fn room_that_is_given_back_is_the_next_ones() {
    let outlet = outlet(Double::default(), true);
    let mut reserved: Vec<_> = std::iter::from_fn(|| outlet.try_reserve()).collect();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let outlet = Arc::clone(&outlet);
            tokio::spawn(async move { drop(outlet.reserve().await) })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(reserved.pop());
    for one in waiting {
        tokio::time::timeout(PATIENCE, one).await.unwrap().unwrap();
    }
}

const FOR_EVER: Rotation = Rotation {
    size: None,
    daily: false,
    keep: 1000,
};

/// The lines of a file and of those before it.
fn all_lines(path: &Path) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
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
    assert_eq!((fs::read_to_string(&moved).unwrap().as_str(), fs::read_to_string(&path).unwrap().as_str()), ("before\n", "after\n"));
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
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("audit.log");
    symlink("/dev/full", &link).unwrap();
    let rotation = Rotation {
        size: Some(20),
        daily: true,
        keep: 0,
    };
    let mut file = AuditFile::open(link.clone(), rotation).unwrap();
    for _ in 0..5 {
        file.between_lines(10);
        assert_eq!(file.write(b"x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/full"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let error = AuditFile::open(pipe, FOR_EVER).unwrap_err();
    assert!(error.to_string().contains("is a pipe"), "{error}");
}

#[test]
fn a_collector_gets_a_datagram_a_line_and_may_come_late_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.sock");
    let outlet = outlet(AuditSocket::new(path.clone()), false);
    for number in 0..5 {
        outlet.push(line(number).as_bytes(), Kind::Seal);
    }
    until("it is told", || outlet.status().error.is_some());
    for round in 0..2 {
        let _ = fs::remove_file(&path);
        let collector = UnixDatagram::bind(&path).unwrap();
        collector.set_read_timeout(Some(PATIENCE)).unwrap();
        if round == 1 {
            outlet.push(line(5).as_bytes(), Kind::Seal);
        }
        let expected = if round == 0 { 0..5 } else { 5..6 };
        for number in expected {
            let mut read = [0; 100];
            let bytes = collector.recv(&mut read).unwrap();
            assert_eq!(&read[..bytes], line(number).trim_end().as_bytes());
        }
    }
}

#[test]
fn a_stream_that_breaks_in_a_line_begins_anew_with_that_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let outlet = outlet(AuditSocket::new(path), false);
    // More than a socket holds, so that the break is in the middle of one.
    let long = |number: usize| format!("{number}{}\n", "x".repeat(30 << 10));
    outlet.push(long(0).as_bytes(), Kind::Seal);
    let (mut first, _) = listener.accept().unwrap();
    first.read_exact(&mut [0; 1000]).unwrap();
    drop(first);
    for number in 1..3 {
        let long = long(number);
        until("there is room", || outlet.status().queued + long.len() < MOST);
        outlet.push(long.as_bytes(), Kind::Seal);
    }
    let (mut second, _) = listener.accept().unwrap();
    let mut text = String::new();
    let mut read = [0; 4096];
    while !text.ends_with(&long(2)) {
        let bytes = second.read(&mut read).unwrap();
        text += std::str::from_utf8(&read[..bytes]).unwrap();
    }
    for line in text.lines() {
        assert_eq!(line.trim_start_matches(|c: char| c.is_ascii_digit()).len(), 30 << 10, "a half");
    }
}

#[test]
fn lines_that_come_one_by_one_are_written_in_their_order() {
    let sink = Double::default();
    let outlet = outlet(sink.clone(), false);
    let lines = Lines(Arc::clone(&outlet));
    let expected: String = (0..50).map(line).collect();
    for number in 0..50 {
        lines.make_writer().write_all(line(number).as_bytes()).unwrap();
        if number % 10 == 0 {
            std::thread::sleep(2 * LINGER);
        }
    }
    until("all are there", || sink.written() == expected);
}
