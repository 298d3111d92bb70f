use super::*;

fn error(function: &'static str, code: ck::CK_RV) -> CkrError {
    CkrError {
        function,
        code: code.into(),
    }
}

fn ready() -> Ladder {
    let mut ladder = Ladder::new(
        Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
        },
        7,
    );
    ladder.recovered(0);
    ladder
}

#[test]
fn a_session_failure_costs_the_session_and_nothing_else() {
    let mut ladder = ready();
    for successes in 0..100 {
        assert_eq!(ladder.failed(Rung::Session, successes), Order::Rest);
    }
    assert_eq!(ladder.state(), &SlotState::Ready);
}

#[test]
fn session_failures_in_a_row_reopen_the_slot() {
    let mut ladder = ready();
    for _ in 1..SESSIONS_IN_A_ROW {
        assert_eq!(ladder.failed(Rung::Session, 5), Order::Rest);
    }
    assert_eq!(ladder.failed(Rung::Session, 5), Order::Recover(Rung::Slot));
}

#[test]
fn a_failed_recovery_climbs_at_once_and_then_waits() {
    let now = Instant::now();
    let mut ladder = ready();
    assert_eq!(ladder.failed(Rung::Login, 1), Order::Recover(Rung::Login));
    let gone = error("C_Login", ck::CKR_SESSION_HANDLE_INVALID);
    assert_eq!(
        ladder.still_failing(&gone, Rung::Session, false, now, true),
        Order::Recover(Rung::Slot)
    );
    let broken = error("C_OpenSession", ck::CKR_DEVICE_ERROR);
    assert_eq!(
        ladder.still_failing(&broken, Rung::Module, false, now, true),
        Order::Recover(Rung::Module)
    );
    assert_eq!(
        ladder.still_failing(&broken, Rung::Module, false, now, true),
        Order::Rest
    );
    assert_eq!(
        ladder.state(),
        &SlotState::Open {
            rung: Rung::Module,
            attempts: 1
        }
    );
    assert_eq!(ladder.tick(now, false), Order::Rest, "the wait is not over");
    assert_eq!(
        ladder.tick(now + Duration::from_millis(101), false),
        Order::Recover(Rung::Module)
    );
}

#[test]
fn waits_double_with_jitter_up_to_the_most() {
    let mut now = Instant::now();
    let mut ladder = ready();
    let _ = ladder.failed(Rung::Module, 0);
    let broken = error("C_Initialize", ck::CKR_DEVICE_ERROR);
    for attempt in 0..20u32 {
        assert_eq!(
            ladder.still_failing(&broken, Rung::Module, false, now, true),
            Order::Rest
        );
        let wait = ladder.due().expect("an open circuit has a next attempt") - now;
        let whole = Duration::from_millis(100 << attempt.min(12)).min(Duration::from_secs(30));
        assert!(wait >= whole / 2 && wait <= whole, "{attempt}: {wait:?} of {whole:?}");
        now += wait;
        assert_eq!(ladder.tick(now, false), Order::Recover(Rung::Module));
    }
}

#[test]
fn a_token_that_is_away_never_brings_down_a_module_that_others_use() {
    let mut now = Instant::now();
    let mut ladder = ready();
    assert_eq!(ladder.failed(Rung::Slot, 0), Order::Recover(Rung::Slot));
    let away = error("C_OpenSession", ck::CKR_TOKEN_NOT_PRESENT);
    for _ in 0..10 {
        let _ = ladder.still_failing(&away, Rung::Slot, false, now, false);
        now += Duration::from_secs(31);
        assert_eq!(ladder.tick(now, false), Order::Recover(Rung::Slot));
    }
}

#[test]
fn where_nobody_else_uses_its_module_every_fourth_attempt_starts_that_anew() {
    let mut now = Instant::now();
    let mut ladder = ready();
    assert_eq!(ladder.failed(Rung::Slot, 0), Order::Recover(Rung::Slot));
    let away = error("C_OpenSession", ck::CKR_TOKEN_NOT_PRESENT);
    let mut tried = Vec::new();
    for _ in 0..8 {
        let _ = ladder.still_failing(&away, Rung::Slot, false, now, false);
        now += Duration::from_secs(31);
        tried.push(ladder.tick(now, true));
    }
    let (slot, module) = (Order::Recover(Rung::Slot), Order::Recover(Rung::Module));
    assert_eq!(tried, [slot, slot, module, slot, slot, slot, module, slot]);
}

