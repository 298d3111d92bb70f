//! What other rooms count or hold, told to Prometheus as it is when it asks: counters as counters, and series of what is
//! there, so that a token's old cap or a client that was removed leaves none behind.

use std::time::SystemTime;

use jiff::Timestamp;
use muhurdar_pool::{Pool, Recovery, SlotState, Status, TokenStatus};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::log::{log_status, lost_lines};
use crate::{
    admission::{Access, Gate},
    seals::Seals,
    server::Facts,
};

/// Return values of tokens in trouble, whose counters are there before the first of them; others begin with their first.
const USUAL: [&str; 8] = [
    "CKR_DEVICE_ERROR",
    "CKR_DEVICE_REMOVED",
    "CKR_FUNCTION_FAILED",
    "CKR_GENERAL_ERROR",
    "CKR_SESSION_CLOSED",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_USER_NOT_LOGGED_IN",
];

/// Metrics that are being gathered.
#[derive(Debug, Default)]
pub(super) struct Snapshot(Vec<MetricFamily>);

impl Snapshot {
    fn family<'a>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
    ) {
        let metrics: Vec<_> = series
            .into_iter()
            .map(|(labels, value)| metric(kind, &labels, value))
            .collect();
        // One without series cannot be written, and need not.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    fn one(&mut self, kind: MetricType, name: &str, help: &str, value: f64) {
        self.family(kind, name, help, [(Vec::new(), value)]);
    }

    pub(super) fn families(self) -> Vec<MetricFamily> {
        self.0
    }

    /// What has come in and is not answered, and how much may.
    pub(super) fn gate(&mut self, gate: &Gate) {
        let gauges = [
            (
                "muhurdar_in_flight_documents",
                "Documents admitted and unanswered",
                number(gate.in_flight() as u64),
            ),
            (
                "muhurdar_in_flight_documents_limit",
                "limits.in_flight",
                number(gate.most() as u64),
            ),
            (
                "muhurdar_in_flight_bytes",
                "Bytes of documents admitted and unanswered",
                number(gate.in_flight_bytes()),
            ),
            (
                "muhurdar_in_flight_bytes_limit",
                "limits.in_flight_bytes",
                number(gate.most_bytes()),
            ),
            (
                "muhurdar_arriving_bytes",
                "Bytes that open calls and messages that are not whole yet take; as many as in flight may be, half of them one client's",
                number(gate.arrivals().bytes()),
            ),
            (
                "muhurdar_unread_bytes",
                "Bytes of answers that their clients have not taken yet; one may have half of what in flight may be",
                number(gate.unread().bytes()),
            ),
        ];
        for (name, help, value) in gauges {
            self.one(MetricType::GAUGE, name, help, value);
        }
    }

    /// Refusals for a client's own bounds: a series for each bound that the configuration has now.
    pub(super) fn quotas(&mut self, access: &Access) {
        let refusals = access.quota_refusals().map(|(client, bound, count)| {
            let labels: Vec<(_, &str)> = vec![("client", client), ("bound", bound.name())];
            (labels, number(count))
        });
        self.family(
            MetricType::COUNTER,
            "muhurdar_quota_refusals_total",
            "Documents that were refused for a bound of their client's quota, by its key in client.quota",
            refusals,
        );
    }

    /// CPU of the process and of the tokens' calls in it. (The collector of the prometheus crate counts in whole seconds, too
    /// coarse for CPU per seal.)
    pub(super) fn cpu(&mut self, status: &Status) {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds since the process started, and nanoseconds below 1e9"
        )]
        let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        self.one(
            MetricType::COUNTER,
            "muhurdar_cpu_seconds_total",
            "CPU time of the process, user and system, token calls included",
            seconds,
        );
        self.one(
            MetricType::COUNTER,
            "muhurdar_token_cpu_seconds_total",
            "CPU time of threads inside PKCS#11 calls",
            status.token_cpu.as_secs_f64(),
        );
        self.one(
            MetricType::GAUGE,
            "muhurdar_queued_documents",
            "Documents that wait for a lane",
            number(status.queued as u64),
        );
    }

    /// Each token's state and what it has done.
    pub(super) fn tokens(&mut self, status: &Status) {
        use MetricType::{COUNTER, GAUGE};
        let tokens = &status.tokens;
        let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&TokenStatus) -> f64| {
            let series = tokens.iter().map(|token| (vec![("token", &*token.name)], value(token)));
            self.family(kind, name, help, series);
        };
        let flag = |is: bool| f64::from(u8::from(is));
        each(GAUGE, "muhurdar_token_ready", "1 where the token can sign", &|t| {
            flag(t.is_ready())
        });
        each(
            GAUGE,
            "muhurdar_token_latched",
            "1 where the token's PIN was refused or may not be risked: no login until muhurdar token unlatch",
            &|t| flag(matches!(t.state, SlotState::Latched { .. })),
        );
        each(
            GAUGE,
            "muhurdar_token_distrusted",
            "1 where the token gave signatures that do not verify and is out of service until checked ones are right",
            &|t| flag(t.distrusted),
        );
        each(
            COUNTER,
            "muhurdar_token_signatures_total",
            "Signatures from tokens that were found right, heartbeats included",
            &|t| number(t.signatures),
        );
        each(
            COUNTER,
            "muhurdar_token_calls_given_up_total",
            "Calls that did not return within their budget; muhurdar_lanes{state=\"lost\"} has those that still have not",
            &|t| number(t.given_up),
        );
        each(
            COUNTER,
            "muhurdar_wrong_signatures_total",
            "Signatures from a token that did not verify and were not released",
            &|t| number(t.wrong),
        );
        let failures = tokens.iter().flat_map(|token| {
            let others = USUAL
                .iter()
                .filter(|ckr| !token.failures_by.contains_key(*ckr))
                .map(|ckr| (ckr, &0));
            let by = token.failures_by.iter().chain(others);
            by.map(|(ckr, count)| (vec![("token", &*token.name), ("ckr", *ckr)], number(*count)))
        });
        self.family(
            COUNTER,
            "muhurdar_token_failures_total",
            "PKCS#11 calls that failed, by return value",
            failures,
        );
        let recoveries = tokens.iter().flat_map(|token| {
            let by = Recovery::ALL.iter().zip(token.recoveries);
            by.map(|(what, count)| (vec![("token", &*token.name), ("rung", what.name())], number(count)))
        });
        self.family(
            COUNTER,
            "muhurdar_token_recoveries_total",
            "Attempts to bring a token back: a new login, the slot opened anew (the first opening too), the module reinitialised",
            recoveries,
        );
        self.lanes(tokens);
    }

    fn lanes(&mut self, tokens: &[TokenStatus]) {
        let lanes = tokens.iter().flat_map(|token| {
            let states = [
                ("idle", token.lanes.idle),
                ("busy", token.lanes.busy),
                ("lost", token.lanes.lost),
            ];
            states.map(|(state, count)| (vec![("token", &*token.name), ("state", state)], number(count as u64)))
        });
        self.family(MetricType::GAUGE, "muhurdar_lanes", "Lanes by token and state", lanes);
        let caps = tokens.iter().map(|token| {
            let labels = vec![("token", &*token.name), ("reason", &*token.cap.reason)];
            (labels, number(token.cap.sessions as u64))
        });
        let help = "Lanes that the token may have, and what limits them";
        self.family(MetricType::GAUGE, "muhurdar_lane_cap", help, caps);
    }

    /// When the first seal ends, or has ended: a seal that has expired is the one to know of.
    pub(super) fn seals(&mut self, seals: &Seals, now: Timestamp) {
        let sealing = seals.all_at(now).filter(|seal| seal.certificate.fits_profile().is_ok());
        let ends = sealing.filter_map(|seal| seals.until(&seal.taxpayer, now));
        let left = ends.map(|end| end.duration_since(now).as_secs_f64());
        let soonest = left.reduce(f64::min);
        self.family(
            MetricType::GAUGE,
            "muhurdar_seal_expiry_days",
            "Days until the first taxpayer is without a seal, successors that are there counted; negative where one is already",
            soonest.map(|seconds| (vec![("which", "soonest")], seconds / 86_400.0)),
        );
    }

    /// What becomes of the log's lines.
    fn log(&mut self) {
        use MetricType::{COUNTER, GAUGE};
        let lost = lost_lines();
        let lost = [
            ("audit", "full", lost.audit_full),
            ("audit", "failed", lost.audit_failed),
            ("other", "full", lost.other_full),
            ("other", "failed", lost.other_failed),
        ];
        self.family(
            COUNTER,
            "muhurdar_log_lines_lost_total",
            "Lines of the log that found no room: more came than was taken, or writing failed",
            lost.map(|(kind, reason, count)| (vec![("kind", kind), ("reason", reason)], number(count))),
        );
        let logs = log_status();
        let queued = logs
            .iter()
            .map(|log| (vec![("log", log.name)], number(log.queued as u64)));
        let help = "Bytes of the log that are not taken yet; log.queue may be";
        self.family(GAUGE, "muhurdar_log_queued_bytes", help, queued);
        let stalled = logs
            .iter()
            .map(|log| (vec![("log", log.name)], log.stalled.as_secs_f64()));
        let help = "How long nothing was taken of what the log has to say; 0 where it has nothing to say";
        self.family(GAUGE, "muhurdar_log_stalled_seconds", help, stalled);
    }

    /// How long the TLS files are good for.
    fn trust(&mut self, facts: &Facts, now: SystemTime) {
        self.family(
            MetricType::GAUGE,
            "muhurdar_server_certificate_expiry_days",
            "Days until the listener's certificate ends; negative where it has, and clients refuse the connection",
            facts.ends.map(|end| (Vec::new(), days_until(end, now))),
        );
        self.family(
            MetricType::GAUGE,
            "muhurdar_client_crl_expiry_days",
            "Days until the first nextUpdate of server.tls.crl; negative where newer revocations are missing",
            facts.next_update.map(|end| (Vec::new(), days_until(end, now))),
        );
    }
}

