//! The short table of a terminal.

use std::fmt::Write as _;

use super::{Report, Written};

/// A few aligned lines that say what the run found.
pub fn table(report: &Report, written: Option<&Written>) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "    {name:<22}{value}");
    };
    let rate = format!("{} seals/s", grouped(report.achieved_per_s));
    row(
        "throughput",
        match (&report.ceiling, report.ratio_to_ceiling) {
            (Some(ceiling), Some(ratio)) => format!(
                "{rate}, {:.0} % of the token's own {} signatures/s",
                ratio * 100.0,
                grouped(ceiling.sign_per_s)
            ),
            _ => rate,
        },
    );
    let segment = report
        .segments
        .iter()
        .find(|segment| segment.name == report.latency_segment);
    let at = segment.map_or_else(String::new, |segment| {
        if report.latency_loop == "open" {
            format!("at {} requests/s", grouped(segment.offered_per_s))
        } else {
            format!("closed loop, {} callers", segment.concurrency.unwrap_or_default())
        }
    });
    let latency = &report.latency_us;
    row(
        "latency",
        format!(
            "p50 {}   p90 {}   p99 {}   p99.9 {}   max {}   ({at})",
            time(latency.p50),
            time(latency.p90),
            time(latency.p99),
            time(latency.p999),
            time(latency.max)
        ),
    );
    let failed: u64 = report.errors.values().sum();
    let mut sealed = format!(
        "{} sealed, {} failed, {} not sent",
        grouped(report.sealed as f64),
        grouped(failed as f64),
        grouped(report.missed_sends as f64)
    );
    for failure in &report.failures {
        let _ = write!(
            sealed,
            "\n{:26}{} × {} {}",
            "",
            grouped(failure.count as f64),
            failure.code,
            failure.reason
        );
    }
    row("requests", sealed);
    row("verified", verified(report));
    if let Some(server) = &report.server {
        let memory = server
            .rss_bytes
            .map_or_else(String::new, |bytes| format!(", {} MiB resident", bytes >> 20));
        if let Some(cpu) = server.cpu_us_per_seal {
            let split = server.token_cpu_us_per_seal.map_or_else(String::new, |token| {
                format!(": {token:.0} µs in the token, {:.0} µs outside", (cpu - token).max(0.0))
            });
            row("server CPU per seal", format!("{cpu:.0} µs{split}{memory}"));
        }
    }
    if report.valid {
        row("verdict", "valid".to_owned());
    } else {
        row("verdict", format!("INVALID: {}", report.problems.join("; ")));
    }
    for note in &report.notes {
        row("note", note.clone());
    }
    if let Some(knee) = &report.knee {
        let held = knee.held_per_s.map_or_else(
            || "not even the lowest rate was kept up with".to_owned(),
            |held| format!("kept up with {} requests/s", grouped(held)),
        );
        row("knee", format!("{held}, not with {}", grouped(knee.lost_per_s)));
    }
    if let Some(slo) = &report.slo {
        let found = slo.holds_per_s.map_or_else(
            || "no rate that was tried holds it".to_owned(),
            |rate| format!("holds up to {} requests/s", grouped(rate)),
        );
        row("objective", format!("{}: {found}", slo.asked));
        if !slo.sure.is_empty() {
            row("how sure", slo.sure.clone());
        }
        for doubt in &slo.doubts {
            row("doubt", doubt.clone());
        }
    }
    if let Some(written) = written {
        row("report", written.html.display().to_string());
    }
    out
}

fn verified(report: &Report) -> String {
    let by = &report.verification.by;
    match (report.verified, report.verify_failures) {
        (0, 0) if report.verification.share <= 0.0 => "none (--verify 0)".to_owned(),
        (0, 0) if by.is_empty() => "none: xmlsec1 is not installed (apt-get install xmlsec1)".to_owned(),
        (good, 0) => format!("{} seals, all good, by {by}", grouped(good as f64)),
        (good, wrong) => format!(
            "{} good, {} WRONG, by {by}; first: {}",
            grouped(good as f64),
            grouped(wrong as f64),
            report.verification.examples.first().map_or("", String::as_str)
        ),
    }
}

/// `12345.6` as `12,346`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds as a person would say them.
pub(crate) fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(time(999), "999 µs");
        assert_eq!(time(1_234), "1.23 ms");
        assert_eq!(time(2_500_000), "2.50 s");
    }
}
