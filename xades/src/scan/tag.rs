//! Start tags and end tags: names, attributes, namespaces.

use crate::error::{Fault, Inside, Label, Reason};

use super::chars::{self, NAME, SPACE};
use super::core::{Core, Open, State, Step};
use super::event::{EndTag, Handler, RawAttribute, Span, StartTag, Text, Window};
use super::simd::{NameShape, Search};
use super::value;

/// How a start tag went on after its name.
enum Rest {
    Short,
    Complete {
        end: usize,
        empty: bool,
        /// One space before each attribute and none elsewhere, double quotes, values that need no rewriting.
        tidy: bool,
    },
}

impl Core {
    /// The start tag at the `<` at `at`.
    #[inline(always)]
    pub(super) fn start_tag<S: Search, H: Handler>(
        &mut self,
        s: &mut S,
        w: &Window<'_>,
        at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        let Some(name) = self.name(s, b, at + 1)? else {
            return self.short_tag(at, last, b.len());
        };
        let is_root = self.open.is_empty();
        if is_root && self.root_seen {
            return Err(Fault::new(at, Reason::SecondRoot));
        }
        let mut rest = Rest::Complete {
            end: name.end + 1,
            empty: false,
            tidy: true,
        };
        self.attributes.clear();
        self.declarations.clear();
        self.order.clear();
        if b[name.end] != b'>' {
            rest = self.attributes(s, b, at, name.end)?;
        }
        let Rest::Complete { end, empty, tidy } = rest else {
            return self.short_tag(at, last, b.len());
        };
        if end - at > self.limits.start_tag as usize {
            let limit = self.limits.start_tag.into();
            return Err(Fault::new(at, Reason::Limit { what: "a tag", limit }));
        }
        let mut canonical = tidy;
        match &self.attributes[..] {
            [] => {}
            // Nearly all attributes: alone, without a prefix, and no declaration.
            [one] if one.name.local == one.name.start && b[one.name.start] != b'x' => self.order.push(0),
            _ => canonical &= self.namespaces_and_order(b)?,
        }
        let ns = self.element_namespace(b, name)?;
        if self.open.len() >= self.limits.depth as usize {
            return Err(Fault::new(
                at,
                Reason::Limit {
                    what: "elements inside each other",
                    limit: self.limits.depth.into(),
                },
            ));
        }
        let depth = self.depth() + 1;
        let length = name.end - name.start;
        if canonical && !empty && h.lets_start_pass(ns, depth, self.attributes.len()) {
            if let Some(text) = self.text_alone(s, b, name, end)
                && h.lets_end_pass(depth)
            {
                if text > end {
                    h.text(w, &Text::plain(b, end..text))?;
                }
                self.elements += 1;
                return Ok(Step::To(text + length + 3));
            }
            self.open(name);
        } else {
            self.open(name);
            self.describe(w, name, ns, at..end, empty, canonical, h)?;
        }
        self.elements += 1;
        if is_root {
            self.root_seen = true;
            self.state = State::Content;
        }
        if empty {
            let qualified = &b[name.start..name.end];
            h.end_tag(
                w,
                &EndTag {
                    qualified,
                    range: end..end,
                    empty,
                    depth,
                    scope: &self.scope,
                    canonical: true,
                },
            )?;
            self.close();
        }
        Ok(Step::To(end))
    }

    /// Most elements hold plain text or nothing, and then end: where the text that begins at `from` ends, if that is so
    /// of the element with this name. It need not be put among the open ones then.
    #[inline(always)]
    fn text_alone<S: Search>(&self, s: &mut S, b: &[u8], name: Span, from: usize) -> Option<usize> {
        if self.open.is_empty() || !self.declarations.is_empty() {
            return None;
        }
        let text = s.text_break(from);
        let length = name.end - name.start;
        let ends = matches!(b.get(text..), Some([b'<', b'/', ..]))
            && s.same(text + 2, name.start, length)
            && b.get(text + 2 + length) == Some(&b'>');
        ends.then_some(text)
    }

    /// Puts the element of the start tag at hand among the open ones.
    #[inline(always)]
    fn open(&mut self, name: Span) {
        self.open.push(Open {
            name: name.start,
            length: name.end - name.start,
            declared: self.declarations.len(),
        });
    }

