//! The digests that a seal states, taken anew: all of them in one pass over the document.
//!
//! The same pass hears every start tag, and so finds an element that carries an Id of the seal without being the one
//! that the seal means: with two of them, what `#Id` refers to would be each verifier's own choice.

use std::ops::Range;

use aws_lc_rs::digest::Digest;

use crate::algorithm::DigestAlgorithm;
use crate::c14n::{Canonicalizer, DigestSink, Method, Subset};
use crate::error::{Fault, Refusal};
use crate::limits::Limits;
use crate::scan::{EndTag, Handler, Part, Scanner, StartTag, Text, Window};
use crate::scope::Ns;

/// What to digest, and which Ids must be whose.
#[derive(Debug, Default)]
pub(super) struct Wanted<'s> {
    pub(super) subsets: Vec<(Subset, &'s Method, DigestAlgorithm)>,
    /// Ids, and the numbers of the elements that carry them.
    pub(super) ids: Vec<(&'s str, u64)>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Taken {
    /// In the order of the subsets.
    pub(super) digests: Vec<Digest>,
    /// The number of another element with one of the Ids.
    pub(super) duplicate_id: Option<u64>,
}

pub(super) fn take(document: &[u8], limits: &Limits, wanted: &Wanted<'_>) -> Result<Taken, Refusal> {
    let canonicalizers = wanted
        .subsets
        .iter()
        .map(|(subset, method, digest)| Canonicalizer::new(method, *subset, DigestSink::new(digest.implementation())));
    let mut pass = Pass {
        canonicalizers: canonicalizers.collect(),
        ids: &wanted.ids,
        duplicate_id: None,
    };
    Scanner::new(limits).run(document, &mut pass)?;
    let digests = pass
        .canonicalizers
        .into_iter()
        .map(|canonicalizer| canonicalizer.into_sink().finish())
        .collect();
    Ok(Taken {
        digests,
        duplicate_id: pass.duplicate_id,
    })
}

struct Pass<'w> {
    canonicalizers: Vec<Canonicalizer<DigestSink>>,
    ids: &'w [(&'w str, u64)],
    duplicate_id: Option<u64>,
}

impl Pass<'_> {
    fn each(
        &mut self,
        mut hears: impl FnMut(&mut Canonicalizer<DigestSink>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.canonicalizers.iter_mut().try_for_each(&mut hears)
    }

    /// Whatever some verifier may take for an Id: `Id`, `ID`, `id`, in no namespace or in any (`xml:id`, `wsu:Id`).
    fn look_for_ids(&mut self, tag: &StartTag<'_>) {
        for attribute in tag
            .attributes()
            .filter(|attribute| attribute.name.local.eq_ignore_ascii_case(b"id"))
        {
            let taken = |(id, owner): &(&str, u64)| {
                let own = *owner == tag.ordinal && attribute.name.is(Ns::NONE, "Id");
                id.as_bytes() == attribute.value && !own
            };
            if self.ids.iter().any(taken) {
                self.duplicate_id.get_or_insert(tag.ordinal);
            }
        }
    }
}

impl Handler for Pass<'_> {
    fn start_tag(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        self.look_for_ids(tag);
        self.each(|canonicalizer| canonicalizer.start_tag(window, tag))
    }

    fn end_tag(&mut self, window: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.end_tag(window, tag))
    }

    fn text(&mut self, window: &Window<'_>, text: &Text<'_>) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.text(window, text))
    }

    fn cdata_edge(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.cdata_edge(window, range.clone()))
    }

    fn comment(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.comment(window, part))
    }

    fn instruction(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.instruction(window, part))
    }

    fn outside(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.outside(window, range.clone()))
    }

    fn window_end(&mut self, window: &Window<'_>, end: usize) -> Result<(), Fault> {
        self.each(|canonicalizer| canonicalizer.window_end(window, end))
    }
}
