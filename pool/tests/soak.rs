//! One bad day after the other: a pool of three tokens, one of them behind a child process, under load, while faults of every kind come at
//! random. Every request is answered or refused, no wrong signature is released, and at the end everything is as at the start: all tokens in
//! service, no thread and no descriptor left behind.
//!
//! Half a minute as part of the tests, as long as you like by `make soak MINUTES=60`. MUHURDAR_SOAK_SEED repeats a day.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{test, verifies};
use muhurdar_pool::admin::find_softhsm2;
use muhurdar_pool::{Config, Isolation, Key, Pool, SignInput, TokenConfig};

const CALLERS: usize = 24;
/// Labels of the tokens that share the module in this process.
const HERE: [&str; 2] = ["soak-a", "soak-b"];
const APART: &str = "soak-c";

fn main() -> ExitCode {
    let Some(softhsm) = find_softhsm2() else {
        println!("SKIPPED: SoftHSM2 is not installed (apt-get install softhsm2)");
        return ExitCode::SUCCESS;
    };
    let control = std::env::temp_dir().join(format!("soak-{}.sock", std::process::id()));
    CONTROL.set(control.clone()).unwrap();
    let code = common::main(
        &[
            ("FAULTY_TOKEN_MODULE", softhsm),
            ("FAULTY_TOKEN_CONTROL", control.clone()),
        ],
        vec![test("bad_days_lose_nothing_and_leave_nothing_behind", bad_days)],
    );
    let _ = std::fs::remove_file(control);
    code
}

static CONTROL: OnceLock<PathBuf> = OnceLock::new();

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A token with the common key.
fn token(label: &str) -> TokenConfig {
    let mut config = common::token(label, &[]);
    common::log_in(&config)
        .import_private_key(common::shared_key(), "seal", &[1])
        .unwrap();
    let tests = std::env::current_exe().unwrap();
    config.module = tests.parent().unwrap().join("libmuhurdar_faulty_token.so");
    config.call_budget = Duration::from_millis(300);
    config.backoff_min = Duration::from_millis(20);
    config.backoff_max = Duration::from_millis(200);
    config.heartbeat = Duration::from_millis(500);
    config.sessions = 4;
    config
}

/// The one in a child, with a control socket of its own.
fn token_apart(control: &Path) -> TokenConfig {
    let mut config = token(APART);
    config.isolation = Isolation::Process;
    config.environment = vec![
        (
            "FAULTY_TOKEN_MODULE".into(),
            find_softhsm2().unwrap().display().to_string(),
        ),
        ("FAULTY_TOKEN_CONTROL".into(), control.display().to_string()),
    ];
    config
}

/// What the callers have seen.
#[derive(Debug, Default)]
struct Seen {
    asked: AtomicU64,
    signed: AtomicU64,
    refused: AtomicU64,
    wrong: AtomicU64,
    slowest_us: AtomicU64,
    refusals: Mutex<BTreeMap<String, u64>>,
}

