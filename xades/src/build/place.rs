//! Where a seal stands, as inclusive canonicalization sees it: the namespaces and `xml:` attributes in scope.

use super::{DS, XADES, escape};

/// The place of a seal: what canonicalization adds to the first start tag of a subtree there.
#[derive(Clone, Debug)]
pub struct Place {
    /// ` xmlns="…" xmlns:cac="…" …`, with `ds` and `xades`: all that is in scope within `ds:Signature`.
    inclusive: String,
    /// ` xml:lang="…"`: C14N 1.0 carries the ancestors' `xml:` attributes into a subtree (section 2.4).
    xml_attributes: String,
    /// What `ds:Signature` must declare.
    declarations: String,
}

impl Place {
    /// A place in the content of an element.
    ///
    /// `namespaces` are those in scope there as (prefix, URI), the default namespace with the empty prefix, in any
    /// order; `xml` itself and an undeclared default may be among them. `xml_attributes` are the attributes in the
    /// `xml:` namespace that the element has or inherits, as (local name, value), the nearest of each name.
    pub fn new<'a>(
        namespaces: impl IntoIterator<Item = (&'a str, &'a str)>,
        xml_attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut scope: Vec<_> = namespaces
            .into_iter()
            .filter(|(prefix, uri)| *prefix != "xml" && !uri.is_empty())
            .collect();
        let mut declarations = String::new();
        for (prefix, uri) in [("ds", DS), ("xades", XADES)] {
            if !scope.contains(&(prefix, uri)) {
                // The prefix may stand for something else out there; within the seal it is ours.
                scope.retain(|(other, _)| *other != prefix);
                scope.push((prefix, uri));
                declare(&mut declarations, prefix, uri);
            }
        }
        scope.sort_unstable();
        let mut inclusive =
            String::with_capacity(scope.iter().map(|(prefix, uri)| prefix.len() + uri.len() + 10).sum());
        for (prefix, uri) in scope {
            declare(&mut inclusive, prefix, uri);
        }
        let mut attributes: Vec<_> = xml_attributes.into_iter().collect();
        attributes.sort_unstable();
        let mut xml_attributes = String::new();
        for (name, value) in attributes {
            xml_attributes.extend([" xml:", name, "=\""]);
            escape::attribute(&mut xml_attributes, value);
            xml_attributes.push('"');
        }
        Self {
            inclusive,
            xml_attributes,
            declarations,
        }
    }

    /// The place within `ds:Signature`: nothing is left to declare.
    pub(super) fn within(&self) -> Self {
        Self {
            declarations: String::new(),
            ..self.clone()
        }
    }

    /// The start tag of a subtree's first element in inclusive C14N 1.0; `attributes` are its own, without a
    /// namespace, which sort before those of `xml:` (their namespace URI is empty).
    pub(super) fn open_inclusive(&self, out: &mut String, name: &str, attributes: &[(&str, &str)]) {
        out.extend(["<", name, &self.inclusive]);
        for (name, value) in attributes {
            out.extend([" ", name, "=\"", value, "\""]);
        }
        out.extend([&self.xml_attributes, ">"]);
    }

    pub(super) fn declarations(&self) -> &str {
        &self.declarations
    }

    pub(super) fn len_hint(&self) -> usize {
        self.inclusive.len() + self.xml_attributes.len()
    }
}

fn declare(out: &mut String, prefix: &str, uri: &str) {
    out.push_str(" xmlns");
    if !prefix.is_empty() {
        out.extend([":", prefix]);
    }
    out.push_str("=\"");
    escape::attribute(out, uri);
    out.push('"');
}

/// The Ids of a seal, all derived from that of its `ds:Signature`. A document must not carry any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    signature: String,
    value: String,
    properties: String,
}

impl Ids {
    /// From the signature's Id, which is an NCName.
    #[must_use]
    pub fn new(signature: impl Into<String>) -> Self {
        let signature = signature.into();
        let value = format!("{signature}-SignatureValue");
        let properties = format!("{signature}-SignedProperties");
        Self {
            signature,
            value,
            properties,
        }
    }

    /// Those of a counter-signature over the signature with these Ids.
    #[must_use]
    pub fn counter(&self) -> Self {
        Self::new(format!("{}-CounterSignature", self.signature))
    }

    /// `ds:Signature/@Id`.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// `ds:SignatureValue/@Id`.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// `xades:SignedProperties/@Id`.
    #[must_use]
    pub fn properties(&self) -> &str {
        &self.properties
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        [self.signature(), self.value(), self.properties()].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_place_has_is_not_declared_again() {
        let place = Place::new([("xades", XADES), ("ds", DS), ("", "urn:a"), ("xml", "http://x")], []);
        assert_eq!(place.declarations, "");
        assert_eq!(
            place.inclusive,
            format!(" xmlns=\"urn:a\" xmlns:ds=\"{DS}\" xmlns:xades=\"{XADES}\""),
            "sorted by prefix, the default first, xml never"
        );
    }

    #[test]
    fn a_prefix_that_means_something_else_is_declared_anew() {
        let place = Place::new(
            [("ds", "urn:other"), ("z", "a&\"b"), ("", "")],
            [("space", "preserve"), ("lang", "tr")],
        );
        assert_eq!(
            place.declarations,
            format!(" xmlns:ds=\"{DS}\" xmlns:xades=\"{XADES}\"")
        );
        let mut tag = String::new();
        place.open_inclusive(&mut tag, "ds:X", &[("Id", "i")]);
        assert_eq!(
            tag,
            format!(
                "<ds:X xmlns:ds=\"{DS}\" xmlns:xades=\"{XADES}\" xmlns:z=\"a&amp;&quot;b\" Id=\"i\" xml:lang=\"tr\" \
                 xml:space=\"preserve\">"
            )
        );
    }
}
