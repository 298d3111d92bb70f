//! The `ds:Signature` of a document as a small tree, and everything else only as far as a forger could use it.
//!
//! The scanner's events come in. The tree holds what a seal is read from; what may be large and is not read (the unsigned
//! properties of an archived seal: revocation lists, time stamps) is passed over. Memory is bounded by [`MAX_CONTENT`].

use std::ops::Range;

use crate::DocumentType;
use crate::error::{Fault, Reason, Refusal};
use crate::limits::Limits;
use crate::scan::{EndTag, Handler, Part, Scanner, StartTag, Text, Window};
use crate::scope::Ns;

/// Names, attributes and text kept of a signature, in bytes: certificates and a counter-signature fit many times.
const MAX_CONTENT: usize = 1 << 20;
/// Elements kept of a signature.
const MAX_NODES: usize = 4096;

/// An element of the signature.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ns: Ns,
    pub(super) local: String,
    pub(super) attributes: Vec<(Ns, String, String)>,
    pub(super) children: Vec<Node>,
    /// The character data between its children, joined.
    pub(super) text: String,
    /// Its number in document order: what the canonicalizer finds it by, and a failure its place.
    pub(super) ordinal: u64,
}

impl Node {
    pub(super) fn is(&self, ns: Ns, local: &str) -> bool {
        self.ns == ns && self.local == local
    }

    /// An attribute without a namespace.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(ns, local, _)| *ns == Ns::NONE && local == name)
            .map(|(_, _, value)| &**value)
    }

    pub(super) fn all(&self, ns: Ns, local: &str) -> impl Iterator<Item = &Node> {
        self.children.iter().filter(move |child| child.is(ns, local))
    }
}

/// An element on the way from the root to the signature.
pub(super) type Step = (Ns, String);

/// What one pass finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The names from the root to the signature's parent.
    pub(super) path: Vec<Step>,
    /// What the root says; `None` where it is not of a document that is sealed.
    pub(super) document_type: Option<DocumentType>,
    pub(super) signature: Option<Node>,
    /// The number of a second signature that is not a counter-signature within the first.
    pub(super) second: Option<u64>,
}

/// Finds the signature of a document.
pub(super) fn read(document: &[u8], limits: &Limits) -> Result<Found, Refusal> {
    let mut reader = Reader::default();
    Scanner::new(limits).run(document, &mut reader)?;
    Ok(reader.found)
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    found: Found,
    /// Open elements outside the signature.
    path: Vec<Step>,
    /// Open elements of the signature, the outermost first.
    open: Vec<Node>,
    /// The depth of an element within the signature whose content is passed over.
    skipped: Option<u32>,
    nodes: usize,
    content: usize,
}

impl Reader {
    fn count(&mut self, at: usize, bytes: usize) -> Result<(), Fault> {
        self.content += bytes;
        if self.content > MAX_CONTENT || self.nodes > MAX_NODES {
            let limit = if self.nodes > MAX_NODES { MAX_NODES } else { MAX_CONTENT };
            return Err(Fault::new(
                at,
                Reason::Limit {
                    what: "the content of ds:Signature is",
                    limit: limit as u64,
                },
            ));
        }
        Ok(())
    }
}

impl Handler for Reader {
    fn start_tag(&mut self, _: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        let step = || (tag.name.ns, utf8(tag.name.local));
        if self.open.is_empty() {
            if tag.depth == 1 {
                self.found.document_type = DocumentType::of_root(&tag.name).ok();
            }
            if !tag.name.is(Ns::DS, "Signature") {
                self.path.push(step());
                return Ok(());
            }
            if self.found.signature.is_some() {
                self.found.second.get_or_insert(tag.ordinal);
                self.path.push(step());
                return Ok(());
            }
            self.found.path.clone_from(&self.path);
        } else if self.skipped.is_some() {
            // A signature hidden where nothing is read would still be one.
            if tag.name.is(Ns::DS, "Signature") {
                self.found.second.get_or_insert(tag.ordinal);
            }
            return Ok(());
        }
        self.nodes += 1;
        let (ns, local) = step();
        let attributes: Vec<_> = tag
            .attributes()
            .map(|a| (a.name.ns, utf8(a.name.local), utf8(a.value)))
            .collect();
        let size = attributes
            .iter()
            .map(|(_, name, value)| name.len() + value.len())
            .sum::<usize>()
            + local.len();
        self.count(tag.range.start, size)?;
        let unsigned = self
            .open
            .last()
            .is_some_and(|parent| parent.is(Ns::XADES, "UnsignedSignatureProperties"));
        if unsigned && !(ns == Ns::XADES && local == "CounterSignature") {
            self.skipped = Some(tag.depth);
        }
        self.open.push(Node {
            ns,
            local,
            attributes,
            children: Vec::new(),
            text: String::new(),
            ordinal: tag.ordinal,
        });
        Ok(())
    }

    fn end_tag(&mut self, _: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault> {
        if let Some(depth) = self.skipped {
            if tag.depth > depth {
                return Ok(());
            }
            self.skipped = None;
        }
        match (self.open.pop(), self.open.last_mut()) {
            (Some(node), Some(parent)) => parent.children.push(node),
            (Some(signature), None) => self.found.signature = Some(signature),
            (None, _) => {
                self.path.pop();
            }
        }
        Ok(())
    }

    fn text(&mut self, _: &Window<'_>, text: &Text<'_>) -> Result<(), Fault> {
        if self.skipped.is_some() || self.open.is_empty() {
            return Ok(());
        }
        self.count(text.range.start, text.value.len())?;
        if let Some(node) = self.open.last_mut() {
            node.text.push_str(&utf8(text.value));
        }
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

/// The scanner's text is UTF-8, and is cut between characters.
fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
