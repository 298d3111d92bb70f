//! The queue and its writer, before sinks that stall, fail and tear lines on command.

mod files;
mod sockets;

use std::io::Write as _;

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
struct Double(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    held: Mutex<(Mood, Vec<u8>)>,
    changed: Condvar,
}

impl Double {
    fn is(&self, mood: Mood) {
        self.0.held.lock().unwrap().0 = mood;
        self.0.changed.notify_all();
    }

    fn written(&self) -> String {
        String::from_utf8(self.0.held.lock().unwrap().1.clone()).unwrap()
    }
}

impl Sink for Double {
    fn to(&self) -> String {
        "a double".to_owned()
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let held = self.0.held.lock().unwrap();
        let mut held = self.0.changed.wait_while(held, |held| held.0 == Mood::Stalls).unwrap();
        let taken = match held.0 {
            Mood::Fails if !held.1.len().is_multiple_of(10) => return Err(io::ErrorKind::StorageFull.into()),
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
    assert_eq!(
        (outlet.status().lost.other_full, outlet.status().lost.audit_full),
        (1, 1)
    );
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
