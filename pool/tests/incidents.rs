//! What goes wrong with HSMs, row by row of the incident reports, on a pool under load: every request is answered or refused, no wrong
//! signature is released, and the pool comes back by itself. Bounds are generous, since a busy machine must not fail them; the measured figures
//! are printed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::{Load, Tally, close, test};
use muhurdar_pool::admin::{Generate, Module};
use muhurdar_pool::{
    Config, Curve, InitArgs, Key, Pin, Pool, Recovery, SignError, SignInput, Signed, SlotState, TokenConfig,
};

fn main() -> ExitCode {
    let Some(softhsm) = muhurdar_pool::admin::find_softhsm2() else {
        println!("SKIPPED: SoftHSM2 is not installed (apt-get install softhsm2)");
        return ExitCode::SUCCESS;
    };
    let control = std::env::temp_dir().join(format!("faulty-token-{}.sock", std::process::id()));
    CONTROL.set(control.clone()).unwrap();
    let code = common::main(
        &[
            ("FAULTY_TOKEN_MODULE", softhsm),
            ("FAULTY_TOKEN_CONTROL", control.clone()),
        ],
        vec![
            test(
                "a_hanging_call_costs_its_lane_and_its_request_goes_on_elsewhere",
                a_hanging_call,
            ),
            test(
                "a_signed_answer_never_waits_for_a_call_that_hangs",
                a_signed_answer_never_waits,
            ),
            test(
                "more_lost_lanes_than_allowed_take_the_token_out_until_they_return",
                too_many_hang,
            ),
            test(
                "a_lost_secure_channel_is_cured_by_reinitialising_the_module",
                a_lost_secure_channel,
            ),
            test(
                "a_token_with_fewer_sessions_says_so_in_its_cap",
                a_token_with_fewer_sessions,
            ),
            test(
                "a_reaped_channel_is_met_by_the_heartbeat_before_a_request_is",
                a_reaped_channel,
            ),
            test("a_session_that_stays_active_is_discarded", a_session_that_stays_active),
            test("a_restarted_hsm_is_logged_in_to_again", a_restarted_hsm),
            test("a_lost_login_is_renewed_while_requests_wait", a_lost_login),
            test(
                "while_the_hsm_is_down_requests_are_refused_at_once",
                while_the_hsm_is_down,
            ),
            test("closed_sessions_never_log_the_token_out", closed_sessions_never_log_out),
            test(
                "a_pin_is_never_tried_at_its_last_try",
                a_pin_is_never_tried_at_its_last_try,
            ),
            test("a_flipped_bit_is_never_released_and_costs_no_request", a_flipped_bit),
            test("a_twin_that_lies_always_loses_its_place_and_costs_no_request", || {
                a_twin_that_lies("always")
            }),
            test(
                "a_twin_that_lies_every_seventh_time_loses_its_place_and_costs_no_request",
                || a_twin_that_lies("/7"),
            ),
            test(
                "a_twin_that_lies_every_fiftieth_time_loses_its_place_and_costs_no_request",
                || a_twin_that_lies("/50"),
            ),
            test(
                "the_only_token_serves_where_it_lies_rarely",
                the_only_token_serves_where_it_lies_rarely,
            ),
            test(
                "the_only_token_is_out_while_it_lies_always_and_back_when_it_tells_the_truth",
                the_only_token_lies_always,
            ),
            test(
                "a_token_that_lies_to_its_heartbeat_loses_its_place_before_a_request_comes",
                a_token_that_lies_to_its_heartbeat,
            ),
            test(
                "a_key_that_is_not_its_public_keys_own_costs_no_other_key_its_token",
                a_key_that_is_not_its_own,
            ),
            test(
                "a_session_that_is_being_opened_is_never_abandoned_by_a_request",
                a_session_that_is_being_opened,
            ),
            test(
                "whose_a_key_is_is_found_out_though_its_first_signatures_go_wrong",
                whose_a_key_is,
            ),
            test("a_key_is_never_looked_up_for_a_signature", a_key_is_never_looked_up),
            test("a_removed_token_fails_over_and_gets_its_share_back", a_removed_token),
            test(
                "a_token_that_is_back_is_in_service_at_once_however_long_it_was_away",
                back_at_once,
            ),
            test(
                "what_a_token_holds_that_was_away_at_the_start_is_told",
                away_at_the_start,
            ),
            test(
                "an_operators_word_reaches_a_pool_that_runs_and_is_good_for_one_login",
                an_operators_word,
            ),
            test("random_failures_lose_nothing", random_failures),
            test("a_slow_hsm_is_kept_busy_by_as_many_sessions_as_engines", a_slow_hsm),
            // The last one: the module is known for it from then on.
            test(
                "a_module_without_read_only_sessions_gets_read_write_ones",
                no_read_only_sessions,
            ),
        ],
    );
    let _ = std::fs::remove_file(control);
    code
}

