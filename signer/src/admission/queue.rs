//! The queue with its clock and its lock: tickets that come back by themselves, and callers that may go away.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout_at};

use super::{
    meters::{Cause, Meters},
    schedule::{Ask, Id, Rules, Schedule, Step, Turned},
};
use crate::{
    config::{Limits, Priority},
    refusal::{Limit, Refusal},
};

/// Tickets beyond the lanes: as many documents as the lanes sign in this time are digested while others are signed, so that no
/// lane waits for one, also where the machine is busy. They are out of this queue's reach, so it is a short time.
const AHEAD: Duration = Duration::from_millis(5);
/// The least and the most of them.
const AHEAD_LEAST: usize = 2;
pub(super) const AHEAD_MOST: usize = 32;

/// How a waiting one is told.
type Tell = oneshot::Sender<Result<Ticket, Cause>>;

/// Decides whose turn it is. The lock is held for a few hundred instructions and never across an await.
#[derive(Debug)]
pub(crate) struct Queue {
    schedule: Mutex<Schedule<Tell>>,
    meters: Arc<Meters>,
    issued: AtomicU64,
}

/// The right to have a token work. Dropped, it is the next one's.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// None once it was given back.
    queue: Option<Arc<Queue>>,
    cost: u64,
    since: Instant,
    number: u64,
}

/// How fast can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Lanes that can sign.
    pub lanes: usize,
    /// How long a signature takes.
    pub signature: Duration,
}

impl Pace {
    /// Tickets that are out at a time.
    fn window(self) -> usize {
        // What the lanes sign in that time: lanes * AHEAD / signature.
        let signed = (AHEAD.as_nanos() * self.lanes as u128).checked_div(self.signature.as_nanos());
        let ahead = signed.map_or(AHEAD_MOST, |n| usize::try_from(n).unwrap_or(AHEAD_MOST));
        self.lanes + ahead.clamp(AHEAD_LEAST, AHEAD_MOST)
    }
}

impl Queue {
    pub(crate) fn new(limits: &Limits, pace: Pace, meters: Arc<Meters>) -> Arc<Self> {
        Arc::new(Self {
            schedule: Mutex::new(Schedule::new(rules(limits, pace.window()))),
            meters,
            issued: AtomicU64::new(0),
        })
    }

    /// Takes over the limits of a new configuration.
    pub(crate) fn reconfigure(self: &Arc<Self>, limits: &Limits) {
        let mut schedule = self.lock();
        let window = schedule.rules().window;
        schedule.set_rules(rules(limits, window));
        drop(schedule);
        self.dispatch();
    }

    /// So fast can be signed now.
    pub(crate) fn set_pace(self: &Arc<Self>, pace: Pace) {
        let (mut schedule, window) = (self.lock(), pace.window());
        let rules = schedule.rules();
        if rules.window == window {
            return;
        }
        schedule.set_rules(Rules { window, ..rules });
        drop(schedule);
        self.dispatch();
    }

    /// How many wait with this priority.
    pub(crate) fn waiting(&self, priority: Priority) -> usize {
        self.lock().waiting(priority)
    }

    /// How long a document takes to be served, of late.
    pub(crate) fn service_time(&self) -> Duration {
        self.lock().service_time()
    }

    /// Between two documents that are served, of late.
    pub(crate) fn each(&self) -> Duration {
        self.lock().each()
    }

    /// Waits for a ticket.
    ///
    /// # Errors
    /// OVERLOADED where the queue is full or it was pushed out of it, DEADLINE where its turn does not come in time.
    pub(crate) async fn ticket(self: &Arc<Self>, ask: Ask) -> Result<Ticket, Refusal> {
        let since = Instant::now();
        if self.lock().enter() {
            self.meters.waited(ask.priority, 0.0);
            return Ok(self.issue(ask.cost, since));
        }
        let (tell, told) = oneshot::channel();
        let place = self.get_in_line(since, &ask, tell)?;
        let outcome = timeout_at(ask.deadline.into(), told).await;
        drop(place);
        self.meters.waited(ask.priority, since.elapsed().as_secs_f64());
        match outcome {
            Ok(Ok(Ok(ticket))) => Ok(ticket),
            Ok(Ok(Err(cause))) => {
                self.meters.turned_away(ask.priority, cause);
                Err(match cause {
                    Cause::Expired => expired(),
                    _ => {
                        let schedule = self.lock();
                        overloaded(schedule.fullest(), schedule.retry_after())
                    }
                })
            }
            // The sender lies in the schedule until it is used.
            Ok(Err(_)) => Err(Refusal::Internal),
            Err(_) => {
                self.meters.turned_away(ask.priority, Cause::Expired);
                Err(expired())
            }
        }
    }

