//! The hand that goes through the document: canonicalizes, listens, and finds the place of the seal.

use std::ops::Range;

use aws_lc_rs::digest::Digest;

use super::Sealing;
use super::listener::Listener;
use super::spot::{Skeleton, Spot};
use crate::c14n::{Canonicalizer, DigestSink, Method, Sink as _, Subset};
use crate::error::{Fault, Reason};
use crate::policy::SealPlace;
use crate::profile::{DocumentType, Element, Family, Role};
use crate::scan::{EndTag, Handler, Part, StartTag, Text, Window};
use crate::scope::Ns;

/// What GİB's samples put where the seal goes, in whatever namespace.
const PLACEHOLDER: &[u8] = b"auto-generated_for_wildcard";

/// What the pass gave.
pub(super) struct Heard {
    pub(super) document_type: DocumentType,
    pub(super) spot: Spot,
    pub(super) digest: Digest,
    pub(super) listener: Listener,
}

/// A pass over one document.
#[derive(Debug)]
pub(super) struct Hand {
    canonicalizer: Canonicalizer<DigestSink>,
    expect: Option<DocumentType>,
    place: SealPlace,
    document: Option<(DocumentType, &'static Family)>,
    /// The open elements that the family knows, as indices into its nodes, from the root down.
    path: Vec<usize>,
    listener: Listener,
    search: Search,
    /// The first child of the root has begun.
    begun: bool,
    required_seen: bool,
    xml_attributes: Vec<(u32, String, String)>,
}

/// The search for the place of the seal.
#[derive(Debug)]
enum Search {
    Seeking,
    /// Inside an element that may be it.
    Inside(Box<Slot>),
    Found(Box<Spot>),
}

/// An element whose content is the seal, if it turns out to hold nothing else.
#[derive(Debug)]
struct Slot {
    depth: u32,
    /// Where its content begins, in bytes of the input.
    begin: u64,
    /// The digest up to there: what to go back to.
    before: DigestSink,
    content: Content,
    skeleton: Skeleton,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Blank,
    Placeholder,
    Real,
}

impl Hand {
    pub(super) fn new(sealing: &Sealing<'_>) -> Self {
        let digest = sealing.policy.signature_algorithm(sealing.certificate).digest();
        Self {
            canonicalizer: Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, DigestSink::from(digest.context())),
            expect: sealing.expect,
            place: sealing.policy.place,
            document: None,
            path: Vec::with_capacity(8),
            listener: Listener::default(),
            search: Search::Seeking,
            begun: false,
            required_seen: false,
            xml_attributes: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Result<Heard, Reason> {
        let Some((document_type, family)) = self.document else {
            return Err(Reason::NoRoot);
        };
        let Search::Found(spot) = self.search else {
            return Err(Reason::SealPlace(family.no_place));
        };
        let digest = self.canonicalizer.into_sink().finish();
        Ok(Heard {
            document_type,
            spot: *spot,
            digest,
            listener: self.listener,
        })
    }

    /// The root decides which document it is.
    fn root(&mut self, tag: &StartTag<'_>) -> Result<(), Reason> {
        let found = DocumentType::of_root(&tag.name)?;
        if let Some(expected) = self.expect.filter(|expected| *expected != found) {
            return Err(Reason::DocumentUnexpected {
                found: found.name(),
                expected: expected.name(),
            });
        }
        self.document = Some((found, found.family()));
        Ok(())
    }

    /// The node that an element is, if the family knows it.
    fn known(&self, tag: &StartTag<'_>) -> Option<(usize, Role)> {
        let (_, family) = self.document?;
        let Some(&parent) = self.path.last() else {
            return Some((0, family.nodes[0].role));
        };
        let is = |(ns, local): Element| tag.name.ns == ns && tag.name.local == local.as_bytes();
        let nodes = family.nodes.iter().enumerate().skip(1);
        let mut known = nodes.filter(|(_, node)| node.parent == parent && is(node.element));
        known.next().map(|(at, node)| (at, node.role))
    }

    /// A start tag on the path, or a child of an element on it.
    fn near(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        let start = tag.range.start;
        if tag.depth == 1 {
            self.root(tag).map_err(|reason| Fault::new(start, reason))?;
        }
        let known = self.known(tag);
        if tag.depth == 2 && !self.begun {
            self.begun = true;
            let appends = matches!(known, Some((_, Role::Append(_))));
            if let (Some((_, Family { nodes, .. })), false) = (self.document, appends)
                && let Role::Prepend(elements) = nodes[0].role
            {
                self.insert_before(window, tag, elements);
            }
        } else if let (2, Some((_, Role::Append(_))), Search::Found(_)) = (tag.depth, known, &self.search)
            && self.document.is_some_and(|(kind, _)| kind.is_ubl())
        {
            let reason = Reason::SealPlace("ext:UBLExtensions must be the first child of the root, and only once");
            return Err(Fault::new(start, reason));
        }
        let Some((node, role)) = known else {
            return self.canonicalizer.start_tag(window, tag);
        };
        if let (Role::Before(elements), Search::Seeking) = (role, &self.search) {
            self.insert_before(window, tag, elements);
        }
        self.note_xml_attributes(tag);
        self.path.push(node);
        self.listener.start(tag, role);
        match role {
            Role::Forbidden(why) => return Err(Fault::new(start, Reason::SealPlace(why))),
            Role::Required => self.required_seen = true,
            _ => {}
        }
        if !matches!(self.search, Search::Seeking) {
            return self.canonicalizer.start_tag(window, tag);
        }
        match role {
            Role::Slot if self.takes_slots() => self.slot(window, tag),
            Role::Append(elements) if tag.empty => {
                let skeleton = Skeleton::new(elements, tag.scope, 0, &self.xml_attributes);
                self.canonicalizer.fill_next(skeleton.canonical());
                self.fill(window, tag, skeleton);
                self.canonicalizer.start_tag(window, tag)
            }
            _ => self.canonicalizer.start_tag(window, tag),
        }
    }

    /// Whether the seal may go into what is there. Only in UBL documents is there another way.
    fn takes_slots(&self) -> bool {
        let is_ubl = self.document.is_some_and(|(kind, _)| kind.is_ubl());
        self.place == SealPlace::FreeExtension || !is_ubl
    }

    /// An element that may take the seal begins.
    fn slot(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        let skeleton = Skeleton::new(&[], tag.scope, 0, &self.xml_attributes);
        self.canonicalizer.start_tag(window, tag)?;
        if tag.empty {
            self.fill(window, tag, skeleton);
            return Ok(());
        }
        self.canonicalizer.settle(window, tag.range.end);
        self.search = Search::Inside(Box::new(Slot {
            depth: tag.depth,
            begin: window.offset(tag.range.end),
            before: self.canonicalizer.sink_mut().clone(),
            content: Content::Blank,
            skeleton,
        }));
        Ok(())
    }

    /// The seal goes into an empty-element tag, which becomes a start tag and an end tag.
    fn fill(&mut self, window: &Window<'_>, tag: &StartTag<'_>, skeleton: Skeleton) {
        let Skeleton { open, close, place } = skeleton;
        let name = String::from_utf8_lossy(tag.name.qualified);
        self.search = Search::Found(Box::new(Spot {
            range: window.offset(tag.range.end - 2)..window.offset(tag.range.end),
            before: format!(">{open}"),
            after: format!("{close}</{name}>"),
            place,
        }));
    }

    /// The seal goes before this element, in elements that are missing.
    fn insert_before(&mut self, window: &Window<'_>, tag: &StartTag<'_>, elements: &[Element]) {
        let own = tag.declarations().len();
        let skeleton = Skeleton::new(elements, tag.scope, own, &self.xml_attributes);
        self.insert(window, tag.range.start, skeleton);
    }

    fn insert(&mut self, window: &Window<'_>, at: usize, skeleton: Skeleton) {
        self.canonicalizer.settle(window, at);
        self.canonicalizer.sink_mut().put(skeleton.canonical().as_bytes());
        let offset = window.offset(at);
        let Skeleton { open, close, place } = skeleton;
        self.search = Search::Found(Box::new(Spot {
            range: offset..offset,
            before: open,
            after: close,
            place,
        }));
    }

    fn note_xml_attributes(&mut self, tag: &StartTag<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for attribute in tag.attributes().filter(|attribute| attribute.name.ns == Ns::XML) {
            self.xml_attributes
                .push((tag.depth, text(attribute.name.local), text(attribute.value)));
        }
    }

    /// What stands inside an element that may take the seal.
    fn inside(&mut self, content: impl FnOnce(&Slot) -> Content) {
        if let Search::Inside(slot) = &mut self.search {
            slot.content = content(slot);
        }
    }

    /// The innermost element of the path ends.
    fn leave(&mut self, window: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault> {
        self.listener.end(tag.depth);
        let Some((_, family)) = self.document else {
            return Ok(());
        };
        let Some(node) = self.path.pop().map(|node| &family.nodes[node]) else {
            return Ok(());
        };
        match (node.role, std::mem::replace(&mut self.search, Search::Seeking)) {
            (Role::Slot, Search::Inside(slot)) if slot.depth == tag.depth => {
                // An element that is itself what would be appended cannot stand there twice.
                let alone = family.nodes[node.parent].role.appends_only(node.element);
                if alone && slot.content == Content::Real {
                    let why = "the element where the seal must be holds something else";
                    return Err(Fault::new(tag.range.start, Reason::SealPlace(why)));
                }
                if slot.content != Content::Real {
                    *self.canonicalizer.sink_mut() = slot.before;
                    self.canonicalizer.show(tag.range.start);
                    let Skeleton { open, close, place } = slot.skeleton;
                    let range = slot.begin..window.offset(tag.range.start);
                    self.search = Search::Found(Box::new(Spot {
                        range,
                        before: open,
                        after: close,
                        place,
                    }));
                }
            }
            (Role::Append(elements), Search::Seeking) if !tag.empty => {
                let needs = family.nodes.iter().any(|node| matches!(node.role, Role::Required));
                if needs && !self.required_seen {
                    return Err(Fault::new(tag.range.start, Reason::SealPlace(family.no_place)));
                }
                let skeleton = Skeleton::new(elements, tag.scope, 0, &self.xml_attributes);
                self.insert(window, tag.range.start, skeleton);
            }
            (_, search) => self.search = search,
        }
        Ok(())
    }
}

impl Handler for Hand {
    #[inline(always)]
    fn lets_start_pass(&mut self, ns: Ns, depth: u32, attributes: usize) -> bool {
        ns != Ns::DS
            && attributes == 0
            && depth as usize != self.path.len() + 1
            && !matches!(self.search, Search::Inside(_))
            && self.canonicalizer.lets_start_pass(ns, depth, attributes)
    }

    #[inline(always)]
    fn lets_end_pass(&mut self, depth: u32) -> bool {
        depth as usize != self.path.len() && self.canonicalizer.lets_end_pass(depth)
    }

    #[inline(always)]
    fn start_tag(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        if tag.name.ns == Ns::DS && tag.name.local == b"Signature" {
            return Err(Fault::new(tag.range.start, Reason::AlreadySealed));
        }
        if tag.attributes().len() > 0 {
            self.listener.note_ids(tag)?;
        }
        if let Search::Inside(_) = self.search {
            self.inside(|slot| {
                let placeholder = slot.content == Content::Blank && tag.depth == slot.depth + 1;
                if placeholder && tag.name.local == PLACEHOLDER {
                    Content::Placeholder
                } else {
                    Content::Real
                }
            });
        }
        if tag.depth as usize == self.path.len() + 1 {
            return self.near(window, tag);
        }
        self.canonicalizer.start_tag(window, tag)
    }

    #[inline(always)]
    fn end_tag(&mut self, window: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault> {
        if tag.depth as usize == self.path.len() {
            self.leave(window, tag)?;
            while self.xml_attributes.pop_if(|(depth, ..)| *depth >= tag.depth).is_some() {}
        }
        self.canonicalizer.end_tag(window, tag)
    }

    #[inline(always)]
    fn text(&mut self, window: &Window<'_>, text: &Text<'_>) -> Result<(), Fault> {
        if self.listener.is_open() {
            self.listener.text(text.value, text.range.start)?;
        }
        if let Search::Inside(_) = self.search {
            let blank = text.value.iter().all(u8::is_ascii_whitespace);
            self.inside(|slot| if blank { slot.content } else { Content::Real });
        }
        self.canonicalizer.text(window, text)
    }

    fn cdata_edge(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        self.canonicalizer.cdata_edge(window, range)
    }

    fn comment(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        self.canonicalizer.comment(window, part)
    }

    fn instruction(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        self.inside(|_| Content::Real);
        self.canonicalizer.instruction(window, part)
    }

    fn outside(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        self.canonicalizer.outside(window, range)
    }

    fn window_end(&mut self, window: &Window<'_>, end: usize) -> Result<(), Fault> {
        self.canonicalizer.window_end(window, end)
    }
}
