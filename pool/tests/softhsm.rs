//! The pool on SoftHSM2: what it signs, others verify.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Load, blocking, close, id, log_in, open, test, token, verify_with_openssl};
use muhurdar_pool::admin::{Generate, ObjectKind};
use muhurdar_pool::{
    Config, Curve, Hash, Latches, OpenError, Pin, Pool, RsaMechanism, Select, SignError, SignInput, SlotState,
};

fn main() -> ExitCode {
    common::main(
        &[],
        vec![
            test(
                "every_kind_of_key_signs_and_openssl_agrees",
                every_kind_of_key_signs_and_openssl_agrees,
            ),
            test(
                "a_token_that_hashes_for_itself_is_given_the_message",
                a_token_that_hashes_for_itself,
            ),
            blocking(
                "a_generated_key_never_leaves_its_token",
                a_generated_key_never_leaves_its_token,
            ),
            test(
                "an_imported_key_and_its_certificate_are_found_together",
                an_imported_key_and_its_certificate,
            ),
            test("a_wrong_pin_is_tried_once", a_wrong_pin_is_tried_once),
            test(
                "the_same_key_on_two_tokens_is_one_key",
                the_same_key_on_two_tokens_is_one_key,
            ),
            test(
                "a_deadline_that_has_passed_is_refused",
                a_deadline_that_has_passed_is_refused,
            ),
            test("a_full_queue_refuses", a_full_queue_refuses),
            test(
                "a_new_key_is_found_while_the_pool_signs",
                a_new_key_is_found_while_the_pool_signs,
            ),
            test(
                "an_idle_slot_is_kept_alive_by_a_real_signature",
                an_idle_slot_is_kept_alive,
            ),
            test(
                "the_watchdog_tells_when_it_has_looked_last",
                the_watchdog_tells_when_it_has_looked_last,
            ),
            test(
                "selecting_what_is_not_there_says_what_is",
                selecting_what_is_not_there_says_what_is,
            ),
            blocking(
                "a_qualified_token_is_fit_and_an_extractable_key_is_named",
                a_qualified_token_is_fit,
            ),
            test(
                "a_key_that_wants_its_pin_for_every_signature_is_refused_in_words",
                a_key_that_wants_its_pin_every_time,
            ),
            test("keys_with_one_id_are_told_apart_by_public_key", keys_with_one_id),
            test(
                "an_odd_object_costs_itself_and_no_other_and_is_named",
                an_odd_object_costs_itself,
            ),
            test(
                "the_pool_keeps_up_with_the_raw_rate",
                the_pool_keeps_up_with_the_raw_rate,
            ),
        ],
    )
}

async fn every_kind_of_key_signs_and_openssl_agrees() {
    let kinds = [
        Generate::Rsa(2048),
        Generate::Rsa(3072),
        Generate::Rsa(4096),
        Generate::Ec(Curve::P256),
        Generate::Ec(Curve::P384),
        Generate::Ec(Curve::P521),
    ];
    common::every_kind_signs(token("kinds", &kinds), &kinds).await;
}

async fn a_token_that_hashes_for_itself() {
    let mut config = token("hashes", &[Generate::Rsa(2048)]);
    config.rsa_mechanism = RsaMechanism::ShaPkcs;
    let pool = open(vec![config]).await;
    let key = &pool.keys()[0];
    let signed = pool
        .sign(key.id, SignInput::message(Hash::Sha256, *b"whole"), None)
        .await
        .unwrap();
    verify_with_openssl(key, Hash::Sha256, b"whole", &signed.value);
    let digest_only = SignInput::digest(Hash::Sha256, &[7; 32]).unwrap();
    assert!(
        matches!(pool.sign(key.id, digest_only, None).await, Err(SignError::Unfit(why)) if why.contains("message"))
    );
    pool.close().await;
}