static CONTROL: OnceLock<PathBuf> = OnceLock::new();

fn command(line: &str) -> String {
    muhurdar_faulty_token::send(CONTROL.get().unwrap(), line).unwrap()
}

fn module() -> PathBuf {
    // Beside the test binary: the module is a dependency of these tests.
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    deps.join("libmuhurdar_faulty_token.so")
}

/// Tokens behind the faulty module, which misbehave by label, with budgets that suit a test.
fn faulty(label: &str) -> TokenConfig {
    let mut config = common::token(label, &[]);
    common::log_in(&config)
        .import_private_key(common::shared_key(), "seal", &[1])
        .unwrap();
    config.module = module();
    config.call_budget = Duration::from_millis(300);
    config.backoff_min = Duration::from_millis(20);
    config.backoff_max = Duration::from_millis(200);
    config.sessions = 4;
    config
}

async fn open(tokens: Vec<TokenConfig>) -> (Arc<Pool>, Key) {
    let pool = Pool::open(Config::new(tokens)).await.unwrap();
    command("clear");
    let key = pool.keys().into_iter().find(|key| key.label == "seal").unwrap();
    (Arc::new(pool), key)
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Waits until `done`, or says what was waited for.
async fn until(pool: &Pool, what: &str, done: impl Fn(&Pool) -> bool) -> Duration {
    let begun = Instant::now();
    while !done(pool) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what}: {:#?}",
            pool.status()
        );
        pause(2).await;
    }
    begun.elapsed()
}

fn report(row: &str, tally: &Tally, recovered: Duration) {
    println!(
        "\n    {row}: {} asked at {:.0}/s, {} refused, {} lost, {} wrong, longest gap {:?}, back after {recovered:?}",
        tally.asked,
        tally.rate(),
        tally.refused,
        tally.lost(),
        tally.wrong,
        tally.longest_gap_after(Duration::from_millis(100)),
    );
    assert_eq!((tally.lost(), tally.wrong), (0, 0), "{row}");
}

fn stat(name: &str) -> u64 {
    command("stat")
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .unwrap_or(0)
}

async fn a_hanging_call() {
    let (pool, key) = open(vec![faulty("hang")]).await;
    let load = Load::start(&pool, &key, 16);
    pause(200).await;
    command("rule C_Sign 1 hang");
    let noticed = until(&pool, "the lane is lost", |pool| {
        pool.status().tokens[0].lanes.lost == 1
    })
    .await;
    pause(200).await;
    let status = &pool.status().tokens[0];
    assert_eq!((&status.state, status.given_up, status.late), (&SlotState::Ready, 1, 0));
    command("release");
    until(&pool, "the lost call is back", |pool| pool.status().tokens[0].late == 1).await;
    pause(100).await;
    let tally = load.stop().await;
    report("hang", &tally, noticed);
    assert_eq!(
        tally.refused, 0,
        "the request of the lost lane is made again: {:?}",
        tally.refusals
    );
    assert!(
        noticed >= Duration::from_millis(290) && noticed < Duration::from_secs(3),
        "{noticed:?}"
    );
    assert_eq!(pool.status().tokens[0].lanes.lost, 0);
    close(pool).await;
}

async fn a_signed_answer_never_waits() {
    let mut config = faulty("batch");
    config.sessions = 1;
    config.call_budget = Duration::from_secs(20);
    let (pool, key) = open(vec![config]).await;
    let sign = |times: u8| {
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..times {
            let (pool, id, hash) = (Arc::clone(&pool), key.id, key.kind.default_hash());
            tasks.spawn(async move { pool.sign(id, SignInput::message(hash, vec![at]), None).await.map(drop) });
        }
        tasks
    };
    // The lane learns how quick the token is: only then does it take several jobs at once.
    for done in sign(40).join_all().await {
        done.unwrap();
    }
    let before = pool.status().signatures;
    // Within the second or third batch, whatever the first was.
    command("rule C_Sign @8 hang");
    let mut tasks = sign(16);
    for _ in 0..7 {
        let answered = tokio::time::timeout(Duration::from_secs(5), tasks.join_next()).await;
        answered
            .expect("it is signed, and the eighth hangs")
            .unwrap()
            .unwrap()
            .unwrap();
    }
    assert_eq!(pool.status().signatures - before, 7);
    command("release");
    for done in tasks.join_all().await {
        done.unwrap();
    }
    close(pool).await;
}

