//! The machine under the run: what it is, how busy it is, what this process takes of it.
//!
//! Read from `/proc` and the kernel's clocks; where a machine has no `/proc`, fields are empty rather than invented.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(id: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Asks that the calling thread be run when it is ready, before the service it loads: it needs little, and what it gets late it sends late. Where
/// that is not allowed (no CAP_SYS_NICE) nothing changes; the report shows the lateness either way.
pub(crate) fn ask_for_priority() {
    #[cfg(target_os = "linux")]
    // For Linux nobody means the calling thread, not its process (setpriority(2), notes).
    let _ = rustix::process::setpriority_process(None, -10);
}

/// Time for which the calling thread was ready to run and another had the CPU (`schedstat`, second field).
pub(crate) fn thread_waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Times of all CPUs of this machine (`/proc/stat`), from which it is told what its host gave to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    /// Ran, or was ready to: everything but idle and waiting for a disk.
    wanted: u64,
    /// Of that, another virtual machine had the CPU.
    stolen: u64,
}

impl CpuTimes {
    /// Now; None where the machine does not say.
    pub(crate) fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// user nice system idle iowait irq softirq steal; guests are in user already (proc_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = line
            .split_ascii_whitespace()
            .take(8)
            .map_while(|field| field.parse().ok())
            .collect();
        let [user, nice, system, _, _, irq, softirq, stolen] = times[..] else {
            return None;
        };
        Some(Self {
            wanted: user + nice + system + irq + softirq + stolen,
            stolen,
        })
    }

    /// Share of the wanted time since `before` that others had.
    pub(crate) fn stolen_since(self, before: Self) -> Option<f64> {
        let wanted = self.wanted.checked_sub(before.wanted).filter(|wanted| *wanted > 0)?;
        Some(self.stolen.saturating_sub(before.stolen) as f64 / wanted as f64)
    }
}

/// What the numbers were measured on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// Distribution.
    pub system: String,
    /// Load average over one minute, when the run began.
    pub load_before: f64,
    /// The same when it ended.
    pub load_after: f64,
    /// Share of the CPU time that a virtual machine wanted during the load and its host gave to others; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stolen: Option<f64>,
}

impl Machine {
    /// This machine, now.
    pub fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(|value| {
                    value
                        .trim_start_matches([' ', '\t', ':', '='])
                        .trim_matches('"')
                        .trim()
                        .to_owned()
                })
                .unwrap_or_default()
        };
        let memory = after(&file("/proc/meminfo"), "MemTotal");
        Self {
            cpu: after(&file("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_bytes: memory
                .split(' ')
                .next()
                .and_then(|kb| kb.parse::<u64>().ok())
                .unwrap_or_default()
                * 1024,
            kernel: format!("Linux {}", file("/proc/sys/kernel/osrelease").trim()),
            system: after(&file("/etc/os-release"), "PRETTY_NAME"),
            load_before: load_average(),
            load_after: 0.0,
            stolen: None,
        }
    }
}

/// Load average over one minute.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_what_was_wanted_and_not_of_what_was_idle() {
        let before = CpuTimes::parse("cpu  100 0 100 5000 10 0 0 20 0 0\ncpu0 1 2 3\n").unwrap();
        let after = CpuTimes::parse("cpu  140 0 120 9000 10 0 0 60 0 0\n").unwrap();
        assert_eq!(after.stolen_since(before), Some(0.4));
        assert_eq!(before.stolen_since(before), None, "nothing was wanted");
        assert_eq!(CpuTimes::parse("cpu 1 2 3 4\n"), None, "a kernel that does not say");
        assert!(CpuTimes::parse("").is_none());
    }
}