fn a_generated_key_never_leaves_its_token() {
    let config = token("custody", &[Generate::Rsa(2048)]);
    let objects = log_in(&config).objects().unwrap();
    let key = objects
        .iter()
        .find(|object| object.kind == ObjectKind::PrivateKey)
        .unwrap();
    assert_eq!((key.sensitive, key.extractable), (Some(true), Some(false)));
    assert_eq!(
        (key.always_sensitive, key.never_extractable, key.local),
        (Some(true), Some(true), Some(true))
    );
    assert_eq!(key.signs, Some(true));
    let taken = log_in(&config)
        .generate(Generate::Rsa(2048), "again", &id(0))
        .unwrap_err();
    assert!(taken.to_string().contains("is taken"), "{taken}");
}

/// A key and a certificate made by openssl, as a PKCS#12 of a test seal holds them.
fn openssl_key(arguments: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("certificate.der"));
    let run = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(std::process::Command::new("openssl")
        .arg("genpkey")
        .args(arguments)
        .arg("-out")
        .arg(&key));
    run(std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-days",
            "30",
            "-subj",
            "/CN=Deneme A.S./serialNumber=1234567801",
            "-outform",
            "DER",
            "-key",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    let pkcs8 = dir.path().join("key.der");
    run(std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(&pkcs8));
    (std::fs::read(pkcs8).unwrap(), std::fs::read(certificate).unwrap())
}

async fn an_imported_key_and_its_certificate() {
    let config = token("import", &[]);
    let kinds: [&[&str]; 2] = [
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    ];
    let mut certificates = Vec::new();
    for (at, arguments) in kinds.iter().enumerate() {
        let (key, certificate) = openssl_key(arguments);
        let admin = log_in(&config);
        let spki = admin.import_private_key(&key, "1234567801SIGN0", &id(at)).unwrap();
        assert_eq!(admin.public_key("1234567801SIGN0", &id(at)).unwrap(), spki);
        admin
            .import_certificate(&certificate, "1234567801SIGN0", &id(at))
            .unwrap();
        certificates.push(certificate);
    }
    // Another key's certificate with this key's CKA_ID must not be taken for its own.
    let (_, stranger) = openssl_key(kinds[0]);
    log_in(&config)
        .import_certificate(&stranger, "stranger", &id(0))
        .unwrap();

    let pool = open(vec![config]).await;
    let keys = pool.keys();
    assert_eq!(keys.len(), 2);
    for key in keys {
        let at = usize::from(key.cka_id[0]) - 1;
        assert_eq!(key.certificates, [certificates[at].clone()]);
        let signed = pool
            .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
            .await
            .unwrap();
        verify_with_openssl(&key, key.kind.default_hash(), b"x", &signed.value);
    }
    pool.close().await;
}

async fn keys_with_one_id() {
    let config = token("namesakes", &[Generate::Ec(Curve::P384)]);
    // The same CKA_ID and label, the CKA_ID of a key on another curve, and none at all.
    for cka_id in [&[9][..], &[9], &id(0), &[], &[]] {
        common::foreign_key(&config, &common::P256, "namesake", cka_id, true, true);
    }
    let pool = open(vec![config.clone()]).await;
    let keys = pool.keys();
    assert_eq!(keys.len(), 6, "each is found: {keys:?}");
    for key in &keys {
        let input = SignInput::message(key.kind.default_hash(), *b"whose");
        let signed = pool.sign(key.id, input, None).await.unwrap();
        verify_with_openssl(key, key.kind.default_hash(), b"whose", &signed.value);
    }
    let objects = log_in(&config).objects().unwrap();
    let private = objects.iter().filter(|object| object.kind == ObjectKind::PrivateKey);
    for object in private {
        assert_eq!(object.unusable, None, "{object:?}");
        let known = keys
            .iter()
            .any(|key| Some(&*key.spki_der) == object.public_key.as_deref());
        assert!(known, "list and pool mean the same keys: {object:?}");
    }
    pool.close().await;
}