async fn too_many_hang() {
    let mut config = faulty("drown");
    config.max_lost = 2;
    let (pool, key) = open(vec![config]).await;
    let load = Load::start(&pool, &key, 16);
    pause(100).await;
    command("rule C_Sign always hang");
    until(&pool, "the token leaves service", |pool| !pool.status().is_ready()).await;
    let asked = Instant::now();
    let refused = pool
        .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
        .await
        .unwrap_err();
    assert!(matches!(refused, SignError::Unavailable { .. }), "{refused}");
    println!("\n    refused within {:?}: {refused}", asked.elapsed());
    command("clear");
    let back = until(&pool, "the token is back", |pool| pool.status().is_ready()).await;
    pause(200).await;
    let tally = load.stop().await;
    report("too many hang", &tally, back);
    close(pool).await;
}

async fn a_lost_secure_channel() {
    let (pool, key) = open(vec![faulty("channel")]).await;
    let ended = stat("C_Finalize");
    let load = Load::start(&pool, &key, 16);
    pause(200).await;
    let begun = Instant::now();
    command("channel 0x80000384");
    until(&pool, "the module is reinitialised", |pool| {
        pool.status().tokens[0].reinitialisations > 0
    })
    .await;
    until(&pool, "the token is back", |pool| pool.status().is_ready()).await;
    let back = begun.elapsed();
    pause(200).await;
    let tally = load.stop().await;
    report("lost channel", &tally, back);
    assert!(back < Duration::from_secs(3), "{back:?}");
    let reinitialised = pool.status().tokens[0].reinitialisations;
    assert_eq!(
        stat("C_Finalize") - ended,
        reinitialised,
        "nothing else ends the module"
    );
    close(pool).await;
}

async fn a_token_with_fewer_sessions() {
    let mut config = faulty("capped");
    config.sessions = 16;
    let first = faulty("starter");
    let (pool, _) = open(vec![first]).await;
    command("cap 5");
    let told = Pool::open(Config::new(vec![config.clone()])).await.unwrap();
    let cap = told.status().tokens[0].cap.clone();
    println!("\n    told: {cap:?}");
    assert_eq!(cap.sessions, 4, "five, of which one keeps the login");
    assert!(cap.reason.contains("allows 5"));
    told.close().await;
    command("cap 5 silent");
    let found = Pool::open(Config::new(vec![config])).await.unwrap();
    let cap = found.status().tokens[0].cap.clone();
    println!("    found: {cap:?}");
    assert_eq!(cap.sessions, 4);
    assert!(cap.reason.contains("CKR_SESSION_COUNT"));
    found.close().await;
    command("clear");
    close(pool).await;
}

async fn no_read_only_sessions() {
    let first = faulty("writes-starter");
    let (starter, _) = open(vec![first]).await;
    command("no-read-only on");
    let pool = Pool::open(Config::new(vec![faulty("writes")])).await.unwrap();
    let key = pool.keys()[0].clone();
    let signed = pool
        .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
        .await;
    assert!(signed.is_ok(), "{signed:?}");
    pool.close().await;
    command("clear");
    close(starter).await;
}

async fn a_reaped_channel() {
    let mut config = faulty("reaped");
    config.heartbeat = Duration::from_millis(100);
    let (pool, key) = open(vec![config]).await;
    command("kill-sessions");
    let heartbeats = pool.status().tokens[0].heartbeats;
    until(&pool, "a heartbeat met the dead sessions", |pool| {
        let token = &pool.status().tokens[0];
        token.heartbeats > heartbeats && token.failures > 0 && token.is_ready()
    })
    .await;
    let signed = pool
        .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
        .await;
    assert!(signed.is_ok(), "{signed:?}");
    close(pool).await;
}

