//! The report's page in a real browser: it draws, it complains of nothing, and no text in a report becomes markup.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{path::Path, process::Command};

const REPORT: &str = include_str!("data/report.json");

fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        })
}

/// The page's elements after its script has run, and what the browser said on its console.
fn open(browser: &str, page: &Path, profile: &Path) -> (String, Vec<String>) {
    let output = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--dump-dom",
        ])
        .arg("--window-size=1280,900")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let console = said
        .lines()
        .filter(|line| line.contains(":CONSOLE"))
        .map(str::to_owned)
        .collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

#[test]
fn the_page_draws_every_graph_without_a_word_on_the_console_and_takes_text_as_text() {
    let Some(browser) = browser() else {
        return eprintln!("SKIPPED the_page_draws_every_graph…: no browser is installed (apt-get install chromium)");
    };
    let mut report: muhurdar_loadtest::report::Report = serde_json::from_str(REPORT).unwrap();
    report.label =
        Some("</script><script>console.log('markup')</script><img src=x onerror=console.log('markup')>".into());
    let tried = |held, told, why: &str| muhurdar_loadtest::report::SloTrial {
        rate_per_s: 621.0,
        achieved_per_s: 621.0,
        p99_us: 45_090,
        errors: 0.0,
        held,
        told,
        why: why.to_owned(),
    };
    report.slo = Some(muhurdar_loadtest::report::Slo {
        asked: "p99<40ms".into(),
        holds_per_s: Some(621.0),
        sure: "621/s held in 1 of 2 tries".into(),
        doubts: vec!["this is 50 % of what a closed loop reached".into()],
        closed_loop_per_s: Some(1242.0),
        rates: vec![muhurdar_loadtest::report::SloRate {
            rate_per_s: 621.0,
            held: 1,
            failed: 1,
            untold: 1,
        }],
        tried: vec![
            tried(true, true, ""),
            tried(false, true, "p99<40ms: it is 45.09 ms"),
            tried(
                false,
                false,
                "the generator waited 43.2 % of the time for a CPU, 25 % are allowed",
            ),
        ],
        ..Default::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let mut latency = hdrhistogram::Histogram::<u64>::new(3).unwrap();
    latency.record(1000).unwrap();
    let written = muhurdar_loadtest::report::write(&report, &latency, folder.path()).unwrap();
    // What a test wants to know of the page it asks from inside.
    let asking = "<script>const wide = document.documentElement; \
                  console.log(`${innerWidth} wide, ${wide.scrollWidth - wide.clientWidth} over`)</script></body>";
    let page = std::fs::read_to_string(&written.html).unwrap();
    std::fs::write(&written.html, page.replacen("</body>", asking, 1)).unwrap();
    let profile = folder.path().join("profile");

    let (dom, console) = open(browser, &written.html, &profile);
    // The browser's own frame takes nothing of a page without a window.
    assert!(
        console.len() == 1 && console[0].contains("1280 wide, 0 over"),
        "{console:?}"
    );
    assert_eq!(
        dom.matches("<svg ").count(),
        5,
        "throughput, latency, heat map, percentiles, CPU"
    );
    for words in [
        "seals/s",
        "621 requests/s: 1 of 2 tries held, 1 more says nothing",
        "this is 50 % of what a closed loop reached",
        "the generator waited 43.2 %",
        "Throughput",
        "What was done meanwhile",
        "Failures",
        "Branches",
        "The plan, piece by piece",
        "Environment",
        "&lt;/script&gt;",
    ] {
        assert!(dom.contains(words), "{words} is not on the page");
    }
    assert!(!dom.contains("<img"), "a label became markup");

    // A window is never narrower than 500 pixels, a frame in it may be as narrow as a telephone.
    let phone = folder.path().join("phone.html");
    std::fs::write(
        &phone,
        "<iframe src='report.html' width='360' height='3000' style='border: 0'></iframe>",
    )
    .unwrap();
    let (_, console) = open(browser, &phone, &profile);
    assert!(
        console.len() == 1 && console[0].contains("360 wide, 0 over"),
        "{console:?}"
    );
}
