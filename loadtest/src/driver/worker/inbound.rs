//! What comes in: an answer finds its request, is counted, and perhaps kept for verification.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{SealResponse, seal_response};

use super::{InFlight, Kept, State, Worker};
use crate::recorder::{Failure, Outcome};

impl Worker {
    /// Answers to requests, in one go: a batch counts as one call of the closed loop.
    pub(in crate::driver) fn answered<'a>(
        self: &Arc<Self>,
        answers: impl IntoIterator<Item = (u64, Result<SealResponse, Failure<'a>>)>,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut failed = false;
        for (ticket, answer) in answers {
            failed |= !self.settle(&mut state, ticket, answer, now);
        }
        if failed {
            self.call_later(&state);
        } else {
            self.call_again(&mut state, now);
        }
    }

    /// False where it was a failure.
    fn settle(&self, state: &mut State, ticket: u64, answer: Result<SealResponse, Failure<'_>>, now: Instant) -> bool {
        let key = (ticket >> 32) as usize;
        let known = state
            .in_flight
            .get(key)
            .is_some_and(|request| u64::from(request.serial) == ticket & 0xFFFF_FFFF);
        if !known {
            state.recorder.strays += 1;
            return true;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                self.fail(state, key, failure);
                return false;
            }
        };
        let request = self.take(state, key);
        let bytes = match &answer.answer {
            Some(seal_response::Answer::SealedDocument(document)) => document.len(),
            Some(seal_response::Answer::Patch(patch)) => patch.replacement.len(),
            None => answer.result.as_ref().map_or(0, |result| result.signature_value.len()),
        };
        state.recorder.record(&Outcome {
            segment: request.segment,
            branch: request.branch,
            intended: request.intended,
            sent: request.sent,
            answered: now,
            request_bytes: request.document.len(),
            result: Ok(bytes),
        });
        self.progress.sealed.fetch_add(1, Ordering::Relaxed);
        if request.sampled {
            let weight = bytes + request.document.len() + 512;
            if state.sample_bytes + weight <= self.setup.sample_bytes / self.part.of {
                state.sample_bytes += weight;
                state.kept.push(Kept {
                    document: request.document,
                    answer: copied(answer),
                    prepared: request.prepared,
                });
            } else {
                state.samples_dropped += 1;
            }
        }
        true
    }

    pub(super) fn fail(&self, state: &mut State, key: usize, failure: Failure<'_>) {
        let request = self.take(state, key);
        state.recorder.record(&Outcome {
            segment: request.segment,
            branch: request.branch,
            intended: request.intended,
            sent: request.sent,
            answered: Instant::now(),
            request_bytes: request.document.len(),
            result: Err(failure),
        });
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, state: &mut State, key: usize) -> InFlight {
        let request = state.in_flight.remove(key);
        self.progress.in_flight.fetch_sub(1, Ordering::Relaxed);
        if state.in_flight.is_empty() {
            self.answered.notify_one();
        }
        request
    }
}

/// An answer's fields are slices of large receive buffers: a kept answer must not keep those.
fn copied(mut answer: SealResponse) -> SealResponse {
    let copy = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    match &mut answer.answer {
        Some(seal_response::Answer::SealedDocument(document)) => copy(document),
        Some(seal_response::Answer::Patch(patch)) => copy(&mut patch.replacement),
        None => {}
    }
    if let Some(result) = &mut answer.result {
        copy(&mut result.signature_value);
        copy(&mut result.sealed_document_sha256);
        if let Some(receipt) = &mut result.receipt {
            copy(&mut receipt.certificate_sha256);
        }
    }
    answer
}
