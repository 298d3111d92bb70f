//! The state of a scan between two windows, and the walk through one.

use crate::encoding::{self, Encoding};
use crate::error::{Fault, Inside, Reason};
use crate::limits::Limits;
use crate::scope::Scope;

use super::chars::{self, SPACE};
use super::declaration;
use super::event::{Handler, RawAttribute, RawDeclaration, Text, Window};
use super::simd::{self, Search};

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing yet: the XML declaration may stand here.
    Start,
    /// Outside the root element.
    Outside,
    /// Inside the root element.
    Content,
    Cdata,
    Comment,
    /// After the target of a processing instruction; `started` once its data began.
    Instruction {
        started: bool,
    },
}

/// How far a step came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Everything before this place is done with.
    To(usize),
    /// What begins at this place is not complete in the window.
    Short(usize),
}

/// An element that is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Where its name begins: in `names` where that is kept, else in the window.
    pub(super) name: usize,
    /// Of the name, in bytes.
    pub(super) length: usize,
    /// Namespace declarations to forget at its end.
    pub(super) declared: usize,
}

/// A scan under way.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) limits: Limits,
    pub(super) state: State,
    pub(super) scope: Scope,
    pub(super) open: Vec<Open>,
    /// The names of the elements that were open at the end of a window, one after the other.
    pub(super) names: Vec<u8>,
    /// How many of the open elements have their names there.
    pub(super) kept: usize,
    pub(super) root_seen: bool,
    /// Elements so far.
    pub(super) elements: u64,
    /// How many `]` ended the text at the end of the last window, at most 2.
    pub(super) brackets: usize,
    /// The encoding that was found, which the declaration must agree with.
    pub(super) encoding: Encoding,
    // Of the start tag at hand; kept for their memory.
    pub(super) attributes: Vec<RawAttribute>,
    pub(super) declarations: Vec<RawDeclaration>,
    pub(super) order: Vec<u32>,
    pub(super) scratch: Vec<u8>,
}

/// A window to be scanned: what is compiled for each kind of processor.
struct Walk<'a, 'w, H> {
    core: &'a mut Core,
    window: &'a Window<'w>,
    last: bool,
    handler: &'a mut H,
}

impl<H: Handler> simd::Task for Walk<'_, '_, H> {
    type Output = Result<usize, Fault>;

    #[inline(always)]
    fn run<S: Search>(self, mut search: S) -> Self::Output {
        self.core.walk(&mut search, self.window, self.last, self.handler)
    }
}

