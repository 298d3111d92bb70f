//! The seals as they are known now. They are made of what the pool has found on the tokens and of the configured folder of
//! certificates, and made anew when either changes: a token comes that was away at the start, one is read again, a
//! certificate is put into the folder. Which of a taxpayer's certificates seals is not decided here, but when it seals
//! ([`Seals::at`]).

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use muhurdar_pool::Pool;
use muhurdar_xades::Certificate;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    pipeline::Pipeline,
    seals::{Named, Seals},
};

/// Seals in a line of the log.
const NAMED: usize = 20;

/// All seals, and what they are made of.
#[derive(Debug)]
pub(crate) struct Catalogue {
    seals: ArcSwap<Seals>,
    /// The certificates of the folder. Locked while the seals are made, so that the last to make them has seen what is last.
    folder: Mutex<Vec<Certificate>>,
}

impl Catalogue {
    pub(crate) fn new(pool: &Pool, folder: Vec<Certificate>) -> Self {
        Self {
            seals: ArcSwap::from_pointee(Seals::new(&pool.keys(), &folder)),
            folder: Mutex::new(folder),
        }
    }

    /// As they are known now.
    pub(crate) fn load(&self) -> Guard<Arc<Seals>> {
        self.seals.load()
    }

    /// Takes these for the certificates of the folder. Answers whether any seal is another one now.
    pub(crate) fn replace_folder(&self, pool: &Pool, certificates: Vec<Certificate>) -> bool {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        *folder = certificates;
        self.make(pool, &folder)
    }

    /// Takes what the pool knows now.
    fn refresh(&self, pool: &Pool) {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        self.make(pool, &folder);
    }

    fn make(&self, pool: &Pool, folder: &[Certificate]) -> bool {
        let (before, after) = (self.seals.load_full(), Arc::new(Seals::new(&pool.keys(), folder)));
        self.seals.store(Arc::clone(&after));
        let (new, gone) = (after.without(&before), before.without(&after));
        if new.is_empty() && gone.is_empty() {
            return false;
        }
        tracing::info!(
            taxpayers = after.len(),
            new = %listed(&new),
            gone = %listed(&gone),
            "the seals have changed"
        );
        true
    }
}

/// Each by its taxpayer and the serial number of its certificate.
fn listed(seals: &[Named<'_>]) -> String {
    let named = seals.iter().take(NAMED);
    let mut text = named
        .map(|(taxpayer, serial)| format!("{taxpayer} ({serial})"))
        .collect::<Vec<_>>()
        .join(", ");
    if seals.len() > NAMED {
        text += &format!(" and {} more", seals.len() - NAMED);
    }
    text
}

/// Keeps the seals as the tokens have them, until `end`.
pub(crate) async fn follow(pipeline: Arc<Pipeline>, mut found: watch::Receiver<u64>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = found.changed() => if changed.is_err() { return },
        }
        let pipeline = Arc::clone(&pipeline);
        // Certificates are parsed: thousands of them take a while.
        let made = tokio::task::spawn_blocking(move || pipeline.seals.refresh(&pipeline.pool));
        if made.await.is_err() {
            tracing::error!("the seals could not be made anew; those from before hold");
        }
    }
}
