//! The canonicalizer itself: a [`Handler`] that keeps a lazy run.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Fault;
use crate::scan::{Attribute, EndTag, Handler, Part, StartTag, Text, Window};
use crate::scope::Ns;

use super::rendered::Rendered;
use super::sink::Sink;
use super::{Form, Method, Subset, base, escape};

/// An `xml:` attribute of an element outside the subset, which its apex inherits.
#[derive(Debug)]
struct Inherited {
    depth: u32,
    local: Box<[u8]>,
    value: Box<[u8]>,
}

/// Writes canonical XML into a sink.
#[derive(Debug)]
pub struct Canonicalizer<S> {
    sink: S,
    form: Form,
    comments: bool,
    subset: Subset,
    /// Whether canonical tags need no look: all of the document is written, in an inclusive form.
    lazy: bool,
    /// Whether what comes is written.
    visible: bool,
    /// The depth of the element that the subset names, while inside it.
    chosen: Option<u32>,
    /// Where the lazy run begins: everything before this place of the window is written or left out.
    run: usize,
    root_seen: bool,
    /// Inside the root element.
    in_root: bool,
    /// The processing instruction at hand has data.
    instruction_data: bool,
    rendered: Rendered,
    inherited: Vec<Inherited>,
    /// What goes into the next empty element.
    filling: Option<String>,
    // Kept for their memory.
    buffer: Vec<u8>,
    declarations: Vec<(Box<[u8]>, Ns)>,
}

impl<S: Sink> Canonicalizer<S> {
    /// A canonicalizer for one document.
    pub fn new(method: &Method, subset: Subset, sink: S) -> Self {
        Self {
            sink,
            form: method.form,
            comments: method.comments,
            subset,
            lazy: subset == Subset::Document && method.form != Form::Exclusive,
            visible: !matches!(subset, Subset::Element(_)),
            chosen: None,
            run: 0,
            root_seen: false,
            in_root: false,
            instruction_data: false,
            rendered: Rendered::new(&method.inclusive_prefixes),
            inherited: Vec::new(),
            filling: None,
            buffer: Vec::new(),
            declarations: Vec::new(),
        }
    }

    /// The sink, with the whole canonical form in it once the scanner has finished.
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// The sink. What the lazy run holds is not in it: [`settle`](Self::settle) first.
    pub(crate) fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Writes the lazy run as far as `at`.
    pub(crate) fn settle(&mut self, window: &Window<'_>, at: usize) {
        if self.visible {
            self.leave_out(window, at..at);
        }
    }

    /// Stops writing at `at`.
    pub(crate) fn hide(&mut self, window: &Window<'_>, at: usize) {
        self.settle(window, at);
        self.visible = false;
    }

    /// Goes on writing at `at`.
    pub(crate) fn show(&mut self, at: usize) {
        self.visible = true;
        self.run = at;
    }

    /// Puts canonical bytes into the element that comes next, an empty one.
    pub(crate) fn fill_next(&mut self, filling: String) {
        self.filling = Some(filling);
    }

    /// Writes the run before the range, and goes on behind it.
    #[inline]
    fn leave_out(&mut self, window: &Window<'_>, range: Range<usize>) {
        if range.start > self.run {
            self.sink.put(&window.bytes[self.run..range.start]);
        }
        self.run = range.end;
    }

    fn replace(&mut self, window: &Window<'_>, range: Range<usize>, with: &[u8]) {
        self.leave_out(window, range);
        self.sink.put(with);
    }