async fn a_session_that_stays_active() {
    let (pool, key) = open(vec![faulty("stuck")]).await;
    let load = Load::start(&pool, &key, 16);
    pause(100).await;
    // CKR_FUNCTION_FAILED, and CKR_OPERATION_ACTIVE on that session from then on. One after another: a request is tried again
    // once, and two at a time might meet the same one.
    for failed in 1..=3 {
        command("rule C_Sign 1 stick 0x6");
        until(&pool, "a session failed", |pool| {
            pool.status().tokens[0].failures >= failed
        })
        .await;
    }
    pause(200).await;
    let tally = load.stop().await;
    report("stuck sessions", &tally, Duration::ZERO);
    assert_eq!(tally.refused, 0, "{:?}", tally.refusals);
    let token = &pool.status().tokens[0];
    assert_eq!(token.failures, 3, "each failed once and was never used again");
    assert_eq!(
        token.failures_by.iter().collect::<Vec<_>>(),
        [(&"CKR_FUNCTION_FAILED", &3)]
    );
    close(pool).await;
}

async fn a_restarted_hsm() {
    let (pool, key) = open(vec![faulty("restart")]).await;
    let load = Load::start(&pool, &key, 16);
    pause(200).await;
    let at = load.elapsed();
    command("restart");
    pause(100).await;
    let back = until(&pool, "the token is back", |pool| pool.status().is_ready()).await;
    pause(300).await;
    let tally = load.stop().await;
    report("restart", &tally, back);
    let gap = tally.longest_gap_after(at);
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    assert!(tally.refused < 50, "{} {:?}", tally.refused, tally.refusals.first());
    close(pool).await;
}

async fn a_lost_login() {
    let (pool, key) = open(vec![faulty("login")]).await;
    let logins = stat("C_Login");
    let load = Load::start(&pool, &key, 16);
    pause(200).await;
    let at = load.elapsed();
    command("forget-login");
    pause(500).await;
    let tally = load.stop().await;
    report("lost login", &tally, tally.longest_gap_after(at));
    assert_eq!(tally.refused, 0, "requests wait for the login: {:?}", tally.refusals);
    assert_eq!(stat("C_Login") - logins, 1, "one login, whoever noticed");
    close(pool).await;
}

async fn while_the_hsm_is_down() {
    let (pool, key) = open(vec![faulty("down")]).await;
    let load = Load::start(&pool, &key, 16);
    pause(100).await;
    command("remove down");
    until(&pool, "the circuit opens", |pool| !pool.status().is_ready()).await;
    let signs = stat("C_SignInit");
    pause(300).await;
    let hammered = stat("C_SignInit") - signs;
    let asked = Instant::now();
    let refused = pool
        .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
        .await
        .unwrap_err();
    println!("\n    refused after {:?}: {refused}", asked.elapsed());
    command("return down");
    let back = until(&pool, "the probe finds it back", |pool| pool.status().is_ready()).await;
    pause(200).await;
    let tally = load.stop().await;
    report("down", &tally, back);
    assert!(hammered == 0, "{hammered} requests reached a token that is away");
    assert!(tally.refused > 0);
    assert!(back < Duration::from_secs(2), "{back:?}");
    close(pool).await;
}

async fn closed_sessions_never_log_out() {
    let (pool, key) = open(vec![faulty("keeper")]).await;
    let logins = stat("C_Login");
    // Every lane dies, again and again: only the keeper session holds the login.
    for _ in 0..5 {
        command("rule C_Sign 4 answer 0x6");
        let load = Load::start(&pool, &key, 8);
        pause(60).await;
        let tally = load.stop().await;
        assert_eq!((tally.lost(), tally.wrong), (0, 0));
    }
    assert_eq!(stat("C_Login"), logins);
    close(pool).await;
}

