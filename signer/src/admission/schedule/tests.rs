use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn rules(window: usize) -> Rules {
    Rules {
        window,
        most: 1000,
        most_bytes: 1 << 30,
        bulk_percent: 10,
    }
}

fn ask(client: &str, priority: Priority, bytes: u64, deadline: Instant) -> Ask {
    Ask {
        client: client.into(),
        weight: 1,
        priority,
        bytes,
        cost: SIGNATURE + bytes,
        deadline,
    }
}

/// A schedule whose one ticket is out, and the moment of the test.
fn busy<T>(rules: Rules) -> (Schedule<T>, Instant) {
    let mut schedule = Schedule::new(rules);
    for _ in 0..rules.window {
        assert!(schedule.enter());
    }
    (schedule, Instant::now())
}

fn wait<T>(schedule: &mut Schedule<T>, now: Instant, ask: &Ask, tell: T) -> Result<Id, Turned> {
    let mut pushed_out = Vec::new();
    let outcome = schedule.wait(now, ask, tell, &mut pushed_out);
    assert!(pushed_out.is_empty(), "the queue is not full");
    outcome
}

/// Gives the ticket back, and tells who has it next.
fn step<T>(schedule: &mut Schedule<T>, now: Instant) -> Option<T> {
    schedule.done(now, SIGNATURE, Duration::from_millis(1));
    match schedule.next(now) {
        Some(Step::Go(next, _)) => Some(next),
        Some(Step::Expired(_)) => panic!("nothing has expired"),
        None => None,
    }
}

#[test]
fn who_comes_first_does_not_wait_and_who_comes_to_a_full_window_does() {
    let mut schedule = Schedule::<()>::new(rules(2));
    let now = Instant::now();
    assert!(schedule.enter() && schedule.enter());
    assert!(!schedule.enter());
    schedule.done(now, SIGNATURE, Duration::from_millis(1));
    assert!(schedule.enter());
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let (mut schedule, now) = busy(rules(1));
    wait(&mut schedule, now, &ask("a", Priority::Bulk, 0, now + MINUTE), 1).unwrap();
    schedule.done(now, SIGNATURE, Duration::from_millis(1));
    assert!(!schedule.enter(), "the ticket is free, and another's");
    assert_eq!(schedule.next(now), Some(Step::Go(1, SIGNATURE)));
}

#[test]
fn the_more_urgent_go_first_and_the_earliest_deadline_within_a_client() {
    let (mut schedule, now) = busy(rules(1));
    let at = |minutes| now + MINUTE * minutes;
    for (tell, priority, deadline) in [
        (1, Priority::Normal, at(3)),
        (2, Priority::Normal, at(2)),
        (3, Priority::Interactive, at(9)),
        (4, Priority::Normal, at(2)),
        (5, Priority::Interactive, at(8)),
    ] {
        wait(&mut schedule, now, &ask("a", priority, 0, deadline), tell).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| step(&mut schedule, now)).collect();
    assert_eq!(order, [5, 3, 2, 4, 1]);
}

#[test]
fn bulk_has_its_share_however_much_urgent_work_there_is() {
    for percent in [0, 10, 25] {
        let (mut schedule, now) = busy(Rules {
            bulk_percent: percent,
            ..rules(1)
        });
        for n in 0..300 {
            // Documents of other sizes: the share is one of work, not of documents.
            wait(
                &mut schedule,
                now,
                &ask("flood", Priority::Interactive, 0, now + MINUTE),
                "i",
            )
            .unwrap();
            let large = ask("night", Priority::Bulk, SIGNATURE, now + MINUTE);
            if n < 100 {
                wait(&mut schedule, now, &large, "b").unwrap();
            }
        }
        let served: Vec<_> = (0..200).filter_map(|_| step(&mut schedule, now)).collect();
        let bulk = served.iter().filter(|s| **s == "b").count() as u64 * 2;
        let all = bulk + served.iter().filter(|s| **s == "i").count() as u64;
        let share = bulk * 100 / all;
        assert!(
            (percent.saturating_sub(1)..=percent + 1).contains(&share),
            "{share} of {percent}"
        );
    }
}

#[test]
fn bulk_waits_for_nothing_where_nothing_else_does() {
    let (mut schedule, now) = busy(rules(1));
    for n in 0..50 {
        wait(&mut schedule, now, &ask("night", Priority::Bulk, 0, now + MINUTE), n).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| step(&mut schedule, now)).count(), 50);
}

