//! How large, deep and wide a document may be.

/// Bounds on what is read. Each is checked before memory is spent on what it bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The whole input, in bytes. Default 256 MiB: the largest e-Defter ledgers are 200 MB.
    pub bytes: u64,
    /// Elements open at the same time. Default 1,024.
    pub depth: u32,
    /// Attributes and namespace declarations of one element. Default 10,240.
    pub attributes: u32,
    /// Namespace declarations in scope at one place. Default 1,024.
    pub namespaces: u32,
    /// One element's, attribute's or processing instruction's qualified name, in bytes of UTF-8. Default 1,024.
    pub name: u32,
    /// One namespace name (URI), in bytes of UTF-8. Default 2,048.
    pub namespace_name: u32,
    /// One attribute value, in bytes of UTF-8 as written. Default 1 MiB.
    pub attribute_value: u32,
    /// One whole start tag, in bytes of UTF-8. Default 4 MiB. A tag is held in memory where it is split between two pieces
    /// of input.
    pub start_tag: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            depth: 1024,
            attributes: 10_240,
            namespaces: 1024,
            name: 1024,
            namespace_name: 2048,
            attribute_value: 1 << 20,
            start_tag: 4 << 20,
        }
    }
}
