//! Where an element stands, in lines and columns of the input.

use std::ops::Range;

use crate::error::{Fault, Position, Reason};
use crate::limits::Limits;
use crate::scan::{EndTag, Handler, Part, Scanner, StartTag, Text, Window};

/// The place of the element with this number. Costs a pass over what stands before it, and is asked for only when
/// something is wrong: nothing is counted while all is well.
pub(super) fn of(document: &[u8], limits: &Limits, ordinal: u64) -> Option<Position> {
    // A fault knows its place, whatever the encoding; this one is raised for that alone.
    Scanner::new(limits)
        .run(document, &mut Until(ordinal))
        .err()
        .and_then(|refusal| refusal.position())
}

struct Until(u64);

impl Handler for Until {
    fn start_tag(&mut self, _: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        if tag.ordinal == self.0 {
            Err(Fault::new(tag.range.start, Reason::AlreadySealed))
        } else {
            Ok(())
        }
    }

    fn end_tag(&mut self, _: &Window<'_>, _: &EndTag<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn text(&mut self, _: &Window<'_>, _: &Text<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn cdata_edge(&mut self, _: &Window<'_>, _: Range<usize>) -> Result<(), Fault> {
        Ok(())
    }

    fn comment(&mut self, _: &Window<'_>, _: &Part<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn instruction(&mut self, _: &Window<'_>, _: &Part<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn outside(&mut self, _: &Window<'_>, _: Range<usize>) -> Result<(), Fault> {
        Ok(())
    }

    fn window_end(&mut self, _: &Window<'_>, _: usize) -> Result<(), Fault> {
        Ok(())
    }
}
