//! The workers of this machine.

use std::{
    sync::{Arc, mpsc::Sender},
    thread,
    time::Instant,
};

use tokio::sync::mpsc;

use super::{DriveError, Event, Frame, Part, Progress, Setup, Stretch, worker};
use crate::recorder::Recorder;

/// Threads that wait for orders. Dropped, they get no more of them, and end when the last is carried out.
#[derive(Debug)]
pub(crate) struct Crew {
    orders: Vec<mpsc::UnboundedSender<Stretch>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Crew {
    /// Starts `setup.workers` threads, the first of them being `part`. Each connects and then says [`Event::Connected`].
    pub(crate) fn start(
        setup: &Setup,
        frame: &Frame,
        part: Part,
        progress: &Arc<Progress>,
        report: &Sender<Event>,
    ) -> Result<Self, DriveError> {
        let origin = Instant::now();
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for index in 0..setup.workers {
            let recorder = Recorder::new(origin, frame.length, frame.measured.clone(), setup.branches.len());
            let (order, ordered) = mpsc::unbounded_channel();
            let (setup, progress, report) = (setup.clone(), progress.clone(), report.clone());
            let part = Part {
                first: part.first + index,
                of: part.of,
            };
            threads.push(
                thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn(move || worker::run(part, setup, recorder, progress, ordered, &report))?,
            );
            orders.push(order);
        }
        Ok(Self { orders, threads })
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Each carries a stretch out and then says [`Event::Done`].
    pub(crate) fn order(&self, stretch: &Stretch) -> Result<(), DriveError> {
        self.orders
            .iter()
            .try_for_each(|order| order.send(stretch.clone()).map_err(|_| DriveError::Gone))
    }

    /// No more orders: each says [`Event::Finished`] and ends.
    pub(crate) fn dismiss(&mut self) {
        self.orders.clear();
    }

    /// Waits until all have ended.
    pub(crate) fn join(self) -> Result<(), DriveError> {
        drop(self.orders);
        self.threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| DriveError::Gone))
    }
}
