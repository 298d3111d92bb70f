//! Canonicalize and digest, against SHA-256 alone and against libxml2, measured in turns in the same run.
//!
//! `cargo bench -p muhurdar-xades --bench engine` prints a table of ratios; `-- --callgrind NAME` runs one thing a
//! hundred times for instruction counts.
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
use muhurdar_xades::c14n::{DigestSink, Method, Subset, canonicalize};
use muhurdar_xades::scan::{Deaf, Scanner};
use muhurdar_xades::{KeyType, Limits, Policy, Sealing, prepare};

type Task<'a> = (&'static str, Box<dyn Fn(&[u8]) + 'a>);

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
    let mut tasks: Vec<Task<'_>> = vec![
        (
            "SHA-256",
            Box::new(|document| {
                black_box(digest(&SHA256, document));
            }),
        ),
        (
            "scan",
            Box::new(|document| drop(black_box(Scanner::new(&limits).run(document, &mut Deaf)))),
        ),
        (
            "canonicalize",
            Box::new(|document| {
                let sink = DigestSink::new(&SHA256);
                let sink = canonicalize(document, &Method::INCLUSIVE, Subset::Document, &limits, sink).unwrap();
                black_box(sink.finish());
            }),
        ),
        (
            "prepare",
            Box::new(|document| drop(black_box(prepare(document, &sealing).unwrap()))),
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
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--callgrind") {
        let (_, task) = tasks.iter().find(|(name, _)| *name == arguments[at + 1]).unwrap();
        for (_, document) in documents::all() {
            (0..100).for_each(|_| task(&document));
        }
        return;
    }
    println!(
        "{:<28}{}",
        "",
        tasks.iter().map(|(name, _)| format!("{name:>22}")).collect::<String>()
    );
    for (name, document) in documents::all() {
        let best = turns(&tasks, &document);
        let cells: String = best
            .iter()
            .map(|time| format!("{:>12.1} µs {:>5.2}×", micros(*time), micros(*time) / micros(best[0])))
            .collect();
        println!("{:<28}{cells}   {} bytes", name, document.len());
    }
}

/// The best time of each task, all in turns: what disturbs the machine disturbs all of them.
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

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