async fn an_odd_object_costs_itself() {
    let config = token("odd", &[]);
    let odd = [
        ("not for signing", "CKA_SIGN is false"),
        ("on another curve", "its type is not"),
        (
            "without a public key",
            "no public key or certificate on the token verifies",
        ),
        ("too short", "it has 1024 bits"),
    ];
    // They come first, where a heartbeat would find them.
    common::foreign_key(&config, &common::P256, odd[0].0, &[1], false, true);
    common::foreign_key(&config, &common::K256, odd[1].0, &[2], true, true);
    common::foreign_key(&config, &common::P256, odd[2].0, &[3], true, false);
    let (short, _) = openssl_key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    log_in(&config).import_private_key(&short, odd[3].0, &[4]).unwrap();
    {
        use cryptoki::object::{Attribute, CertificateType, ObjectClass};
        let (_module, session) = common::session(&config);
        let garbage = [
            Attribute::Class(ObjectClass::CERTIFICATE),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Token(true),
            Attribute::Label(b"no certificate".to_vec()),
            Attribute::Subject(b"?".to_vec()),
            Attribute::Value(b"?".to_vec()),
        ];
        session.create_object(&garbage).unwrap();
    }
    log_in(&config)
        .generate(Generate::Ec(Curve::P256), "healthy", &[5])
        .unwrap();

    let pool = open(vec![config.clone()]).await;
    let keys = pool.keys();
    let labels: Vec<_> = keys.iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["healthy"]);
    let signed = pool
        .sign(keys[0].id, SignInput::message(Hash::Sha256, *b"x"), None)
        .await
        .unwrap();
    verify_with_openssl(&keys[0], Hash::Sha256, b"x", &signed.value);
    pool.close().await;

    let found = muhurdar_pool::qualify(
        &config,
        &Latches::in_memory(),
        muhurdar_pool::Measure {
            sessions: 1,
            each: Duration::ZERO,
        },
    )
    .unwrap();
    let told: Vec<_> = found.findings.iter().map(|finding| finding.text.as_str()).collect();
    for (label, why) in odd.into_iter().chain([("no certificate", "not one of X.509")]) {
        let object = found
            .objects
            .iter()
            .find(|object| object.label == label && object.unusable.is_some());
        let unusable = object.and_then(|object| object.unusable.as_deref()).unwrap_or_default();
        assert!(unusable.contains(why), "{label}: {unusable:?}");
        assert!(told.iter().any(|text| text.contains(label)), "{label}: {told:?}");
    }
    let healthy = found.objects.iter().filter(|object| object.label == "healthy");
    assert!(healthy.clone().count() == 2 && healthy.clone().all(|object| object.unusable.is_none()));
}

async fn a_wrong_pin_is_tried_once() {
    let good = token("latched", &[Generate::Rsa(2048)]);
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::new(vec![good.clone()]);
    config.state_dir = Some(state.path().to_owned());
    config.tokens[0].pin = Pin::value("771133");
    let refused = Pool::open(config.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("CKR_PIN_INCORRECT"), "{refused}");
    assert!(
        !format!("{refused:?} {config:?}").contains("771133"),
        "a PIN in an error or a Debug"
    );

    // The right PIN after a restart is not tried either, until an operator says so.
    config.tokens[0].pin = Pin::value(common::PIN);
    let refused = Pool::open(config.clone()).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Latched { .. }), "{refused}");
    assert!(muhurdar_pool::unlatch(state.path(), "latched").unwrap());
    let pool = Pool::open(config).await.unwrap();
    assert_eq!(pool.status().tokens[0].state, SlotState::Ready);
    pool.close().await;
}

