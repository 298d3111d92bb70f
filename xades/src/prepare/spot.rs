//! The place of the seal: what of the input goes, and what stands around the seal instead.

use std::ops::Range;

use crate::build::Place;
use crate::profile::Element;
use crate::scope::Scope;

/// Where the seal goes.
#[derive(Debug)]
pub(super) struct Spot {
    /// What of the input is replaced, in bytes.
    pub(super) range: Range<u64>,
    /// What stands before the seal in the replacement.
    pub(super) before: String,
    /// What stands behind it.
    pub(super) after: String,
    /// The namespaces and `xml:` attributes in scope there.
    pub(super) place: Place,
}

/// `xml:` attributes in scope: the depth of the element that carries one, its local name, its value.
pub(super) type XmlAttributes = [(u32, String, String)];

/// Elements that are written around the seal since the document lacks them.
#[derive(Debug)]
pub(super) struct Skeleton {
    pub(super) open: String,
    pub(super) close: String,
    pub(super) place: Place,
}

impl Skeleton {
    /// Writes `elements`, all of one namespace, around a seal that stands in this scope, less its last `own`
    /// declarations. What is written is canonical as it stands.
    pub(super) fn new(elements: &[Element], scope: &Scope, own: usize, xml: &XmlAttributes) -> Self {
        let mut namespaces = scope.in_scope_without(own);
        let mut skeleton = (String::new(), String::new());
        if let Some(&(ns, _)) = elements.first() {
            let name = ns.known_name().unwrap_or_default().as_bytes();
            let found = namespaces
                .iter()
                .find(|(_, uri)| *uri == name)
                .map(|(prefix, _)| *prefix);
            let (prefix, declared) = found.map_or((&b"ext"[..], true), |prefix| (prefix, false));
            if declared {
                // Whatever the prefix means outside, within the skeleton it is this.
                namespaces.retain(|(other, _)| *other != prefix);
                namespaces.push((prefix, name));
            }
            let prefix = String::from_utf8_lossy(prefix);
            let colon = if prefix.is_empty() { "" } else { ":" };
            for (at, (_, local)) in elements.iter().enumerate() {
                skeleton.0.extend(["<", &*prefix, colon, local]);
                if declared && at == 0 {
                    skeleton
                        .0
                        .extend([" xmlns:", &*prefix, "=\"", ns.known_name().unwrap_or_default(), "\""]);
                }
                skeleton.0.push('>');
                skeleton.1.insert_str(0, &format!("</{prefix}{colon}{local}>"));
            }
        }
        Self {
            open: skeleton.0,
            close: skeleton.1,
            place: place(&namespaces, xml),
        }
    }

    /// The canonical form of the skeleton without the seal, as the enveloped-signature transform leaves it.
    pub(super) fn canonical(&self) -> String {
        format!("{}{}", self.open, self.close)
    }
}

fn place(namespaces: &[(&[u8], &[u8])], xml: &XmlAttributes) -> Place {
    let texts: Vec<_> = namespaces
        .iter()
        .map(|(p, u)| (String::from_utf8_lossy(p), String::from_utf8_lossy(u)))
        .collect();
    let mut nearest: Vec<(&str, &str)> = Vec::new();
    for (_, local, value) in xml.iter().rev() {
        if !nearest.iter().any(|(name, _)| name == local) {
            nearest.push((local, value));
        }
    }
    Place::new(texts.iter().map(|(prefix, uri)| (&**prefix, &**uri)), nearest)
}
