//! Character data that is not plain, CDATA sections, comments and processing instructions.

use crate::error::{Fault, Inside, Label, Reason};

use super::chars::{self, CDATA_BREAK, MISC_BREAK, NAME, SPACE};
use super::core::{Core, State, Step};
use super::event::{Handler, Part, Text, Window};
use super::reference::{self, Reference};

impl Core {
    /// A byte that ends plain character data, and is not `<`: a reference, `>`, CR, or a character to look at.
    pub(super) fn special<H: Handler>(
        &mut self,
        w: &Window<'_>,
        at: usize,
        last: bool,
        cdata: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        match b[at] {
            b'\r' => match line_end(b, at, last) {
                None => Ok(Step::Short(at)),
                Some(end) => {
                    h.text(
                        w,
                        &Text {
                            range: at..end,
                            value: b"\n",
                            plain: false,
                            cdata,
                        },
                    )?;
                    Ok(Step::To(end))
                }
            },
            b'&' if !cdata => match reference::parse(b, at, self.limits.name as usize)? {
                Reference::Short => Self::short(at, last, Inside::Reference, b.len()),
                Reference::Complete { character, end } => {
                    let value = character.encode_utf8(&mut [0; 4]).len();
                    let mut utf8 = [0; 4];
                    character.encode_utf8(&mut utf8);
                    h.text(
                        w,
                        &Text {
                            range: at..end,
                            value: &utf8[..value],
                            plain: false,
                            cdata,
                        },
                    )?;
                    Ok(Step::To(end))
                }
            },
            b'>' | b'<' | b'&' => {
                h.text(
                    w,
                    &Text {
                        range: at..at + 1,
                        value: &b[at..=at],
                        plain: false,
                        cdata,
                    },
                )?;
                Ok(Step::To(at + 1))
            }
            _ => {
                let end = allowed(b, at)?;
                h.text(
                    w,
                    &Text {
                        range: at..end,
                        value: &b[at..end],
                        plain: true,
                        cdata,
                    },
                )?;
                Ok(Step::To(end))
            }
        }
    }

    /// Inside a CDATA section.
    pub(super) fn cdata<H: Handler>(
        &mut self,
        w: &Window<'_>,
        mut at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        loop {
            let next = chars::find(b, at, CDATA_BREAK);
            if next > at {
                h.text(
                    w,
                    &Text {
                        range: at..next,
                        value: &b[at..next],
                        plain: true,
                        cdata: true,
                    },
                )?;
            }
            let Some(&byte) = b.get(next) else {
                return Ok(Step::To(next));
            };
            if byte != b']' {
                match self.special(w, next, last, true, h)? {
                    Step::To(end) => at = end,
                    short => return Ok(short),
                }
                continue;
            }
            let rest = &b[next..];
            if rest.starts_with(b"]]>") {
                h.cdata_edge(w, next..next + 3)?;
                self.state = State::Content;
                return Ok(Step::To(next + 3));
            }
            if b"]]>".starts_with(rest) {
                return Self::short(next, last, Inside::Cdata, b.len());
            }
            h.text(
                w,
                &Text {
                    range: next..next + 1,
                    value: b"]",
                    plain: true,
                    cdata: true,
                },
            )?;
            at = next + 1;
        }
    }

    /// Inside a comment.
    pub(super) fn comment<H: Handler>(
        &mut self,
        w: &Window<'_>,
        mut at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        loop {
            let next = chars::find(b, at, MISC_BREAK);
            if next > at {
                h.comment(
                    w,
                    &Part::Data {
                        range: at..next,
                        value: &b[at..next],
                    },
                )?;
            }
            let Some(&byte) = b.get(next) else {
                return Ok(Step::To(next));
            };
            match (byte, b.get(next + 1), b.get(next + 2)) {
                (b'-', Some(b'-'), Some(b'>')) => {
                    h.comment(w, &Part::End { range: next..next + 3 })?;
                    self.resume();
                    return Ok(Step::To(next + 3));
                }
                (b'-', Some(b'-'), Some(_)) => return Err(Fault::new(next, Reason::DoubleHyphen)),
                (b'-', Some(b'-'), None) | (b'-', None, _) => {
                    return Self::short(next, last, Inside::Comment, b.len());
                }
                _ => match misc(w, next, last)? {
                    None => return Ok(Step::Short(next)),
                    Some((end, value)) => {
                        h.comment(
                            w,
                            &Part::Data {
                                range: next..end,
                                value,
                            },
                        )?;
                        at = end;
                    }
                },
            }
        }
    }

