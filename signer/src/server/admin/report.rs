//! What the status page shows, gathered from the rooms that know it. The wording is for people; `/metrics` is for machines.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use muhurdar_pool::{SlotState, TokenStatus};
use muhurdar_xades::{KeyType, certificate::printable};
use serde::Serialize;

use super::history::{Curves, History, Sample, milliseconds, rate};
use crate::{
    config::Priority,
    pipeline::Pipeline,
    seals::{Seal, Seals},
    telemetry::{Figures, Latency, log_status, recent},
};

/// What "now" means for a rate.
const NOW: Duration = Duration::from_secs(5);
/// And for a percentile, which wants more to go by.
const LATELY: Duration = Duration::from_secs(60);
/// Seals in the list: those that expire first.
const SEALS: usize = 50;
/// Warnings in the list: the last ones.
const WARNINGS: usize = 20;

/// The service at a moment.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    at: Timestamp,
    started: Timestamp,
    uptime_s: u64,
    /// `ready`, `not ready` or `draining`.
    state: &'static str,
    why: Option<&'static str>,
    sealed: u64,
    refused: u64,
    rate: f64,
    refused_rate: f64,
    latency_ms: Percentiles,
    in_flight: usize,
    in_flight_bytes: u64,
    priorities: Vec<PriorityReport>,
    waiting_for_lane: usize,
    tokens: Vec<TokenReport>,
    seals: SealsReport,
    refusals: Vec<RefusalReport>,
    logs: Vec<LogReport>,
    warnings: Vec<WarningReport>,
    curves: Curves,
}

/// Of the last minute, in milliseconds; none where nothing was sealed in it.
#[derive(Debug, Serialize)]
struct Percentiles {
    count: u64,
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

#[derive(Debug, Serialize)]
struct PriorityReport {
    name: &'static str,
    waiting: usize,
    rate: f64,
    latency_ms: Percentiles,
}

#[derive(Debug, Serialize)]
struct TokenReport {
    name: String,
    /// The token's own label, manufacturer and model.
    device: Option<String>,
    /// `ready`, `recovering`, `open` or `latched`.
    state: &'static str,
    why: Option<String>,
    idle: usize,
    busy: usize,
    lost: usize,
    cap: usize,
    cap_reason: String,
    batch: usize,
    batch_reason: &'static str,
    signatures: u64,
    failures: u64,
    wrong: u64,
    /// Mean time in the token's calls, since it was opened.
    call_ms: Option<f64>,
    last_error: Option<LastError>,
}

#[derive(Debug, Serialize)]
struct LastError {
    what: String,
    at: Timestamp,
}

#[derive(Debug, Serialize)]
struct SealsReport {
    count: usize,
    unusable: usize,
    soonest: Vec<SealReport>,
}

#[derive(Debug, Serialize)]
struct SealReport {
    taxpayer: String,
    title: String,
    key: String,
    not_after: Timestamp,
    /// Below zero where it has expired.
    days: f64,
    unusable: Option<String>,
}

#[derive(Debug, Serialize)]
struct RefusalReport {
    reason: String,
    /// Since the start, and in the last minute.
    count: u64,
    lately: u64,
}

/// A way out of log lines.
#[derive(Debug, Serialize)]
struct LogReport {
    name: &'static str,
    to: String,
    /// Bytes that are not taken yet, and how many may be.
    queued: usize,
    most: usize,
    /// How long nothing was taken of them.
    stalled_s: u64,
    error: Option<String>,
    lost_audit: u64,
    lost_other: u64,
}

#[derive(Debug, Serialize)]
struct WarningReport {
    level: &'static str,
    at: Timestamp,
    count: u64,
    text: String,
}

impl Report {
    pub(super) fn of(pipeline: &Pipeline, history: &History) -> Self {
        let figures = pipeline.metrics.figures();
        let now = Sample {
            at: std::time::Instant::now(),
            figures,
        };
        let just_before = history.before(NOW).unwrap_or_else(|| now.clone());
        let before = history.before(LATELY).unwrap_or_else(|| now.clone());
        let ready = pipeline.readiness();
        let pool = pipeline.pool.status();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            at: Timestamp::now(),
            started: history.started,
            uptime_s: history.begun.elapsed().as_secs(),
            state: match ready {
                Ok(()) => "ready",
                Err(_) if pipeline.gate.is_closed() => "draining",
                Err(_) => "not ready",
            },
            why: ready.err().map(str::trim_end),
            sealed: now.figures.sealed(),
            refused: now.figures.refusals(),
            rate: rate(&just_before, &now, Figures::sealed),
            refused_rate: rate(&just_before, &now, Figures::refusals),
            latency_ms: Percentiles::of(&now.figures.latency().since(&before.figures.latency())),
            in_flight: pipeline.gate.in_flight(),
            in_flight_bytes: pipeline.gate.in_flight_bytes(),
            priorities: Priority::ALL
                .map(|priority| PriorityReport {
                    name: priority.name(),
                    waiting: pipeline.door.waiting(priority),
                    rate: rate(&just_before, &now, |figures| of(figures, priority).count()),
                    latency_ms: Percentiles::of(&of(&now.figures, priority).since(of(&before.figures, priority))),
                })
                .into(),
            waiting_for_lane: pool.queued,
            tokens: pool.tokens.iter().map(TokenReport::of).collect(),
            seals: SealsReport::of(&pipeline.seals.load(), Timestamp::now()),
            refusals: refusals(&now.figures, &before.figures),
            logs: log_status().into_iter().map(LogReport::of).collect(),
            warnings: recent().into_iter().take(WARNINGS).map(WarningReport::of).collect(),
            curves: history.curves(),
        }
    }
}

