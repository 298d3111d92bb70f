//! What the pool adds to a token, in one run: the raw `C_Sign` rate, the same through the pool, through a child process, with and without the
//! check of each signature; the CPU beside the token per signature; and a simulated HSM of 32 engines of 3 ms. `cargo bench -p muhurdar-pool`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a panic ends the benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use muhurdar_pool::admin::{Generate, find_softhsm2};
use muhurdar_pool::{Config, Isolation, Pool, SignInput, TokenConfig};
use rustix::time::{ClockId, clock_gettime};

const RUN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let softhsm = find_softhsm2().unwrap_or_default();
    let control = std::env::temp_dir().join(format!("faulty-token-bench-{}.sock", std::process::id()));
    let shown = control.clone();
    let code = common::main(
        &[
            ("FAULTY_TOKEN_MODULE", softhsm),
            ("FAULTY_TOKEN_CONTROL", control.clone()),
        ],
        vec![
            bench("what_the_pool_adds", against_the_raw_rate),
            bench("a_distant_hsm", move || a_distant_hsm(&shown)),
        ],
    );
    let _ = std::fs::remove_file(control);
    code
}

/// `cargo test --benches` asks only whether it would run.
fn bench(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    // Figures are printed; the frame's own kind of benchmark wants one number.
    Trial::test(name, || {
        if std::env::args().any(|argument| argument == "--bench") {
            body();
        }
        Ok::<_, Failed>(())
    })
}

fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap(), u32::try_from(now.tv_nsec).unwrap())
}

fn children_cpu() -> Duration {
    let own = std::process::id().to_string();
    let ticks: u64 = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter_map(|stat| {
            let fields: Vec<String> = stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect();
            (fields.get(1)? == &own).then(|| fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
        })
        .sum();
    Duration::from_millis(ticks * 10)
}

struct Figures {
    rate: f64,
    token: f64,
    beside: f64,
    p99: Duration,
}

/// `callers` tasks sign for a while.
fn drive(config: Config, callers: usize, prepare: impl Fn()) -> Figures {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pool = Arc::new(Pool::open(config).await.unwrap());
        prepare();
        let key = pool.keys()[0].clone();
        let before = (pool.status(), process_cpu() + children_cpu());
        let begun = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (pool, key) = (Arc::clone(&pool), key.clone());
                tokio::spawn(async move {
                    let input = SignInput::digest(key.kind.default_hash(), &[7; 32]).unwrap();
                    let mut latencies = Vec::with_capacity(4096);
                    while begun.elapsed() < RUN {
                        let asked = Instant::now();
                        pool.sign(key.id, input.clone(), None).await.unwrap();
                        latencies.push(asked.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.unwrap());
        }
        let elapsed = begun.elapsed();
        let after = (pool.status(), process_cpu() + children_cpu());
        latencies.sort();
        let made = (after.0.signatures - before.0.signatures) as f64;
        let token = after.0.token_cpu - before.0.token_cpu;
        let all = after.1 - before.1;
        common::close(pool).await;
        Figures {
            rate: made / elapsed.as_secs_f64(),
            token: token.as_secs_f64() * 1e6 / made,
            beside: all.saturating_sub(token).as_secs_f64() * 1e6 / made,
            p99: latencies[latencies.len() * 99 / 100],
        }
    })
}

fn pool_of(config: &TokenConfig, check: bool, isolation: Isolation) -> Config {
    let mut whole = Config::new(vec![config.clone()]);
    whole.check_signatures = check;
    whole.tokens[0].isolation = isolation;
    whole
}

fn against_the_raw_rate() {
    let mut config = common::token("bench", &[Generate::Rsa(2048)]);
    config.sessions = 2;
    let raw = |name: &str| {
        let raw = muhurdar_pool::ceiling(&config, None, 2, RUN).unwrap();
        let cpu = raw.token_cpu.as_secs_f64() * 1e6 / raw.signatures as f64;
        println!("\n    {name:<42} {:>7.0}/s  token {cpu:>5.0} us", raw.per_second());
        raw.per_second()
    };
    let first = raw("raw C_Sign, 2 sessions, RSA-2048");
    let mut rows = Vec::new();
    for (name, check, isolation) in [
        ("pool, in process, unchecked", false, Isolation::None),
        ("pool, in process, each checked", true, Isolation::None),
        ("pool, module in a child, unchecked", false, Isolation::Process),
    ] {
        rows.push((name, drive(pool_of(&config, check, isolation), 8, || {})));
    }
    let last = raw("raw C_Sign again");
    for (name, figures) in rows {
        println!(
            "    {name:<42} {:>7.0}/s  token {:>5.0} us, beside it {:>5.1} us; {:.1} % of raw",
            figures.rate,
            figures.token,
            figures.beside,
            200.0 * figures.rate / (first + last)
        );
    }
}

fn a_distant_hsm(control: &std::path::Path) {
    let mut config = common::token("distant", &[Generate::Rsa(2048)]);
    config.module = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .join("libmuhurdar_faulty_token.so");
    config.sessions = 32;
    let prepare = || {
        for line in ["clear", "canned on", "engines 32", "latency 3000"] {
            muhurdar_faulty_token::send(control, line).unwrap();
        }
    };
    for callers in [29, 64] {
        let figures = drive(pool_of(&config, false, Isolation::None), callers, prepare);
        println!(
            "\n    32 engines of 3 ms, {callers} callers: {:.0}/s ({:.1} % of 10666/s), p99 {:?}, beside the token {:.1} us",
            figures.rate,
            figures.rate / 106.66,
            figures.p99,
            figures.beside
        );
    }
}
