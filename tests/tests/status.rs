//! The status page in a real browser, before a service that really works: what people see of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use muhurdar_proto::seal::v1::{Priority, SealOptions};
use muhurdar_tests::{Appliance, Branch, Browser, Builder, EC, Flood, RSA, invoice, skipped};
use serde_json::Value;
use tokio::time::sleep;

fn status(appliance: &Appliance) -> Value {
    let (line, body) = appliance.get("/status.json");
    assert_eq!(line, "HTTP/1.1 200 OK");
    serde_json::from_str(&body).unwrap()
}

/// The head of an answer, headers and all.
fn head(appliance: &Appliance, path: &str) -> String {
    let mut stream = TcpStream::connect(appliance.admin_address()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_lowercase()
}

/// Somebody who seals one by one, with a pause between, and now and then something that cannot be sealed.
fn caller(appliance: &Appliance, name: &str, priority: Priority, pause: Duration) -> tokio::task::JoinHandle<()> {
    let branch = Branch::of(appliance, name);
    tokio::spawn(async move {
        let mut client = branch.connect().await;
        for n in 0_u64.. {
            // A busy quarter of a minute, and a quiet one.
            let pause = if n / 600 % 2 == 0 { pause } else { pause * 3 };
            let document = match n % 40 {
                39 => "<Invoice".to_owned(),
                _ => invoice([RSA, EC][usize::from(n % 8 == 0)], &format!("<cbc:Note>{n}</cbc:Note>")),
            };
            let mut request = Branch::request([RSA, EC][usize::from(n % 8 == 0)], document);
            request.options = Some(SealOptions {
                priority: priority.into(),
                ..SealOptions::default()
            });
            if client.seal(request).await.is_err() && n % 40 != 39 {
                sleep(Duration::from_millis(200)).await;
            }
            sleep(pause).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_the_service_work_and_fail_and_recover_and_are_told_when_they_see_the_past() {
    let appliance = Builder::default()
        .hsm(6, Duration::from_millis(25))
        .edit("[[token]]\n", "[[token]]\ncall_budget = \"700ms\"\n")
        .start();
    let Some(mut browser) = Browser::start() else {
        return skipped("chromium is not installed (apt-get install chromium)");
    };
    browser.look_like(1280, 900, false, false);
    browser.open(&format!("http://{}/", appliance.admin_address()));
    browser.wait_until("document.getElementById('state').textContent === 'ready'");
    assert_eq!(browser.ask("document.getElementById('rate').textContent"), "0a second");

    let mut bulk = Branch::request(RSA, invoice(RSA, ""));
    bulk.options = Some(SealOptions {
        priority: Priority::Bulk.into(),
        ..SealOptions::default()
    });
    let flood = Flood::of(&appliance, "branch-1", bulk, 40).await;
    let callers = [
        caller(&appliance, "branch-1", Priority::Interactive, Duration::from_millis(25)),
        caller(&appliance, "branch-2", Priority::Normal, Duration::from_millis(15)),
    ];
    let number = "Number(document.getElementById('rate').textContent.replace(/[^0-9.]/g, ''))";
    browser.wait_until(&format!("{number} > 10"));
    let first = browser.ask("document.getElementById('about').textContent");
    browser.wait_until(&format!("document.getElementById('about').textContent !== {first}"));
    // Each of these is there, with a figure in it.
    for (id, shows) in [
        ("latency", "ms"),
        ("latency-note", "90 % within"),
        ("queue", "bulk"),
        ("priorities", "interactive"),
        ("refusals", "XML_MALFORMED"),
        ("tokens", "cap 6: as configured"),
        ("seals", RSA),
        ("seals-note", "3 taxpayers"),
    ] {
        browser.wait_until(&format!(
            "document.getElementById('{id}').textContent.includes('{shows}')"
        ));
    }
    browser.wait_until("document.querySelectorAll('.lanes .busy').length > 0");
    browser.wait_until("document.querySelectorAll('.curve.rate')[0].getAttribute('d').length > 20");
    // On a telephone nothing sticks out.
    browser.look_like(360, 740, true, true);
    browser.wait_until("document.documentElement.scrollWidth <= 360 && innerWidth === 360");
    browser.look_like(1280, 900, false, false);

    // The HSM hangs, and people see it.
    appliance.token("rule C_Sign always hang");
    browser.wait_until("document.getElementById('state').textContent.startsWith('not ready')");
    browser.wait_until("document.querySelector('.token .pill').classList.contains('bad')");
    browser.wait_until("document.getElementById('tokens').textContent.includes('last error')");
    browser.wait_until("document.getElementById('warnings').textContent.includes('not ready')");
    appliance.token("clear");
    browser.wait_until("document.getElementById('state').textContent === 'ready'");
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");

    // The process stands still: the figures are of the past, and the page says so.
    appliance.signal("STOP");
    browser.wait_until("!document.getElementById('stale').hidden && document.body.classList.contains('stale')");
    let said = browser.ask("document.getElementById('stale').textContent");
    assert!(said.as_str().unwrap().contains("These figures are old"), "{said}");
    appliance.signal("CONT");
    browser.wait_until("document.getElementById('stale').hidden");
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(flood);
}

/// Not a test: the pictures in docs/, of a service that has worked for five minutes, in which one of its HSMs had a bad moment.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes docs/status-*.png, and takes five minutes"]
async fn pictures_for_the_documentation() {
    let appliance = Builder::default().hsm(4, Duration::from_millis(25)).twins().start();
    let Some(mut browser) = Browser::start() else {
        return skipped("chromium is not installed (apt-get install chromium)");
    };
    let mut bulk = Branch::request(RSA, invoice(RSA, ""));
    bulk.options = Some(SealOptions {
        priority: Priority::Bulk.into(),
        ..SealOptions::default()
    });
    let flood = Flood::of(&appliance, "branch-1", bulk, 30).await;
    let callers = [
        caller(&appliance, "branch-1", Priority::Interactive, Duration::from_millis(25)),
        caller(&appliance, "branch-2", Priority::Normal, Duration::from_millis(15)),
    ];
    sleep(Duration::from_secs(230)).await;
    appliance.twin("rule C_Sign 1 answer 0x30");
    sleep(Duration::from_secs(75)).await;
    browser.open(&format!("http://{}/", appliance.admin_address()));
    browser.wait_until("document.getElementById('state').textContent === 'ready'");
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    for (name, width, height, mobile, dark) in [
        ("desktop", 1240, 900, false, false),
        ("dark", 1240, 900, false, true),
        ("phone", 390, 844, true, false),
    ] {
        browser.look_like(width, height, mobile, dark);
        sleep(Duration::from_millis(1500)).await;
        browser.picture(&docs.join(format!("status-{name}.png")));
    }
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(flood);
}

#[tokio::test]
async fn the_figures_are_those_of_the_metrics_and_hold_no_secret() {
    let appliance = Builder::default().start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let secret = "Gizli Müşteri A.Ş.";
    for n in 0..5 {
        let document = invoice(RSA, &format!("<cbc:Note>{secret} {n}</cbc:Note>"));
        client.seal(Branch::request(RSA, document)).await.unwrap();
    }
    client
        .seal(Branch::request(RSA, format!("<a>{secret}")))
        .await
        .unwrap_err();
    let shown = status(&appliance);
    assert_eq!(shown["state"], "ready");
    assert_eq!((&shown["sealed"], &shown["refused"]), (&5.into(), &1.into()), "{shown}");
    let sealed = "muhurdar_seals_total{document=\"invoice\",outcome=\"sealed\"}";
    assert_eq!(shown["sealed"].as_f64(), Some(appliance.metric(sealed)));
    let took = appliance.metric("muhurdar_request_seconds_count{priority=\"normal\"}");
    assert_eq!(
        shown["priorities"][1]["latency_ms"]["count"].as_f64(),
        Some(took),
        "{shown}"
    );
    assert_eq!(shown["refusals"][0]["reason"], "DOCUMENT_TYPE");
    assert_eq!(shown["tokens"][0]["state"], "ready");
    assert_eq!(shown["seals"]["count"], 3);
    let days = shown["seals"]["soonest"][0]["days"].as_f64().unwrap();
    let soonest = appliance.metric("muhurdar_seal_expiry_days{which=\"soonest\"}");
    assert!((days - soonest).abs() < 0.2, "{days} and {soonest}");

    let pin = std::fs::read_to_string(appliance.dir().join("token/pin")).unwrap();
    for path in ["/", "/status.json", "/metrics"] {
        let (_, body) = appliance.get(path);
        for word in [secret, "Gizli", pin.trim(), "PRIVATE KEY"] {
            assert!(!body.contains(word), "{path} shows {word:?}");
        }
    }
}

#[test]
fn the_page_may_load_nothing_and_send_nothing_elsewhere() {
    let head = head(Appliance::shared(), "/");
    let policy = head
        .lines()
        .find_map(|l| l.strip_prefix("content-security-policy: "))
        .unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(
        policy.contains("connect-src 'self'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let (_, page) = Appliance::shared().get("/");
    for outside in ["src=\"", "@import", "url(http", "//cdn"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
}

/// A name in the configuration is text, whatever it looks like.
#[test]
fn a_name_that_looks_like_markup_is_shown_as_text() {
    let name = "<img src=x onerror=console.log(1)>";
    let appliance = Builder::default()
        .taxpayers(1)
        .edit("name = \"dev\"", &format!("name = \"{name}\""))
        .start();
    let Some(mut browser) = Browser::start() else {
        return skipped("chromium is not installed (apt-get install chromium)");
    };
    browser.open(&format!("http://{}/", appliance.admin_address()));
    browser.wait_until(&format!(
        "document.querySelector('.token h3')?.textContent === '{name}'"
    ));
    assert_eq!(browser.ask("document.querySelectorAll('img').length"), 0);
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}
