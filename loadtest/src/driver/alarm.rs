//! Waiting until an instant, to some 50 µs.
//!
//! The runtime's own timers tick in milliseconds, too coarse for a schedule of thousands a second; on Linux a timerfd in the same
//! event loop is exact and costs no thread.

use std::time::Instant;

/// Requests due within this time of each other may be sent together: at high rates an alarm for each would cost more
/// than the requests.
#[cfg(target_os = "linux")]
const SHORTEST: std::time::Duration = std::time::Duration::from_micros(100);

/// A timerfd in the clothes of a pipe's reading end: the one type of the runtime that safely owns a descriptor, waits until it is
/// readable and reads it, and makes no demand on what is behind it.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Alarm {
    events: tokio::net::unix::pipe::Receiver,
    timer: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(super) fn new() -> std::io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let events = tokio::net::unix::pipe::Receiver::from_file_unchecked(timer.try_clone()?.into())?;
        Ok(Self { events, timer })
    }

    /// Waits; may come back early, so look at the clock.
    pub(super) async fn until(&mut self, instant: Instant) -> std::io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let wait = instant.saturating_duration_since(Instant::now()).max(SHORTEST);
        let spec = |seconds, nanoseconds| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let setting = Itimerspec {
            it_interval: spec(0, 0),
            it_value: spec(seconds, i64::from(wait.subsec_nanos())),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        self.events.readable().await?;
        // A read shorter than its buffer tells the runtime to wait for the next expiration.
        match self.events.try_read(&mut [0; 16]) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn until(&mut self, instant: Instant) -> std::io::Result<()> {
        tokio::time::sleep_until(instant.into()).await;
        Ok(())
    }
}
