use super::*;

const FINAL_TRY: u64 = cryptoki_sys::CKF_USER_PIN_FINAL_TRY as u64 | cryptoki_sys::CKF_USER_PIN_INITIALIZED as u64;
const FINE: u64 = cryptoki_sys::CKF_USER_PIN_INITIALIZED as u64;

fn facts(serial: &str) -> TokenFacts {
    TokenFacts {
        slot: 0,
        label: "label".into(),
        serial: serial.into(),
        manufacturer: "maker".into(),
        model: "model".into(),
        firmware: (1, 0),
        flags: TokenFlags(FINE),
        max_sessions: None,
    }
}

/// With patience: what another test forks holds every lock of this process until it has become another program.
fn ask(latch: &Latch, flags: u64) -> Result<Permission, Refusal> {
    latch.ask(TokenFlags(flags), Duration::from_secs(1))
}

fn refused(latch: &Latch, flags: u64) -> String {
    match ask(latch, flags) {
        Err(Refusal::Latched(why)) => why,
        other => panic!("not latched: {other:?}"),
    }
}

#[test]
fn a_latch_outlives_its_process_until_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let latches = Latches::at(dir.path());
    let latch = Latch::of(&latches, "hsm/1", &facts("1"));
    ask(&latch, FINE)
        .unwrap()
        .mark()
        .unwrap()
        .latched("C_Login: CKR_PIN_INCORRECT");
    let again = Latch::of(&Latches::at(dir.path()), "hsm/1", &facts("1"));
    assert!(refused(&again, FINE).contains("CKR_PIN_INCORRECT"));
    assert!(again.standing().unwrap().contains("CKR_PIN_INCORRECT") && !again.is_open());
    assert!(ask(&Latch::of(&latches, "hsm-2", &facts("2")), FINE).is_ok());
    assert!(unlatch(dir.path(), "hsm/1").unwrap());
    assert!(again.is_open(), "a running supervisor sees it");
    ask(&again, FINE).unwrap().mark().unwrap().right();
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "a right PIN leaves nothing"
    );
}

#[test]
fn a_token_is_known_by_its_serial_number_and_not_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for latches in [Latches::at(dir.path()), Latches::in_memory()] {
        let latch = Latch::of(&latches, "before", &facts("renamed"));
        ask(&latch, FINE).unwrap().mark().unwrap().latched("wrong");
        assert!(!latches.unlatch("after").unwrap(), "nobody was refused by that name");
        let renamed = Latch::of(&latches, "after", &facts("renamed"));
        for _ in 0..3 {
            refused(&renamed, FINE);
        }
        let standing = latches.standing().unwrap();
        assert!(
            standing
                .iter()
                .any(|s| s.contains("before, after") && s.contains("serial renamed")),
            "{standing:?}"
        );
        // The way back that the refusal names is one.
        assert!(latches.unlatch("after").unwrap());
        ask(&latch, FINE).unwrap().mark().unwrap().right();
    }
}

#[test]
fn the_last_try_is_taken_once_and_only_on_an_operators_word() {
    let dir = tempfile::tempdir().unwrap();
    let latches = Latches::at(dir.path());
    let latch = Latch::of(&latches, "hsm", &facts("1"));
    assert!(refused(&latch, FINAL_TRY).contains("CKF_USER_PIN_FINAL_TRY"));
    // Somebody's login elsewhere takes the flag away; that it was there is remembered.
    refused(&latch, FINE);
    assert!(unlatch(dir.path(), "hsm").unwrap());
    ask(&latch, FINAL_TRY).unwrap().mark().unwrap().spared();
    ask(&latch, FINAL_TRY).unwrap().mark().unwrap().right();
    refused(&latch, FINAL_TRY);
}

#[test]
fn an_operators_word_is_good_for_one_try_whichever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let latch = Latch::of(&Latches::at(dir.path()), "hsm", &facts("1"));
    ask(&latch, FINE).unwrap().mark().unwrap().latched("wrong");
    unlatch(dir.path(), "hsm").unwrap();
    ask(&latch, FINE).unwrap().mark().unwrap().right();
    refused(&latch, FINAL_TRY);
}

