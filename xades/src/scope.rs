//! Namespaces in scope, and what prefixes mean.
//!
//! Namespace names are numbered: [`Ns`] compares in one instruction, and the names that this crate knows have constant
//! numbers. A lookup costs the same with three namespaces in scope and with a thousand. What goes out of scope is
//! forgotten, so memory is bounded by what is in scope at one time.

use std::collections::HashMap;

/// A namespace name, numbered. Numbers other than the constants mean something only while the scanner that gave them is
/// inside the element that declared it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ns(u32);

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $uri:literal;)*) => {
        impl Ns {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }
        static KNOWN: &[&str] = &[$($uri),*];
    };
}

known! {
    /// No namespace.
    NONE = 0, "";
    /// Bound to `xml` always.
    XML = 1, "http://www.w3.org/XML/1998/namespace";
    /// Of namespace declarations themselves; never bound to a prefix.
    XMLNS = 2, "http://www.w3.org/2000/xmlns/";
    /// XML Signature.
    DS = 3, "http://www.w3.org/2000/09/xmldsig#";
    /// XAdES 1.3.2.
    XADES = 4, "http://uri.etsi.org/01903/v1.3.2#";
    /// XAdES 1.4.1.
    XADES_141 = 5, "http://uri.etsi.org/01903/v1.4.1#";
    /// UBL extension components.
    EXT = 6, "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2";
    /// UBL aggregate components.
    CAC = 7, "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2";
    /// UBL basic components.
    CBC = 8, "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2";
    /// UBL Invoice.
    INVOICE = 9, "urn:oasis:names:specification:ubl:schema:xsd:Invoice-2";
    /// UBL CreditNote.
    CREDIT_NOTE = 10, "urn:oasis:names:specification:ubl:schema:xsd:CreditNote-2";
    /// UBL DespatchAdvice.
    DESPATCH_ADVICE = 11, "urn:oasis:names:specification:ubl:schema:xsd:DespatchAdvice-2";
    /// UBL ReceiptAdvice.
    RECEIPT_ADVICE = 12, "urn:oasis:names:specification:ubl:schema:xsd:ReceiptAdvice-2";
    /// UBL ApplicationResponse.
    APPLICATION_RESPONSE = 13, "urn:oasis:names:specification:ubl:schema:xsd:ApplicationResponse-2";
    /// UN/CEFACT Standard Business Document Header: the envelope.
    ENVELOPE = 14, "http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader";
    /// e-Arşiv report.
    EARSIV = 15, "http://earsiv.efatura.gov.tr";
    /// e-Defter.
    EDEFTER = 16, "http://www.edefter.gov.tr";
    /// XBRL instance 2.1.
    XBRLI = 17, "http://www.xbrl.org/2003/instance";
    /// OAGIS 9.
    OAGIS = 18, "http://www.openapplications.org/oagis/9";
    /// HR-XML 3.
    HR_XML = 19, "http://www.hr-xml.org/3";
    /// XBRL Global Ledger, core.
    GL_COR = 20, "http://www.xbrl.org/int/gl/cor/2006-10-25";
    /// XML Schema instance: in nearly every document.
    XSI = 21, "http://www.w3.org/2001/XMLSchema-instance";
    /// UN/CEFACT documentation: declared by nearly every UBL document.
    CCTS = 22, "urn:un:unece:uncefact:documentation:2";
    /// XML Signature 1.1's additions.
    DS_11 = 23, "http://www.w3.org/2009/xmldsig11#";
}

impl Ns {
    /// The constant with this namespace name.
    pub(crate) fn known(name: &[u8]) -> Option<Self> {
        let at = KNOWN.iter().position(|known| known.as_bytes() == name)?;
        Some(Self(u32::try_from(at).expect("a short list")))
    }

    /// The namespace name of a constant; `None` for a number that was given out while scanning.
    pub fn known_name(self) -> Option<&'static str> {
        KNOWN.get(self.0 as usize).copied()
    }
}

#[derive(Debug)]
struct Binding {
    /// Where in [`Scope::prefixes`] its prefix begins. It ends where that of the next binding begins.
    prefix: usize,
    ns: Ns,
    /// The binding of the same prefix that this one hides.
    outer: Option<u32>,
}

#[derive(Debug)]
struct Name {
    text: Box<[u8]>,
    uses: u32,
}

/// Direct-mapped, by short prefix: nearly every name of a document finds its namespace here.
const CACHE: usize = 16;
/// Of so many bindings, a look at each is quicker than a hash.
const FEW: usize = 24;

