//! What each language's program is put through in its phase `stream`: the service ends in the middle of it, and comes again at the same
//! address.
//!
//! The program prints a line `ID SHA-256 RECEIPT` for each answer that it accepts, `held: the drain notice` when it is told that the
//! service is about to end, `held: DRAINING` when the stream has then ended so, and `sealed: 500` at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use muhurdar_tests::{Appliance, Builder, own_address};
use tempfile::NamedTempFile;

use super::for_a_client;

const COUNT: usize = 500;

/// How long anything here may take: none of it is about time.
const LONG: Duration = Duration::from_secs(120);

/// Documents that a program may have sent and not heard of: its window.
const WINDOW: usize = 64;

/// The service is asked to end. What is unanswered then was not sealed, so nothing is sealed twice.
pub(super) fn outlive_a_service_that_is_ended(client: Command) {
    let run = run(client, "TERM", 0);
    for notice in ["held: the drain notice", "held: DRAINING", "sealed: 500"] {
        assert!(
            run.notices.lines().any(|line| line == notice),
            "{notice}: {}",
            run.notices
        );
    }
    let accepted: BTreeSet<_> = run.accepted.values().map(|(_, receipt)| receipt.clone()).collect();
    let [first, second] = &run.recorded;
    assert!(
        first.len() < COUNT,
        "it was ended when all was sealed: {} receipts",
        first.len()
    );
    assert_eq!(
        first.len() + second.len(),
        COUNT,
        "receipts of both runs: a document was sealed and not answered, or twice"
    );
    let recorded: BTreeSet<_> = first.iter().chain(second).cloned().collect();
    assert_eq!(accepted, recorded, "what was sealed is what was accepted");
}

/// The service ends without a word. What is unanswered may have been sealed, and its key is forgotten: but one seal is accepted for each.
pub(super) fn outlive_a_service_that_is_killed(client: Command) {
    // What a shell says of it: 128 and the signal.
    let run = run(client, "KILL", 137);
    assert!(run.notices.lines().any(|line| line == "sealed: 500"), "{}", run.notices);
    let [first, second] = &run.recorded;
    assert!(
        first.len() < COUNT,
        "it was killed when all was sealed: {} receipts",
        first.len()
    );
    // The last lines of the first run may be lost.
    let accepted: BTreeSet<_> = run.accepted.values().map(|(_, receipt)| receipt).collect();
    let lost = second.iter().filter(|receipt| !accepted.contains(receipt)).count();
    assert_eq!(lost, 0, "seals of the second run that nobody was given");
    let again = (first.len() + second.len()).saturating_sub(COUNT);
    assert!(again <= WINDOW, "{again} documents were sealed twice");
}

struct Run {
    /// What the program wrote besides its answers.
    notices: String,
    /// By id: the SHA-256 of what was sealed, and the receipt.
    accepted: BTreeMap<String, (String, String)>,
    /// The receipts in the audit log of the service that was ended, and of the one that came after it.
    recorded: [Vec<String>; 2],
}

fn run(mut client: Command, signal: &str, code: i32) -> Run {
    let mut appliance = Builder::default()
        .taxpayers(2)
        .hsm(4, Duration::from_millis(20))
        .listen(own_address(), own_address())
        .env("MUHURDAR_LOG", "info")
        .start();
    for_a_client(&mut client, &appliance);
    client.args(["stream", &COUNT.to_string()]);
    let mut program = Program::start(client);

    let sealed = "muhurdar_seals_total{document=\"invoice\",outcome=\"sealed\"}";
    program.wait_until(|_| appliance.metric(sealed) >= 100.0);
    appliance.signal(signal);
    assert_eq!(appliance.exit_code_within(LONG), Some(code), "{}", program.notices());
    let first = receipts(&appliance);
    appliance.start_again();
    program.wait_until(|status| status.is_some());
    let said = program.said();
    let notices = program.notices();
    assert!(program.status().is_some_and(|status| status.success()), "{notices}");

    let mut accepted = BTreeMap::new();
    let mut given = BTreeSet::new();
    for (id, digest, receipt) in said.lines().filter_map(answer) {
        assert!(given.insert(digest.to_owned()), "{digest} is two documents: {notices}");
        let before = accepted.insert(id.to_owned(), (digest.to_owned(), receipt.to_owned()));
        assert!(before.is_none(), "{id} was accepted twice: {notices}");
    }
    assert_eq!(accepted.len(), COUNT, "{notices}");
    let recorded = [first, receipts(&appliance)];
    Run {
        notices,
        accepted,
        recorded,
    }
}

/// The three words of a line about an accepted answer.
fn answer(line: &str) -> Option<(&str, &str, &str)> {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        [id, digest, receipt] if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some((id, digest, receipt))
        }
        _ => None,
    }
}

/// The receipts in the audit log of the service that ran last.
fn receipts(appliance: &Appliance) -> Vec<String> {
    let log = appliance.log();
    // A line that is not whole is the last one of a service that was killed.
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .filter(|line| line["target"] == "muhurdar::audit" && line["message"] == "sealed")
        .map(|line| line["receipt"].as_str().unwrap().to_owned())
        .collect()
}

/// A program that runs. Dropped, it is killed.
struct Program {
    child: Child,
    out: NamedTempFile,
}

impl Program {
    fn start(mut command: Command) -> Self {
        let out = NamedTempFile::new().unwrap();
        let [stdout, stderr] = [out.as_file().try_clone().unwrap(), out.as_file().try_clone().unwrap()];
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        Self { child, out }
    }

    /// What it wrote so far.
    fn said(&self) -> String {
        fs::read_to_string(self.out.path()).unwrap()
    }

    /// What it wrote besides its answers.
    fn notices(&self) -> String {
        let said = self.said();
        let notices = said.lines().filter(|line| answer(line).is_none());
        notices.collect::<Vec<_>>().join("\n")
    }

    /// How it ended, where it has.
    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Fails where it does not come to this, or has ended before.
    fn wait_until(&mut self, is_so: impl Fn(Option<ExitStatus>) -> bool) {
        let end = Instant::now() + LONG;
        loop {
            let status = self.status();
            if is_so(status) {
                return;
            }
            assert!(
                status.is_none() && Instant::now() < end,
                "it does not get there, {status:?}: {}",
                self.notices()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Where it has ended there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
