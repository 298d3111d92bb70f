//! Somebody who always wants more.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use muhurdar_proto::seal::v1::{SealRequest, SealStreamRequest, seal_stream_response::Outcome};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{Appliance, Branch, refused_item};

/// A client that always has so many documents unanswered, over one stream, until it is dropped.
#[derive(Debug)]
pub struct Flood {
    sealed: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Flood {
    /// Of a client of the appliance's folder, with this document.
    ///
    /// # Panics
    /// Where it is refused for anything but load.
    pub async fn of(appliance: &Appliance, client: &str, request: SealRequest, unanswered: usize) -> Self {
        let flood = Self {
            sealed: Arc::default(),
            over: Arc::default(),
        };
        let mut client = Branch::of(appliance, client).connect().await;
        let (send, requests) = mpsc::channel(unanswered);
        let mut last = 0_u64;
        let mut item = move || {
            last += 1;
            SealStreamRequest {
                id: last.to_string(),
                request: Some(request.clone()),
            }
        };
        for _ in 0..unanswered {
            send.try_send(item()).expect("a flood is answered");
        }
        let (sealed, over) = (Arc::clone(&flood.sealed), Arc::clone(&flood.over));
        tokio::spawn(async move {
            let mut answers = client
                .seal_stream(ReceiverStream::new(requests))
                .await
                .expect("a flood is answered")
                .into_inner();
            while let Some(answer) = answers.message().await.expect("a flood is answered") {
                match answer.outcome.expect("a flood is answered") {
                    Outcome::Response(_) => drop(sealed.fetch_add(1, Ordering::Relaxed)),
                    Outcome::Error(error) => assert_eq!(refused_item(&error).code, Code::ResourceExhausted),
                    Outcome::Draining(_) => continue,
                }
                if over.load(Ordering::Relaxed) {
                    return;
                }
                drop(send.send(item()).await);
            }
        });
        flood
    }

    /// How many were sealed so far.
    #[must_use]
    pub fn sealed(&self) -> usize {
        self.sealed.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
