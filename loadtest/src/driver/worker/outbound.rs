//! What goes out: a request is made, given to a connection, and remembered until its answer comes.

use std::{sync::Arc, sync::atomic::Ordering, time::Instant};

use muhurdar_proto::seal::v1::{DigestAlgorithm, SignDigestRequest};
use muhurdar_xades as xades;
use tokio::sync::mpsc;

use super::{InFlight, Parcel, State, Worker};
use crate::{
    driver::{
        Mode,
        wire::{Manner, Outgoing},
    },
    generator::Document,
    recorder::Failure,
};

impl Worker {
    /// Sends one request, or counts it as missed.
    pub(super) fn send(&self, state: &mut State, segment: usize, intended: Instant, now: Instant, open: bool) {
        let branch = match self.shares.len() {
            1 => 0,
            count => {
                let at = state.generator.chance();
                self.shares.partition_point(|upto| *upto <= at).min(count - 1)
            }
        };
        state.recorder.offered(segment, branch, intended, now, open);
        if open && state.in_flight.len() >= self.capacity {
            state.recorder.missed(segment, branch, intended);
            self.progress.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sampled = match self.setup.sample {
            share if share <= 0.0 => false,
            share if share >= 1.0 => true,
            share => state.generator.chance() < share,
        };
        let document = state.generator.document();
        state.serial = state.serial.wrapping_add(1);
        let request = InFlight {
            serial: state.serial,
            segment,
            branch,
            lane: usize::MAX,
            intended,
            sent: now,
            sampled,
            document,
            prepared: None,
        };
        let key = state.in_flight.insert(request);
        self.progress.in_flight.fetch_add(1, Ordering::Relaxed);
        let ticket = (key as u64) << 32 | u64::from(state.serial);
        if self.setup.mode == Mode::Batch {
            state.batches[branch].push(ticket);
            if state.batches[branch].len() >= self.setup.batch {
                self.flush(state, branch);
            }
        } else {
            self.dispatch(state, branch, vec![ticket]);
        }
    }

    /// Sends what a branch's batch holds.
    pub(super) fn flush(&self, state: &mut State, branch: usize) {
        let tickets = std::mem::take(&mut state.batches[branch]);
        if !tickets.is_empty() {
            self.dispatch(state, branch, tickets);
        }
    }

    fn dispatch(&self, state: &mut State, branch: usize, tickets: Vec<u64>) {
        let lanes = state.lanes.len();
        let found = (0..lanes)
            .map(|step| (state.next_lane + step) % lanes)
            .find(|lane| state.lanes[*lane].branch == branch && state.lanes[*lane].requests.is_some());
        let Some(lane) = found else {
            let failure = Failure {
                code: "UNAVAILABLE",
                reason: "CONNECTION",
                message: "no connection to the service",
            };
            for ticket in tickets {
                self.fail(state, (ticket >> 32) as usize, failure);
            }
            return;
        };
        state.next_lane = (lane + 1) % lanes;
        let manner = self.manners[branch];
        let mut documents = Vec::new();
        for ticket in &tickets {
            let request = &mut state.in_flight[(ticket >> 32) as usize];
            request.lane = lane;
            documents.push(request.document.clone());
        }
        let message = match self.setup.mode {
            Mode::Batch => Outgoing::Batch(manner, documents),
            mode => {
                let document = documents.pop().expect("a ticket that is no batch has one document");
                match mode {
                    Mode::Stream => Outgoing::Item(tickets[0], manner, document),
                    Mode::HashOnly => match self.prepared(state, tickets[0], manner, &document) {
                        Some(message) => message,
                        None => return,
                    },
                    _ => Outgoing::One(manner, document),
                }
            }
        };
        if let Some(requests) = &state.lanes[lane].requests {
            // A lane that ends takes its requests back in `lane_down`.
            let _ = requests.send(Parcel { message, tickets });
        }
    }

    /// What is sent of a document that stays here; nothing of one that cannot be sealed, which has then failed.
    fn prepared(&self, state: &mut State, ticket: u64, manner: Manner, document: &Document) -> Option<Outgoing> {
        let key = (ticket >> 32) as usize;
        match self.office.prepare(document) {
            Ok(prepared) => {
                let message = Outgoing::Digest(Box::new(SignDigestRequest {
                    taxpayer: document.taxpayer().to_owned(),
                    digest: prepared.digest().to_vec().into(),
                    digest_algorithm: digest_algorithm(&prepared).into(),
                    certificate_sha256: prepared.certificate().sha256().to_vec().into(),
                    priority: manner.priority.into(),
                    document_id: prepared.document_id().unwrap_or_default().to_owned(),
                    ..SignDigestRequest::default()
                }));
                let request = &mut state.in_flight[key];
                request.prepared = request.sampled.then(|| Box::new(prepared));
                Some(message)
            }
            Err(problem) => {
                let failure = Failure {
                    code: "NOT_PREPARED",
                    reason: "",
                    message: &problem,
                };
                self.fail(state, key, failure);
                None
            }
        }
    }

    /// A lane has a connection.
    pub(in crate::driver) fn lane_up(&self, lane: usize, requests: mpsc::UnboundedSender<Parcel>) {
        let mut state = self.lock();
        if !state.stopping {
            state.lanes[lane].requests = Some(requests);
        }
    }

    /// A lane lost its connection: what it carried failed.
    pub(in crate::driver) fn lane_down(self: &Arc<Self>, lane: usize, failure: Failure<'_>) {
        let mut state = self.lock();
        state.lanes[lane].requests = None;
        let keys: Vec<usize> = state
            .in_flight
            .iter()
            .filter(|(_, request)| request.lane == lane)
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.fail(&mut state, key, failure);
            self.call_later(&state);
        }
    }

    /// The connection takes these requests now.
    pub(in crate::driver) fn handed_over(&self, tickets: &[u64]) {
        let now = Instant::now();
        let mut state = self.lock();
        for ticket in tickets {
            if let Some(request) = state.in_flight.get_mut((ticket >> 32) as usize) {
                request.sent = now;
            }
        }
    }
}

/// The wire's name for how a document's SignedInfo was digested.
fn digest_algorithm(prepared: &xades::Prepared) -> DigestAlgorithm {
    match prepared.signature_algorithm().digest() {
        xades::DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256,
        xades::DigestAlgorithm::Sha384 => DigestAlgorithm::Sha384,
        xades::DigestAlgorithm::Sha512 => DigestAlgorithm::Sha512,
        _ => DigestAlgorithm::Unspecified,
    }
}
