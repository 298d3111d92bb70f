//! The pool on tokens of other makes, beside SoftHSM2: kryoptic, which locks its PIN for real, and opencryptoki, whose every call takes a lock
//! that a daemon made. `tests/tokens/setup.sh` brings them; what is not there is skipped, in words.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "common/opencryptoki.rs"]
mod opencryptoki;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::{Load, blocking, close, every_kind_signs, fresh, log_in, open, shared_key, test, token};
use libtest_mimic::Trial;
use muhurdar_pool::admin::Generate;
use muhurdar_pool::{
    Config, Curve, Latches, Measure, OpenError, Pin, Pool, RsaMechanism, SlotState, TokenConfig, qualify,
};

const KINDS: [Generate; 5] = [
    Generate::Rsa(2048),
    Generate::Rsa(3072),
    Generate::Rsa(4096),
    Generate::Ec(Curve::P256),
    Generate::Ec(Curve::P384),
];
/// Kryoptic wants 8 characters at least.
const PIN: &str = "64821937";
const SO_PIN: &str = "87654321";
const SLOTS: u64 = 6;

fn main() -> ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("token.conf");
    let slots = (1..=SLOTS).map(|slot| {
        let file = dir.path().join(format!("{slot}.sql"));
        format!("[[slots]]\nslot = {slot}\ndbtype = \"sqlite\"\ndbargs = {file:?}\n")
    });
    std::fs::write(&conf, slots.collect::<String>()).unwrap();

    let kryoptic = built(Path::new(env!("CARGO_MANIFEST_DIR")));
    let daemon = opencryptoki::Daemon::start();
    let mut tests = Vec::new();
    match kryoptic {
        Some(module) => tests.extend(kryoptic_tests(module)),
        None => println!("SKIPPED: kryoptic is not built (tests/tokens/setup.sh)"),
    }
    match &daemon {
        Ok(daemon) => tests.extend(opencryptoki_tests(&daemon.config())),
        Err(why) => println!("SKIPPED: opencryptoki: {why}"),
    }
    common::main(&[("KRYOPTIC_CONF", conf)], tests)
}

/// Where `tests/tokens/setup.sh` builds it: not where this run of cargo builds.
fn built(manifest: &Path) -> Option<PathBuf> {
    let module = manifest.join("../target/tokens/debug/libkryoptic.so");
    module.exists().then_some(module)
}

fn kryoptic_tests(module: PathBuf) -> Vec<Trial> {
    KRYOPTIC.set(module).unwrap();
    vec![
        test("kryoptic_signs_with_every_kind_of_key", || {
            every_kind_signs(kryoptic("kinds", &KINDS), &KINDS)
        }),
        test("a_pin_that_locks_is_never_brought_to_its_last_try", the_last_try),
        test("a_locked_token_is_left_alone_and_the_other_serves", a_locked_token),
        test("one_seal_on_tokens_of_two_makes_is_one_seal", one_seal_on_two_makes),
        blocking("kryoptic_is_qualified", || {
            qualifies(&kryoptic("qualified", &KINDS[..1]));
        }),
    ]
}

static KRYOPTIC: OnceLock<PathBuf> = OnceLock::new();

/// A fresh token of kryoptic in the next slot.
fn kryoptic(label: &str, keys: &[Generate]) -> TokenConfig {
    let mut config = fresh(
        KRYOPTIC.get().unwrap(),
        None,
        label,
        Pin::value(SO_PIN),
        Pin::value(PIN),
        keys,
    );
    config.sessions = 4;
    config
}

fn opencryptoki_tests(config: &TokenConfig) -> Vec<Trial> {
    let (signs, loaded, config) = (config.clone(), config.clone(), config.clone());
    vec![
        test("opencryptoki_signs_with_every_kind_of_key", move || {
            every_kind_signs(opencryptoki::with_keys(&signs), &opencryptoki::KINDS)
        }),
        test("opencryptoki_carries_a_load", move || carries_a_load(loaded.clone())),
        blocking("opencryptoki_is_qualified", move || qualifies(&config)),
    ]
}

