//! Modules in a child process: what a crash and a hang cost, and what the boundary costs.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "isolation/endings.rs"]
mod endings;
#[path = "isolation/one_login.rs"]
mod one_login;
#[path = "isolation/strangers.rs"]
mod strangers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Load, blocking, close, test, verify_with_openssl};
use muhurdar_pool::admin::{Generate, ObjectKind, find_softhsm2};
use muhurdar_pool::{
    Config, Curve, InitArgs, Isolation, Measure, Pool, RsaMechanism, SignInput, SlotState, TokenConfig, qualify,
};

fn main() -> ExitCode {
    endings::is_one();
    strangers::is_one();
    one_login::is_one();
    common::main(
        &[],
        vec![
            test("an_isolated_module_signs_and_openssl_agrees", an_isolated_module_signs),
            test(
                "a_crash_of_the_vendors_library_costs_nobody_but_its_own_requests",
                a_crash,
            ),
            test(
                "hangs_of_the_vendors_library_are_killed_with_their_child",
                hangs_are_killed,
            ),
            test("a_wrong_pin_latches_across_the_boundary", a_wrong_pin),
            blocking(
                "each_way_to_log_in_and_each_way_for_that_to_go_wrong_costs_one_call",
                one_login::each_way_and_each_deed_costs_one_call,
            ),
            blocking(
                "a_login_beside_another_waits_or_goes_away_and_is_no_crash",
                one_login::a_login_beside_another_is_no_crash,
            ),
            test("a_closed_pool_leaves_no_child_behind", no_child_behind),
            test(
                "an_isolated_token_is_qualified_in_a_child_with_its_environment",
                qualified_in_a_child,
            ),
            test("a_smart_card_with_one_session_and_no_threads_signs", a_smart_card),
            test("the_boundary_is_cheap", the_boundary_is_cheap),
            blocking(
                "a_process_ends_when_nobody_is_in_its_module_however_it_ends",
                endings::every_end_leaves_the_module_first,
            ),
            test(
                "a_child_that_stops_in_the_middle_of_a_frame_is_given_up",
                strangers::halves,
            ),
            test(
                "a_child_of_another_version_is_refused_with_a_sentence",
                strangers::another_version,
            ),
            blocking(
                "a_child_ends_when_its_parent_does_also_inside_a_call",
                strangers::a_child_alone,
            ),
            blocking(
                "a_module_comes_back_after_its_program_was_replaced",
                strangers::an_upgrade,
            ),
            test("a_child_is_ended_by_its_parent_alone", strangers::signals_to_the_child),
        ],
    )
}

fn isolated(label: &str, keys: &[Generate]) -> TokenConfig {
    let mut config = common::token(label, keys);
    if keys.is_empty() {
        common::log_in(&config)
            .import_private_key(common::shared_key(), "seal", &[1])
            .unwrap();
    }
    config.isolation = Isolation::Process;
    config.call_budget = Duration::from_millis(400);
    config.backoff_min = Duration::from_millis(20);
    config
}

/// The faulty module in a child, with a control socket of its own.
fn faulty(label: &str) -> (TokenConfig, PathBuf) {
    let mut config = isolated(label, &[]);
    let control = common::fixture().dir.path().join(format!("{label}.sock"));
    config.module = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .join("libmuhurdar_faulty_token.so");
    config.environment = vec![
        (
            "FAULTY_TOKEN_MODULE".into(),
            find_softhsm2().unwrap().display().to_string(),
        ),
        ("FAULTY_TOKEN_CONTROL".into(), control.display().to_string()),
    ];
    (config, control)
}

fn command(control: &Path, line: &str) {
    muhurdar_faulty_token::send(control, line).unwrap();
}

async fn until(pool: &Pool, what: &str, done: impl Fn(&Pool) -> bool) -> Duration {
    let begun = Instant::now();
    while !done(pool) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what}: {:#?}",
            pool.status()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begun.elapsed()
}

