//! Who comes in, and when: access, limits, quotas, deadlines, whose turn it is, and the door that closes when the service
//! drains.
//!
//! Comes in: who calls, for which taxpayer, how urgently, with how many bytes. Goes out: an [`Admitted`] guard that holds the
//! request's share of every limit until it is dropped, or a refusal. Knows nothing of documents, keys or tokens, but how
//! many lanes there are to keep busy.

mod access;
mod arrival;
mod comeback;
mod gate;
mod meters;
mod queue;
mod quota;
mod schedule;
mod unread;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    access::{Access, Caller},
    arrival::{Arrival, Arrivals, Reading},
    gate::{Answering, Gate, Place},
    meters::Meters,
    queue::Pace,
    quota::{Bound, LargeShare},
    unread::{Departure, Held, Unread},
};
pub(crate) use self::{arrival::STREAM_WINDOW, gate::MESSAGE_OVERHEAD};
use self::{
    queue::{AHEAD_MOST, Queue, Ticket},
    quota::Share,
    schedule::{Ask, SIGNATURE},
};
use crate::{
    config::{Limits, Priority},
    refusal::Refusal,
    telemetry::{self, LineOfASeal},
    trace::{self, Step},
};

/// How many of one priority a more urgent one may overtake on its way to a lane: as many as can wait there, and not so many
/// that anybody would wait for long.
const LEAD: u64 = AHEAD_MOST as u64;

/// What a request brings to the door.
#[derive(Debug, Clone, Copy)]
pub struct Errand {
    /// How urgent it is.
    pub priority: Priority,
    /// Bytes that it holds in memory until it is answered.
    pub bytes: usize,
    /// When the answer is worth nothing any more, where the caller says so.
    pub deadline: Option<Instant>,
}

/// The one way in.
#[derive(Debug)]
pub struct Door {
    gate: Arc<Gate>,
    queue: Arc<Queue>,
    meters: Arc<Meters>,
}

/// A request's share of the limits; given back when it is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// When the answer is worth nothing any more.
    pub deadline: Instant,
    /// Its turn before a lane: less goes first.
    pub turn: u64,
    ticket: Option<Ticket>,
    /// The log has room for what it will say of this document, where that may not be lost.
    _line: LineOfASeal,
    _visit: Visit,
}

/// A share of the limits, without a turn.
#[derive(Debug)]
pub struct Visit {
    place: Place,
    #[allow(dead_code, reason = "held for what dropping it gives back")]
    share: Share,
}

impl Visit {
    /// When the answer is worth nothing any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.place.deadline
    }

    /// One whose answer is there already: it holds its share until that is handed on, and waits for no turn.
    #[must_use]
    pub fn without_a_turn(self) -> Admitted {
        Admitted {
            deadline: self.place.deadline,
            turn: 0,
            ticket: None,
            _line: LineOfASeal::default(),
            _visit: self,
        }
    }
}

impl Admitted {
    /// The token has done its work for this request: it is the next one's turn.
    pub fn signed(&mut self) {
        self.ticket = None;
    }
}

impl Door {
    /// A door with the configured limits, in front of lanes that sign so fast.
    #[must_use]
    pub fn new(gate: Arc<Gate>, limits: &Limits, pace: Pace, meters: Arc<Meters>) -> Self {
        meters.limits(limits);
        Self {
            gate,
            queue: Queue::new(limits, pace, Arc::clone(&meters)),
            meters,
        }
    }

    /// Lets a request in when it is its turn.
    ///
    /// # Errors
    /// ACCESS where the caller may not be so urgent, QUOTA where it asks for more than its own, DRAINING, DEADLINE, OVERLOADED.
    pub async fn admit(&self, caller: &Caller, errand: Errand) -> Result<Admitted, Refusal> {
        let visit = self.enter(caller, errand)?;
        let deadline = Some(visit.deadline());
        self.turn(caller, visit, Errand { deadline, ..errand }).await
    }