/// The namespaces in scope at one place of a document.
#[derive(Debug)]
pub struct Scope {
    /// Those that are not known beforehand; numbered after the known ones.
    names: Vec<Name>,
    free: Vec<u32>,
    numbers: HashMap<Box<[u8]>, u32>,
    bindings: Vec<Binding>,
    /// The prefixes of the bindings, one after the other.
    prefixes: Vec<u8>,
    /// Prefixes to bindings; kept where there are more than a few.
    current: HashMap<Box<[u8]>, u32>,
    default: Ns,
    cache: [(u64, Ns); CACHE],
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    pub(crate) fn new() -> Self {
        Self {
            names: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            bindings: Vec::with_capacity(FEW),
            prefixes: Vec::with_capacity(8 * FEW),
            current: HashMap::new(),
            default: Ns::NONE,
            cache: [(0, Ns::NONE); CACHE],
        }
    }

    /// How many declarations are in force or hidden.
    pub(crate) fn len(&self) -> usize {
        self.bindings.len()
    }

    /// The namespace of names without a prefix.
    #[inline(always)]
    pub fn default_namespace(&self) -> Ns {
        self.default
    }

    /// What a prefix (not empty) means here; `None` where it is not declared.
    pub(crate) fn resolve(&mut self, prefix: &[u8]) -> Option<Ns> {
        if prefix.len() > 7 {
            return self.lookup(prefix);
        }
        let mut padded = [0; 8];
        padded[..prefix.len()].copy_from_slice(prefix);
        let key = u64::from_le_bytes(padded) | (prefix.len() as u64) << 56;
        let (cached, ns) = self.cache[slot(key)];
        if cached == key {
            return Some(ns);
        }
        let ns = self.lookup(prefix)?;
        self.cache[slot(key)] = (key, ns);
        Some(ns)
    }

    /// As [`resolve`](Self::resolve), of the prefix at a place among other bytes.
    #[inline(always)]
    pub(crate) fn resolve_at(&mut self, bytes: &[u8], at: usize, length: usize) -> Option<Ns> {
        if length < 8
            && let Some(near) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
        {
            let key = u64::from_le_bytes(*near) & ((1 << (8 * length)) - 1) | (length as u64) << 56;
            let (cached, ns) = self.cache[slot(key)];
            if cached == key {
                return Some(ns);
            }
        }
        self.resolve(&bytes[at..at + length])
    }

    /// As [`resolve`](Self::resolve), for those who may only look. An empty prefix asks for the default namespace.
    pub fn lookup(&self, prefix: &[u8]) -> Option<Ns> {
        match prefix {
            b"" => Some(self.default),
            b"xml" => Some(Ns::XML),
            _ => self.find(prefix).map(|at| self.bindings[at as usize].ns),
        }
    }

    /// The namespace name.
    pub fn name(&self, ns: Ns) -> &[u8] {
        match ns.known_name() {
            Some(known) => known.as_bytes(),
            None => self
                .names
                .get(ns.0 as usize - KNOWN.len())
                .map_or(b"", |name| &name.text),
        }
    }

    /// Declares a prefix (empty: the default namespace) until the matching [`pop`](Self::pop). Says its number and
    /// whether it means anything else than before.
    /// `known` is the constant with this namespace name, if there is one ([`Ns::known`]).
    pub(crate) fn push(&mut self, prefix: &[u8], uri: &[u8], known: Option<Ns>) -> (Ns, bool) {
        let ns = known.unwrap_or_else(|| self.number(uri));
        let at = u32::try_from(self.bindings.len()).expect("the limit on namespaces is a u32");
        let outer = self.find(prefix);
        if self.bindings.len() >= FEW {
            if self.current.is_empty() {
                let all = (0..self.bindings.len()).zip(0..);
                let all = all
                    .map(|(binding, at)| (self.prefix(binding).into(), at))
                    .collect::<Vec<_>>();
                self.current.extend(all);
            }
            self.current.insert(prefix.into(), at);
        }
        let before = outer.map_or(Ns::NONE, |outer| self.bindings[outer as usize].ns);
        self.bindings.push(Binding {
            prefix: self.prefixes.len(),
            ns,
            outer,
        });
        self.prefixes.extend_from_slice(prefix);
        self.changed(prefix.is_empty(), ns);
        (ns, before != ns)
    }

    /// The prefix of a binding.
    fn prefix(&self, binding: usize) -> &[u8] {
        let begin = self.bindings[binding].prefix;
        let end = self
            .bindings
            .get(binding + 1)
            .map_or(self.prefixes.len(), |next| next.prefix);
        &self.prefixes[begin..end]
    }