#[test]
fn an_expired_one_is_never_given_a_ticket() {
    let (mut schedule, now) = busy(rules(1));
    wait(
        &mut schedule,
        now,
        &ask("a", Priority::Normal, 0, now + Duration::from_secs(1)),
        1,
    )
    .unwrap();
    wait(&mut schedule, now, &ask("a", Priority::Normal, 0, now + MINUTE), 2).unwrap();
    schedule.done(now, SIGNATURE, Duration::ZERO);
    let later = now + Duration::from_secs(1);
    assert_eq!(schedule.next(later), Some(Step::Expired(1)));
    assert_eq!(schedule.next(later), Some(Step::Go(2, SIGNATURE)));
    assert_eq!(schedule.next(later), None);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_at_once_and_one_that_can_is_not() {
    let (mut schedule, now) = busy(rules(1));
    // Of late a ticket is held for 100 ms: ten that wait are a second.
    for _ in 0..100 {
        schedule.done(now, SIGNATURE, Duration::from_millis(100));
        assert!(schedule.enter());
    }
    for n in 0..10 {
        wait(&mut schedule, now, &ask("a", Priority::Normal, 0, now + MINUTE), n).unwrap();
    }
    let mut asks = |client, priority, milliseconds| {
        let deadline = now + Duration::from_millis(milliseconds);
        let outcome = wait(&mut schedule, now, &ask(client, priority, 0, deadline), 99);
        outcome.inspect(|id| assert!(schedule.leave(id))).err()
    };
    assert_eq!(asks("b", Priority::Bulk, 1000), Some(Turned::TooLate));
    assert_eq!(asks("b", Priority::Bulk, 2500), None);
    // Its own turn comes after one of the other client's, its own document takes 100 ms, and the first ticket comes back.
    assert_eq!(asks("b", Priority::Normal, 150), Some(Turned::TooLate));
    assert_eq!(asks("b", Priority::Normal, 350), None);
    assert_eq!(asks("b", Priority::Interactive, 250), None);
    // Within its client it goes before those with time.
    assert_eq!(asks("a", Priority::Normal, 250), None);
}

#[test]
fn a_hiccup_of_the_token_counts_for_as_long_as_it_took() {
    let (mut schedule, mut now) = busy(rules(4));
    for n in 0..500 {
        wait(
            &mut schedule,
            now,
            &ask("a", Priority::Interactive, 0, now + MINUTE * 60),
            n,
        )
        .unwrap();
    }
    let answered = |schedule: &mut Schedule<i32>, time: Duration, at: Instant| {
        schedule.done(at, SIGNATURE, time);
        assert!(matches!(schedule.next(at), Some(Step::Go(..))));
        wait(schedule, at, &ask("a", Priority::Interactive, 0, at + MINUTE * 60), 0).unwrap();
    };
    // A thousand a second, four at a time; then four that took a second.
    for _ in 0..2000 {
        now += Duration::from_millis(1);
        answered(&mut schedule, Duration::from_millis(4), now);
    }
    let half = ask("b", Priority::Normal, 0, now + Duration::from_millis(600));
    let id = wait(&mut schedule, now, &half, 0).expect("five hundred take half a second");
    assert!(schedule.leave(&id));
    now += Duration::from_secs(1);
    for _ in 0..4 {
        answered(&mut schedule, Duration::from_secs(1), now);
    }
    let patient = ask("b", Priority::Normal, 0, now + Duration::from_secs(5));
    let id = wait(&mut schedule, now, &patient, 0).expect("one second of trouble is no reason to give up five");
    assert!(schedule.leave(&id));
    let hasty = ask("b", Priority::Normal, 0, now + Duration::from_millis(300));
    assert_eq!(wait(&mut schedule, now, &hasty, 0).err(), Some(Turned::TooLate));
}

#[test]
fn an_estimate_that_went_wrong_is_tried_again_where_nobody_waits() {
    let (mut schedule, now) = busy::<()>(rules(1));
    schedule.done(now, SIGNATURE, MINUTE);
    assert!(schedule.enter(), "an idle service finds out how slow it is");
}

#[test]
fn a_full_queue_makes_room_for_those_who_ask_for_less() {
    let (mut schedule, now) = busy(Rules { most: 10, ..rules(1) });
    let deadline = now + MINUTE;
    for n in 0..10 {
        wait(
            &mut schedule,
            now,
            &ask("flood", Priority::Normal, 0, deadline),
            ("flood", n),
        )
        .unwrap();
    }
    let mut put = |client, priority| {
        let mut pushed_out = Vec::new();
        let outcome = schedule.wait(now, &ask(client, priority, 0, deadline), (client, 0), &mut pushed_out);
        (outcome.map(drop), pushed_out)
    };
    let full = |outcome: Result<(), Turned>| matches!(outcome, Err(Turned::Full { limit, .. }) if (limit.name, limit.value) == ("queue", Some(10)));
    assert!(
        full(put("flood", Priority::Normal).0),
        "a flood does not push out itself"
    );
    for _ in 0..4 {
        let (outcome, pushed_out) = put("till", Priority::Normal);
        assert!(outcome.is_ok());
        assert!(pushed_out.iter().all(|(client, _)| *client == "flood") && pushed_out.len() == 1);
    }
    assert!(put("till", Priority::Normal).0.is_ok());
    assert!(full(put("till", Priority::Normal).0), "equals have equal room");
    assert!(
        put("gate", Priority::Interactive).0.is_ok(),
        "the more urgent have room"
    );
    assert!(put("night", Priority::Bulk).0.is_ok(), "bulk has what is kept for it");
    assert!(full(put("night", Priority::Bulk).0), "and no more");
    for _ in 0..8 {
        assert!(put("gate", Priority::Interactive).0.is_ok());
    }
    assert!(
        full(put("gate", Priority::Interactive).0),
        "what is kept for bulk stays"
    );
}

#[test]
fn bytes_that_wait_are_bounded_too() {
    let (mut schedule, now) = busy(Rules {
        most_bytes: 1000,
        ..rules(1)
    });
    let deadline = now + MINUTE;
    wait(&mut schedule, now, &ask("a", Priority::Normal, 900, deadline), 1).unwrap();
    let mut pushed_out = Vec::new();
    let second = schedule.wait(now, &ask("a", Priority::Normal, 101, deadline), 2, &mut pushed_out);
    let told = |limit: Limit| (limit.name, limit.value) == ("queue_bytes", Some(1000));
    assert!(matches!(second, Err(Turned::Full { limit, .. }) if told(limit)) && pushed_out.is_empty());
    let urgent = schedule.wait(
        now,
        &ask("b", Priority::Interactive, 1000, deadline),
        3,
        &mut pushed_out,
    );
    assert!(urgent.is_ok() && pushed_out == [1]);
    assert!(told(schedule.fullest()), "what the one that was pushed out is told");
}

#[test]
fn a_rest_of_clients_is_never_kept() {
    let (mut schedule, now) = busy(rules(1));
    for n in 0..200 {
        let id = wait(
            &mut schedule,
            now,
            &ask(&format!("c{n}"), Priority::Normal, 0, now + MINUTE),
            n,
        )
        .unwrap();
        assert!(schedule.leave(&id) && !schedule.leave(&id));
    }
    wait(&mut schedule, now, &ask("last", Priority::Normal, 0, now + MINUTE), 7).unwrap();
    assert_eq!(step(&mut schedule, now), Some(7));
    assert!(schedule.line(Priority::Normal).is_bare(), "no flow outlives its turn");
}

proptest! {
    /// Clients that always have work share by their weights, whatever the size of their documents.
    #[test]
    fn shares_hold_within_five_percent(
        clients in prop::collection::vec((1_u64..=8, 1_u64..600_000), 2..6),
        priority in prop::sample::select(Priority::ALL.to_vec()),
    ) {
        let (mut schedule, now) = busy(rules(1));
        let mut served = vec![0_u64; clients.len()];
        let put = |schedule: &mut Schedule<usize>, n: usize| {
            let (weight, bytes) = clients[n];
            let ask = Ask { weight, ..ask(&format!("c{n}"), priority, bytes, now + MINUTE * 1000) };
            schedule.wait(now, &ask, n, &mut Vec::new()).unwrap();
        };
        for n in 0..clients.len() {
            put(&mut schedule, n);
            put(&mut schedule, n);
        }
        for _ in 0..3000 {
            let n = step(&mut schedule, now).unwrap();
            served[n] += SIGNATURE + clients[n].1;
            put(&mut schedule, n);
        }
        let all: u64 = served.iter().sum();
        let weights: u64 = clients.iter().map(|c| c.0).sum();
        for (n, (weight, _)) in clients.iter().enumerate() {
            #[allow(clippy::cast_precision_loss)]
            let ratio = served[n] as f64 / all as f64 / (*weight as f64 / weights as f64);
            prop_assert!((0.95..1.05).contains(&ratio), "client {n}: {ratio} of its share");
        }
    }

    /// Whatever happens: everybody who got in line has exactly one end, no ticket is lost or given twice, a free ticket
    /// never lies there while somebody waits, and nothing is left over.
    #[test]
    fn no_ticket_is_lost_or_given_twice(
        deeds in prop::collection::vec((0_u8..10, 0_usize..5, 0_usize..3, 0_u64..200_000, 1_u64..40), 1..400),
    ) {
        let rules = Rules { window: 3, most: 12, most_bytes: 1 << 20, bulk_percent: 10 };
        let mut schedule = Schedule::<u64>::new(rules);
        let start = Instant::now();
        let mut now = start;
        let mut waiting: BTreeMap<u64, (Id, Instant, u64)> = BTreeMap::new();
        let mut held = Vec::new();
        let mut ends: HashMap<u64, &str> = HashMap::new();
        let mut names = 0;
        for (deed, client, priority, bytes, time) in deeds {
            match deed {
                0..=4 => {
                    names += 1;
                    let deadline = now + Duration::from_millis(time);
                    let ask = ask(&format!("c{client}"), Priority::ALL[priority], bytes, deadline);
                    if schedule.enter() {
                        held.push(ask.cost);
                    } else {
                        let mut pushed_out = Vec::new();
                        let outcome = schedule.wait(now, &ask, names, &mut pushed_out);
                        for name in pushed_out {
                            prop_assert!(waiting.remove(&name).is_some(), "{name} does not wait");
                            prop_assert_eq!(ends.insert(name, "pushed out"), None);
                        }
                        if let Ok(id) = outcome {
                            waiting.insert(names, (id, deadline, bytes));
                        }
                    }
                }
                5 | 6 => {
                    if let Some(cost) = held.pop() {
                        schedule.done(now, cost, Duration::from_millis(time));
                    }
                }
                7 => {
                    let name = waiting.keys().nth(client).copied();
                    if let Some((name, (id, ..))) = name.and_then(|n| waiting.remove_entry(&n)) {
                        prop_assert!(schedule.leave(&id));
                        prop_assert_eq!(ends.insert(name, "left"), None);
                    }
                }
                8 => now += Duration::from_millis(time),
                _ => schedule.set_rules(Rules { window: client + 1, ..rules }),
            }
            while let Some(next) = schedule.next(now) {
                let (name, end) = match next {
                    Step::Go(name, cost) => {
                        held.push(cost);
                        (name, "went")
                    }
                    Step::Expired(name) => (name, "expired"),
                };
                let (_, deadline, _) = waiting.remove(&name).expect("it waits");
                prop_assert_eq!(end == "expired", deadline <= now);
                prop_assert_eq!(ends.insert(name, end), None);
            }
            prop_assert_eq!(schedule.out(), held.len());
            prop_assert_eq!(schedule.all_waiting(), waiting.len());
            prop_assert!(waiting.len() <= rules.most);
            prop_assert!(waiting.values().map(|w| w.2).sum::<u64>() <= rules.most_bytes);
            prop_assert!(waiting.is_empty() || schedule.out() >= schedule.rules().window);
        }
        let end = now + MINUTE;
        while let Some(cost) = held.pop() {
            schedule.done(now, cost, Duration::ZERO);
            while let Some(Step::Expired(name)) = schedule.next(end) {
                prop_assert!(waiting.remove(&name).is_some());
            }
        }
        prop_assert!(waiting.is_empty() && schedule.out() == 0);
    }

    /// Nobody starves: with any mix of clients within a priority, everybody who waits is served.
    #[test]
    fn whoever_waits_is_served(
        crowd in prop::collection::vec((0_usize..20, 1_u64..=100, 0_u64..20_000_000), 1..60),
    ) {
        let (mut schedule, now) = busy(Rules { most_bytes: u64::MAX, ..rules(1) });
        for (n, (client, weight, bytes)) in crowd.iter().enumerate() {
            let ask = Ask { weight: *weight, ..ask(&format!("c{client}"), Priority::Normal, *bytes, now + MINUTE * 1000) };
            schedule.wait(now, &ask, n, &mut Vec::new()).unwrap();
        }
        let mut served: Vec<_> = std::iter::from_fn(|| step(&mut schedule, now)).collect();
        served.sort_unstable();
        prop_assert!(served.into_iter().eq(0..crowd.len()));
    }
}