    /// Lets somebody in who has to prepare before it can take a turn.
    ///
    /// # Errors
    /// As [`Door::admit`].
    pub fn enter(&self, caller: &Caller, errand: Errand) -> Result<Visit, Refusal> {
        let _step = trace::step(Step::Admit);
        trace::admitting(&caller.name, errand.priority, errand.bytes);
        caller.may_be(errand.priority)?;
        let taken = self.gate.admit(errand.bytes, errand.deadline).and_then(|place| {
            let soon = || self.queue.service_time();
            let share = caller.quota().take(errand.bytes as u64, soon)?;
            Ok(Visit { place, share })
        });
        taken
            .inspect_err(|refusal| self.meters.refused(errand.priority, refusal))
            .map_err(|refusal| self.in_line(caller, refusal))
    }

    /// Waits for the turn of one who is in. What it came with is counted already; the errand says what it holds while it waits,
    /// and until when, where that is not what was said when it came in.
    ///
    /// # Errors
    /// DEADLINE, OVERLOADED.
    pub async fn turn(&self, caller: &Caller, visit: Visit, errand: Errand) -> Result<Admitted, Refusal> {
        let deadline = errand.deadline.unwrap_or(visit.place.deadline);
        self.wait_for_turn(caller, errand.priority, errand.bytes as u64, visit, deadline)
            .await
    }

    async fn wait_for_turn(
        &self,
        caller: &Caller,
        priority: Priority,
        bytes: u64,
        visit: Visit,
        deadline: Instant,
    ) -> Result<Admitted, Refusal> {
        let ask = Ask {
            client: Arc::clone(&caller.name),
            weight: caller.weight(),
            priority,
            bytes,
            cost: SIGNATURE.saturating_add(bytes),
            deadline,
        };
        let step = trace::step(Step::Queue);
        let line = self.line(priority, deadline).await?;
        let ticket = self.queue.ticket(ask).await;
        let ticket = ticket.map_err(|refusal| self.in_line(caller, refusal))?;
        drop(step);
        Ok(Admitted {
            deadline,
            turn: ticket.number() + LEAD * priority as u64,
            ticket: Some(ticket),
            _line: line,
            _visit: visit,
        })
    }

    /// A refusal for the load of all, with the time at which it is this one's turn among all of its client that were refused for
    /// it: a client that comes without end makes nobody else's line longer.
    fn in_line(&self, caller: &Caller, refusal: Refusal) -> Refusal {
        let Refusal::Overloaded { limit, retry_after } = refusal else {
            return refusal;
        };
        Refusal::Overloaded {
            limit,
            retry_after: caller.quota().overloaded(retry_after, self.queue.each()),
        }
    }

    /// Waits until the log has room for a document's line, where none may be lost. Only who seals waits for the log, and only here.
    async fn line(&self, priority: Priority, deadline: Instant) -> Result<LineOfASeal, Refusal> {
        if let Some(line) = telemetry::line_of_a_seal() {
            return Ok(line);
        }
        let outcome = tokio::select! {
            biased;
            line = telemetry::line_of_a_seal_in_time() => Ok(line),
            // Nor does the drain: what waits for the log may be sealed elsewhere.
            () = self.gate.closing() => Err(Refusal::Draining),
            () = tokio::time::sleep_until(deadline.into()) => Err(Refusal::Deadline(
                "passed while the service's log had no room for the document's line (log.when_full)",
            )),
        };
        outcome.inspect_err(|refusal| self.meters.refused(priority, refusal))
    }

    /// Takes over the limits of a new configuration.
    pub fn reconfigure(&self, limits: &Limits) {
        self.gate.reconfigure(limits);
        self.meters.limits(limits);
        self.queue.reconfigure(limits);
    }

    /// So fast can be signed now.
    pub fn set_pace(&self, pace: Pace) {
        self.queue.set_pace(pace);
    }

    /// Sets the gauges to what is true now.
    pub fn observe(&self) {
        for priority in Priority::ALL {
            self.meters.depth(priority, self.waiting(priority));
        }
    }

    /// How many wait for their turn with this priority.
    #[must_use]
    pub fn waiting(&self, priority: Priority) -> usize {
        self.queue.waiting(priority)
    }

    /// How long a document takes to be served, of late.
    #[must_use]
    pub fn service_time(&self) -> Duration {
        self.queue.service_time()
    }
}