    /// Forgets the last `count` declarations.
    pub(crate) fn pop(&mut self, count: usize) {
        for _ in 0..count {
            let Some(Binding {
                prefix: begin,
                ns,
                outer,
            }) = self.bindings.pop()
            else {
                return;
            };
            let prefix = &self.prefixes[begin..];
            let before = outer.map_or(Ns::NONE, |outer| self.bindings[outer as usize].ns);
            // Nearly always empty, and a look would hash the prefix to find that out.
            if !self.current.is_empty() {
                match outer {
                    Some(outer) => {
                        if let Some(current) = self.current.get_mut(prefix) {
                            *current = outer;
                        }
                    }
                    None => {
                        self.current.remove(prefix);
                    }
                }
            }
            let default = prefix.is_empty();
            self.prefixes.truncate(begin);
            self.changed(default, before);
            self.release(ns);
            if self.bindings.len() == FEW {
                self.current.clear();
            }
        }
    }

    /// The binding of a prefix that is in force.
    fn find(&self, prefix: &[u8]) -> Option<u32> {
        if self.bindings.len() > FEW {
            return self.current.get(prefix).copied();
        }
        let mut end = self.prefixes.len();
        let at = self.bindings.iter().rposition(|binding| {
            let begin = std::mem::replace(&mut end, binding.prefix);
            self.prefixes[binding.prefix..begin] == *prefix
        })?;
        u32::try_from(at).ok()
    }

    /// Every prefix in scope with its namespace name, ascending by prefix; the default namespace first, if there is one.
    /// `xml` is not among them.
    pub fn in_scope(&self) -> Vec<(&[u8], &[u8])> {
        self.in_scope_without(0)
    }

    /// As [`in_scope`](Self::in_scope), as if the last `count` declarations had not been made: what is in scope around an
    /// element that makes so many.
    pub(crate) fn in_scope_without(&self, count: usize) -> Vec<(&[u8], &[u8])> {
        let outer = self.bindings.len().saturating_sub(count);
        let mut all: Vec<(&[u8], Ns)> = Vec::with_capacity(outer);
        for (at, binding) in self.bindings[..outer].iter().enumerate() {
            all.push((self.prefix(at), binding.ns));
        }
        // Of each prefix the last: a stable sort keeps them in order.
        all.sort_by_key(|(prefix, _)| *prefix);
        let mut named = Vec::with_capacity(all.len());
        for (at, (prefix, ns)) in all.iter().enumerate() {
            let hidden = all.get(at + 1).is_some_and(|(next, _)| next == prefix);
            if !hidden && *ns != Ns::NONE {
                named.push((*prefix, self.name(*ns)));
            }
        }
        named
    }

    fn changed(&mut self, default: bool, now: Ns) {
        if default {
            self.default = now;
        } else {
            self.cache = [(0, Ns::NONE); CACHE];
        }
    }

    /// The number of a name that is no constant's.
    fn number(&mut self, uri: &[u8]) -> Ns {
        if let Some(&number) = self.numbers.get(uri) {
            self.names[number as usize - KNOWN.len()].uses += 1;
            return Ns(number);
        }
        let name = Name {
            text: uri.into(),
            uses: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize - KNOWN.len()] = name;
                number
            }
            None => {
                self.names.push(name);
                u32::try_from(KNOWN.len() + self.names.len() - 1).expect("the limit on namespaces is a u32")
            }
        };
        self.numbers.insert(uri.into(), number);
        Ns(number)
    }

    fn release(&mut self, ns: Ns) {
        if (ns.0 as usize) < KNOWN.len() {
            return;
        }
        let name = &mut self.names[ns.0 as usize - KNOWN.len()];
        name.uses -= 1;
        if name.uses == 0 {
            let text = std::mem::take(&mut name.text);
            self.numbers.remove(&text);
            self.free.push(ns.0);
        }
    }
}

/// Where in the cache a prefix is, if it is there: by its bytes and length.
#[inline(always)]
fn slot(key: u64) -> usize {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as usize % CACHE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_of_scope_is_what_it_was_before_however_many_there_are() {
        let mut scope = Scope::new();
        for round in 0..100_u32 {
            scope.push(format!("p{round}").as_bytes(), format!("urn:{round}").as_bytes(), None);
            scope.push(b"same", format!("urn:same:{round}").as_bytes(), None);
        }
        for round in (0..100_u32).rev() {
            assert_eq!(scope.len(), 2 * round as usize + 2);
            let ns = scope.resolve(b"same").unwrap();
            assert_eq!(scope.name(ns), format!("urn:same:{round}").as_bytes());
            for other in [0, round / 2, round] {
                let ns = scope.lookup(format!("p{other}").as_bytes()).unwrap();
                assert_eq!(scope.name(ns), format!("urn:{other}").as_bytes());
            }
            assert_eq!(scope.in_scope().len(), round as usize + 2);
            assert_eq!(scope.in_scope_without(2).len(), round as usize + usize::from(round > 0));
            scope.pop(2);
            assert!(scope.lookup(format!("p{round}").as_bytes()).is_none());
        }
        assert!(scope.lookup(b"same").is_none() && scope.numbers.is_empty() && scope.current.is_empty());
    }
}