async fn the_same_key_on_two_tokens_is_one_key() {
    let (key, _) = openssl_key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let (first, second) = (token("twin-1", &[]), token("twin-2", &[Generate::Rsa(2048)]));
    log_in(&first).import_private_key(&key, "twin", &[9]).unwrap();
    log_in(&second).import_private_key(&key, "twin", &[8]).unwrap();
    let pool = Arc::new(open(vec![first, second]).await);
    let keys = pool.keys();
    assert_eq!(keys.len(), 2);
    let twin = keys.iter().find(|key| key.label == "twin").unwrap();
    assert_eq!(
        twin.tokens.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        ["twin-1", "twin-2"]
    );
    let load = Load::start(&pool, twin, 16);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let tally = load.stop().await;
    assert_eq!((tally.lost(), tally.wrong, tally.refused), (0, 0, 0));
    for token in pool.status().tokens {
        assert!(
            token.signatures > tally.signed / 5,
            "work is shared: {} made {} of {}",
            token.name,
            token.signatures,
            tally.signed
        );
    }
}

async fn a_deadline_that_has_passed_is_refused() {
    let pool = open(vec![token("deadline", &[Generate::Rsa(2048)])]).await;
    let key = pool.keys()[0].id;
    let input = SignInput::message(Hash::Sha256, *b"late");
    let past = Instant::now() - Duration::from_millis(1);
    assert_eq!(
        pool.sign(key, input, Some(past)).await.unwrap_err(),
        SignError::Deadline
    );
    pool.close().await;
}