    /// A start tag that is not written as it stands.
    fn render(&mut self, window: &Window<'_>, tag: &StartTag<'_>, apex: bool) -> Result<(), Fault> {
        self.leave_out(window, tag.range.clone());
        let mut out = std::mem::take(&mut self.buffer);
        out.clear();
        out.reserve(tag.range.len() + tag.name.qualified.len() + 3);
        out.push(b'<');
        out.extend_from_slice(tag.name.qualified);
        if self.form == Form::Exclusive {
            let mut declarations = std::mem::take(&mut self.declarations);
            self.rendered.declare(tag, apex, &mut declarations);
            for (prefix, ns) in &declarations {
                declaration(prefix, tag.scope.name(*ns), false, &mut out);
            }
            self.declarations = declarations;
        } else if apex && tag.ordinal != 0 {
            for (prefix, uri) in tag.scope.in_scope() {
                declaration(prefix, uri, false, &mut out);
            }
        } else {
            for d in tag.declarations().filter(|d| d.changes) {
                declaration(d.prefix, d.uri, d.plain, &mut out);
            }
        }
        if apex && !self.inherited.is_empty() {
            self.inheriting_attributes(tag, &mut out);
        } else {
            for attribute in tag.sorted_attributes() {
                write(attribute.name.qualified, attribute.value, attribute.plain, &mut out);
            }
        }
        out.push(b'>');
        if tag.empty {
            out.extend_from_slice(self.filling.take().unwrap_or_default().as_bytes());
            out.extend_from_slice(b"</");
            out.extend_from_slice(tag.name.qualified);
            out.push(b'>');
        }
        self.sink.put(&out);
        self.buffer = out;
        Ok(())
    }

    /// The attributes of an apex, with the `xml:` attributes that it inherits (C14N 1.0 and 1.1, section 2.4).
    fn inheriting_attributes(&self, tag: &StartTag<'_>, out: &mut Vec<u8>) {
        // Namespace name, local name, qualified name, value.
        type Written<'a> = (&'a [u8], &'a [u8], Vec<u8>, Cow<'a, [u8]>);
        let mut all: Vec<Written<'_>> = tag
            .attributes()
            .map(|a: Attribute<'_>| {
                (
                    tag.scope.name(a.name.ns),
                    a.name.local,
                    a.name.qualified.to_vec(),
                    Cow::Borrowed(a.value),
                )
            })
            .collect();
        let namespace = tag.scope.name(Ns::XML);
        // From the nearest ancestor outward.
        for inherited in self.inherited.iter().rev() {
            let written = all
                .iter_mut()
                .find(|(ns, local, ..)| *ns == namespace && **local == *inherited.local);
            match (self.form, &*inherited.local, written) {
                (Form::Inclusive11, b"base", Some((.., value))) => {
                    *value = Cow::Owned(base::join(&inherited.value, value));
                }
                (_, _, Some(_)) => {}
                (Form::Inclusive11, local, None) if !matches!(local, b"base" | b"lang" | b"space") => {}
                (_, local, None) => {
                    let qualified = [b"xml:", local].concat();
                    all.push((namespace, local, qualified, Cow::Borrowed(&inherited.value)));
                }
            }
        }
        if self.form == Form::Inclusive11 {
            // Joined to nothing, it says nothing.
            all.retain(|(ns, local, _, value)| *ns != namespace || *local != b"base" || !value.is_empty());
        }
        all.sort_unstable_by(|x, y| (x.0, x.1).cmp(&(y.0, y.1)));
        for (_, _, qualified, value) in all {
            write(&qualified, &value, false, out);
        }
    }

    /// A start tag while nothing is written: does the subset begin here?
    #[cold]
    fn hidden_start(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        if self.chosen.is_some() || self.subset != Subset::Element(tag.ordinal) {
            if self.form != Form::Exclusive {
                let xml = tag.attributes().filter(|attribute| attribute.name.ns == Ns::XML);
                self.inherited.extend(xml.map(|attribute| Inherited {
                    depth: tag.depth,
                    local: attribute.name.local.into(),
                    value: attribute.value.into(),
                }));
            }
            return Ok(());
        }
        self.chosen = Some(tag.depth);
        self.show(tag.range.start);
        self.render(window, tag, true)
    }

    /// Canonical XML separates what stands outside the root element by LF (C14N 1.0, section 2.3).
    fn outside_line(&mut self, window: &Window<'_>, range: Range<usize>, after_it: bool) {
        if !self.in_root && after_it != self.root_seen {
            self.settle(window, if after_it { range.end } else { range.start });
            self.sink.put(b"\n");
        }
    }

    /// A piece of a comment or processing instruction that is written.
    fn part(&mut self, window: &Window<'_>, part: &Part<'_>, instruction: bool) {
        match part {
            Part::Start { range, .. } => {
                self.outside_line(window, range.clone(), false);
                self.instruction_data = false;
            }
            Part::Data { range, value } => {
                if value.is_empty() {
                    self.leave_out(window, range.clone());
                    return;
                }
                if instruction && !self.instruction_data {
                    self.replace(window, range.start..range.start, b" ");
                    self.instruction_data = true;
                }
                if *value != &window.bytes[range.clone()] {
                    self.replace(window, range.clone(), value);
                }
            }
            Part::End { range } => self.outside_line(window, range.clone(), true),
        }
    }
}