    fn get_in_line(self: &Arc<Self>, now: Instant, ask: &Ask, tell: Tell) -> Result<Place, Refusal> {
        let mut pushed_out = Vec::new();
        let mut schedule = self.lock();
        let outcome = schedule.wait(now, ask, tell, &mut pushed_out);
        drop(schedule);
        for tell in pushed_out {
            // One that went away meanwhile needs no answer.
            drop(tell.send(Err(Cause::PushedOut)));
        }
        match outcome {
            Ok(id) => {
                let place = Place {
                    queue: Arc::clone(self),
                    id,
                };
                // A ticket may have come back since `enter`.
                self.dispatch();
                Ok(place)
            }
            Err(Turned::Full { limit, retry_after }) => {
                self.meters.turned_away(ask.priority, Cause::QueueFull);
                Err(overloaded(limit, retry_after))
            }
            Err(Turned::TooLate) => {
                self.meters.turned_away(ask.priority, Cause::TooLate);
                Err(Refusal::Deadline(
                    "is sooner than the document's turn would come; the queue is too long for it",
                ))
            }
        }
    }

    /// Hands out the tickets that are free.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let now = Instant::now();
            let step = self.lock().next(now);
            match step {
                None => return,
                Some(Step::Expired(tell)) => drop(tell.send(Err(Cause::Expired))),
                // Where its caller has gone, the ticket comes back unsent and is the next one's.
                Some(Step::Go(tell, cost)) => {
                    if let Err(Ok(ticket)) = tell.send(Ok(self.issue(cost, now))) {
                        ticket.give_back_unused();
                    }
                }
            }
        }
    }

    fn issue(self: &Arc<Self>, cost: u64, since: Instant) -> Ticket {
        Ticket {
            queue: Some(Arc::clone(self)),
            cost,
            since,
            number: self.issued.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<Tell>> {
        // Nothing in the schedule panics half way; and a queue that refuses everybody would help nobody.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rules(limits: &Limits, window: usize) -> Rules {
    Rules {
        window,
        most: limits.queue,
        most_bytes: limits.queue_bytes.as_u64(),
        bulk_percent: limits.bulk_percent,
    }
}

fn expired() -> Refusal {
    Refusal::Deadline("passed while the document waited for its turn")
}

fn overloaded(limit: Limit, retry_after: Duration) -> Refusal {
    Refusal::Overloaded { limit, retry_after }
}

impl Ticket {
    /// Tickets that were given before it.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Nobody used it: it says nothing about how long a document takes.
    fn give_back_unused(mut self) {
        if let Some(queue) = self.queue.take() {
            queue.lock().withdraw();
            // Its dispatcher looks for the next.
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let now = Instant::now();
            let held = now.saturating_duration_since(self.since);
            queue.lock().done(now, self.cost, held);
            queue.dispatch();
        }
    }
}

/// A place in the line. Dropped before its turn, it is free; after it, dropping it changes nothing.
struct Place {
    queue: Arc<Queue>,
    id: Id,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().leave(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use prometheus::Registry;

    use super::*;

    /// One lane that is so slow that the window is three.
    const SLOW: Pace = Pace {
        lanes: 1,
        signature: Duration::from_millis(20),
    };

    fn queue() -> Arc<Queue> {
        let meters = Arc::new(Meters::register(&Registry::new()).unwrap());
        Queue::new(&Limits::default(), SLOW, meters)
    }

    #[test]
    fn as_much_is_let_in_ahead_of_the_lanes_as_they_sign_in_a_few_milliseconds() {
        let window = |lanes, micros| {
            let signature = Duration::from_micros(micros);
            Pace { lanes, signature }.window()
        };
        assert_eq!(window(4, 20_000), 4 + 2);
        assert_eq!(window(2, 600), 2 + 16);
        assert_eq!(window(32, 3000), 32 + 32);
        assert_eq!(window(2, 0), 2 + 32, "nothing is known yet");
    }

    fn ask(priority: Priority) -> Ask {
        Ask {
            client: "c".into(),
            weight: 1,
            priority,
            bytes: 0,
            cost: 1,
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    async fn full(queue: &Arc<Queue>) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        for _ in 0..SLOW.window() {
            tickets.push(queue.ticket(ask(Priority::Normal)).await.unwrap());
        }
        tickets
    }

    #[tokio::test]
    async fn a_ticket_that_comes_back_is_the_next_ones() {
        let queue = queue();
        let mut tickets = full(&queue).await;
        let mut waiting = Box::pin(queue.ticket(ask(Priority::Normal)));
        assert!(poll!(&mut waiting).is_pending());
        assert_eq!(queue.waiting(Priority::Normal), 1);
        tickets.pop();
        let last = waiting.await.unwrap();
        assert_eq!(last.number(), 3);
        drop((tickets, last));
        assert_eq!(queue.lock().out(), 0);
    }

    #[tokio::test]
    async fn who_goes_away_while_it_waits_is_forgotten_and_with_its_ticket_gives_it_back() {
        let queue = queue();
        let mut tickets = full(&queue).await;
        let mut gone = Box::pin(queue.ticket(ask(Priority::Interactive)));
        let mut late = Box::pin(queue.ticket(ask(Priority::Normal)));
        let mut last = Box::pin(queue.ticket(ask(Priority::Bulk)));
        assert!(poll!(&mut gone).is_pending() && poll!(&mut late).is_pending() && poll!(&mut last).is_pending());
        drop(gone);
        assert_eq!(queue.waiting(Priority::Interactive), 0);
        // The ticket is sent to one that never looks: dropping it hands the ticket on.
        tickets.pop();
        assert_eq!(queue.waiting(Priority::Normal), 0);
        drop(late);
        assert!(poll!(&mut last).is_ready());
        drop((tickets, last));
        assert_eq!(queue.lock().out(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_at_its_deadline() {
        let queue = queue();
        let _tickets = full(&queue).await;
        let outcome = queue.ticket(ask(Priority::Normal)).await;
        assert!(matches!(outcome, Err(Refusal::Deadline(_))));
        assert_eq!(queue.waiting(Priority::Normal), 0);
    }

    #[tokio::test]
    async fn more_lanes_let_more_in_at_once() {
        let queue = queue();
        let _tickets = full(&queue).await;
        let mut waiting = Box::pin(queue.ticket(ask(Priority::Normal)));
        assert!(poll!(&mut waiting).is_pending());
        queue.set_pace(Pace { lanes: 2, ..SLOW });
        assert!(poll!(&mut waiting).is_ready());
    }

    /// Many callers of every kind on several threads, some of whom go away: in the end every ticket is back.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_ticket_is_lost_among_callers_that_come_and_go() {
        let queue = queue();
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..2000_usize {
            let queue = Arc::clone(&queue);
            callers.spawn(async move {
                let patience = Duration::from_micros((n % 7 * 400) as u64);
                let ticket = queue.ticket(ask(Priority::ALL[n % 3]));
                if let Ok(Ok(ticket)) = tokio::time::timeout(patience, ticket).await {
                    tokio::task::yield_now().await;
                    drop(ticket);
                }
            });
        }
        while callers.join_next().await.is_some() {}
        let mut schedule = queue.lock();
        assert_eq!(schedule.out(), 0);
        assert!(Priority::ALL.iter().all(|p| schedule.waiting(*p) == 0));
        assert!(schedule.enter());
    }
}