/// The service restarts again and again with a wrong PIN: the token counts one try. Then somebody else counts it up to the last one.
async fn the_last_try() {
    let config = kryoptic("last-try", &[Generate::Rsa(2048)]);
    let state = tempfile::tempdir().unwrap();
    let mut wrong = Config::new(vec![config.clone()]);
    wrong.state_dir = Some(state.path().to_owned());
    wrong.tokens[0].pin = Pin::value(WRONG_PIN);
    for _ in 0..15 {
        let refused = latched(&wrong).await;
        assert!(refused.contains("CKR_PIN_INCORRECT"), "{refused}");
    }
    assert!(!muhurdar_pool::unlatch(state.path(), "nobody").unwrap());
    let Some(right) = foreign_login("last-try", PIN) else {
        return;
    };
    assert_eq!(
        right,
        Ok(()),
        "15 starts with a wrong PIN must not lock a token that allows 10 tries"
    );

    // The operator believes that the PIN is mended; it is not; and a colleague's tool has the same idea.
    muhurdar_pool::unlatch(state.path(), "last-try").unwrap();
    assert!(latched(&wrong).await.contains("CKR_PIN_INCORRECT"));
    for _ in 2..=9 {
        assert!(
            foreign_login("last-try", WRONG_PIN)
                .unwrap()
                .unwrap_err()
                .contains("CKR_PIN_INCORRECT")
        );
    }
    // Another service, which knows of no latch, looks at the flags before it logs in.
    let elsewhere = tempfile::tempdir().unwrap();
    wrong.state_dir = Some(elsewhere.path().to_owned());
    for _ in 0..3 {
        let refused = latched(&wrong).await;
        assert!(refused.contains("CKF_USER_PIN_FINAL_TRY"), "{refused}");
    }
    // Had it tried, the right PIN would be too late now.
    let mut right = wrong;
    right.tokens[0].pin = Pin::value(PIN);
    muhurdar_pool::unlatch(elsewhere.path(), "last-try").unwrap();
    let pool = Pool::open(right).await.unwrap();
    assert_eq!(pool.status().tokens[0].state, SlotState::Ready);
    pool.close().await;
}

const WRONG_PIN: &str = "00000000";

async fn latched(config: &Config) -> String {
    match Pool::open(config.clone()).await.unwrap_err() {
        OpenError::Latched { reason, .. } => reason,
        other => panic!("not latched: {other}"),
    }
}

/// A login by somebody else's program; `None` where it is not there.
fn foreign_login(label: &str, pin: &str) -> Option<Result<(), String>> {
    let output = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(KRYOPTIC.get().unwrap())
        .args(["--token-label", label, "--login", "--pin", pin, "--list-objects"])
        .output();
    match output {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            println!("SKIPPED in part: pkcs11-tool (apt-get install opensc): {error}");
            None
        }
    }
}

/// Somebody else locked it, for real.
async fn a_locked_token() {
    let (locked, healthy) = (
        kryoptic("locked", &[Generate::Rsa(2048)]),
        token("healthy", &[Generate::Rsa(2048)]),
    );
    let mut last = String::new();
    for _ in 0..12 {
        match foreign_login("locked", WRONG_PIN) {
            Some(outcome) => last = outcome.unwrap_err(),
            None => return,
        }
    }
    assert!(last.contains("CKR_PIN_LOCKED"), "the token did not lock: {last}");
    let alone = latched(&Config::new(vec![locked.clone()])).await;
    // By its flag, or, as this token reports none, by what C_Login says.
    assert!(alone.contains("PIN_LOCKED"), "{alone}");

    let pool = Arc::new(open(vec![locked, healthy]).await);
    let key = pool.keys()[0].clone();
    let load = Load::start(&pool, &key, 8);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let tally = load.stop().await;
    tally.assert_untouched();
    let tokens = pool.status().tokens;
    assert!(
        matches!(tokens[0].state, SlotState::Latched { .. }),
        "{:?}",
        tokens[0].state
    );
    assert_eq!(tokens[1].state, SlotState::Ready);
    close(pool).await;
}

async fn one_seal_on_two_makes() {
    let (first, second) = (token("make-1", &[]), kryoptic("make-2", &[]));
    for config in [&first, &second] {
        log_in(config).import_private_key(shared_key(), "seal", &[7]).unwrap();
    }
    let pool = Arc::new(open(vec![first, second]).await);
    let keys = pool.keys();
    assert_eq!(keys.len(), 1, "one public key is one seal");
    let load = Load::start(&pool, &keys[0], 16);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let tally = load.stop().await;
    tally.assert_untouched();
    for token in pool.status().tokens {
        println!("{}: {} of {}", token.name, token.signatures, tally.signed);
        assert!(token.signatures > tally.signed / 10, "{} idles", token.name);
    }
    close(pool).await;
}

async fn carries_a_load(config: TokenConfig) {
    let pool = Arc::new(open(vec![config]).await);
    let key = pool.keys().into_iter().find(|key| key.cka_id == common::id(0)).unwrap();
    let begun = Instant::now();
    let load = Load::start(&pool, &key, 16);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let tally = load.stop().await;
    println!("{} signatures in {:?}", tally.signed, begun.elapsed());
    tally.assert_untouched();
    assert!(tally.signed > 0);
    close(pool).await;
}

fn qualifies(config: &TokenConfig) {
    let measure = Measure {
        sessions: 2,
        each: Duration::from_millis(100),
    };
    let found = qualify(config, &Latches::in_memory(), measure).unwrap();
    println!("{}: {:?}", found.library.description, found.findings);
    assert!(found.is_fit(), "{:#?}", found.findings);
    assert_eq!(found.rsa_mechanism, Some(RsaMechanism::Pkcs));
    assert_eq!(found.rates.len(), 2);
}
