//! Namespace declarations, the namespaces of attributes, and the canonical order (Namespaces in XML 1.0; C14N 1.0,
//! section 2.2).

use std::cmp::Ordering;

use crate::error::{Fault, Label, Reason};
use crate::scope::Ns;

use super::core::Core;
use super::event::{RawAttribute, RawDeclaration};
use super::tag::undeclared;

impl Core {
    /// Takes the declarations out of the attributes, declares them, resolves the attributes that are left and finds
    /// their canonical order. Says whether the tag has its attributes in that order, and no declarations.
    pub(super) fn namespaces_and_order(&mut self, b: &[u8]) -> Result<bool, Fault> {
        let declares = self
            .attributes
            .iter()
            .any(|attribute| b[attribute.name.start..].starts_with(b"xmlns"));
        let declared = declares && self.declare(b)?;
        let mut ascending = true;
        let mut last: &[u8] = b"";
        for attribute in &mut self.attributes {
            let name = &attribute.name;
            if name.local != name.start {
                let prefix = &b[name.start..name.local - 1];
                attribute.ns = self.scope.resolve(prefix).ok_or_else(|| undeclared(b, *name))?;
                ascending = false;
                continue;
            }
            let local = &b[name.start..name.end];
            ascending &= last < local;
            last = local;
        }
        let count = u32::try_from(self.attributes.len()).expect("the limit on attributes is a u32");
        self.order.extend(0..count);
        if count > 1 && !ascending {
            self.sort(b)?;
            ascending = self.order.iter().copied().eq(0..count);
        }
        Ok((ascending || count == 1) && !declared)
    }

    /// Sorts by namespace name and local name; equal neighbours are the same attribute.
    fn sort(&mut self, b: &[u8]) -> Result<(), Fault> {
        let Self {
            attributes,
            scope,
            order,
            ..
        } = self;
        let compare = |x: &u32, y: &u32| -> Ordering {
            let (x, y) = (&attributes[*x as usize], &attributes[*y as usize]);
            let by_namespace = if x.ns == y.ns {
                Ordering::Equal
            } else {
                scope.name(x.ns).cmp(scope.name(y.ns))
            };
            by_namespace.then_with(|| b[x.name.local..x.name.end].cmp(&b[y.name.local..y.name.end]))
        };
        order.sort_unstable_by(compare);
        if let Some(pair) = order.windows(2).find(|pair| compare(&pair[0], &pair[1]).is_eq()) {
            let again = &attributes[pair[0].max(pair[1]) as usize].name;
            let name = Label::new(&b[again.start..again.end]);
            return Err(Fault::new(again.start, Reason::AttributeTwice { name }));
        }
        Ok(())
    }

    /// Moves the declarations out of the attributes and puts them in force. Says whether there were any.
    fn declare(&mut self, b: &[u8]) -> Result<bool, Fault> {
        let Self {
            attributes,
            declarations,
            scratch,
            ..
        } = self;
        attributes.retain(|attribute| {
            let Some(prefix) = declared_prefix(attribute, b) else {
                return true;
            };
            let at = prefix.start;
            declarations.push(RawDeclaration {
                attribute: attribute.clone(),
                prefix: at..prefix.end,
                known: None,
                ns: Ns::NONE,
                changes: false,
            });
            false
        });
        for declaration in &mut *declarations {
            declaration.known = check(&b[declaration.prefix.clone()], declaration.attribute.value(b, scratch))
                .map_err(|reason| Fault::new(declaration.attribute.name.start, reason))?;
            let length = declaration.attribute.value.len();
            if length > self.limits.namespace_name as usize {
                let limit = self.limits.namespace_name.into();
                let reason = Reason::Limit {
                    what: "a namespace name",
                    limit,
                };
                return Err(Fault::new(declaration.attribute.name.start, reason));
            }
        }
        declarations.sort_by(|x, y| b[x.prefix.clone()].cmp(&b[y.prefix.clone()]));
        if let Some(pair) = declarations
            .windows(2)
            .find(|pair| b[pair[0].prefix.clone()] == b[pair[1].prefix.clone()])
        {
            let again = &pair[1].attribute.name;
            let name = Label::new(&b[again.start..again.end]);
            return Err(Fault::new(again.start, Reason::AttributeTwice { name }));
        }
        let any = !declarations.is_empty();
        // Bound to its own name always: nothing to declare, and canonical XML never writes it.
        declarations.retain(|declaration| &b[declaration.prefix.clone()] != b"xml");
        if self.scope.len() + declarations.len() > self.limits.namespaces as usize {
            let reason = Reason::Limit {
                what: "namespaces in scope",
                limit: self.limits.namespaces.into(),
            };
            return Err(Fault::new(declarations[0].attribute.name.start, reason));
        }
        for declaration in declarations {
            let uri = declaration.attribute.value(b, scratch);
            let prefix = &b[declaration.prefix.clone()];
            (declaration.ns, declaration.changes) = self.scope.push(prefix, uri, declaration.known);
        }
        Ok(any)
    }
}

