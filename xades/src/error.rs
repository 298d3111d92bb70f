//! Why a document was refused, and where.
//!
//! A [`Refusal`] never quotes the document beyond the name of an element, attribute, prefix or encoding, each cut to 64
//! characters and shown without control characters: it may be logged and sent over the wire.

use std::fmt;

/// What kind of refusal it is; each has its own reason on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// Not well-formed XML 1.0 with namespaces, or in an encoding that is not read here.
    Malformed,
    /// A document type declaration, and with it any entity declaration.
    DtdForbidden,
    /// Deeper, wider or larger than the [`Limits`](crate::Limits) allow.
    Limit,
    /// The root element is not one of a document that is sealed here, or not the one that was announced.
    DocumentType,
    /// There is nowhere to put the seal, or its Id cannot be formed.
    SealPlace,
    /// There is a `ds:Signature` in the document.
    AlreadySealed,
}

/// A place in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes from the beginning of the input as it was given (byte order mark and encoding included), from 0.
    pub offset: u64,
    /// Line, from 1. LF, CR LF and a lone CR each end a line (XML 1.0, section 2.11).
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} (byte {})", self.line, self.column, self.offset)
    }
}

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    reason: Reason,
    position: Option<Position>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, position: Option<Position>) -> Self {
        Self(Box::new(Inner { reason, position }))
    }

    /// Its kind, which decides the reason on the wire.
    pub fn kind(&self) -> RefusalKind {
        self.0.reason.kind()
    }

    /// Where in the input, if it is about one place.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// What exactly is wrong.
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.position {
            Some(position) => write!(f, "{position}: {}", self.0.reason),
            None => self.0.reason.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// A refusal that does not know its line yet: the offset counts from the beginning of the window being scanned.
#[derive(Debug)]
pub struct Fault {
    pub(crate) at: usize,
    pub(crate) reason: Reason,
}

impl Fault {
    /// What is wrong `at` so many bytes into the window being scanned.
    #[cold]
    pub fn new(at: usize, reason: Reason) -> Self {
        Self { at, reason }
    }
}

/// A name from the document, short and printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(Box<str>);

impl Label {
    #[cold]
    pub(crate) fn new(name: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&name[..name.len().min(256)]);
        let mut label: String = text
            .chars()
            .take(64)
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        if text.chars().nth(64).is_some() || name.len() > 256 {
            label.push('…');
        }
        Self(label.into())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What exactly is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each says itself in its message")]
pub enum Reason {
    // Well-formedness: XML 1.0 (Fifth Edition).
    #[error("the document is empty")]
    Empty,
    #[error("bytes that are not {encoding}")]
    Encoding { encoding: &'static str },
    #[error(
        "the encoding {name} is not read here; use UTF-8, UTF-16, ISO-8859-9, windows-1254 or ISO-8859-1 and declare it"
    )]
    EncodingUnknown { name: Label },
    #[error("the document declares the encoding {declared} but is written in {found}")]
    EncodingContradiction { declared: Label, found: &'static str },
    #[error("the XML declaration is not of the form <?xml version=\"1.0\" encoding=\"…\" standalone=\"…\"?>")]
    Declaration,
    #[error("an XML declaration may stand only at the very beginning of the document")]
    DeclarationMisplaced,
    #[error("XML version {version} is not read here; use 1.0")]
    Version { version: Label },
    #[error("the character U+{code:04X} is not allowed in XML")]
    Character { code: u32 },
    #[error("text outside the root element")]
    TextOutsideRoot,
    #[error("a second root element")]
    SecondRoot,
    #[error("there is no root element")]
    NoRoot,
    #[error("the document ends inside {inside}")]
    UnexpectedEnd { inside: Inside },
    #[error("`<` must be followed by a name, `/`, `!` or `?`; write `&lt;` for the character itself")]
    Markup,
    #[error("a name is expected here")]
    NameExpected,
    #[error("a space is expected between attributes")]
    SpaceExpected,
    #[error("the attribute {name} needs `=` and a quoted value")]
    AttributeValue { name: Label },
    #[error("`<` is not allowed in the value of the attribute {name}; write `&lt;`")]
    LessThanInAttribute { name: Label },
    #[error("the attribute {name} stands twice in the element")]
    AttributeTwice { name: Label },
    #[error("the end tag </{found}> does not match <{open}>")]
    EndTag { open: Label, found: Label },
    #[error("an end tag without a start tag")]
    EndTagAlone,
    #[error("`>` is expected here")]
    GreaterThanExpected,
    #[error("`]]>` is not allowed in text; write `]]&gt;`")]
    CdataEndInText,
    #[error("a comment may not contain `--` nor end with `--->`")]
    DoubleHyphen,
    #[error("a processing instruction may not be called {name}")]
    InstructionName { name: Label },
    #[error("a processing instruction's target must be followed by white space or `?>`")]
    Instruction,
    #[error("`&` must begin a reference; write `&amp;` for the character itself")]
    Reference,
    #[error("the entity {name} is not declared; only lt, gt, amp, quot and apos are")]
    Entity { name: Label },
    #[error("the character reference does not name a character that XML allows")]
    CharacterReference,

    // Namespaces in XML 1.0.
    #[error("{name} is not a qualified name (one colon at most, a name on each side)")]
    QualifiedName { name: Label },
    #[error("the prefix {prefix} is not declared")]
    PrefixUndeclared { prefix: Label },
    #[error("the prefix {prefix} may not be declared, or not with this namespace name")]
    PrefixReserved { prefix: Label },
    #[error("the prefix {prefix} may not be undeclared (an empty namespace name)")]
    PrefixUndeclaring { prefix: Label },
    #[error("the namespace name of the prefix {prefix} is relative: canonical XML has no form for it")]
    NamespaceRelative { prefix: Label },

    // Policy.
    #[error("a document type declaration is not allowed; remove <!DOCTYPE …>")]
    Dtd,
    #[error("{what} over the limit of {limit}")]
    Limit { what: &'static str, limit: u64 },

    // Documents and seals.
    #[error("{name} is not a document that is sealed here")]
    DocumentUnknown { name: Label },
    #[error("the document is {found}, but {expected} was announced")]
    DocumentUnexpected {
        found: &'static str,
        expected: &'static str,
    },
    #[error("an envelope is not sealed; seal the document inside and wrap it afterwards")]
    Envelope,
    #[error("the document carries a ds:Signature already")]
    AlreadySealed,
    #[error("{0}")]
    SealPlace(&'static str),
    #[error("the Id of the seal, {id}, is not an NCName; correct {place}")]
    SealId { id: Label, place: &'static str },
    #[error("the Id {id} that the seal would carry is taken in the document")]
    SealIdTaken { id: Label },
}

/// What a document ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the thing it names")]
pub enum Inside {
    Declaration,
    Tag,
    Element,
    Reference,
    Cdata,
    Comment,
    Instruction,
    Character,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declaration => "the XML declaration",
            Self::Tag => "a tag",
            Self::Element => "an element",
            Self::Reference => "a reference",
            Self::Cdata => "a CDATA section",
            Self::Comment => "a comment",
            Self::Instruction => "a processing instruction",
            Self::Character => "a character",
        })
    }
}

impl Reason {
    /// The kind of refusal that it is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Dtd => RefusalKind::DtdForbidden,
            Self::Limit { .. } => RefusalKind::Limit,
            Self::DocumentUnknown { .. } | Self::DocumentUnexpected { .. } | Self::Envelope => {
                RefusalKind::DocumentType
            }
            Self::AlreadySealed => RefusalKind::AlreadySealed,
            Self::SealPlace(_) | Self::SealId { .. } | Self::SealIdTaken { .. } => RefusalKind::SealPlace,
            _ => RefusalKind::Malformed,
        }
    }
}