/// Days until something ends.
fn days_until(end: SystemTime, now: SystemTime) -> f64 {
    let seconds = match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    };
    seconds / 86_400.0
}

/// Everything that is told as it is now.
pub(super) fn snapshot(gate: &Gate, access: &Access, pool: &Pool, seals: &Seals, facts: &Facts) -> Vec<MetricFamily> {
    let status = pool.status();
    let mut snapshot = Snapshot::default();
    snapshot.gate(gate);
    snapshot.quotas(access);
    snapshot.cpu(&status);
    snapshot.tokens(&status);
    snapshot.seals(seals, Timestamp::now());
    snapshot.trust(facts, SystemTime::now());
    snapshot.log();
    snapshot.families()
}

fn metric(kind: MetricType, labels: &[(&'static str, &str)], value: f64) -> Metric {
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut labels: Vec<_> = labels.iter().map(pair).collect();
    // As the registry writes them.
    labels.sort_by(|a, b| a.name().cmp(b.name()));
    let mut metric = Metric::from_label(labels);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus counts in floats")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_counter_is_a_counter_and_a_family_without_series_is_none() {
        let mut snapshot = Snapshot::default();
        snapshot.one(MetricType::COUNTER, "a_total", "A", 1.5);
        snapshot.family(MetricType::GAUGE, "b", "B", [(vec![("token", "x\"y")], 2.0)]);
        snapshot.family(MetricType::GAUGE, "c", "C", []);
        let text = TextEncoder::new().encode_to_string(&snapshot.families()).unwrap();
        assert_eq!(
            text,
            "# HELP a_total A\n# TYPE a_total counter\na_total 1.5\n# HELP b B\n# TYPE b gauge\nb{token=\"x\\\"y\"} 2\n"
        );
    }
}