impl Seen {
    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    async fn call(&self, pool: &Pool, key: &Key, message: Vec<u8>) {
        let begun = Instant::now();
        self.asked.fetch_add(1, Ordering::Relaxed);
        let input = SignInput::message(key.kind.default_hash(), message.clone());
        match pool.sign(key.id, input, None).await {
            Ok(signed) => {
                self.signed.fetch_add(1, Ordering::Relaxed);
                let wrong = !verifies(key, &message, &signed.value);
                self.wrong.fetch_add(u64::from(wrong), Ordering::Relaxed);
                let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
                self.slowest_us.fetch_max(took, Ordering::Relaxed);
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // Without what each token says of itself.
                let text = error.to_string();
                let short = text.split_once(':').map_or(text.as_str(), |(short, _)| short);
                *self.refusals.lock().unwrap().entry(short.to_owned()).or_default() += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// SplitMix64: a day that can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// A fault and how it ends: commands now, a pause in milliseconds, commands then.
struct Fault {
    name: &'static str,
    apart: bool,
    begin: String,
    lasts: u64,
    end: &'static [&'static str],
}

fn fault(dice: &mut Dice) -> Fault {
    let label = dice.pick(&HERE);
    let fault = |name, begin: String, lasts, end| Fault {
        name,
        apart: false,
        begin,
        lasts,
        end,
    };
    match dice.roll(15) {
        0 => fault("a call hangs", format!("rule C_Sign 1 hang {label}"), 700, &["release"]),
        1 => fault(
            "many calls hang",
            format!("rule C_Sign 3 hang {label}"),
            900,
            &["release"],
        ),
        2 => fault("device error", "rule C_Sign 1 answer 0x30".into(), 0, &[]),
        3 => fault("the secure channel is lost", "channel 0x80000384".into(), 0, &[]),
        4 => fault("sessions are killed", format!("kill-sessions {label}"), 0, &[]),
        5 => fault("the login is lost", format!("forget-login {label}"), 0, &[]),
        6 => fault("the HSM restarts", "restart".into(), 0, &[]),
        7 => fault(
            "a token is removed",
            format!("remove {label}"),
            300,
            &["return soak-a", "return soak-b"],
        ),
        8 => fault("bits flip", "rule C_Sign 4 flip".into(), 0, &[]),
        9 => fault("sessions are invalid", "rule C_SignInit 6 answer 0xb3".into(), 0, &[]),
        10 => fault("an operation stays active", "rule C_Sign 2 stick 0x90".into(), 0, &[]),
        11 => fault("slow", "latency 1000 9000".into(), 400, &["latency 0"]),
        12 => fault(
            "no session can be opened",
            "rule C_OpenSession 0.3 answer 0x6".into(),
            500,
            &["clear"],
        ),
        13 => Fault {
            apart: true,
            ..fault("the library crashes", "rule C_Sign 1 crash".into(), 0, &[])
        },
        _ => Fault {
            apart: true,
            ..fault("the child hangs", "rule C_Sign 6 hang".into(), 0, &[])
        },
    }
}

/// Threads and open descriptors of this process.
fn belongings() -> (usize, usize) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

async fn settled(pool: &Pool, what: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let tokens = pool.status().tokens;
        if tokens.iter().all(|token| token.is_ready() && token.lanes.lost == 0) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {tokens:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn bad_days() {
    let seconds = number("MUHURDAR_SOAK_SECONDS").unwrap_or(30);
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = number("MUHURDAR_SOAK_SEED").unwrap_or(today);
    println!("\n    {seconds} s, MUHURDAR_SOAK_SEED={seed}");
    let apart = common::fixture().dir.path().join("soak-c.sock");
    let tokens = vec![token(HERE[0]), token(HERE[1]), token_apart(&apart)];
    let pool = Arc::new(Pool::open(Config::new(tokens)).await.unwrap());
    let key = pool.keys().remove(0);
    assert_eq!(key.tokens.len(), 3);

    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let start_load = || -> Vec<_> {
        (0..CALLERS)
            .map(|caller| {
                let (pool, key, seen, stop) = (Arc::clone(&pool), key.clone(), Arc::clone(&seen), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut n = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        seen.call(&pool, &key, format!("caller {caller}, document {n}").into_bytes())
                            .await;
                    }
                })
            })
            .collect()
    };
    let callers = start_load();
    // Warm: every lane has opened its session.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = belongings();

    let begun = Instant::now();
    let (mut dice, mut faults) = (Dice(seed), BTreeMap::<&str, u64>::new());
    let mut told = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let fault = fault(&mut dice);
        *faults.entry(fault.name).or_default() += 1;
        let send = |line: &str| {
            // A child that has just crashed does not listen.
            let control = if fault.apart { &apart } else { CONTROL.get().unwrap() };
            let sent = muhurdar_faulty_token::send(control, line);
            assert!(fault.apart || sent.is_ok(), "{line}: {sent:?}");
        };
        send(&fault.begin);
        tokio::time::sleep(Duration::from_millis(fault.lasts)).await;
        fault.end.iter().for_each(|line| send(line));
        // Often the next one comes before the last is over.
        tokio::time::sleep(Duration::from_millis(50 + dice.roll(900))).await;
        if seconds > 120 && begun.elapsed() > told + Duration::from_secs(30) {
            told = begun.elapsed();
            println!("    {:>5} s: {}", told.as_secs(), summary(&seen, &faults));
        }
    }
    muhurdar_faulty_token::send(CONTROL.get().unwrap(), "clear").unwrap();
    let back = settled(&pool, "at the end of the day everything serves").await;
    let (signed, quiet) = (Seen::get(&seen.signed), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let afterwards = (Seen::get(&seen.signed) - signed) as f64 / quiet.elapsed().as_secs_f64();
    // Lanes that were replaced have opened theirs by now.
    let after = belongings();
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        tokio::time::timeout(Duration::from_secs(30), caller)
            .await
            .expect("a request hangs")
            .unwrap();
    }
    let elapsed = begun.elapsed().as_secs_f64();
    println!(
        "    {} in {elapsed:.0} s, {:.0}/s through it all and {afterwards:.0}/s afterwards; back after {back:?}; slowest answer {} ms; threads and descriptors {before:?} -> {after:?}",
        summary(&seen, &faults),
        Seen::get(&seen.signed) as f64 / elapsed,
        Seen::get(&seen.slowest_us) / 1000,
    );
    let (asked, signed, refused) = (
        Seen::get(&seen.asked),
        Seen::get(&seen.signed),
        Seen::get(&seen.refused),
    );
    assert_eq!(asked, signed + refused, "each is answered or refused");
    assert_eq!(Seen::get(&seen.wrong), 0, "a wrong signature was released");
    assert!(signed > 20 * seconds, "the pool hardly works: {signed} in {seconds} s");
    // A thread for each lane and a descriptor for each child come and go; what grows with the day is a leak.
    let slack = 8;
    assert!(
        after.0 <= before.0 + slack && after.1 <= before.1 + slack,
        "threads and descriptors: {before:?} before, {after:?} after"
    );
    common::close(pool).await;
}

fn summary(seen: &Seen, faults: &BTreeMap<&str, u64>) -> String {
    let mut text = format!(
        "{} faults, {} asked, {} refused, {} wrong",
        faults.values().sum::<u64>(),
        Seen::get(&seen.asked),
        Seen::get(&seen.refused),
        Seen::get(&seen.wrong)
    );
    let refusals = seen.refusals.lock().unwrap();
    for (why, times) in refusals.iter() {
        let _ = write!(text, "; {times} x {why}");
    }
    text
}