async fn a_full_queue_refuses() {
    let mut config = Config::new(vec![token("full", &[Generate::Rsa(4096)])]);
    config.queue_limit = 8;
    config.tokens[0].sessions = 1;
    let pool = Arc::new(Pool::open(config).await.unwrap());
    let key = pool.keys()[0].id;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.sign(key, SignInput::message(Hash::Sha256, *b"x"), None).await })
        })
        .collect();
    let (mut signed, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => signed += 1,
            Err(SignError::Overloaded { limit: 8 }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(
        signed >= 8 && refused > 0 && signed + refused == 64,
        "{signed} {refused}"
    );
}

async fn a_new_key_is_found_while_the_pool_signs() {
    let config = token("growing", &[Generate::Rsa(2048)]);
    let pool = Arc::new(open(vec![config.clone()]).await);
    let load = Load::start(&pool, &pool.keys()[0], 8);
    log_in(&config)
        .generate(Generate::Ec(Curve::P384), "new", &[77])
        .unwrap();
    pool.rediscover("growing").await.unwrap();
    let new = pool.keys().into_iter().find(|key| key.label == "new").unwrap();
    let signed = pool
        .sign(new.id, SignInput::message(Hash::Sha384, *b"n"), None)
        .await
        .unwrap();
    verify_with_openssl(&new, Hash::Sha384, b"n", &signed.value);
    let tally = load.stop().await;
    tally.assert_untouched();
}

async fn an_idle_slot_is_kept_alive() {
    let mut config = token("idle", &[Generate::Rsa(2048)]);
    config.heartbeat = Duration::from_millis(50);
    let pool = open(vec![config]).await;
    let until = Instant::now() + Duration::from_secs(10);
    while pool.status().tokens[0].heartbeats < 2 || pool.status().signatures < 2 {
        assert!(Instant::now() < until, "no heartbeat: {:?}", pool.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pool.close().await;
}

async fn the_watchdog_tells_when_it_has_looked_last() {
    let pool = open(vec![token("watched", &[Generate::Rsa(2048)])]).await;
    let until = Instant::now() + Duration::from_secs(10);
    let mut before = Duration::ZERO;
    // The silence grows until the next look, and then begins anew.
    loop {
        let silence = pool.status().watchdog_silence;
        if silence < before {
            break;
        }
        before = silence;
        assert!(Instant::now() < until, "nobody has looked for {silence:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pool.close().await;
}

async fn selecting_what_is_not_there_says_what_is() {
    let mut config = token("present", &[]);
    config.select = Select::Label("absent".into());
    let refused = Pool::open(Config::new(vec![config])).await.unwrap_err().to_string();
    assert!(refused.contains("absent") && refused.contains("present"), "{refused}");
}

fn a_qualified_token_is_fit() {
    let config = token("qualified", &[Generate::Rsa(2048), Generate::Ec(Curve::P384)]);
    let measure = muhurdar_pool::Measure {
        sessions: 2,
        each: Duration::from_millis(150),
    };
    let found = muhurdar_pool::qualify(&config, &Latches::in_memory(), measure).unwrap();
    assert!(found.is_fit(), "{:#?}", found.findings);
    assert_eq!(found.rsa_mechanism, Some(RsaMechanism::Pkcs));
    assert_eq!(found.rates.iter().map(|rate| rate.sessions).collect::<Vec<_>>(), [1, 2]);
    assert!(found.rates.iter().all(|rate| rate.signatures > 0) && found.knee.is_some());

    // A key that others made, and that its owner left open.
    let output = std::process::Command::new("pkcs11-tool")
        .arg("--module")
        .arg(&config.module)
        .args(["--token-label", "qualified", "--login", "--pin", common::PIN])
        .args([
            "--keypairgen",
            "--key-type",
            "rsa:2048",
            "--id",
            "77",
            "--label",
            "open",
            "--extractable",
        ])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let found = muhurdar_pool::qualify(
                &config,
                &Latches::in_memory(),
                muhurdar_pool::Measure {
                    sessions: 1,
                    each: Duration::ZERO,
                },
            )
            .unwrap();
            assert!(!found.is_fit());
            assert!(
                found
                    .findings
                    .iter()
                    .any(|finding| finding.text.contains("\"open\"") && finding.text.contains("CKA_EXTRACTABLE"))
            );
        }
        other => {
            println!(
                "SKIPPED in part: pkcs11-tool (apt-get install opensc) did not make an extractable key: {other:?}"
            );
        }
    }
}

async fn a_key_that_wants_its_pin_every_time() {
    let config = token("every-time", &[Generate::Rsa(2048)]);
    let made = std::process::Command::new("pkcs11-tool")
        .arg("--module")
        .arg(&config.module)
        .args(["--token-label", "every-time", "--login", "--pin", common::PIN])
        .args([
            "--keypairgen",
            "--key-type",
            "rsa:2048",
            "--id",
            "55",
            "--label",
            "nagging",
        ])
        .arg("--always-auth")
        .output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        println!("SKIPPED: pkcs11-tool (apt-get install opensc) did not make the key: {made:?}");
        return;
    }
    let measure = muhurdar_pool::Measure {
        sessions: 1,
        each: Duration::ZERO,
    };
    let found = muhurdar_pool::qualify(&config, &Latches::in_memory(), measure).unwrap();
    let named = |finding: &muhurdar_pool::Finding| {
        finding.text.contains("\"nagging\"") && finding.text.contains("CKA_ALWAYS_AUTHENTICATE")
    };
    assert!(
        !found.is_fit() && found.findings.iter().any(named),
        "{:#?}",
        found.findings
    );
    let pool = open(vec![config]).await;
    let labels: Vec<_> = pool.keys().into_iter().map(|key| key.label).collect();
    assert_eq!(labels, ["every-time 0"], "the pool offers the other key only");
    pool.close().await;
}

/// Figures only: a shared machine's wall time proves nothing, so what is asserted is CPU.
async fn the_pool_keeps_up_with_the_raw_rate() {
    let config = token("rate", &[Generate::Rsa(2048)]);
    let raw = muhurdar_pool::ceiling(&config, &Latches::in_memory(), None, 2, Duration::from_millis(700)).unwrap();
    let mut whole = Config::new(vec![config]);
    whole.tokens[0].sessions = 2;
    let pool = Arc::new(Pool::open(whole).await.unwrap());
    let load = Load::start(&pool, &pool.keys()[0], 32);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let tally = load.stop().await;
    println!(
        "raw {:.0}/s, through the pool {:.0}/s (with the load's own verification)",
        raw.per_second(),
        tally.rate()
    );
    assert_eq!((tally.lost(), tally.wrong, tally.refused), (0, 0, 0));
    assert!(tally.signed > 0);
    close(pool).await;
}