async fn an_isolated_module_signs() {
    let pool = common::open(vec![isolated(
        "apart",
        &[Generate::Rsa(2048), Generate::Ec(Curve::P384)],
    )])
    .await;
    assert_eq!(pool.keys().len(), 2);
    for key in pool.keys() {
        let hash = key.kind.default_hash();
        let signed = pool
            .sign(key.id, SignInput::message(hash, *b"over there"), None)
            .await
            .unwrap();
        verify_with_openssl(&key, hash, b"over there", &signed.value);
        assert!(signed.token_cpu > Duration::ZERO, "the child tells what the token cost");
    }
    pool.close().await;
}

async fn a_crash() {
    let (config, control) = faulty("crashing");
    let (other, _) = faulty("steady");
    let pool = Arc::new(Pool::open(Config::new(vec![config, other])).await.unwrap());
    let key = pool.keys().into_iter().find(|key| key.label == "seal").unwrap();
    assert_eq!(key.tokens.len(), 2);
    let load = Load::start(&pool, &key, 16);
    tokio::time::sleep(Duration::from_millis(200)).await;
    command(&control, "rule C_Sign 1 crash");
    until(&pool, "the crash is noticed", |pool| {
        pool.status().tokens[0].failures > 0
    })
    .await;
    let back = until(&pool, "a new child serves", |pool| pool.status().tokens[0].is_ready()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let tally = load.stop().await;
    println!(
        "\n    crash: {} asked, {} refused, {} lost, {} wrong, back after {back:?}",
        tally.asked,
        tally.refused,
        tally.lost(),
        tally.wrong
    );
    tally.assert_untouched();
    let status = pool.status();
    assert!(status.tokens[0].reinitialisations > 0);
    assert_eq!(status.tokens[1].failures, 0, "the other module does not notice");
    close(pool).await;
}

async fn hangs_are_killed() {
    let (mut config, control) = faulty("hanging");
    config.max_lost = 1;
    let pool = Arc::new(Pool::open(Config::new(vec![config])).await.unwrap());
    let key = pool.keys()[0].clone();
    let load = Load::start(&pool, &key, 16);
    tokio::time::sleep(Duration::from_millis(100)).await;
    command(&control, "rule C_Sign always hang");
    until(&pool, "the child is replaced", |pool| {
        pool.status().tokens[0].reinitialisations > 0
    })
    .await;
    let back = until(&pool, "the new child serves", |pool| pool.status().tokens[0].is_ready()).await;
    let signed = pool
        .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
        .await;
    assert!(signed.is_ok(), "{signed:?}");
    let tally = load.stop().await;
    println!(
        "\n    hang: {} asked, {} refused, {} lost, {} wrong, back after {back:?}",
        tally.asked,
        tally.refused,
        tally.lost(),
        tally.wrong
    );
    assert_eq!((tally.lost(), tally.wrong), (0, 0));
    until(&pool, "the lost threads are back", |pool| {
        pool.status().tokens[0].lanes.lost == 0
    })
    .await;
    close(pool).await;
}

async fn a_wrong_pin() {
    let mut config = isolated("latched-apart", &[Generate::Rsa(2048)]);
    config.pin = muhurdar_pool::Pin::value("771133");
    let refused = Pool::open(Config::new(vec![config])).await.unwrap_err().to_string();
    assert!(
        refused.contains("latched") && refused.contains("CKR_PIN_INCORRECT"),
        "{refused}"
    );
}

/// A card's driver wants C_Initialize(NULL), and its reader gives one session: the one that keeps the login signs.
async fn a_smart_card() {
    let (mut config, _) = faulty("card");
    config.environment.push(("FAULTY_TOKEN_START".into(), "cap 1".into()));
    config.init_args = InitArgs::None;
    let refused = Pool::open(Config::new(vec![config.clone()])).await.unwrap_err();
    assert!(refused.to_string().contains("single_session"), "{refused}");
    config.single_session = true;
    let pool = Arc::new(Pool::open(Config::new(vec![config])).await.unwrap());
    let cap = &pool.status().tokens[0].cap;
    assert_eq!((cap.sessions, cap.reason.as_str()), (1, "single_session"));
    let load = Load::start(&pool, &pool.keys()[0], 4);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let tally = load.stop().await;
    tally.assert_untouched();
    assert!(tally.signed > 0);
    close(pool).await;
}

fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let after_name = stat.rsplit(')').next()?.to_owned();
            (after_name.split_whitespace().nth(1)? == own).then_some(pid)
        })
        .collect()
}

