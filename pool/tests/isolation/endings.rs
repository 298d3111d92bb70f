//! Small processes that end in every way there is, with a module inside that aborts where somebody is in it, or ends a thread that was, while
//! its destructors run.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use muhurdar_pool::admin::{Generate, Module, find_softhsm2};
use muhurdar_pool::{Config, InitArgs, Pin, Pool, Select, SignInput, TokenConfig, exit};

use crate::common;

const WAY: &str = "MUHURDAR_TEST_ENDING";

/// Ways to end, and the exit codes.
const WAYS: [(&str, i32); 8] = [
    ("closes its pool", 0),
    ("drops its pool", 0),
    ("forgets its pool", 0),
    ("is busy", 0),
    ("panics", 70),
    ("gives up while it opens", 0),
    ("is told to end now", 130),
    ("ends now beside an administrator", 130),
];

/// How often each is tried. The trap makes a single one enough; more are for a look from time to time.
fn ends() -> usize {
    std::env::var("MUHURDAR_ENDS").map_or(2, |ends| ends.parse().unwrap())
}

pub(crate) fn every_end_leaves_the_module_first() {
    let label = "ending";
    common::token(label, &[Generate::Rsa(2048)]);
    for (way, code) in WAYS {
        for _ in 0..ends() {
            let output = Command::new(std::env::current_exe().unwrap())
                .env(WAY, way)
                .env("FAULTY_TOKEN_MODULE", find_softhsm2().unwrap())
                .env("FAULTY_TOKEN_START", "trap 20;slow * 2")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{way}: {} {said}", output.status);
            assert!(!said.contains("TRAPPED"), "{way}: {said}");
            // What was said before the end has come, although it was no whole line.
            let told = !way.contains("now") && way != "panics";
            assert!(!told || output.stdout.ends_with(b"the end"), "{way}: {output:?}");
        }
    }
}

/// The small process, where this is one.
pub(crate) fn is_one() {
    let Ok(way) = std::env::var(WAY) else { return };
    exit::run(|| {
        let config = TokenConfig::new(
            "ending",
            std::env::current_exe()
                .unwrap()
                .with_file_name("libmuhurdar_faulty_token.so"),
            Select::Label("ending".into()),
            Pin::value(common::PIN),
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(end(&way, config));
        print!("the end");
        runtime.shutdown_background();
        outcome
    })
}

async fn end(way: &str, config: TokenConfig) -> u8 {
    if way == "gives up while it opens" {
        let opening = Pool::open(Config::new(vec![config]));
        assert!(tokio::time::timeout(Duration::from_millis(30), opening).await.is_err());
        return 0;
    }
    let pool = Arc::new(Pool::open(Config::new(vec![config.clone()])).await.unwrap());
    let key = pool.keys()[0].clone();
    let sign = move |pool: Arc<Pool>| {
        let input = SignInput::message(key.kind.default_hash(), *b"the last one");
        async move { pool.sign(key.id, input, None).await }
    };
    sign(Arc::clone(&pool)).await.unwrap();
    match way {
        "closes its pool" => common::close(pool).await,
        "drops its pool" => drop(pool),
        "forgets its pool" => std::mem::forget(pool),
        "panics" => panic!("as somebody must"),
        "is busy" | "is told to end now" => {
            for _ in 0..4 {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { while sign(Arc::clone(&pool)).await.is_ok() {} });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            if way == "is told to end now" {
                std::thread::spawn(|| exit::now(130)).join().unwrap();
            }
        }
        "ends now beside an administrator" => {
            common::close(pool).await;
            std::thread::spawn(move || {
                loop {
                    let module = Module::open(&config.module, InitArgs::OsLocking).unwrap();
                    // Nothing that SoftHSM2 writes to its files: a write that is cut off would lose the token.
                    drop(module.slots());
                }
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            exit::now(130)
        }
        other => panic!("{other}: no such way"),
    }
    0
}