    /// `<?` and the target.
    pub(super) fn instruction<H: Handler>(
        &mut self,
        w: &Window<'_>,
        at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        let end = chars::skip(b, at + 2, NAME);
        if end - at > self.limits.name as usize {
            return Err(Fault::new(
                at,
                Reason::Limit {
                    what: "a name",
                    limit: self.limits.name.into(),
                },
            ));
        }
        match b.get(end) {
            None => return Self::short(at, last, Inside::Instruction, b.len()),
            Some(b'?') if end + 1 == b.len() => return Self::short(at, last, Inside::Instruction, b.len()),
            Some(_) => {}
        }
        let target = &b[at + 2..end];
        let span = super::tag::checked_name(b, at + 2, end)?;
        if span.local != span.start {
            return Err(Fault::new(
                at + 2,
                Reason::QualifiedName {
                    name: Label::new(target),
                },
            ));
        }
        if target == b"xml" {
            return Err(Fault::new(at, Reason::DeclarationMisplaced));
        }
        if target.eq_ignore_ascii_case(b"xml") {
            return Err(Fault::new(
                at + 2,
                Reason::InstructionName {
                    name: Label::new(target),
                },
            ));
        }
        if !chars::is(b[end], SPACE) && !b[end..].starts_with(b"?>") {
            return Err(Fault::new(end, Reason::Instruction));
        }
        h.instruction(w, &Part::Start { range: at..end, target })?;
        self.state = State::Instruction { started: false };
        Ok(Step::To(end))
    }

    /// After the target of a processing instruction.
    pub(super) fn instruction_data<H: Handler>(
        &mut self,
        w: &Window<'_>,
        mut at: usize,
        started: bool,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        if !started {
            let begin = chars::skip(b, at, SPACE);
            if begin > at {
                h.instruction(
                    w,
                    &Part::Data {
                        range: at..begin,
                        value: b"",
                    },
                )?;
                at = begin;
            }
            if at == b.len() {
                return Ok(Step::To(at));
            }
            self.state = State::Instruction { started: true };
        }
        loop {
            let next = chars::find(b, at, MISC_BREAK);
            if next > at {
                h.instruction(
                    w,
                    &Part::Data {
                        range: at..next,
                        value: &b[at..next],
                    },
                )?;
            }
            let Some(&byte) = b.get(next) else {
                return Ok(Step::To(next));
            };
            match (byte, b.get(next + 1)) {
                (b'?', Some(b'>')) => {
                    h.instruction(w, &Part::End { range: next..next + 2 })?;
                    self.resume();
                    return Ok(Step::To(next + 2));
                }
                (b'?', None) => return Self::short(next, last, Inside::Instruction, b.len()),
                _ => match misc(w, next, last)? {
                    None => return Ok(Step::Short(next)),
                    Some((end, value)) => {
                        h.instruction(
                            w,
                            &Part::Data {
                                range: next..end,
                                value,
                            },
                        )?;
                        at = end;
                    }
                },
            }
        }
    }
}

/// One character of a comment or processing instruction that is not plain: its end and what it means. `None` where the
/// window ends between CR and what follows.
fn misc<'w>(w: &Window<'w>, at: usize, last: bool) -> Result<Option<(usize, &'w [u8])>, Fault> {
    let b = w.bytes;
    match b[at] {
        b'\r' => Ok(line_end(b, at, last).map(|end| (end, &b"\n"[..]))),
        b'-' | b'?' => Ok(Some((at + 1, &b[at..=at]))),
        _ => {
            let end = allowed(b, at)?;
            Ok(Some((end, &b[at..end])))
        }
    }
}

/// Where the line end that begins with the CR at `at` ends (XML 1.0, section 2.11). `None` where more must be seen.
fn line_end(b: &[u8], at: usize, last: bool) -> Option<usize> {
    match b.get(at + 1) {
        Some(b'\n') => Some(at + 2),
        None if !last => None,
        _ => Some(at + 1),
    }
}

/// The end of the character at `at`, if XML allows it.
pub(super) fn allowed(b: &[u8], at: usize) -> Result<usize, Fault> {
    let (code, length) = chars::decode(b, at);
    if chars::is_char(code) {
        Ok(at + length)
    } else {
        Err(Fault::new(at, Reason::Character { code }))
    }
}