async fn a_pin_is_never_tried_at_its_last_try() {
    let good = faulty("pin");
    let (pool, _) = open(vec![faulty("pin-starter")]).await;
    command("pins 3");
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::new(vec![good]);
    config.tokens[0].pin = Pin::value("771133");
    config.state_dir = Some(state.path().to_owned());
    // A wrong PIN, and no patience: a restart, another, and one more.
    let tries = stat("C_Login");
    for _ in 0..4 {
        assert!(Pool::open(config.clone()).await.is_err());
    }
    assert_eq!(stat("C_Login") - tries, 1, "tried once");
    // An operator who unlatches and is wrong again gets as far as the last try, and there the token's own flag stops every pool, also one
    // that knows of no latch.
    assert!(muhurdar_pool::unlatch(state.path(), "pin").unwrap());
    assert!(Pool::open(config.clone()).await.is_err());
    assert_eq!(stat("C_Login") - tries, 2, "one for each word of the operator");
    let elsewhere = tempfile::tempdir().unwrap();
    config.state_dir = Some(elsewhere.path().to_owned());
    let tries = stat("C_Login");
    for _ in 0..4 {
        let refused = Pool::open(config.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("CKF_USER_PIN_FINAL_TRY"), "{refused}");
    }
    assert_eq!(stat("C_Login"), tries);
    // The right PIN and the operator's word.
    config.tokens[0].pin = Pin::value(common::PIN);
    assert!(muhurdar_pool::unlatch(elsewhere.path(), "pin").unwrap());
    Pool::open(config).await.unwrap().close().await;
    command("clear");
    close(pool).await;
}

async fn a_flipped_bit() {
    let (pool, key) = open(vec![faulty("flip")]).await;
    let load = Load::start(&pool, &key, 16);
    pause(100).await;
    // Ten bad moments, with right signatures between them.
    for n in 1..=10 {
        command("rule C_Sign @20 flip");
        until(&pool, "it is caught", |pool| pool.status().tokens[0].wrong == n).await;
    }
    let tally = load.stop().await;
    report("flipped bits", &tally, Duration::ZERO);
    assert_eq!(tally.refused, 0, "each is made again: {:?}", tally.refusals);
    let token = &pool.status().tokens[0];
    assert_eq!(
        token.signatures,
        tally.signed + token.heartbeats,
        "a wrong one is not counted as a signature"
    );
    assert_eq!(token.failures, 0, "{:?}", token.failures_by);
    close(pool).await;
}

/// Its name, and how it stands.
fn places(pool: &Pool) -> Vec<(bool, bool)> {
    let status = pool.status();
    status.tokens.iter().map(|t| (t.is_ready(), t.distrusted)).collect()
}

async fn a_twin_that_lies(pattern: &str) {
    let liar = format!("liar{}", pattern.replace('/', "-"));
    let (pool, key) = open(vec![faulty(&format!("honest-{liar}")), faulty(&liar)]).await;
    let load = Load::start(&pool, &key, 16);
    pause(100).await;
    command(&format!("rule C_Sign {pattern} flip {liar}"));
    let left = until(&pool, "the liar leaves", |pool| places(pool)[1] == (false, true)).await;
    assert_eq!(
        places(&pool)[0],
        (true, false),
        "its twin serves on, though they share a module"
    );
    let wrong = pool.status().tokens[1].wrong;
    // In the end it stays out: its proofs are wrong, or it is let back and lies again.
    let proofs = |pool: &Pool| pool.status().tokens[1].recoveries[Recovery::Slot as usize];
    until(&pool, "it is tried again", |pool| proofs(pool) >= 3).await;
    command("clear");
    until(&pool, "the liar is back", |pool| places(pool)[1] == (true, false)).await;
    let before = pool.status().tokens[1].signatures;
    until(&pool, "and signs", |pool| {
        pool.status().tokens[1].signatures > before + 20
    })
    .await;
    let tally = load.stop().await;
    report(&format!("a twin that lies {pattern}"), &tally, left);
    assert_eq!(tally.refused, 0, "{:?}", tally.refusals);
    let status = &pool.status();
    println!("    {wrong} wrong until it left, {} in all", status.tokens[1].wrong);
    // Three, and what its lanes had begun meanwhile.
    assert!((3..60).contains(&wrong), "{wrong}");
    assert_eq!((status.tokens[0].wrong, status.tokens[0].reinitialisations), (0, 0));
    assert_eq!(status.signatures, tally.signed, "each that was right, and no other");
    close(pool).await;
}

async fn the_only_token_serves_where_it_lies_rarely() {
    let (pool, key) = open(vec![faulty("rarely")]).await;
    let load = Load::start(&pool, &key, 8);
    command("rule C_Sign /50 flip");
    until(&pool, "it lies again and again", |pool| {
        pool.status().tokens[0].wrong >= 6
    })
    .await;
    let tally = load.stop().await;
    report("an only token that lies rarely", &tally, Duration::ZERO);
    assert_eq!(tally.refused, 0, "{:?}", tally.refusals);
    let token = &pool.status().tokens[0];
    assert_eq!(token.recoveries, [0, 1, 0], "it was opened once, at the beginning");
    command("clear");
    close(pool).await;
}

