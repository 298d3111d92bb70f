//! Canonicalize and digest, against SHA-256 alone and against libxml2.
//!
//! `cargo bench -p muhurdar-xades --bench engine` runs criterion's statistics of each part, and then the table: all parts
//! of a row in turns, so that what disturbs the machine disturbs all of them, and their ratios beside what is asked of
//! them. `-- --table` gives the table alone; `-- --ledger` the rate of a large ledger; `-- --callgrind TASK ROW TIMES`
//! does one thing so many times, for `scripts/instructions.sh`, which counts instructions.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/common/mod.rs"]
mod common;
mod documents;
#[path = "../tests/oracle/mod.rs"]
mod oracle;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use common::Identity;
use criterion::{Criterion, Throughput};
use muhurdar_xades::c14n::{Canonicalizer, DigestSink, Method, Subset, canonicalize};
use muhurdar_xades::scan::{Deaf, Scanner};
use muhurdar_xades::{KeyType, Limits, Policy, Sealing, prepare};

type Task<'a> = (&'static str, Box<dyn Fn(&[u8]) + 'a>);

/// What is asked of each row: at most so many times SHA-256 alone, at least so many times faster than libxml2.
const ASKED: [(f64, f64); 4] = [(2.6, 14.0), (1.5, 7.0), (2.6, 14.0), (1.3, 6.0)];
/// And of a ledger, in MB/s.
const ASKED_OF_LEDGER: f64 = 700.0;

fn main() {
    let identity = Identity::new(KeyType::Rsa2048);
    let (policy, limits) = (Policy::default(), Limits::default());
    let sealing = Sealing {
        certificate: &identity.certificate,
        policy: &policy,
        limits: &limits,
        signing_time: "2026-11-21T09:00:00Z".parse().unwrap(),
        expect: None,
    };
    let tasks = tasks(&limits, &sealing);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--callgrind") => {
            let (_, task) = tasks.iter().find(|(name, _)| *name == arguments[1]).unwrap();
            let (_, document) = &documents::all()[arguments[2].parse::<usize>().unwrap()];
            let times: u32 = arguments[3].parse().unwrap();
            (0..times).for_each(|_| measured(task, document));
        }
        Some("--table") => table(&tasks),
        Some("--ledger") => ledger(&limits),
        _ => {
            criterion(&tasks);
            // `cargo test --benches` only asks whether it runs.
            if arguments.iter().any(|argument| argument == "--bench") {
                table(&tasks);
                ledger(&limits);
            }
        }
    }
}

fn tasks<'a>(limits: &'a Limits, sealing: &'a Sealing<'a>) -> Vec<Task<'a>> {
    let mut tasks: Vec<Task<'a>> = vec![
        (
            "sha256",
            Box::new(|document| {
                black_box(digest(&SHA256, document));
            }),
        ),
        (
            "scan",
            Box::new(|document| drop(black_box(Scanner::new(limits).run(document, &mut Deaf)))),
        ),
        (
            "canonicalize",
            Box::new(|document| {
                let sink = DigestSink::new(&SHA256);
                let sink = canonicalize(document, &Method::INCLUSIVE, Subset::Document, limits, sink).unwrap();
                black_box(sink.finish());
            }),
        ),
        (
            "prepare",
            Box::new(|document| drop(black_box(prepare(document, sealing).unwrap()))),
        ),
    ];
    if oracle::available() {
        tasks.push((
            "libxml2",
            Box::new(|document| {
                let mode = oracle::Mode::Inclusive;
                let form = oracle::canonical(document, mode, false, &[], oracle::Part::Document).unwrap();
                black_box(digest(&SHA256, &form));
            }),
        ));
    }
    tasks
}

/// Callgrind counts what happens in here, and nothing else.
#[inline(never)]
fn measured(task: &dyn Fn(&[u8]), document: &[u8]) {
    task(document);
}

fn criterion(tasks: &[Task<'_>]) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (name, document) in documents::all() {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(document.len() as u64));
        for (task_name, task) in tasks {
            group.bench_function(*task_name, |b| b.iter(|| task(&document)));
        }
        group.finish();
    }
    criterion.final_summary();
}

/// The best time of each task, and beside it what is asked.
fn table(tasks: &[Task<'_>]) {
    println!(
        "\n{:<27}{}{:>26}{:>30}",
        "µs",
        tasks.iter().map(|(name, _)| format!("{name:>14}")).collect::<String>(),
        "canonicalize / sha256",
        "libxml2 / canonicalize"
    );
    for ((name, document), (most, least)) in documents::all().into_iter().zip(ASKED) {
        let best = turns(tasks, &document);
        let time = |wanted: &str| {
            let at = tasks.iter().position(|(name, _)| *name == wanted)?;
            Some(micros(best[at]))
        };
        let cells: String = best.iter().map(|time| format!("{:>14.1}", micros(*time))).collect();
        let canonicalize = time("canonicalize").unwrap();
        let of_digest = canonicalize / time("sha256").unwrap();
        let faster = time("libxml2").map_or_else(String::new, |libxml2| {
            asked(libxml2 / canonicalize, "≥", least, libxml2 / canonicalize >= least)
        });
        let of_digest = asked(of_digest, "≤", most, of_digest <= most);
        println!("{name:<27}{cells}{of_digest:>26}{faster:>30}");
    }
}

fn asked(ratio: f64, relation: &str, bound: f64, kept: bool) -> String {
    let but = if kept { "" } else { " NOT KEPT" };
    format!("{ratio:.2} ({relation} {bound}{but})")
}

/// The best time of each task, all in turns.
fn turns(tasks: &[Task<'_>], document: &[u8]) -> Vec<Duration> {
    let mut best = vec![Duration::MAX; tasks.len()];
    for round in 0..400 {
        for (at, (name, task)) in tasks.iter().enumerate() {
            if *name == "libxml2" && round % 10 != 0 {
                continue;
            }
            let start = Instant::now();
            task(document);
            best[at] = best[at].min(start.elapsed());
        }
    }
    best
}

/// 200 MB of ledger, in pieces as they come from the wire, and never in one place. The best of three.
fn ledger(limits: &Limits) {
    const SIZE: usize = 200_000_000;
    let (head, entry, tail) = documents::ledger();
    // What is fed again and again is made beforehand: a mebibyte of entries, cut where the wire would cut it.
    let entries = entry.repeat((1 << 20) / entry.len());
    let rounds = SIZE / entries.len();
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = cpu_time();
        let sink = DigestSink::new(&SHA256);
        let mut canonicalizer = Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, sink);
        let mut scanner = Scanner::new(limits);
        scanner.feed(head.as_bytes(), &mut canonicalizer).unwrap();
        for _ in 0..rounds {
            for piece in entries.as_bytes().chunks(64 << 10) {
                scanner.feed(piece, &mut canonicalizer).unwrap();
            }
        }
        scanner.feed(tail.as_bytes(), &mut canonicalizer).unwrap();
        scanner.finish(&mut canonicalizer).unwrap();
        black_box(canonicalizer.into_sink().finish());
        best = best.min(cpu_time() - start);
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate to print")]
    let rate = (rounds * entries.len()) as f64 / best.as_secs_f64() / 1e6;
    println!(
        "\nledger of {} MB in pieces of 64 KiB: {} MB per second of the processor",
        rounds * entries.len() / 1_000_000,
        asked(rate, "≥", ASKED_OF_LEDGER, rate >= ASKED_OF_LEDGER)
    );
}

/// What this thread has had of the processor: half a second is long enough for others to be given some of it.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
