//! What is on a token, told to everybody: when it was opened, and when somebody asks for it to be read again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cryptoki_sys as ck;

use super::Supervisor;
use crate::bounded::bounded;
use crate::ckr::CkrError;
use crate::discovery;
use crate::driver::FoundKey;
use crate::ladder::Rung;
use crate::module::lock;
use crate::slot::Slot;
use crate::table::Handles;

/// Labels in a line of the log.
const NAMED: usize = 20;

impl Supervisor {
    /// Takes what was found on a token, and tells what is different.
    pub(super) fn take(&self, slot: &Slot, found: &[FoundKey]) -> Handles {
        discovery::tell(&slot.name, found);
        let keys = found.iter().filter(|key| key.refused.is_none()).count();
        let (handles, news) = self.shared.keys.merge(slot.index, found);
        let first = !slot.read.swap(true, Ordering::AcqRel);
        if news.is_none() {
            tracing::info!(token = %slot.name, keys, "the token was read; it holds what it held");
        } else {
            tracing::info!(
                token = %slot.name,
                keys,
                new_keys = %listed(&news.new_keys),
                gone_keys = %listed(&news.gone_keys),
                new_certificates = news.new_certificates,
                gone_certificates = news.gone_certificates,
                "the token was read"
            );
        }
        // That a token is empty is news too, where nobody could know before.
        if first || !news.is_none() {
            self.shared.found.send_modify(|times| *times += 1);
        }
        handles
    }

    /// Looks for keys and certificates on a slot that signs.
    pub(super) fn rediscover(&mut self, at: usize) -> Result<(), CkrError> {
        let slot = Arc::clone(&self.slots[at].slot);
        if slot.config.single_session {
            // Its one session signs: two threads must not be in it. So it is opened anew, while requests wait.
            let order = self.slots[at].ladder.failed(Rung::Slot, 0);
            self.act(at, order);
            return Ok(());
        }
        let Some(id) = slot.slot_id() else {
            return Err(CkrError {
                function: "C_FindObjects",
                code: ck::CKR_TOKEN_NOT_PRESENT as u64,
            });
        };
        let found = bounded(&self.shared, &slot, "C_FindObjects", move |driver| driver.discover(id))?;
        let handles = self.take(&slot, &found);
        {
            let mut opened = lock(&slot.opened);
            if *opened.handles == handles {
                return Ok(());
            }
            opened.handles = Arc::new(handles);
        }
        // Lanes carry the handles of their epoch: begin a new one without touching keeper or login.
        slot.end_epoch();
        drop(slot.lanes().retain(|_, _| false));
        self.shared.replace(&slot);
        Ok(())
    }
}

fn listed(labels: &[String]) -> String {
    let mut text = labels
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if labels.len() > NAMED {
        text += &format!(" and {} more", labels.len() - NAMED);
    }
    text
}