/// Where the prefix stands that an attribute declares: empty behind `xmlns`. `None` where it declares nothing.
fn declared_prefix(attribute: &RawAttribute, b: &[u8]) -> Option<std::ops::Range<usize>> {
    let name = &attribute.name;
    match (&b[name.start..name.local], &b[name.local..name.end]) {
        (b"xmlns:", _) => Some(name.local..name.end),
        (b"", b"xmlns") => Some(name.end..name.end),
        _ => None,
    }
}

/// Namespaces in XML 1.0, section 3: what may be bound to what; and C14N 1.0, section 1.3: no relative namespace names.
/// Says which constant has the namespace name, if any.
fn check(prefix: &[u8], uri: &[u8]) -> Result<Option<Ns>, Reason> {
    let prefix_label = || Label::new(prefix);
    let known = Ns::known(uri);
    match (prefix, known) {
        (b"xml", Some(Ns::XML)) | (b"", Some(Ns::NONE)) => Ok(known),
        (b"xml" | b"xmlns", _) | (_, Some(Ns::XML | Ns::XMLNS)) => {
            Err(Reason::PrefixReserved { prefix: prefix_label() })
        }
        (_, Some(Ns::NONE)) => Err(Reason::PrefixUndeclaring { prefix: prefix_label() }),
        (_, Some(_)) => Ok(known),
        (_, None) if is_absolute(uri) => Ok(None),
        (_, None) => Err(Reason::NamespaceRelative { prefix: prefix_label() }),
    }
}

/// Whether it is a URI with a scheme (RFC 3986, section 3). Libxml2, and with it most verifiers, refuses to canonicalize
/// anything else.
fn is_absolute(uri: &[u8]) -> bool {
    let Some(colon) = uri.iter().position(|&b| b == b':') else {
        return false;
    };
    let (scheme, rest) = (&uri[..colon], &uri[colon + 1..]);
    let scheme_ok = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let split = |part: &[u8], at: &[u8]| part.iter().position(|b| at.contains(b)).unwrap_or(part.len());
    let (before, fragment) = rest.split_at(split(rest, b"#"));
    let (hierarchy, query) = before.split_at(split(before, b"?"));
    let (authority, path) = match hierarchy {
        [b'/', b'/', tail @ ..] => {
            let (authority, path) = tail.split_at(split(tail, b"/"));
            (Some(authority), path)
        }
        path => (None, path),
    };
    scheme_ok
        && authority.is_none_or(is_authority)
        && written(path, b":@/")
        && written(query, b":@/?")
        && written(fragment.get(1..).unwrap_or_default(), b":@/?")
}

/// Whether it is a host with or without a user and a port (RFC 3986, section 3.2).
fn is_authority(authority: &[u8]) -> bool {
    let (user, rest) = match authority.iter().position(|&b| b == b'@') {
        Some(at) => (&authority[..at], &authority[at + 1..]),
        None => (&b""[..], authority),
    };
    let (host, port) = match rest.iter().rposition(|&b| b == b':' || b == b']') {
        Some(at) if rest[at] == b':' => (&rest[..at], Some(&rest[at + 1..])),
        _ => (rest, None),
    };
    let host_ok = match host {
        [b'[', literal @ .., b']'] => written(literal, b":"),
        name => written(name, b""),
    };
    host_ok && written(user, b":") && port.is_none_or(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit))
}

/// Whether a part consists of unreserved characters, sub-delimiters, percent-encodings and `more` (RFC 3986, section 2).
fn written(part: &[u8], more: &[u8]) -> bool {
    let mut at = 0;
    while at < part.len() {
        let byte = part[at];
        if byte == b'%' {
            let digits = part.get(at + 1..at + 3);
            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                return false;
            }
            at += 3;
            continue;
        }
        if !byte.is_ascii_alphanumeric() && !b"-._~!$&'()*+,;=".contains(&byte) && !more.contains(&byte) {
            return false;
        }
        at += 1;
    }
    true
}
