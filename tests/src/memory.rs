//! What the kernel says of a service's memory.

use std::fs;

use crate::Appliance;

/// Memory, in bytes; resident where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// At the most.
    pub peak: u64,
    /// Addresses that were asked for, resident or not, at the most since it started.
    pub asked: u64,
}

impl Appliance {
    /// Bytes of its memory that are resident, now and at the most since [`Appliance::forget_peak`].
    ///
    /// # Panics
    /// Where the kernel does not say, which means that the process is gone.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running service has a status");
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            number.expect("the kernel counts memory in kB") << 10
        };
        Memory {
            resident: kib("VmRSS:"),
            peak: kib("VmHWM:"),
            asked: kib("VmPeak:"),
        }
    }

    /// From here on counts what [`Memory::peak`] is (proc_pid_clear_refs(5)).
    ///
    /// # Panics
    /// Where the kernel does not let us.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("the peak can be set back");
    }
}