async fn no_child_behind() {
    let pool = common::open(vec![isolated("orphan", &[Generate::Rsa(2048)])]).await;
    assert_eq!(pool.status().tokens[0].state, SlotState::Ready);
    assert_eq!(children().len(), 1);
    pool.close().await;
    assert!(children().is_empty());
}

/// User and system time of a process, in microseconds.
fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // proc(5): after the name come state (3) … utime (14), stime (15), in ticks of 10 ms everywhere.
    let ticks = |field: usize| fields[field - 3].parse::<u64>().unwrap();
    (ticks(14) + ticks(15)) * 10_000
}

async fn the_boundary_is_cheap() {
    let mut figures = Vec::new();
    for isolation in [Isolation::None, Isolation::Process] {
        let (mut config, control) = faulty(if isolation == Isolation::None { "here" } else { "there" });
        config.isolation = isolation;
        config.sessions = 2;
        config.call_budget = Duration::from_secs(5);
        if isolation == Isolation::None {
            // The environment of this process cannot change any more: the real module, and its own cost taken off.
            config.module = find_softhsm2().unwrap();
        }
        let pool = Arc::new(Pool::open(Config::new(vec![config])).await.unwrap());
        let _ = control;
        let key = pool.keys()[0].clone();
        let before = (
            pool.status(),
            cpu(std::process::id()),
            children().iter().map(|pid| cpu(*pid)).sum::<u64>(),
        );
        let until = Instant::now() + Duration::from_millis(1500);
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (pool, key) = (Arc::clone(&pool), key.clone());
                tokio::spawn(async move {
                    let input = SignInput::message(key.kind.default_hash(), *b"x");
                    while Instant::now() < until {
                        pool.sign(key.id, input.clone(), None).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let after = (
            pool.status(),
            cpu(std::process::id()),
            children().iter().map(|pid| cpu(*pid)).sum::<u64>(),
        );
        let made = after.0.signatures - before.0.signatures;
        let token = u64::try_from((after.0.token_cpu - before.0.token_cpu).as_micros()).unwrap();
        let all = after.1 - before.1 + after.2 - before.2;
        let beside = all.saturating_sub(token) / made;
        println!(
            "\n    {isolation:?}: {made} signatures, {} us CPU each in the token, {beside} us beside it",
            token / made
        );
        figures.push(beside);
        close(pool).await;
    }
    // The figure is for reading; the bound only catches a boundary that went wrong.
    assert!(figures[1] < figures[0] + 150, "{figures:?}");
}

async fn qualified_in_a_child() {
    let (config, _) = faulty("examined");
    let measure = Measure {
        sessions: 1,
        each: Duration::from_millis(20),
    };
    let found =
        tokio::task::spawn_blocking(move || qualify(&config, &muhurdar_pool::Latches::in_memory(), measure).unwrap())
            .await
            .unwrap();
    assert!(found.is_fit(), "{:?}", found.findings);
    assert_eq!(found.rsa_mechanism, Some(RsaMechanism::Pkcs));
    assert!(found.rates[0].signatures > 0);
    assert!(found.mechanisms.iter().any(|mechanism| mechanism.facts.is_some()));
    let key = found
        .objects
        .iter()
        .find(|object| object.kind == ObjectKind::PrivateKey);
    assert_eq!(key.map(|key| key.label.as_str()), Some("seal"));
}