fn of(figures: &Figures, priority: Priority) -> &Latency {
    &figures.latencies[priority as usize]
}

fn refusals(now: &Figures, before: &Figures) -> Vec<RefusalReport> {
    let earlier: BTreeMap<_, _> = before.refused().collect();
    let refusals = now.refused().map(|(reason, count)| RefusalReport {
        reason: reason.to_owned(),
        count,
        lately: count.saturating_sub(earlier.get(reason).copied().unwrap_or(0)),
    });
    let mut refusals: Vec<_> = refusals.filter(|refusal| refusal.count > 0).collect();
    refusals.sort_by_key(|refusal| std::cmp::Reverse((refusal.lately, refusal.count)));
    refusals
}

impl Percentiles {
    fn of(latency: &Latency) -> Self {
        let time = |share| latency.quantile(share).map(milliseconds);
        Self {
            count: latency.count(),
            p50: time(0.5),
            p90: time(0.9),
            p99: time(0.99),
        }
    }
}

impl TokenReport {
    fn of(token: &TokenStatus) -> Self {
        let (state, why) = match &token.state {
            SlotState::Ready => ("ready", None),
            SlotState::Recovering { rung } => ("recovering", Some(format!("being brought back ({rung:?})"))),
            SlotState::Open { rung, attempts } => (
                "open",
                Some(format!(
                    "does not come back: {attempts} attempts failed, the next one at {rung:?}"
                )),
            ),
            SlotState::Latched { reason } => (
                "latched",
                Some(format!("PIN not tried again until `muhurdar token unlatch`: {reason}")),
            ),
        };
        let why = if token.distrusted {
            let since = "gave signatures that do not verify, none of which was released; out of service until checked ones are right";
            Some(why.map_or(since.to_owned(), |why| format!("{since} ({why})")))
        } else {
            why
        };
        let calls = token
            .signatures
            .saturating_add(token.wrong)
            .saturating_add(token.failures);
        Self {
            name: token.name.to_string(),
            device: token.facts.as_ref().map(|facts| {
                let of = [&facts.label, &facts.manufacturer, &facts.model];
                let of: Vec<_> = of
                    .into_iter()
                    .map(String::as_str)
                    .filter(|text| !text.is_empty())
                    .collect();
                printable(&of.join(", "))
            }),
            state,
            why,
            idle: token.lanes.idle,
            busy: token.lanes.busy,
            lost: token.lanes.lost,
            cap: token.cap.sessions,
            cap_reason: token.cap.reason.clone(),
            batch: token.batch.0,
            batch_reason: token.batch.1,
            signatures: token.signatures,
            failures: token.failures,
            wrong: token.wrong,
            #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
            call_ms: (calls > 0).then(|| milliseconds(token.token_time.as_secs_f64() / calls as f64)),
            last_error: token.last_error.map(|(error, at)| LastError {
                what: error.to_string(),
                at,
            }),
        }
    }
}

