//! Listening for what a document says about its seal.

use std::collections::HashSet;

use super::sealer::{Doubt, Names};
use crate::error::{Fault, Reason};
use crate::profile::{Counts, FIELDS, Field, PARTIES, Party, Role};
use crate::scan::StartTag;
use crate::scope::Ns;

/// No identifier is longer, in bytes.
const LONGEST: usize = 1024;
/// All the Ids of a document together are not larger, in bytes.
const ALL_IDS: usize = 4 << 20;

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Listener {
    values: [Option<String>; FIELDS],
    names: [Names; PARTIES],
    /// What the open element says, its depth, and its text so far.
    open: Option<(Said, u32, Vec<u8>)>,
    ids: HashSet<Box<[u8]>>,
    ids_size: usize,
}

/// What the text of an element is.
#[derive(Debug, Clone, Copy)]
enum Said {
    Text(Field),
    Name(Party, Counts),
}

impl Listener {
    /// Takes what was said.
    pub(super) fn take(&mut self, field: Field) -> Option<String> {
        self.values[field as usize].take()
    }

    /// Who was named, if anybody.
    pub(super) fn named(&mut self, party: Party) -> Result<Option<String>, Doubt> {
        std::mem::take(&mut self.names[party as usize]).conclude()
    }

    /// Whether an element of the document carries this Id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.ids.contains(id.as_bytes())
    }

    /// Whether text is listened to.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// An element with a meaning begins.
    pub(super) fn start(&mut self, tag: &StartTag<'_>, role: Role) {
        let said = match role {
            Role::Text(field) if self.values[field as usize].is_none() => Said::Text(field),
            Role::Name(party, register) => {
                let scheme = tag.attribute(Ns::NONE, "schemeID").unwrap_or_default();
                Said::Name(party, register.counts(scheme))
            }
            Role::Names(party) => return self.names[party as usize].expect(),
            _ => return,
        };
        self.open = Some((said, tag.depth, Vec::new()));
    }

    /// Text, `at` so far into the window, directly or deeper inside the element listened to.
    pub(super) fn text(&mut self, value: &[u8], at: usize) -> Result<(), Fault> {
        let Some((.., text)) = &mut self.open else {
            return Ok(());
        };
        if text.len() + value.len() > LONGEST {
            return Err(Fault::new(
                at,
                Reason::Limit {
                    what: "an identifier",
                    limit: LONGEST as u64,
                },
            ));
        }
        text.extend_from_slice(value);
        Ok(())
    }

    /// The element at `depth` ends.
    pub(super) fn end(&mut self, depth: u32) {
        if self.open.as_ref().is_none_or(|(_, open, _)| *open != depth) {
            return;
        }
        let Some((said, _, text)) = self.open.take() else {
            return;
        };
        let text = String::from_utf8_lossy(text.trim_ascii());
        if text.is_empty() {
            return;
        }
        match said {
            Said::Text(field) => self.values[field as usize] = Some(text.into_owned()),
            Said::Name(party, counts) => self.names[party as usize].hear(&text, counts),
        }
    }

    /// Notes the Id of an element. Attributes of this name are of type ID in every schema concerned, and verifiers look
    /// for all of them.
    #[inline(always)]
    pub(super) fn note_ids(&mut self, tag: &StartTag<'_>) -> Result<(), Fault> {
        for attribute in tag.attributes() {
            let local = attribute.name.local;
            if local.len() == 2 && local.eq_ignore_ascii_case(b"id") {
                self.ids_size += attribute.value.len();
                if self.ids_size > ALL_IDS {
                    let reason = Reason::Limit {
                        what: "bytes of Ids",
                        limit: ALL_IDS as u64,
                    };
                    return Err(Fault::new(tag.range.start, reason));
                }
                self.ids.insert(attribute.value.into());
            }
        }
        Ok(())
    }
}