    /// Tells the handler of the start tag at hand.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "the parts of one tag")]
    fn describe<H: Handler>(
        &self,
        w: &Window<'_>,
        name: Span,
        ns: crate::scope::Ns,
        range: std::ops::Range<usize>,
        empty: bool,
        canonical: bool,
        h: &mut H,
    ) -> Result<(), Fault> {
        let b = w.bytes;
        let depth = self.depth();
        let tag = StartTag {
            name: name.name(b, ns),
            range,
            empty,
            ordinal: self.elements,
            depth,
            scope: &self.scope,
            canonical,
            bytes: b,
            scratch: &self.scratch,
            attributes: &self.attributes,
            declarations: &self.declarations,
            order: &self.order,
        };
        h.start_tag(w, &tag)
    }

    /// The end tag at the `<` at `at`.
    #[inline(always)]
    pub(super) fn end_tag<S: Search, H: Handler>(
        &mut self,
        s: &mut S,
        w: &Window<'_>,
        at: usize,
        last: bool,
        h: &mut H,
    ) -> Result<Step, Fault> {
        let b = w.bytes;
        let Some(&Open { name, length, .. }) = self.open.last() else {
            return Err(Fault::new(at, Reason::EndTagAlone));
        };
        let kept = self.open.len() <= self.kept;
        let mut end = at + 2 + length;
        let matches = if kept {
            b[at + 2..].starts_with(&self.names[name..name + length])
        } else {
            s.same(at + 2, name, length)
        };
        if !matches || b.get(end) != Some(&b'>') {
            if !matches || b.get(end).is_some_and(|&byte| chars::is(byte, NAME)) {
                let found = chars::skip(b, at + 2, NAME);
                if found == b.len() && found - at <= self.limits.name as usize {
                    return Self::short(at, last, Inside::Tag, b.len());
                }
                let open = if kept {
                    &self.names[name..name + length]
                } else {
                    &b[name..name + length]
                };
                let (open, found) = (Label::new(open), Label::new(&b[at + 2..found]));
                return Err(Fault::new(at, Reason::EndTag { open, found }));
            }
            end = chars::skip(b, end, SPACE);
            match b.get(end) {
                Some(b'>') => {}
                Some(_) => return Err(Fault::new(end, Reason::GreaterThanExpected)),
                None => return self.short_tag(at, last, b.len()),
            }
        }
        let qualified = &b[at + 2..at + 2 + length];
        let canonical = end == at + 2 + length;
        let depth = self.depth();
        if canonical && h.lets_end_pass(depth) {
            self.close();
            return Ok(Step::To(end + 1));
        }
        h.end_tag(
            w,
            &EndTag {
                qualified,
                range: at..end + 1,
                empty: false,
                depth,
                scope: &self.scope,
                canonical,
            },
        )?;
        self.close();
        Ok(Step::To(end + 1))
    }

    /// Forgets the innermost open element.
    #[inline(always)]
    fn close(&mut self) {
        if let Some(Open { declared, .. }) = self.open.pop() {
            if declared > 0 {
                self.scope.pop(declared);
            }
            if self.open.len() < self.kept {
                self.kept = self.open.len();
                self.names
                    .truncate(self.open.last().map_or(0, |open| open.name + open.length));
            }
        }
        if self.open.is_empty() {
            self.state = State::Outside;
        }
    }

    #[inline(always)]
    fn depth(&self) -> u32 {
        u32::try_from(self.open.len()).expect("the limit on depth is a u32")
    }

    fn short_tag(&self, at: usize, last: bool, end: usize) -> Result<Step, Fault> {
        if end - at > self.limits.start_tag as usize {
            return Err(Fault::new(
                at,
                Reason::Limit {
                    what: "a tag",
                    limit: self.limits.start_tag.into(),
                },
            ));
        }
        Self::short(at, last, Inside::Tag, end)
    }

    /// The qualified name at `start`; `None` where it may go on beyond the window.
    #[inline(always)]
    fn name<S: Search>(&self, s: &mut S, b: &[u8], start: usize) -> Result<Option<Span>, Fault> {
        let NameShape { end, local, odd } = s.name(start);
        if end - start > self.limits.name as usize {
            return Err(Fault::new(
                start,
                Reason::Limit {
                    what: "a name",
                    limit: self.limits.name.into(),
                },
            ));
        }
        if end == b.len() {
            return Ok(None);
        }
        if odd {
            return checked_name(b, start, end).map(Some);
        }
        Ok(Some(Span { start, local, end }))
    }