async fn the_only_token_lies_always() {
    let (pool, key) = open(vec![faulty("always")]).await;
    let sign = || pool.sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None);
    command("rule C_Sign always flip");
    let refused = sign().await.unwrap_err();
    println!("\n    {refused}");
    until(&pool, "its circuit opens", |pool| {
        matches!(pool.status().tokens[0].state, SlotState::Open { .. })
    })
    .await;
    let token = &pool.status().tokens[0];
    assert!(token.distrusted && !pool.status().is_ready());
    assert!(token.reinitialisations > 0, "its module was started anew");
    assert_eq!(token.signatures, 0);
    let refused = sign().await.unwrap_err();
    assert!(matches!(refused, SignError::Unavailable { .. }), "{refused}");
    assert!(refused.to_string().contains("did not verify"), "{refused}");
    command("clear");
    until(&pool, "it is back", |pool| places(pool) == [(true, false)]).await;
    sign().await.unwrap();
    close(pool).await;
}

async fn a_token_that_lies_to_its_heartbeat() {
    let mut config = faulty("idle");
    config.heartbeat = Duration::from_millis(100);
    let (pool, _) = open(vec![config]).await;
    command("rule C_Sign always flip");
    until(&pool, "it is found out", |pool| places(pool) == [(false, true)]).await;
    assert_eq!(
        pool.status().tokens[0].signatures,
        0,
        "nobody asked, and no heartbeat was right"
    );
    command("clear");
    until(&pool, "it is back", |pool| places(pool) == [(true, false)]).await;
    close(pool).await;
}

/// A private key whose exponent is not that of the public key that it says it has.
fn odd_key() -> Vec<u8> {
    let der = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&der).unwrap();
    let info = pkcs8::PrivateKeyInfo::try_from(der.as_ref()).unwrap();
    let mut key = pkcs1::RsaPrivateKey::try_from(info.private_key).unwrap();
    let odd = |number: pkcs1::UintRef<'_>| {
        let mut bytes = number.as_bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 2;
        bytes
    };
    let (whole, first, second) = (odd(key.private_exponent), odd(key.exponent1), odd(key.exponent2));
    key.private_exponent = pkcs1::UintRef::new(&whole).unwrap();
    key.exponent1 = pkcs1::UintRef::new(&first).unwrap();
    key.exponent2 = pkcs1::UintRef::new(&second).unwrap();
    let key = pkcs8::der::Encode::to_der(&key).unwrap();
    let info = pkcs8::PrivateKeyInfo::new(info.algorithm, &key);
    pkcs8::der::Encode::to_der(&info).unwrap()
}

