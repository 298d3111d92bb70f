//! What others see of the work: log lines and traces.

use std::time::Duration;

use serde::Deserialize;

use super::duration;

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// A filter as `tracing-subscriber` reads it, such as `info` or `info,muhurdar::audit=off`. The environment variable
    /// MUHURDAR_LOG goes before it.
    pub filter: Option<String>,
    /// A request that takes as long or longer is a line of the target `muhurdar::slow`, with the times of its steps. Zero: none
    /// is.
    #[serde(deserialize_with = "duration")]
    pub slow_request: Duration,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: None,
            slow_request: Duration::from_secs(1),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The OpenTelemetry collector that takes traces by OTLP over gRPC, such as `http://127.0.0.1:4317`. Without it none are
    /// made.
    pub otlp_endpoint: Option<String>,
    /// The share of requests that are traced, from 0 to 1, where their caller has not decided that itself (`traceparent`).
    pub sample_ratio: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 1.0,
        }
    }
}

impl Telemetry {
    pub(super) fn validate(&self) -> Result<(), String> {
        let endpoint = self.otlp_endpoint.as_deref().unwrap_or("http://");
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(format!(
                "telemetry.otlp_endpoint is \"{endpoint}\"; write it as http://HOST:4317 or https://HOST:4317"
            ));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(format!(
                "telemetry.sample_ratio is {}; it must be from 0 to 1",
                self.sample_ratio
            ));
        }
        Ok(())
    }
}