    #[inline(always)]
    fn element_namespace(&mut self, b: &[u8], name: Span) -> Result<crate::scope::Ns, Fault> {
        if name.local == name.start {
            return Ok(self.scope.default_namespace());
        }
        // XML Namespaces, section 3: elements must not have the prefix xmlns. It is never declared.
        let length = name.local - 1 - name.start;
        match self.scope.resolve_at(b, name.start, length) {
            Some(ns) => Ok(ns),
            None => Err(undeclared(b, name)),
        }
    }

    /// Everything from the end of the element's name to `>`.
    #[inline(always)]
    fn attributes<S: Search>(&mut self, s: &mut S, b: &[u8], tag: usize, mut at: usize) -> Result<Rest, Fault> {
        let mut tidy = true;
        self.scratch.clear();
        loop {
            let space = at;
            // Nearly always one space.
            if b.get(at) == Some(&b' ') {
                at += 1;
            }
            if b.get(at).is_some_and(|&byte| chars::is(byte, SPACE)) {
                at = chars::skip(b, at, SPACE);
            }
            match b.get(at) {
                None => return Ok(Rest::Short),
                Some(b'>') => {
                    return Ok(Rest::Complete {
                        end: at + 1,
                        empty: false,
                        tidy: tidy && at == space,
                    });
                }
                Some(b'/') => {
                    return match b.get(at + 1) {
                        None => Ok(Rest::Short),
                        Some(b'>') => Ok(Rest::Complete {
                            end: at + 2,
                            empty: true,
                            tidy: tidy && at == space,
                        }),
                        Some(_) => Err(Fault::new(at + 1, Reason::GreaterThanExpected)),
                    };
                }
                Some(_) if at == space => return Err(Fault::new(at, Reason::SpaceExpected)),
                Some(_) => {}
            }
            tidy &= at == space + 1 && b[space] == b' ';
            if at - tag > self.limits.start_tag as usize {
                return Err(Fault::new(
                    tag,
                    Reason::Limit {
                        what: "a tag",
                        limit: self.limits.start_tag.into(),
                    },
                ));
            }
            if self.attributes.len() >= self.limits.attributes as usize {
                let limit = self.limits.attributes.into();
                return Err(Fault::new(
                    tag,
                    Reason::Limit {
                        what: "attributes of an element",
                        limit,
                    },
                ));
            }
            let Some(name) = self.name(s, b, at)? else {
                return Ok(Rest::Short);
            };
            let Some((value, end)) = value::parse(s, b, name, &self.limits, &mut self.scratch)? else {
                return Ok(Rest::Short);
            };
            tidy &= value.tidy;
            self.attributes.push(RawAttribute {
                name,
                ns: crate::scope::Ns::NONE,
                value: value.range,
                stored: value.stored,
                plain: value.plain,
            });
            at = end;
        }
    }
}

/// The prefix of this name is not declared.
#[cold]
pub(super) fn undeclared(b: &[u8], name: Span) -> Fault {
    let prefix = Label::new(&b[name.start..name.local - 1]);
    Fault::new(name.start, Reason::PrefixUndeclared { prefix })
}

/// Checks each character of the name `start..end`, and its colon: a QName (Namespaces in XML 1.0, production \[7\]).
pub(super) fn checked_name(b: &[u8], start: usize, end: usize) -> Result<Span, Fault> {
    // What begins no name at all is not a qualified name gone wrong.
    let none = |at: usize| {
        Fault::new(
            at,
            if b[at - 1] == b'<' {
                Reason::Markup
            } else {
                Reason::NameExpected
            },
        )
    };
    if start == end {
        return Err(none(start));
    }
    let mut local = start;
    let mut colons = 0;
    let mut at = start;
    while at < end {
        let (code, length) = chars::decode(b, at);
        let first = at == start;
        if first && !chars::is_name_start(code) {
            return Err(none(at));
        }
        if !chars::is_name(code) {
            return Err(Fault::new(at, Reason::Character { code }));
        }
        if code == u32::from(b':') {
            colons += 1;
            local = at + 1;
        } else if at == local && !chars::is_name_start(code) {
            colons = 2;
        }
        at += length;
    }
    if colons > 1 || local == end || b[start] == b':' {
        return Err(Fault::new(
            start,
            Reason::QualifiedName {
                name: Label::new(&b[start..end]),
            },
        ));
    }
    Ok(Span { start, local, end })
}
