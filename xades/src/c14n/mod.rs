//! Canonical XML: writes the canonical form of what the scanner hears, straight into a [`Sink`].
//!
//! In come the scanner's events; out go canonical bytes (Canonical XML 1.0 and 1.1, Exclusive XML Canonicalization 1.0),
//! usually into a digest. The canonical form is never stored. Most of a document is canonical already: a *lazy run*, the
//! span of input since the last thing that had to be written differently, is handed over uncopied, and is broken only
//! where something changes. This room knows nothing of documents or of seals.

mod base;
mod canonicalizer;
mod escape;
mod rendered;
mod sink;

pub use canonicalizer::Canonicalizer;
pub use sink::{DigestSink, Sink};

use crate::error::Refusal;
use crate::limits::Limits;
use crate::scan::Scanner;

/// Which canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// Canonical XML 1.0 (W3C Recommendation of 15 March 2001).
    #[default]
    Inclusive,
    /// Canonical XML 1.1 (W3C Recommendation of 2 May 2008).
    Inclusive11,
    /// Exclusive XML Canonicalization 1.0 (W3C Recommendation of 18 July 2002).
    Exclusive,
}

/// How to canonicalize: an algorithm with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Method {
    /// The form.
    pub form: Form,
    /// Whether comments stay.
    pub comments: bool,
    /// Prefixes that exclusive canonicalization treats as inclusive canonicalization would (`InclusiveNamespaces
    /// PrefixList`), `#default` for the default namespace. Without meaning in the other forms.
    pub inclusive_prefixes: Vec<String>,
}

impl Method {
    /// Inclusive Canonical XML 1.0 without comments: what a `ds:Reference` with `URI=""` and no more implies.
    pub const INCLUSIVE: Self = Self {
        form: Form::Inclusive,
        comments: false,
        inclusive_prefixes: Vec::new(),
    };

    /// The algorithm of this identifier (XML Signature 1.1, section 6.5); `None` if it is not one.
    pub fn from_uri(uri: &str) -> Option<Self> {
        let all = [Form::Inclusive, Form::Inclusive11, Form::Exclusive];
        all.into_iter()
            .flat_map(|form| {
                [false, true].map(|comments| Self {
                    form,
                    comments,
                    inclusive_prefixes: Vec::new(),
                })
            })
            .find(|method| method.uri() == uri)
    }

    /// Its identifier.
    pub fn uri(&self) -> &'static str {
        match (self.form, self.comments) {
            (Form::Inclusive, false) => "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
            (Form::Inclusive, true) => "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments",
            (Form::Inclusive11, false) => "http://www.w3.org/2006/12/xml-c14n11",
            (Form::Inclusive11, true) => "http://www.w3.org/2006/12/xml-c14n11#WithComments",
            (Form::Exclusive, false) => "http://www.w3.org/2001/10/xml-exc-c14n#",
            (Form::Exclusive, true) => "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
        }
    }
}

/// Which part of the document. Elements are named by their number: how many begin before them in document order
/// ([`StartTag::ordinal`](crate::scan::StartTag::ordinal)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subset {
    /// All of it.
    #[default]
    Document,
    /// All of it but one element: the enveloped-signature transform (XML Signature 1.1, section 6.6.4).
    Without(u64),
    /// One element and all in it, with the namespaces in scope there.
    Element(u64),
}

/// Writes the canonical form of a document that is in memory.
///
/// # Errors
/// What is wrong with the document. An element that is not there leaves nothing out or gives nothing.
pub fn canonicalize<S: Sink>(
    document: &[u8],
    method: &Method,
    subset: Subset,
    limits: &Limits,
    sink: S,
) -> Result<S, Refusal> {
    let mut canonicalizer = Canonicalizer::new(method, subset, sink);
    Scanner::new(limits).run(document, &mut canonicalizer)?;
    Ok(canonicalizer.into_sink())
}
