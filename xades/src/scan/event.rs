//! What the scanner tells: the shape of each event.

use std::ops::Range;

use crate::encoding::Origin;
use crate::error::Fault;
use crate::scope::{Ns, Scope};

/// A piece of the document in UTF-8. Ranges in events count from its beginning.
#[derive(Debug, Clone, Copy)]
pub struct Window<'w> {
    /// The piece.
    pub bytes: &'w [u8],
    pub(crate) origin: Origin,
}

impl Window<'_> {
    /// Where in the original input, in bytes, the place `at` of this window stands.
    pub fn offset(&self, at: usize) -> u64 {
        self.origin.offset(&self.bytes[..at])
    }
}

/// A name with its parts and its namespace. Bytes are UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// As written: `prefix:local`, or `local`.
    pub qualified: &'a [u8],
    /// Empty where there is none.
    pub prefix: &'a [u8],
    /// The local part.
    pub local: &'a [u8],
    /// The namespace.
    pub ns: Ns,
}

impl Name<'_> {
    /// Whether it is this expanded name.
    #[inline]
    pub fn is(&self, ns: Ns, local: &str) -> bool {
        self.ns == ns && self.local == local.as_bytes()
    }
}

/// An attribute that is not a namespace declaration.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// Its name; without a prefix it is in no namespace.
    pub name: Name<'a>,
    /// Normalized (XML 1.0, section 3.3.3): references replaced, white space as spaces.
    pub value: &'a [u8],
    /// Known to have nothing in it that canonical XML escapes.
    pub(crate) plain: bool,
}

/// A namespace declaration.
#[derive(Debug, Clone, Copy)]
pub struct Declaration<'a> {
    /// Empty for the default namespace.
    pub prefix: &'a [u8],
    /// The namespace name, normalized as an attribute value.
    pub uri: &'a [u8],
    /// Its number.
    pub ns: Ns,
    /// Whether the prefix meant something else (or nothing) in the parent element.
    pub changes: bool,
    /// As of an [`Attribute`].
    pub(crate) plain: bool,
}

/// Where a name stands in the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    /// Where the local part starts; `start` where there is no prefix.
    pub(super) local: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn name<'a>(&self, bytes: &'a [u8], ns: Ns) -> Name<'a> {
        Name {
            qualified: &bytes[self.start..self.end],
            prefix: &bytes[self.start..self.local.saturating_sub(1).max(self.start)],
            local: &bytes[self.local..self.end],
            ns,
        }
    }
}

/// An attribute as found: where its name and value are.
#[derive(Debug, Clone)]
pub(super) struct RawAttribute {
    pub(super) name: Span,
    pub(super) ns: Ns,
    /// In the window where `stored` is false, else in the scratch buffer.
    pub(super) value: Range<usize>,
    pub(super) stored: bool,
    /// Nothing in the value is escaped in canonical XML.
    pub(super) plain: bool,
}

impl RawAttribute {
    pub(super) fn value<'a>(&self, bytes: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        if self.stored {
            &scratch[self.value.clone()]
        } else {
            &bytes[self.value.clone()]
        }
    }
}

/// A namespace declaration as found.
#[derive(Debug, Clone)]
pub(super) struct RawDeclaration {
    pub(super) attribute: RawAttribute,
    pub(super) prefix: Range<usize>,
    /// The constant with this namespace name, if there is one.
    pub(super) known: Option<Ns>,
    pub(super) ns: Ns,
    pub(super) changes: bool,
}

/// A start tag, or an empty-element tag.
#[derive(Debug)]
pub struct StartTag<'a> {
    /// The element's name.
    pub name: Name<'a>,
    /// From `<` to behind `>`.
    pub range: Range<usize>,
    /// Whether it is an empty-element tag; an [`EndTag`] follows all the same.
    pub empty: bool,
    /// Elements before this one in document order: the root is 0.
    pub ordinal: u64,
    /// Elements open, this one included: the root is at 1.
    pub depth: u32,
    /// Namespaces in scope in this element, its own declarations included.
    pub scope: &'a Scope,
    /// Written just as canonical XML writes it (inclusive, parent in the node-set), but for `/` where it is empty.
    pub canonical: bool,
    pub(super) bytes: &'a [u8],
    pub(super) scratch: &'a [u8],
    pub(super) attributes: &'a [RawAttribute],
    pub(super) declarations: &'a [RawDeclaration],
    pub(super) order: &'a [u32],
}