#[test]
fn a_locked_pin_is_never_tried() {
    let dir = tempfile::tempdir().unwrap();
    let latch = Latch::of(&Latches::at(dir.path()), "hsm", &facts("1"));
    let locked = FINE | cryptoki_sys::CKF_USER_PIN_LOCKED as u64;
    refused(&latch, locked);
    unlatch(dir.path(), "hsm").unwrap();
    refused(&latch, locked);
}

#[test]
fn one_tries_at_a_time_and_the_other_does_not_take_that_for_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    for latches in [Latches::at(dir.path()), Latches::in_memory()] {
        let latch = Latch::of(&latches, "hsm", &facts("two"));
        let mark = ask(&latch, FINE).unwrap().mark().unwrap();
        assert!(matches!(
            ask(&latch, FINE),
            Err(Refusal::Cannot(OpenError::Busy { pid, .. })) if pid == std::process::id()
        ));
        assert_eq!(latch.standing(), None, "a try that goes on is no crash");
        assert!(!latch.is_open(), "nor is it the word for another");
        assert!(latches.unlatch("hsm").is_err(), "nor can it be allowed twice");
        // One who has patience comes after it.
        let other = latch.clone();
        let waits = std::thread::spawn(move || other.ask(TokenFlags(FINE), Duration::from_secs(20)).map(drop));
        std::thread::sleep(Duration::from_millis(30));
        mark.right();
        assert!(waits.join().unwrap().is_ok());
    }
}

#[test]
fn a_mark_without_its_process_is_a_latch() {
    let dir = tempfile::tempdir().unwrap();
    for latches in [Latches::at(dir.path()), Latches::in_memory()] {
        let latch = Latch::of(&latches, "hsm", &facts("died"));
        drop(ask(&latch, FINE).unwrap().mark().unwrap());
        assert!(refused(&latch, FINE).contains("ended before it returned"));
        // See `ask`: a fork of another test may hold its lock for a moment.
        let end = std::time::Instant::now() + Duration::from_secs(1);
        let standing = std::iter::repeat_with(|| latch.standing());
        let standing = standing
            .take_while(|_| std::time::Instant::now() < end)
            .flatten()
            .next();
        assert!(standing.unwrap().contains("ended before it returned"));
        assert!(latches.unlatch("hsm").unwrap());
        assert!(ask(&latch, FINE).is_ok());
    }
}

#[test]
fn the_latch_of_an_earlier_version_holds() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("hsm_1.pin-latched");
    std::fs::write(&old, "C_Login: CKR_PIN_INCORRECT (0x000000a0), at 2026-01-01\n").unwrap();
    let latch = Latch::of(&Latches::at(dir.path()), "hsm/1", &facts("1"));
    assert!(latch.standing().unwrap().contains("CKR_PIN_INCORRECT"));
    for _ in 0..2 {
        assert!(refused(&latch, FINE).contains("CKR_PIN_INCORRECT"));
    }
    assert!(!old.exists(), "from now on it is known by the serial number");
    std::fs::write(&old, "once more").unwrap();
    assert!(unlatch(dir.path(), "hsm/1").unwrap());
    assert!(ask(&latch, FINE).is_ok());
}

#[test]
fn a_latch_that_cannot_be_read_is_a_latch() {
    let dir = tempfile::tempdir().unwrap();
    let latches = Latches::at(dir.path());
    let latch = Latch::of(&latches, "hsm", &facts("1"));
    std::fs::write(dir.path().join(latch.identity.file_name()), "scribble\n").unwrap();
    assert!(refused(&latch, FINE).contains("cannot be read"));
    assert!(latch.standing().is_some());
    assert!(!latches.standing().unwrap().is_empty());
    let told = latches.unlatch("hsm").unwrap_err().to_string();
    assert!(told.contains("remove it") && told.contains(".latch"), "{told}");
}
