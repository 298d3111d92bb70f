//! What exclusive canonicalization has written so far: which prefix means what to the nearest ancestor in the output
//! (Exclusive XML Canonicalization 1.0, section 3).

use std::collections::HashMap;

use crate::scan::StartTag;
use crate::scope::Ns;

/// The namespace declarations in force in the output.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    current: HashMap<Box<[u8]>, Ns>,
    /// What to restore when the element at this depth ends.
    undo: Vec<(u32, Box<[u8]>, Option<Ns>)>,
    /// Prefixes to treat as inclusive canonicalization does; empty for the default namespace.
    inclusive: Vec<Box<[u8]>>,
}

impl Rendered {
    pub(super) fn new(inclusive: &[String]) -> Self {
        let prefix = |name: &String| {
            if name == "#default" {
                Box::default()
            } else {
                name.as_bytes().into()
            }
        };
        Self {
            inclusive: inclusive.iter().map(prefix).collect(),
            ..Self::default()
        }
    }

    /// The prefixes to declare at this element, ascending, with what they mean. `apex` has no ancestor in the output.
    pub(super) fn declare<'a>(&mut self, tag: &StartTag<'a>, apex: bool, out: &mut Vec<(Box<[u8]>, Ns)>) {
        out.clear();
        let mut need = |prefix: &[u8]| {
            if prefix == b"xml" {
                return;
            }
            let Some(ns) = tag.scope.lookup(prefix) else { return };
            let before = self.current.get(prefix).copied();
            let same = before == Some(ns) || (before.is_none() && ns == Ns::NONE);
            if !same && !out.iter().any(|(other, _)| &**other == prefix) {
                out.push((prefix.into(), ns));
            }
        };
        need(tag.name.prefix);
        // An attribute without a prefix is in no namespace: it does not use the default one.
        let mut last: &[u8] = b"";
        for attribute in tag.attributes().filter(|attribute| !attribute.name.prefix.is_empty()) {
            if attribute.name.prefix != last {
                last = attribute.name.prefix;
                need(last);
            }
        }
        if apex || tag.declarations().len() > 0 {
            for prefix in &self.inclusive {
                need(prefix);
            }
        }
        out.sort_unstable_by(|x, y| x.0.cmp(&y.0));
        for (prefix, ns) in &*out {
            let before = self.current.insert(prefix.clone(), *ns);
            self.undo.push((tag.depth, prefix.clone(), before));
        }
    }

    /// The element at `depth` ends.
    pub(super) fn end(&mut self, depth: u32) {
        while let Some((_, prefix, before)) = self.undo.pop_if(|(at, ..)| *at >= depth) {
            match before {
                Some(ns) => self.current.insert(prefix, ns),
                None => self.current.remove(&prefix),
            };
        }
    }
}
