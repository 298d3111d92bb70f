//! The audit log to a collector.

use std::{
    fs,
    io::Read as _,
    os::unix::net::{UnixDatagram, UnixListener},
};

use super::*;

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
    // More than a socket holds, so that the break is in the middle of one.
    const LONG: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let outlet = Outlet::open("audit", Box::new(AuditSocket::new(path)), 4 * LONG, false).unwrap();
    let lines = ["a", "b"].map(|letter| format!("{}\n", letter.repeat(LONG)));
    outlet.push(lines[0].as_bytes(), Kind::Seal);
    let (mut first, _) = listener.accept().unwrap();
    first.read_exact(&mut [0; 1000]).unwrap();
    drop(first);
    outlet.push(lines[1].as_bytes(), Kind::Seal);
    let (mut second, _) = listener.accept().unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut read = vec![0; lines.concat().len()];
    second.read_exact(&mut read).unwrap();
    assert!(read == lines.concat().as_bytes(), "both, and no half");
}