async fn a_key_that_is_not_its_own() {
    let config = faulty("odd");
    common::log_in(&config)
        .import_private_key(&odd_key(), "odd", &[2])
        .unwrap();
    let (pool, key) = open(vec![config]).await;
    let odd = pool.keys().into_iter().find(|key| key.label == "odd").unwrap();
    let load = Load::start(&pool, &key, 8);
    let begun = Instant::now();
    let refused = loop {
        let input = SignInput::message(odd.kind.default_hash(), *b"x");
        let refused = pool.sign(odd.id, input, None).await.unwrap_err().to_string();
        if refused.contains("on no token any more") {
            break refused;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{refused}");
    };
    println!("\n    {refused}");
    until(&pool, "the token is back", |pool| places(pool) == [(true, false)]).await;
    let signed = pool.status().signatures;
    until(&pool, "the other goes on", |pool| {
        pool.status().signatures > signed + 20
    })
    .await;
    let tally = load.stop().await;
    report("an odd key beside another", &tally, Duration::ZERO);
    assert_eq!(tally.refused, 0, "{:?}", tally.refusals);
    close(pool).await;
}

/// Finding the keys anew ends the lanes of before, while requests come: each is opened again, once, by whoever waits for it.
async fn a_session_that_is_being_opened() {
    let (pool, key) = open(vec![faulty("opening")]).await;
    let load = Load::start(&pool, &key, 8);
    for _ in 0..40 {
        pool.rediscover("opening").await.unwrap();
        pause(5).await;
    }
    let tally = load.stop().await;
    report("keys found anew", &tally, Duration::ZERO);
    assert_eq!(tally.refused, 0, "{:?}", tally.refusals);
    until(&pool, "as many lanes as before", |pool| {
        let token = &pool.status().tokens[0];
        (token.lanes.idle, token.lanes.busy, token.lanes.lost) == (4, 0, 0)
    })
    .await;
    let token = &pool.status().tokens[0];
    assert_eq!((token.given_up, token.late), (0, 0), "nothing hung");
    close(pool).await;
}

async fn whose_a_key_is() {
    let config = faulty("whose");
    common::namesakes(&config, 2);
    // Of the two, one gives a wrong signature and one none.
    for wrong in ["flip", "answer 0x6"] {
        command(&format!("rule C_Sign 1 {wrong}"));
        let pool = Pool::open(Config::new(vec![config.clone()])).await.unwrap();
        assert_eq!(pool.keys().len(), 3, "{wrong}");
        pool.close().await;
        command("clear");
    }
}

async fn a_key_is_never_looked_up() {
    let (pool, key) = open(vec![faulty("lookup")]).await;
    let finds = stat("C_FindObjectsInit");
    let load = Load::start(&pool, &key, 8);
    pause(200).await;
    let tally = load.stop().await;
    assert!(tally.signed > 20);
    assert_eq!(stat("C_FindObjectsInit"), finds);
    close(pool).await;
}

async fn a_removed_token() {
    let (pool, key) = open(vec![faulty("east"), faulty("west")]).await;
    let load = Load::start(&pool, &key, 16);
    pause(300).await;
    let at = load.elapsed();
    command("remove east");
    pause(500).await;
    let gap = {
        let status = pool.status();
        assert!(!status.tokens[0].is_ready() && status.tokens[1].is_ready());
        status.tokens[1].signatures
    };
    command("return east");
    let back = until(&pool, "east is back", |pool| pool.status().tokens[0].is_ready()).await;
    let before = pool.status();
    pause(500).await;
    let after = pool.status();
    let tally = load.stop().await;
    report("failover", &tally, back);
    assert!(gap > 0);
    assert_eq!(tally.refused, 0, "the other token takes it all: {:?}", tally.refusals);
    let longest = tally.longest_gap_after(at);
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let share = |token: usize| after.tokens[token].signatures - before.tokens[token].signatures;
    println!("    share after the return: east {}, west {}", share(0), share(1));
    assert!(share(0) * 4 > share(1), "rebalanced");
    close(pool).await;
}

async fn back_at_once() {
    let mut config = faulty("patient");
    // What grows has grown: nothing more than a look is due while this test runs.
    config.backoff_min = Duration::from_secs(600);
    config.backoff_max = Duration::from_secs(600);
    let (pool, _) = open(vec![config]).await;
    command("remove patient");
    let load = Load::start(&pool, &pool.keys()[0], 1);
    until(&pool, "the circuit opens", |pool| {
        matches!(pool.status().tokens[0].state, SlotState::Open { attempts: 1, .. })
    })
    .await;
    let before = (stat("C_Login"), stat("C_GetSlotList"));
    until(&pool, "it is looked for", |_| stat("C_GetSlotList") >= before.1 + 4).await;
    assert_eq!(stat("C_Login"), before.0, "a look costs no login");
    let recoveries = pool.status().tokens[0].recoveries;
    command("return patient");
    let back = until(&pool, "it is back", |pool| pool.status().is_ready()).await;
    assert_eq!(stat("C_Login"), before.0 + 1);
    assert_eq!(
        pool.status().tokens[0].recoveries.iter().sum::<u64>(),
        recoveries.iter().sum::<u64>() + 1,
        "looks are no attempts"
    );
    let tally = load.stop().await;
    report("away for long", &tally, back);
    close(pool).await;
}

async fn away_at_the_start() {
    let mut west = common::token("west-late", &[Generate::Ec(Curve::P256)]);
    west.module = module();
    west.backoff_min = Duration::from_millis(20);
    let east = faulty("east-early");
    // The module listens to commands once it is loaded.
    drop(Module::open(&module(), InitArgs::OsLocking).unwrap());
    command("remove west-late");
    let pool = Pool::open(Config::new(vec![east, west])).await.unwrap();
    let mut found = pool.discoveries();
    let holds = |pool: &Pool| pool.keys().iter().any(|key| key.label == "west-late 0");
    assert!(!holds(&pool));
    match pool.unread() {
        Some(SignError::Unavailable { reason, retry_after }) => {
            assert!(reason.contains("west-late") && !reason.contains("east"), "{reason}");
            assert!(retry_after.is_some(), "it may come at any time");
        }
        other => panic!("nobody could look into west: {other:?}"),
    }
    command("return west-late");
    tokio::time::timeout(Duration::from_secs(20), found.changed())
        .await
        .expect("it is told")
        .unwrap();
    assert!(holds(&pool));
    assert!(pool.unread().is_none());
    // Read again, it holds what it held: no news.
    until(&pool, "west is in service", |pool| pool.status().tokens[1].is_ready()).await;
    pool.rediscover_all().await;
    assert!(!found.has_changed().unwrap());
    pool.close().await;
}

async fn an_operators_word() {
    let (state, pins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pin = pins.path().join("pin");
    std::fs::write(&pin, "771133").unwrap();
    let mut wrong = faulty("wrong-pin");
    wrong.pin = Pin::file(&pin);
    let mut config = Config::new(vec![faulty("right-pin"), wrong]);
    config.state_dir = Some(state.path().to_owned());
    let pool = Pool::open(config).await.unwrap();
    let is_latched = |pool: &Pool| matches!(pool.status().tokens[1].state, SlotState::Latched { .. });
    assert!(is_latched(&pool));
    let tries = stat("C_Login");
    muhurdar_pool::unlatch(state.path(), "wrong-pin").unwrap();
    until(&pool, "the word is heard", |_| stat("C_Login") > tries).await;
    until(&pool, "it is wrong as before", is_latched).await;
    pause(2500).await;
    assert_eq!(stat("C_Login"), tries + 1, "one word, one login");
    std::fs::write(&pin, common::PIN).unwrap();
    muhurdar_pool::unlatch(state.path(), "wrong-pin").unwrap();
    until(&pool, "the PIN is right", |pool| pool.status().tokens[1].is_ready()).await;
    assert_eq!(stat("C_Login"), tries + 2);
    pool.close().await;
}

async fn random_failures() {
    let (pool, key) = open(vec![faulty("chaos-a"), faulty("chaos-b")]).await;
    let load = Load::start(&pool, &key, 16);
    for rule in [
        "C_Sign 0.01 answer 0x5",
        "C_SignInit 0.01 answer 0xb3",
        "C_Sign 0.005 flip",
        "C_OpenSession 0.05 answer 0x6",
    ] {
        command(&format!("rule {rule}"));
    }
    pause(1500).await;
    command("clear");
    pause(300).await;
    let tally = load.stop().await;
    report("random failures", &tally, Duration::ZERO);
    assert!(
        tally.refused * 20 < tally.asked,
        "{} of {}: {:?}",
        tally.refused,
        tally.asked,
        tally.refusals.first()
    );
    assert!(
        pool.status().tokens.iter().all(muhurdar_pool::TokenStatus::is_ready),
        "{:#?}",
        pool.status()
    );
    close(pool).await;
}

async fn a_slow_hsm() {
    let mut config = faulty("network");
    config.sessions = 32;
    config.call_budget = Duration::from_secs(5);
    let pool = Arc::new(Pool::open(Config::new(vec![config])).await.unwrap());
    command("clear");
    for line in ["canned on", "engines 32", "latency 3000"] {
        command(line);
    }
    let key = pool.keys()[0].clone();
    let (clients, seconds) = (64, 2);
    let before = pool.status().signatures;
    let until = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (pool, key) = (Arc::clone(&pool), key.clone());
            tokio::spawn(async move {
                let input = SignInput::message(key.kind.default_hash(), *b"x");
                // A canned signature is right for one message only.
                let take = |_: &Signed| Some(());
                while Instant::now() < until {
                    pool.sign_checked(key.id, input.clone(), None, 0, take).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let made = pool.status().signatures - before;
    let (batch, why) = pool.status().tokens[0].batch;
    println!(
        "\n    32 engines of 3 ms: {}/s of 10666/s; batch {batch}: {why}",
        made / seconds
    );
    assert_eq!(batch, 1, "{why}");
    command("clear");
    close(pool).await;
}
