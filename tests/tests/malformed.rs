//! Peers with a good certificate who speak bad HTTP/2: each is refused by itself, while somebody else is served. Each test prints its figures (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use muhurdar_tests::{
    Appliance, Builder, Suffered,
    frames::{ACK, Dialer, END_HEADERS, END_STREAM, Ending, Frames, call_headers, frame, kind, literal},
};

const SEAL: &str = "/muhurdar.seal.v1.SealService/Seal";
/// Frames of a flood. A peer that is not stopped sends all of them.
const FLOOD: usize = 4_000_000;
/// Frames that are sent in one write.
const AT_ONCE: usize = 500;
/// Pings of one who reads the answers.
const PINGS: usize = 50_000;

/// Error codes of HTTP/2 (RFC 9113, section 7). Where the RFC has a more telling one, h2 often says PROTOCOL_ERROR.
const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::vandal()
            .edit(
                "[server.tls]",
                "keep_alive_interval = \"1s\"\nkeep_alive_timeout = \"1s\"\n\n[server.tls]",
            )
            .start()
    })
}

async fn vandal() -> Frames {
    Dialer::of(appliance(), "vandal").open().await.unwrap()
}

/// One who sends this, and how that ended.
async fn sent(bytes: &[u8]) -> Ending {
    let mut frames = vandal().await;
    // What is refused half way may be closed before all of it is sent.
    drop(frames.send(bytes).await);
    frames.ending().await
}

#[tokio::test]
async fn a_frame_that_http2_forbids_ends_its_connection_and_no_other() {
    let suffered = Suffered::from_here(appliance()).await;
    let headers = call_headers(SEAL);
    let mut too_long = frame(kind::DATA, 0, 1, &[]);
    // 256 KiB are taken (SETTINGS_MAX_FRAME_SIZE); this one says 16 MiB.
    too_long[..3].copy_from_slice(&[0xff; 3]);
    let cases = [
        ("a frame of 16 MiB", too_long, FRAME_SIZE_ERROR),
        ("DATA on stream 0", frame(kind::DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (
            "HEADERS on an even stream",
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 2, &headers),
            PROTOCOL_ERROR,
        ),
        (
            "HPACK that indexes nothing",
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64]),
            PROTOCOL_ERROR,
        ),
        ("PING of 7 bytes", frame(kind::PING, 0, 0, b"1234567"), PROTOCOL_ERROR),
        (
            "CONTINUATION of nothing",
            frame(kind::CONTINUATION, END_HEADERS, 1, &headers),
            PROTOCOL_ERROR,
        ),
        (
            "RST_STREAM of a stream that never was",
            frame(kind::RST_STREAM, 0, 7, &[0; 4]),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(sent(&bytes).await, Ending::Connection(Some(code)), "{what}");
    }
    suffered.no_more_than(16, "7 forbidden frames: GOAWAY each").await;
}

/// Sends as much of a flood as is taken: how many frames that were, and how it ended, where it did.
async fn flood(mut frames: Frames, unit: impl Fn(u32) -> Vec<u8>) -> (usize, Option<Ending>) {
    let mut sent = 0;
    while sent < FLOOD {
        let batch: Vec<_> = (sent..sent + AT_ONCE)
            .flat_map(|n| unit(u32::try_from(n).unwrap()))
            .collect();
        match tokio::time::timeout(Duration::from_secs(1), frames.send(&batch)).await {
            Ok(Ok(())) => sent += AT_ONCE,
            // It was shown the door.
            Ok(Err(_)) => break,
            // Nobody reads any more at the other end: it waits for its answers to be read.
            Err(_) => return (sent, None),
        }
    }
    (sent, Some(frames.ending().await))
}