/// A declaration; with `plain` there is nothing to escape in the namespace name.
fn declaration(prefix: &[u8], uri: &[u8], plain: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if prefix.is_empty() { b" xmlns" } else { b" xmlns:" });
    value(prefix, uri, plain, out);
}

/// An attribute; with `plain` there is nothing to escape in its value.
fn write(qualified: &[u8], written: &[u8], plain: bool, out: &mut Vec<u8>) {
    out.push(b' ');
    value(qualified, written, plain, out);
}

fn value(name: &[u8], value: &[u8], plain: bool, out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 3);
    out.extend_from_slice(name);
    out.extend_from_slice(b"=\"");
    if plain {
        out.extend_from_slice(value);
    } else {
        escape::attribute(value, out);
    }
    out.push(b'"');
}

impl<S: Sink> Handler for Canonicalizer<S> {
    #[inline(always)]
    fn lets_start_pass(&mut self, _: Ns, depth: u32, _: usize) -> bool {
        self.lazy && depth != 1
    }

    #[inline(always)]
    fn lets_end_pass(&mut self, depth: u32) -> bool {
        self.lazy && depth != 1
    }

    #[inline(always)]
    fn start_tag(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        self.in_root = true;
        self.root_seen = true;
        if !self.visible {
            return self.hidden_start(window, tag);
        }
        if self.subset == Subset::Without(tag.ordinal) {
            self.hide(window, tag.range.start);
            self.chosen = Some(tag.depth);
            return Ok(());
        }
        if !tag.canonical || self.form == Form::Exclusive {
            return self.render(window, tag, tag.ordinal == 0);
        }
        if tag.empty {
            self.leave_out(window, tag.range.end - 2..tag.range.end);
            self.sink.put(b">");
            if let Some(filling) = self.filling.take() {
                self.sink.put(filling.as_bytes());
            }
            self.sink.put(b"</");
            self.sink.put(tag.name.qualified);
            self.sink.put(b">");
        }
        Ok(())
    }

    #[inline(always)]
    fn end_tag(&mut self, window: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault> {
        self.in_root = tag.depth > 1;
        if self.visible && !tag.canonical {
            self.leave_out(window, tag.range.clone());
            self.sink.put(b"</");
            self.sink.put(tag.qualified);
            self.sink.put(b">");
        }
        if self.form == Form::Exclusive {
            self.rendered.end(tag.depth);
        }
        if self.chosen == Some(tag.depth) {
            if let Subset::Element(_) = self.subset {
                self.hide(window, tag.range.end);
                // Nothing after it belongs to the subset.
                self.chosen = Some(0);
            } else {
                self.chosen = None;
                self.show(tag.range.end);
            }
        }
        while self
            .inherited
            .pop_if(|inherited| inherited.depth >= tag.depth)
            .is_some()
        {}
        Ok(())
    }

    #[inline(always)]
    fn text(&mut self, window: &Window<'_>, text: &Text<'_>) -> Result<(), Fault> {
        if text.plain || !self.visible {
            return Ok(());
        }
        let written = escape::text(text.value).unwrap_or(text.value);
        if *written != window.bytes[text.range.clone()] {
            self.replace(window, text.range.clone(), written);
        }
        Ok(())
    }

    fn cdata_edge(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        if self.visible {
            self.leave_out(window, range);
        }
        Ok(())
    }

    fn comment(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        if !self.visible {
            return Ok(());
        }
        if self.comments {
            self.part(window, part, false);
            return Ok(());
        }
        let (Part::Start { range, .. } | Part::Data { range, .. } | Part::End { range }) = part;
        self.leave_out(window, range.clone());
        Ok(())
    }

    fn instruction(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        if self.visible {
            self.part(window, part, true);
        }
        Ok(())
    }

    fn outside(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        if self.visible {
            self.leave_out(window, range);
        }
        Ok(())
    }

    fn window_end(&mut self, window: &Window<'_>, end: usize) -> Result<(), Fault> {
        self.settle(window, end);
        self.run = 0;
        Ok(())
    }
}
