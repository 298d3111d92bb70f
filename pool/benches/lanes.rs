//! What the pool adds to a token, in one run: the raw `C_Sign` rate, the same through the pool, through a child process, with and without the
//! check of each signature; the CPU beside the token per signature; on two makes of token and a simulated HSM of 32 engines of 3 ms.
//! `cargo bench -p muhurdar-pool`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a panic ends the benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/opencryptoki.rs"]
mod opencryptoki;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Measurement, Trial};
use muhurdar_pool::admin::{Generate, find_softhsm2};
use muhurdar_pool::{Config, Isolation, Key, KeyKind, Latches, Pool, SignInput, Signed, TokenConfig};
use rustix::time::{ClockId, clock_gettime};

const RUN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;

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
            bench("what_the_pool_adds_to_softhsm2", softhsm2),
            bench("what_the_pool_adds_to_opencryptoki", opencryptoki),
            bench("a_distant_hsm", move || a_distant_hsm(&shown)),
        ],
    );
    let _ = std::fs::remove_file(control);
    code
}

/// `cargo test --benches` asks only whether it would run. The one number that the frame wants is the time of a signature; the others are printed.
fn bench(name: &str, body: impl FnOnce() -> f64 + Send + 'static) -> Trial {
    Trial::bench(name, |only_try| {
        Ok::<_, Failed>((!only_try).then(|| Measurement {
            avg: u64::try_from(Duration::from_secs_f64(1.0 / body()).as_nanos()).unwrap_or(u64::MAX),
            variance: 0,
        }))
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
fn drive(config: Config, callers: usize, check: bool, prepare: impl Fn()) -> Figures {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pool = Arc::new(Pool::open(config).await.unwrap());
        prepare();
        let key = rsa_2048(&pool);
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
                        if check {
                            pool.sign(key.id, input.clone(), None).await.unwrap();
                        } else {
                            let take = |_: &Signed| Some(());
                            pool.sign_checked(key.id, input.clone(), None, 0, take).await.unwrap();
                        }
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

fn rsa_2048(pool: &Pool) -> Key {
    let keys = pool.keys();
    let found = keys.iter().find(|key| key.kind == KeyKind::Rsa { bits: 2048 });
    found.unwrap().clone()
}

fn pool_of(config: &TokenConfig, isolation: Isolation) -> Config {
    let mut whole = Config::new(vec![config.clone()]);
    whole.tokens[0].isolation = isolation;
    whole
}

/// A way through the pool.
struct Way {
    name: &'static str,
    callers: usize,
    check: bool,
    isolation: Isolation,
}

/// The ways are taken in turns with the token alone, for the machine is not the same from one second to the next; each is told as the median
/// of its rounds. Answers the rate of the first.
fn against_the_raw_rate(config: &TokenConfig) -> f64 {
    let way = |name, callers, check, isolation| Way {
        name,
        callers,
        check,
        isolation,
    };
    let ways = [
        way("32 callers", 32, false, Isolation::None),
        way("8 callers", 8, false, Isolation::None),
        way("32 callers, each signature checked", 32, true, Isolation::None),
        way("32 callers, module in a child", 32, false, Isolation::Process),
    ];
    let spki_der = {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let pool = Pool::open(pool_of(config, Isolation::None)).await.unwrap();
            let spki_der = rsa_2048(&pool).spki_der;
            common::close(Arc::new(pool)).await;
            spki_der
        })
    };
    let raw = || muhurdar_pool::ceiling(config, &Latches::in_memory(), Some(&spki_der), config.sessions, RUN).unwrap();
    let mut made: Vec<Vec<(f64, Figures)>> = ways.iter().map(|_| Vec::new()).collect();
    let mut alone = vec![raw()];
    for _ in 0..ROUNDS {
        for (way, made) in ways.iter().zip(&mut made) {
            let figures = drive(pool_of(config, way.isolation), way.callers, way.check, || {});
            let before = alone.last().map_or(0.0, muhurdar_pool::Ceiling::per_second);
            alone.push(raw());
            let after = alone.last().map_or(0.0, muhurdar_pool::Ceiling::per_second);
            made.push((2.0 * figures.rate / (before + after), figures));
        }
    }
    let rate = median(alone.iter().map(muhurdar_pool::Ceiling::per_second));
    let cpu = median(
        alone
            .iter()
            .map(|raw| raw.token_cpu.as_secs_f64() * 1e6 / raw.signatures as f64),
    );
    println!(
        "\n    {}, {} sessions: {rate:.0}/s raw, {cpu:.0} us of CPU each",
        config.name, config.sessions
    );
    let mut first = 0.0;
    for (way, made) in ways.iter().zip(&made) {
        let of = |what: fn(&Figures) -> f64| median(made.iter().map(|(_, figures)| what(figures)));
        println!(
            "    {:<36} {:>6.0}/s, {:>5.1} % of raw; CPU in the token {:>4.0} us, beside it {:>5.1} us",
            way.name,
            of(|figures| figures.rate),
            100.0 * median(made.iter().map(|(ratio, _)| *ratio)),
            of(|figures| figures.token),
            of(|figures| figures.beside),
        );
        if first == 0.0 {
            first = of(|figures| figures.rate);
        }
    }
    first
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn softhsm2() -> f64 {
    let mut config = common::token("SoftHSM2", &[Generate::Rsa(2048)]);
    config.sessions = 2;
    against_the_raw_rate(&config)
}

/// Answers 0 where there is none.
fn opencryptoki() -> f64 {
    match opencryptoki::Daemon::start() {
        Ok(daemon) => {
            let mut config = opencryptoki::with_keys(&daemon.config());
            config.sessions = 2;
            against_the_raw_rate(&config)
        }
        Err(why) => {
            println!("SKIPPED: opencryptoki: {why}");
            0.0
        }
    }
}

/// Answers the rate at 64 callers.
fn a_distant_hsm(control: &std::path::Path) -> f64 {
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
    let mut rate = 0.0;
    for callers in [29, 64] {
        let figures = drive(pool_of(&config, Isolation::None), callers, false, prepare);
        println!(
            "\n    32 engines of 3 ms, {callers} callers: {:.0}/s ({:.1} % of 10666/s), p99 {:?}, beside the token {:.1} us",
            figures.rate,
            figures.rate / 106.66,
            figures.p99,
            figures.beside
        );
        rate = figures.rate;
    }
    // What was said to the module holds on.
    let alone = muhurdar_pool::ceiling(&config, &Latches::in_memory(), None, config.sessions, RUN).unwrap();
    println!(
        "\n    32 engines of 3 ms: {:.0}/s raw with {} sessions ({:.1} % of 10666/s)",
        alone.per_second(),
        config.sessions,
        alone.per_second() / 106.66
    );
    rate
}