/// CVE-2023-44487: each call is opened and taken back, so that no limit on open ones ever holds.
#[tokio::test]
async fn a_flood_of_calls_that_are_taken_back_ends_its_connection() {
    let suffered = Suffered::from_here(appliance()).await;
    let headers = call_headers(SEAL);
    let (calls, ending) = flood(vandal().await, |n| {
        let stream = 2 * n + 1;
        let mut both = frame(kind::HEADERS, END_HEADERS, stream, &headers);
        both.extend(frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        both
    })
    .await;
    assert!(calls < FLOOD, "all of them were taken");
    assert!(
        matches!(ending, Some(Ending::Connection(None | Some(ENHANCE_YOUR_CALM)))),
        "{ending:?}"
    );
    let said = format!(
        "rapid reset: the connection ended within {} calls, {ending:?}",
        calls + AT_ONCE
    );
    suffered.no_more_than(32, &said).await;
}

/// CVE-2024-27316 and its kin: a header block that has no end.
#[tokio::test]
async fn a_header_block_that_has_no_end_ends_its_connection() {
    let suffered = Suffered::from_here(appliance()).await;
    let mut frames = vandal().await;
    frames
        .send(&frame(kind::HEADERS, 0, 1, &call_headers(SEAL)))
        .await
        .unwrap();
    let (count, ending) = flood(frames, |n| {
        frame(kind::CONTINUATION, 0, 1, &literal(&format!("x-{n}"), &"y".repeat(100)))
    })
    .await;
    assert!(count < FLOOD, "all of them were taken");
    assert!(matches!(ending, Some(Ending::Connection(_))), "{ending:?}");
    let said = format!(
        "CONTINUATION flood: the connection ended within {} frames, {ending:?}",
        count + AT_ONCE
    );
    suffered.no_more_than(16, &said).await;
}

/// What each SETTINGS and PING costs is an acknowledgement. Who does not read them is not read either; who does, pays as much
/// for each as the service.
#[tokio::test]
async fn a_flood_of_settings_or_pings_is_held_up_by_its_own_answers() {
    for (what, unit) in [
        ("SETTINGS", frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PING", frame(kind::PING, 0, 0, b"flooding")),
    ] {
        let suffered = Suffered::from_here(appliance()).await;
        let (count, ending) = flood(vandal().await, |_| unit.clone()).await;
        assert!(count < FLOOD, "all of them were taken");
        let said = format!("{what} flood whose answers nobody reads: no more is read after {count}, {ending:?}");
        suffered.no_more_than(32, &said).await;
    }
}

#[tokio::test]
async fn a_flood_of_pings_whose_answers_are_read_takes_bounded_time_and_memory() {
    let suffered = Suffered::from_here(appliance()).await;
    let mut frames = vandal().await;
    let batch: Vec<_> = (0..AT_ONCE)
        .flat_map(|_| frame(kind::PING, 0, 0, b"flooding"))
        .collect();
    let mut answered = 0;
    for _ in 0..PINGS / AT_ONCE {
        frames.send(&batch).await.unwrap();
        for _ in 0..AT_ONCE {
            let answer = frames.next().await.unwrap();
            answered += usize::from(answer.kind == kind::PING && answer.flags & ACK != 0);
        }
    }
    suffered.no_more_than(16, &format!("{answered} pings answered")).await;
}

/// Within a header block no other frame may come (RFC 9113, section 6.10), so that nobody can give a sign of life in it.
#[tokio::test]
async fn a_header_block_that_drips_ends_its_connection_after_the_time_for_a_sign_of_life() {
    let suffered = Suffered::from_here(appliance()).await;
    let mut silent = vandal().await;
    let mut dripping = vandal().await;
    let (since, begin) = (Instant::now(), frame(kind::HEADERS, 0, 1, &call_headers(SEAL)));
    silent.send(&begin).await.unwrap();
    dripping.send(&begin).await.unwrap();
    let silence = async {
        assert!(matches!(silent.ending().await, Ending::Connection(_)));
        since.elapsed()
    };
    let drip = async {
        let drop = frame(kind::CONTINUATION, 0, 1, &literal("x", ""));
        while dripping.send(&drop).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(since.elapsed() < Duration::from_secs(15), "it is listened to for ever");
        }
        since.elapsed()
    };
    let (silence, drip) = tokio::join!(silence, drip);
    assert!(silence < Duration::from_secs(15), "{silence:?}");
    let said = format!("half a header block, then silence: closed after {silence:.1?}; then drops: after {drip:.1?}");
    suffered.no_more_than(16, &said).await;
}