impl<'a> StartTag<'a> {
    /// Attributes in document order, namespace declarations left out.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = Attribute<'a>> + use<'a> {
        let (bytes, scratch) = (self.bytes, self.scratch);
        self.attributes.iter().map(move |raw| attribute(raw, bytes, scratch))
    }

    /// Attributes in the order of canonical XML: by namespace name, then by local name (C14N 1.0, section 2.2).
    pub fn sorted_attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let (bytes, scratch, all) = (self.bytes, self.scratch, self.attributes);
        self.order
            .iter()
            .map(move |&at| attribute(&all[at as usize], bytes, scratch))
    }

    /// The value of the attribute with this expanded name.
    pub fn attribute(&self, ns: Ns, local: &str) -> Option<&'a [u8]> {
        self.attributes()
            .find(|attribute| attribute.name.is(ns, local))
            .map(|attribute| attribute.value)
    }

    /// Namespace declarations, ascending by prefix: the order of canonical XML.
    pub fn declarations(&self) -> impl ExactSizeIterator<Item = Declaration<'a>> + use<'a> {
        let (bytes, scratch) = (self.bytes, self.scratch);
        self.declarations.iter().map(move |raw| Declaration {
            prefix: &bytes[raw.prefix.clone()],
            uri: raw.attribute.value(bytes, scratch),
            ns: raw.ns,
            changes: raw.changes,
            plain: raw.attribute.plain,
        })
    }
}

fn attribute<'a>(raw: &RawAttribute, bytes: &'a [u8], scratch: &'a [u8]) -> Attribute<'a> {
    Attribute {
        name: raw.name.name(bytes, raw.ns),
        value: raw.value(bytes, scratch),
        plain: raw.plain,
    }
}

/// An end tag. An empty-element tag is followed by one with an empty range.
#[derive(Debug)]
pub struct EndTag<'a> {
    /// As written, prefix included.
    pub qualified: &'a [u8],
    /// From `<` to behind `>`; empty for an empty-element tag.
    pub range: Range<usize>,
    /// Whether it ends an empty-element tag.
    pub empty: bool,
    /// The depth of the element that ends.
    pub depth: u32,
    /// Namespaces in scope in the element that ends.
    pub scope: &'a Scope,
    /// Written just as canonical XML writes it.
    pub canonical: bool,
}

/// A piece of character data: text, a reference, or the content of a CDATA section. One text may come in many pieces.
#[derive(Debug)]
pub struct Text<'a> {
    /// Where it stands.
    pub range: Range<usize>,
    /// What it means, in UTF-8: line ends are LF, references replaced.
    pub value: &'a [u8],
    /// Written as itself, and free of `<`, `&`, `>` and CR.
    pub plain: bool,
    /// Inside a CDATA section.
    pub cdata: bool,
}

impl<'a> Text<'a> {
    /// Text outside CDATA sections that is written as itself.
    #[inline(always)]
    pub(super) fn plain(bytes: &'a [u8], range: Range<usize>) -> Self {
        Self {
            value: &bytes[range.clone()],
            range,
            plain: true,
            cdata: false,
        }
    }
}

/// A piece of a comment or of a processing instruction.
#[derive(Debug)]
pub enum Part<'a> {
    /// It begins: `<!--`, or `<?` with its target.
    Start {
        /// Where.
        range: Range<usize>,
        /// The target of a processing instruction; empty for a comment.
        target: &'a [u8],
    },
    /// Some of its content (of a processing instruction: without the white space after the target).
    Data {
        /// Where.
        range: Range<usize>,
        /// What it means: line ends are LF.
        value: &'a [u8],
    },
    /// It ends: `-->` or `?>`.
    End {
        /// Where.
        range: Range<usize>,
    },
}

/// Receives what the scanner finds, in document order.
///
/// Every byte of the input belongs to exactly one event. Handlers may refuse: the [`Fault`] becomes a
/// [`Refusal`](crate::Refusal) with its line and column.
pub trait Handler {
    /// Asked before [`start_tag`](Self::start_tag), where the tag is canonical as it stands and not empty: `true` lets
    /// it pass unheard, and spares the scanner to describe it. Of the tag the namespace, the depth and the number of
    /// attributes are known.
    #[inline(always)]
    fn lets_start_pass(&mut self, _ns: Ns, _depth: u32, _attributes: usize) -> bool {
        false
    }
    /// As [`lets_start_pass`](Self::lets_start_pass), for end tags.
    #[inline(always)]
    fn lets_end_pass(&mut self, _depth: u32) -> bool {
        false
    }
    /// An element begins.
    fn start_tag(&mut self, window: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault>;
    /// An element ends.
    fn end_tag(&mut self, window: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault>;
    /// Character data inside the root element.
    fn text(&mut self, window: &Window<'_>, text: &Text<'_>) -> Result<(), Fault>;
    /// `<![CDATA[` or `]]>`.
    fn cdata_edge(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault>;
    /// A piece of a comment.
    fn comment(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault>;
    /// A piece of a processing instruction.
    fn instruction(&mut self, window: &Window<'_>, part: &Part<'_>) -> Result<(), Fault>;
    /// The XML declaration, or white space outside the root element: no part of the document's content.
    fn outside(&mut self, window: &Window<'_>, range: Range<usize>) -> Result<(), Fault>;
    /// The window is used up as far as `end`; what follows comes again at the beginning of the next one.
    fn window_end(&mut self, window: &Window<'_>, end: usize) -> Result<(), Fault>;
}

/// Hears nothing: for checking well-formedness alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deaf;

impl Handler for Deaf {
    fn start_tag(&mut self, _: &Window<'_>, _: &StartTag<'_>) -> Result<(), Fault> {
        Ok(())
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