#[test]
fn however_long_a_token_is_away_it_is_looked_for_as_often_as_ever() {
    let mut now = Instant::now();
    let mut ladder = ready();
    assert_eq!(ladder.failed(Rung::Slot, 0), Order::Recover(Rung::Slot));
    let away = error("C_GetSlotList", ck::CKR_TOKEN_NOT_PRESENT);
    assert_eq!(ladder.still_failing(&away, Rung::Slot, false, now, false), Order::Rest);
    let (mut looks, mut attempts) = (0, 0);
    let end = now + Duration::from_secs(3600);
    while now < end {
        let wakes = ladder.wakes().expect("an open circuit wakes by itself");
        assert!(wakes <= now + LOOK, "it is looked for at every moment");
        now = wakes;
        match ladder.tick(now, false) {
            Order::Look => {
                looks += 1;
                ladder.looked(now, Duration::from_millis(1));
            }
            Order::Recover(Rung::Slot) => {
                attempts += 1;
                let _ = ladder.still_failing(&away, Rung::Slot, false, now, false);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(looks > 6000, "{looks}");
    assert!(attempts < 300, "what is more than a look grows rare: {attempts}");
}

#[test]
fn a_login_that_fails_is_not_tried_again_by_looking() {
    let mut now = Instant::now();
    let mut ladder = ready();
    let _ = ladder.failed(Rung::Slot, 0);
    let away = error("C_OpenSession", ck::CKR_TOKEN_NOT_PRESENT);
    // Away for long, and then there, but not well.
    for _ in 0..10 {
        let _ = ladder.still_failing(&away, Rung::Slot, false, now, false);
        now = ladder.due().unwrap();
        let _ = ladder.tick(now, false);
    }
    let unwell = error("C_Login", ck::CKR_FUNCTION_FAILED);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let _ = ladder.still_failing(&unwell, Rung::Session, false, now, true);
        assert_eq!(ladder.wakes(), ladder.due(), "no look between logins");
        let wait = ladder.due().unwrap() - now;
        waits.push(wait.as_millis());
        now += wait;
        assert!(matches!(ladder.tick(now, false), Order::Recover(_)));
    }
    for (wait, whole) in waits.iter().zip([100, 200, 400, 800]) {
        assert!((whole / 2..=whole).contains(wait), "{waits:?}: by the number of logins");
    }
}

#[test]
fn a_look_that_takes_long_leaves_time_to_the_modules_other_slots() {
    let now = Instant::now();
    let mut ladder = ready();
    let _ = ladder.failed(Rung::Slot, 0);
    let away = error("C_GetSlotList", ck::CKR_TOKEN_NOT_PRESENT);
    for _ in 0..12 {
        let _ = ladder.still_failing(&away, Rung::Slot, false, now, false);
    }
    ladder.looked(now, Duration::from_secs(2));
    assert_eq!(ladder.wakes(), Some(now + Duration::from_secs(8)));
}

#[test]
fn a_latched_slot_rests_until_an_operator_acts() {
    let now = Instant::now();
    let mut ladder = ready();
    let _ = ladder.failed(Rung::Login, 0);
    ladder.latch("CKR_PIN_INCORRECT".into());
    assert_eq!(ladder.failed(Rung::Module, 9), Order::Rest);
    assert_eq!(ladder.tick(now + Duration::from_secs(86_400), false), Order::Rest);
    ladder.swept();
    assert!(matches!(ladder.state(), SlotState::Latched { .. }));
    ladder.unlatch();
    assert_eq!(ladder.tick(now, false), Order::Recover(Rung::Slot));
}

fn lie(n: u64) -> Lie {
    Lie {
        key: KeyId(0),
        truths: 0,
        at: Instant::now() + Duration::from_secs(n),
    }
}

/// Lies until it loses its place.
fn loses(ladder: &mut Ladder, alone: bool) -> Order {
    let kept = [ladder.lied(lie(0), true, alone), ladder.lied(lie(1), true, alone)];
    assert_eq!((kept, ladder.is_distrusted()), ([Order::Rest; 2], false));
    let order = ladder.lied(lie(2), true, alone);
    assert!(ladder.is_distrusted());
    order
}

#[test]
fn a_slot_that_lies_is_opened_anew_then_its_module_and_then_it_waits() {
    let mut ladder = ready();
    assert_eq!(loses(&mut ladder, true), Order::Recover(Rung::Slot));
    ladder.recovered(1);
    assert!(!ladder.is_distrusted());
    assert_eq!(loses(&mut ladder, true), Order::Recover(Rung::Module));
    ladder.recovered(2);
    assert_eq!(loses(&mut ladder, true), Order::Rest);
    let first = ladder.due().expect("it is looked at again") - lie(2).at;
    assert!(first <= Duration::from_millis(100), "{first:?}");
    assert!(matches!(ladder.state(), SlotState::Open { attempts: 1, .. }));
    ladder.recovered(3);
    assert_eq!(loses(&mut ladder, true), Order::Rest);
    assert!(matches!(ladder.state(), SlotState::Open { attempts: 2, .. }));
}

#[test]
fn a_proof_that_is_wrong_starts_the_module_anew_at_once_and_only_where_nobody_else_uses_it() {
    let now = Instant::now();
    for alone in [false, true] {
        let mut ladder = ready();
        assert_eq!(loses(&mut ladder, alone), Order::Recover(Rung::Slot));
        let again = ladder.still_failing(&WRONG_VALUE, Rung::Session, alone, now, true);
        assert_eq!(again == Order::Recover(Rung::Module), alone);
        if alone {
            assert_eq!(
                ladder.still_failing(&WRONG_VALUE, Rung::Session, alone, now, true),
                Order::Rest
            );
        }
        let later = now + Duration::from_secs(1);
        let next = if alone { Rung::Module } else { Rung::Slot };
        assert_eq!(ladder.tick(later, alone), Order::Recover(next));
        ladder.recovered(1);
        assert_eq!((ladder.state(), ladder.is_distrusted()), (&SlotState::Ready, false));
    }
}

#[test]
fn return_values_find_their_rung() {
    let vendor = [0x8000_0384];
    for (code, rung) in [
        (ck::CKR_MECHANISM_INVALID, Rung::Request),
        (ck::CKR_SESSION_HANDLE_INVALID, Rung::Session),
        (ck::CKR_OPERATION_ACTIVE, Rung::Session),
        (ck::CKR_GENERAL_ERROR, Rung::Session),
        (0x8000_0001, Rung::Session),
        (ck::CKR_USER_NOT_LOGGED_IN, Rung::Login),
        (ck::CKR_DEVICE_REMOVED, Rung::Slot),
        (ck::CKR_KEY_HANDLE_INVALID, Rung::Slot),
        (ck::CKR_DEVICE_ERROR, Rung::Module),
        (0x8000_0384, Rung::Module),
    ] {
        assert_eq!(classify(&error("C_Sign", code), &vendor), rung, "{code:x}");
    }
}
