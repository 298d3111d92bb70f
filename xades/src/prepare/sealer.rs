//! Who seals: whom a document names, in as many places as it does, all of which must agree.

use crate::profile::Counts;

/// Whom a document names as its sealer: a VKN (10 digits) or TCKN (11 digits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealer {
    /// In `cac:Signature`.
    Signature(String),
    /// Nobody, but this is whose document it is.
    Identity(String),
    /// Nobody at all.
    Unnamed,
    /// Somebody, of whom it cannot be told who it is. No seal is right there: what cannot be read is not nobody.
    Unclear(Unclear),
}

/// Where it cannot be told whom a document names, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{place} {doubt}")]
pub struct Unclear {
    place: &'static str,
    doubt: Doubt,
}

/// Why it cannot be told whom a document names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Doubt {
    /// Two who are not the same.
    #[error("names two different taxpayers")]
    Two,
    /// Neither a VKN nor a TCKN.
    #[error("names something that is no VKN (10 digits) or TCKN (11 digits)")]
    Unreadable,
    /// The place is there, and empty.
    #[error("is there but names nobody")]
    Nobody,
}

impl Unclear {
    /// What stands there.
    #[must_use]
    pub fn doubt(&self) -> Doubt {
        self.doubt
    }
}

impl Sealer {
    /// VKN or TCKN; none where nobody is named.
    ///
    /// # Errors
    /// Where somebody is named of whom it cannot be told who it is.
    pub fn taxpayer(&self) -> Result<Option<&str>, Unclear> {
        match self {
            Self::Signature(named) | Self::Identity(named) => Ok(Some(named)),
            Self::Unnamed => Ok(None),
            Self::Unclear(unclear) => Err(*unclear),
        }
    }

    /// From what `cac:Signature` says, and else the identity fields.
    pub(super) fn of(
        signature: Result<Option<String>, Doubt>,
        identity: impl FnOnce() -> Result<Option<String>, Doubt>,
    ) -> Self {
        let unclear = |place| move |doubt| Self::Unclear(Unclear { place, doubt });
        match signature {
            Ok(Some(named)) => Self::Signature(named),
            Err(why) => unclear("cac:Signature")(why),
            Ok(None) => identity().map_or_else(unclear("the document's own identity fields"), |named| {
                named.map_or(Self::Unnamed, Self::Identity)
            }),
        }
    }
}

/// Who was named so far, as one and the same party.
#[derive(Debug, Default)]
pub(super) struct Names {
    first: Option<String>,
    doubt: Option<Doubt>,
    /// An element has begun that must name somebody, and has not yet.
    owing: bool,
}

impl Names {
    /// An element begins that must name somebody.
    pub(super) fn expect(&mut self) {
        if std::mem::replace(&mut self.owing, true) {
            self.doubt.get_or_insert(Doubt::Nobody);
        }
    }

    /// A name, which is not empty.
    pub(super) fn hear(&mut self, name: &str, counts: Counts) {
        let number = matches!(name.len(), 10 | 11) && name.bytes().all(|digit| digit.is_ascii_digit());
        match counts {
            Counts::Always => {}
            Counts::AsNumber if number => {}
            Counts::AsNumber | Counts::Never => return,
        }
        self.owing = false;
        match &self.first {
            _ if !number => {
                self.doubt.get_or_insert(Doubt::Unreadable);
            }
            Some(first) if first != name => {
                self.doubt.get_or_insert(Doubt::Two);
            }
            Some(_) => {}
            None => self.first = Some(name.to_owned()),
        }
    }

    pub(super) fn conclude(self) -> Result<Option<String>, Doubt> {
        match self.doubt {
            Some(doubt) => Err(doubt),
            None if self.owing => Err(Doubt::Nobody),
            None => Ok(self.first),
        }
    }
}
