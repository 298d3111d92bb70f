//! What others see of the work: log lines and traces.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
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
    /// What becomes of a line where more come than are taken, and the queue is full.
    pub when_full: WhenFull,
    /// How much may wait to be taken: of the log, and as much of an audit log that has a place of its own.
    pub queue: ByteSize,
    /// A place of its own for the lines of the target `muhurdar::audit`.
    pub audit: Option<Audit>,
}

/// What becomes of a line that finds no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is lost, and counted: a log is no reason not to seal, and no evidence of what was sealed.
    #[default]
    Drop,
    /// None of a seal's is lost: documents wait at the door until there is room for their lines. Other lines are lost, and counted.
    Block,
}

/// `[log.audit]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// A file, to which lines are added. SIGHUP has it opened anew.
    pub file: Option<PathBuf>,
    /// Or a Unix socket that somebody listens on: a datagram a line, or a stream of lines.
    pub socket: Option<PathBuf>,
    /// The file is put aside, and another begun, when it has this size; 0: whatever it has.
    #[serde(default)]
    pub rotate_size: ByteSize,
    /// And when a day of UTC is over.
    #[serde(default = "yes")]
    pub rotate_daily: bool,
    /// How many that were put aside are kept; older ones are removed.
    #[serde(default = "a_month")]
    pub keep: usize,
}

fn yes() -> bool {
    true
}

fn a_month() -> usize {
    31
}

impl Log {
    pub(super) fn validate(&self) -> Result<(), String> {
        let queue = self.queue.as_u64();
        if !(64 << 10..=1 << 30).contains(&queue) {
            return Err(format!("log.queue is {queue}; it must be from 65536 to 1073741824"));
        }
        let Some(audit) = &self.audit else { return Ok(()) };
        if audit.file.is_some() == audit.socket.is_some() {
            return Err("log.audit: name exactly one of file, socket".to_owned());
        }
        let size = audit.rotate_size.as_u64();
        if size > 0 && size < 64 << 10 {
            return Err(format!(
                "log.audit.rotate_size is {size}; it must be 65536 or more, or 0 where size does not matter"
            ));
        }
        Ok(())
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: None,
            slow_request: Duration::from_secs(1),
            when_full: WhenFull::default(),
            queue: ByteSize::mib(8),
            audit: None,
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