impl SealsReport {
    fn of(seals: &Seals, now: Timestamp) -> Self {
        let mut all: Vec<_> = seals.all_at(now).collect();
        all.sort_by_key(|seal| seal.certificate.not_after());
        Self {
            count: all.len(),
            unusable: all.iter().filter(|seal| seal.usable(now).is_err()).count(),
            soonest: all
                .into_iter()
                .take(SEALS)
                .map(|seal| SealReport::of(seal, now))
                .collect(),
        }
    }
}

impl SealReport {
    fn of(seal: &Seal, now: Timestamp) -> Self {
        let certificate = &seal.certificate;
        let days = certificate.not_after().duration_since(now).as_secs_f64() / 86_400.0;
        Self {
            taxpayer: shown(&seal.taxpayer),
            // A person's seal bears a name: whose it is, the number's digits tell those who may know.
            title: if is_person(&seal.taxpayer) {
                String::new()
            } else {
                certificate.title().to_owned()
            },
            key: key_name(certificate.key_type()),
            not_after: certificate.not_after(),
            days: (days * 10.0).floor() / 10.0,
            // As the certificate says it: without the number, which the row has.
            unusable: certificate.fit_for_sealing(now).err().map(|unfit| unfit.to_string()),
        }
    }
}

/// As people write it.
fn key_name(key: KeyType) -> String {
    match key {
        KeyType::Rsa2048 => "RSA-2048".to_owned(),
        KeyType::Rsa3072 => "RSA-3072".to_owned(),
        KeyType::Rsa4096 => "RSA-4096".to_owned(),
        KeyType::EcP256 => "EC P-256".to_owned(),
        KeyType::EcP384 => "EC P-384".to_owned(),
        KeyType::EcP521 => "EC P-521".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A TCKN is a person's identity number (11 digits; a VKN has 10), and a page is looked at by many.
fn is_person(taxpayer: &str) -> bool {
    taxpayer.len() == 11
}

fn shown(taxpayer: &str) -> String {
    match (is_person(taxpayer), taxpayer.get(..3), taxpayer.get(9..)) {
        (true, Some(first), Some(last)) => format!("{first}••••••{last}"),
        _ => taxpayer.to_owned(),
    }
}

impl LogReport {
    fn of(log: crate::telemetry::LogStatus) -> Self {
        Self {
            name: log.name,
            to: log.to,
            queued: log.queued,
            most: log.most,
            stalled_s: log.stalled.as_secs(),
            error: log.error,
            lost_audit: log.lost.audit_full + log.lost.audit_failed,
            lost_other: log.lost.other_full + log.lost.other_failed,
        }
    }
}

impl WarningReport {
    fn of(warning: crate::telemetry::Warning) -> Self {
        Self {
            level: warning.level.as_str(),
            at: warning.at,
            count: warning.count,
            text: warning.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_number_is_not_shown_in_full() {
        assert_eq!(shown("1234567890"), "1234567890");
        assert_eq!(shown("12345678901"), "123••••••01");
    }
}