impl Core {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            scope: Scope::new(),
            open: Vec::with_capacity(16),
            names: Vec::new(),
            kept: 0,
            root_seen: false,
            elements: 0,
            brackets: 0,
            encoding: Encoding::Utf8,
            attributes: Vec::with_capacity(16),
            declarations: Vec::with_capacity(16),
            order: Vec::with_capacity(16),
            scratch: Vec::new(),
        }
    }

    /// Scans a window, and says how much of it is used up. With `last`, nothing may be left over.
    pub(super) fn scan<H: Handler>(&mut self, w: &Window<'_>, last: bool, h: &mut H) -> Result<usize, Fault> {
        simd::run(
            w.bytes,
            Walk {
                core: self,
                window: w,
                last,
                handler: h,
            },
        )
    }

    /// As [`scan`](Self::scan), with this search.
    #[inline(always)]
    fn walk<S: Search, H: Handler>(
        &mut self,
        s: &mut S,
        w: &Window<'_>,
        last: bool,
        h: &mut H,
    ) -> Result<usize, Fault> {
        let mut at = 0;
        while at < w.bytes.len() {
            let step = match self.state {
                State::Content => self.content(s, w, at, last, h)?,
                State::Outside => self.outside(s, w, at, last, h)?,
                State::Cdata => self.cdata(w, at, last, h)?,
                State::Comment => self.comment(w, at, last, h)?,
                State::Instruction { started } => self.instruction_data(w, at, started, last, h)?,
                State::Start => self.start(w, last, h)?,
            };
            match step {
                Step::To(next) => at = next,
                Step::Short(from) => {
                    at = from;
                    break;
                }
            }
        }
        h.window_end(w, at)?;
        if !last {
            self.keep_names(w.bytes);
        }
        Ok(at)
    }

    /// The window goes; the names of the elements that stay open must not go with it.
    fn keep_names(&mut self, b: &[u8]) {
        for open in &mut self.open[self.kept..] {
            let name = &b[open.name..open.name + open.length];
            open.name = self.names.len();
            self.names.extend_from_slice(name);
        }
        self.kept = self.open.len();
    }

    /// Checks that the document may end here, at the end of a window of `at` bytes.
    pub(super) fn end(&self, at: usize) -> Result<(), Fault> {
        let inside = match self.state {
            State::Start => return Err(Fault::new(at, Reason::Empty)),
            State::Outside if self.root_seen => return Ok(()),
            State::Outside => return Err(Fault::new(at, Reason::NoRoot)),
            State::Content => Inside::Element,
            State::Cdata => Inside::Cdata,
            State::Comment => Inside::Comment,
            State::Instruction { .. } => Inside::Instruction,
        };
        Err(Fault::new(at, Reason::UnexpectedEnd { inside }))
    }

    /// What is incomplete at `from` waits for more, or is an error where no more will come.
    pub(super) fn short(from: usize, last: bool, inside: Inside, end: usize) -> Result<Step, Fault> {
        if last {
            Err(Fault::new(end, Reason::UnexpectedEnd { inside }))
        } else {
            Ok(Step::Short(from))
        }
    }

    fn start<H: Handler>(&mut self, w: &Window<'_>, last: bool, h: &mut H) -> Result<Step, Fault> {
        const OPENING: &[u8] = b"<?xml";
        let b = w.bytes;
        if b.len() <= OPENING.len() && OPENING.starts_with(b) && !last {
            return Ok(Step::Short(0));
        }
        let mut at = 0;
        if b.starts_with(OPENING) && b.get(OPENING.len()).is_some_and(|&byte| chars::is(byte, SPACE)) {
            let near = &b[..b.len().min(declaration::LONGEST + 1)];
            let Some(end) = encoding::declaration_end(near) else {
                if b.len() > declaration::LONGEST {
                    return Err(Fault::new(0, Reason::Declaration));
                }
                return Self::short(0, last, Inside::Declaration, b.len());
            };
            at = end + 2;
            if let Some(declared) = declaration::parse(&b[..at])? {
                encoding::agrees(declared, self.encoding).map_err(|reason| Fault::new(0, reason))?;
            }
            h.outside(w, 0..at)?;
        }
        self.state = State::Outside;
        Ok(Step::To(at))
    }

    /// Before and after the root element.
    #[inline(always)]
    fn outside<S: Search, H: Handler>(
        &mut self,
        s: &mut S,
        w: &Window<'_>,
        at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let end = chars::skip(w.bytes, at, SPACE);
        if end > at {
            h.outside(w, at..end)?;
        }
        match w.bytes.get(end) {
            None => Ok(Step::To(end)),
            Some(b'<') => self.markup(s, w, end, last, h),
            Some(_) => {
                let (code, _) = chars::decode(w.bytes, end);
                let bad = !chars::is_char(code);
                Err(Fault::new(
                    end,
                    if bad {
                        Reason::Character { code }
                    } else {
                        Reason::TextOutsideRoot
                    },
                ))
            }
        }
    }

    /// Markup at the `<` at `at`.
    #[inline(always)]
    pub(super) fn markup<S: Search, H: Handler>(
        &mut self,
        s: &mut S,
        w: &Window<'_>,
        at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        match w.bytes.get(at + 1) {
            Some(b'/') => self.end_tag(s, w, at, last, h),
            Some(b'!') => self.bang(w, at, last, h),
            Some(b'?') => self.instruction(w, at, last, h),
            Some(_) => self.start_tag(s, w, at, last, h),
            None => Self::short(at, last, Inside::Tag, at + 1),
        }
    }

    /// `<!--`, `<![CDATA[` or `<!DOCTYPE`.
    fn bang<H: Handler>(&mut self, w: &Window<'_>, at: usize, last: bool, h: &mut H) -> Result<Step, Fault> {
        let rest = &w.bytes[at + 2..];
        let in_content = self.state == State::Content;
        if rest.starts_with(b"--") {
            self.state = State::Comment;
            h.comment(
                w,
                &super::Part::Start {
                    range: at..at + 4,
                    target: b"",
                },
            )?;
            return Ok(Step::To(at + 4));
        }
        if rest.starts_with(b"[CDATA[") {
            if !in_content {
                return Err(Fault::new(at, Reason::TextOutsideRoot));
            }
            self.state = State::Cdata;
            h.cdata_edge(w, at..at + 9)?;
            return Ok(Step::To(at + 9));
        }
        if rest.starts_with(b"DOCTYPE") && !in_content {
            return Err(Fault::new(at, Reason::Dtd));
        }
        let incomplete = |whole: &[u8]| rest.len() < whole.len() && whole.starts_with(rest);
        if incomplete(b"--") || incomplete(b"[CDATA[") || (incomplete(b"DOCTYPE") && !in_content) {
            return Self::short(at, last, Inside::Tag, w.bytes.len());
        }
        Err(Fault::new(at, Reason::Markup))
    }

    /// Back to where a comment or a processing instruction stood.
    pub(super) fn resume(&mut self) {
        self.state = if self.open.is_empty() {
            State::Outside
        } else {
            State::Content
        };
    }

    /// Character data inside the root, until the state changes or the window ends.
    #[inline(always)]
    fn content<S: Search, H: Handler>(
        &mut self,
        s: &mut S,
        w: &Window<'_>,
        mut at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        // Where the character data that is contiguous within this window began.
        let mut begun = at;
        loop {
            // Between two tags there is often nothing.
            let next = if b.get(at) == Some(&b'<') { at } else { s.text_break(at) };
            if next > at {
                h.text(w, &Text::plain(b, at..next))?;
            }
            let Some(&byte) = b.get(next) else {
                self.brackets = self.brackets_before(b, begun, next);
                return Ok(Step::To(next));
            };
            let step = if byte == b'<' {
                self.brackets = 0;
                self.markup(s, w, next, last, h)?
            } else if byte == b'>' && self.brackets_before(b, begun, next) >= 2 {
                return Err(Fault::new(next, Reason::CdataEndInText));
            } else {
                let step = self.special(w, next, last, false, h)?;
                if byte == b'&' {
                    self.brackets = 0;
                    if let Step::To(end) = step {
                        begun = end;
                    }
                }
                step
            };
            match step {
                Step::To(end) => at = end,
                Step::Short(from) => {
                    self.brackets = 0;
                    return Ok(Step::Short(from));
                }
            }
            if byte == b'<' {
                if self.state != State::Content {
                    return Ok(step);
                }
                begun = at;
            }
        }
    }

    /// How many `]`, at most 2, stand directly before `end` in character data that goes back to `begun`.
    fn brackets_before(&self, b: &[u8], begun: usize, end: usize) -> usize {
        let near = b[begun..end]
            .iter()
            .rev()
            .take(2)
            .take_while(|&&byte| byte == b']')
            .count();
        // Data that fills the window from its start goes on from the window before.
        if begun == 0 && near == end.min(2) {
            (near + self.brackets).min(2)
        } else {
            near
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c14n::{Canonicalizer, Method, Subset};
    use crate::encoding::Origin;

    /// What a document becomes, and where it ends or is wrong.
    fn canonical<S: Search>(document: &str, mut search: S) -> (Result<usize, String>, Vec<u8>) {
        let origin = Origin {
            encoding: Encoding::Utf8,
            base: 0,
        };
        let window = Window {
            bytes: document.as_bytes(),
            origin,
        };
        let mut canonicalizer = Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, Vec::new());
        let walked = Core::new(Limits::default()).walk(&mut search, &window, true, &mut canonicalizer);
        let walked = walked.map_err(|fault| format!("{fault:?}"));
        (walked, canonicalizer.into_sink())
    }

    struct Canonical<'a>(&'a str);

    impl simd::Task for Canonical<'_> {
        type Output = (Result<usize, String>, Vec<u8>);

        fn run<S: Search>(self, search: S) -> Self::Output {
            canonical(self.0, search)
        }
    }

    /// Markup around which a block of 64 bytes may end anywhere, and every byte of ASCII in the place of each of its own.
    #[test]
    fn the_scalar_twin_reads_the_same_documents() {
        let markup = "<p:ab c='1' d=\"&lt;ü\"><b>x]] ></b><e/></p:ab >";
        for before in 0..70 {
            let document = format!("<r xmlns:p='urn:p'>{}{markup}</r>", "x".repeat(before));
            let expected = canonical(&document, simd::Scalar(document.as_bytes()));
            assert_eq!(
                simd::run(document.as_bytes(), Canonical(&document)),
                expected,
                "{document}"
            );
        }
        for at in (0..markup.len()).filter(|&at| markup.as_bytes()[at] < 0x80) {
            for byte in 0..0x80 {
                let other = [&markup[..at], &char::from(byte).to_string(), &markup[at + 1..]].concat();
                let document = format!("<r xmlns:p='urn:p'>{}{other}{}</r>", "x".repeat(at), "y".repeat(100));
                let expected = canonical(&document, simd::Scalar(document.as_bytes()));
                assert_eq!(
                    simd::run(document.as_bytes(), Canonical(&document)),
                    expected,
                    "{document}"
                );
            }
        }
    }
}
