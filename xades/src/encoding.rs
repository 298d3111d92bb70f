//! Encodings: finding out which one a document is in, reading it as UTF-8, and writing in it.
//!
//! Sniffing follows XML 1.0, appendix F: a byte order mark, else the shape of `<?`, else the encoding that the XML
//! declaration names. Nothing here knows of markup beyond that declaration.

use std::sync::LazyLock;

use crate::error::{Label, Reason};

/// The encodings that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// US-ASCII: no byte from 0x80 up.
    Ascii,
    /// UTF-16, least significant byte first.
    Utf16Le,
    /// UTF-16, most significant byte first.
    Utf16Be,
    /// ISO-8859-1, Latin-1: not windows-1252, which the Encoding Standard makes of this label.
    Latin1,
    /// ISO-8859-9, Latin-5, Turkish: not windows-1254, which the Encoding Standard makes of this label.
    Latin5,
    /// windows-1254, Turkish.
    Windows1254,
}

impl Encoding {
    /// Its IANA name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Ascii => "US-ASCII",
            Self::Utf16Le | Self::Utf16Be => "UTF-16",
            Self::Latin1 => "ISO-8859-1",
            Self::Latin5 => "ISO-8859-9",
            Self::Windows1254 => "windows-1254",
        }
    }

    /// Writes `text` in this encoding. What it lacks becomes a character reference: in attribute values and character
    /// data only, the two places where XML knows them.
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            Self::Ascii | Self::Latin1 | Self::Latin5 | Self::Windows1254 => {
                let high = self.high_half();
                let mut out = Vec::with_capacity(text.len());
                for c in text.chars() {
                    if c.is_ascii() {
                        out.push(c as u8);
                    } else if let Some(at) = high.iter().position(|&other| other == Some(c)) {
                        out.push(0x80 | u8::try_from(at).expect("128 entries"));
                    } else {
                        out.extend_from_slice(format!("&#x{:X};", u32::from(c)).as_bytes());
                    }
                }
                out
            }
        }
    }

    /// What the bytes from 0x80 mean, in an encoding of one byte per character.
    fn high_half(self) -> &'static [Option<char>; 128] {
        type Half = [Option<char>; 128];
        static WINDOWS_1254: LazyLock<Half> = LazyLock::new(|| {
            std::array::from_fn(|at| {
                let byte = 0x80 | u8::try_from(at).expect("128 entries");
                let bytes = [byte];
                let (text, _) = encoding_rs::WINDOWS_1254.decode_without_bom_handling(&bytes);
                // The Encoding Standard lets the unassigned bytes through as C1 controls; Microsoft's table, ICU and
                // iconv do not know them.
                text.chars()
                    .next()
                    .filter(|&c| u32::from(c) != u32::from(byte) || byte >= 0xA0)
            })
        });
        static LATIN5: LazyLock<Half> = LazyLock::new(|| {
            // windows-1254 with the C1 controls in their place.
            std::array::from_fn(|at| {
                if at < 0x20 {
                    control_or_latin1(at)
                } else {
                    WINDOWS_1254[at]
                }
            })
        });
        static LATIN1: LazyLock<Half> = LazyLock::new(|| std::array::from_fn(control_or_latin1));
        fn control_or_latin1(at: usize) -> Option<char> {
            u8::try_from(0x80 + at).ok().map(char::from)
        }
        match self {
            Self::Windows1254 => &WINDOWS_1254,
            Self::Latin5 => &LATIN5,
            Self::Latin1 => &LATIN1,
            Self::Ascii | Self::Utf8 | Self::Utf16Le | Self::Utf16Be => &[None; 128],
        }
    }
}

/// How places in UTF-8 relate to places in the input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) encoding: Encoding,
    /// Where the window begins in the input, in bytes.
    pub(crate) base: u64,
}

impl Origin {
    /// Where in the input the end of `before`, the beginning of the window, stands.
    pub(crate) fn offset(self, before: &[u8]) -> u64 {
        let characters = || before.iter().filter(|&&b| b & 0xC0 != 0x80).count() as u64;
        self.base
            + match self.encoding {
                Encoding::Utf8 => before.len() as u64,
                // A character of four bytes in UTF-8 is two units in UTF-16.
                Encoding::Utf16Le | Encoding::Utf16Be => {
                    2 * (characters() + before.iter().filter(|&&b| b >= 0xF0).count() as u64)
                }
                _ => characters(),
            }
    }
}

/// What the beginning of a document says about its encoding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// More must be seen.
    Short,
    /// The encoding, and the length of its byte order mark.
    Found(Encoding, usize),
}

/// Looks at the beginning of a document. With `last` there is no more of it.
pub(crate) fn sniff(head: &[u8], last: bool, longest: usize) -> Result<Sniffed, Reason> {
    const MARKS: &[(&[u8], Encoding, usize)] = &[
        (b"\xEF\xBB\xBF", Encoding::Utf8, 3),
        (b"\xFF\xFE", Encoding::Utf16Le, 2),
        (b"\xFE\xFF", Encoding::Utf16Be, 2),
        (b"<\0?\0", Encoding::Utf16Le, 0),
        (b"\0<\0?", Encoding::Utf16Be, 0),
    ];
    for &(mark, encoding, length) in MARKS {
        if head.starts_with(mark) {
            return Ok(Sniffed::Found(encoding, length));
        }
        if !last && mark.starts_with(head) {
            return Ok(Sniffed::Short);
        }
    }
    const OPENING: &[u8] = b"<?xml";
    if !last && head.len() <= OPENING.len() && OPENING.starts_with(head) {
        return Ok(Sniffed::Short);
    }
    if !head.starts_with(OPENING) || !head.get(OPENING.len()).is_some_and(u8::is_ascii_whitespace) {
        return Ok(Sniffed::Found(Encoding::Utf8, 0));
    }
    let near = &head[..head.len().min(longest + 1)];
    let Some(end) = declaration_end(near) else {
        let short = !last && head.len() <= longest;
        return Ok(if short {
            Sniffed::Short
        } else {
            Sniffed::Found(Encoding::Utf8, 0)
        });
    };
    let Some(name) = declared(&head[..end]) else {
        return Ok(Sniffed::Found(Encoding::Utf8, 0));
    };
    match named(name) {
        Some(Encoding::Utf16Le | Encoding::Utf16Be) => Err(Reason::EncodingContradiction {
            declared: Label::new(name),
            found: "an encoding of single bytes",
        }),
        Some(encoding) => Ok(Sniffed::Found(encoding, 0)),
        None => Err(Reason::EncodingUnknown { name: Label::new(name) }),
    }
}

/// Where the first `?>` stands.
pub(crate) fn declaration_end(head: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'>', head).find_map(|at| at.checked_sub(1).filter(|&before| head[before] == b'?'))
}

/// The value of `encoding` in an XML declaration. The scanner checks the declaration's form; this only finds the name.
fn declared(declaration: &[u8]) -> Option<&[u8]> {
    let at = declaration.windows(8).position(|word| word == b"encoding")?;
    let rest = declaration[at + 8..]
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii_start();
    let (&quote, rest) = rest.split_first()?;
    let end = rest.iter().position(|&b| b == quote)?;
    Some(&rest[..end])
}

/// The encoding of this name (IANA names and aliases, without regard to case).
fn named(name: &[u8]) -> Option<Encoding> {
    let name = name.to_ascii_lowercase();
    Some(match &*name {
        b"utf-8" | b"utf8" => Encoding::Utf8,
        b"us-ascii" | b"ascii" => Encoding::Ascii,
        b"utf-16" | b"utf16" | b"utf-16le" => Encoding::Utf16Le,
        b"utf-16be" => Encoding::Utf16Be,
        b"iso-8859-1" | b"iso_8859-1" | b"latin1" | b"l1" => Encoding::Latin1,
        b"iso-8859-9" | b"iso_8859-9" | b"latin5" | b"l5" => Encoding::Latin5,
        b"windows-1254" | b"cp1254" => Encoding::Windows1254,
        _ => return None,
    })
}

/// Whether a declaration of `name` may stand in a document that is in `found`.
pub(crate) fn agrees(name: &[u8], found: Encoding) -> Result<(), Reason> {
    let declared = named(name).ok_or_else(|| Reason::EncodingUnknown { name: Label::new(name) })?;
    let generic = name.eq_ignore_ascii_case(b"utf-16") || name.eq_ignore_ascii_case(b"utf16");
    if declared == found || (generic && found == Encoding::Utf16Be) {
        return Ok(());
    }
    Err(Reason::EncodingContradiction {
        declared: Label::new(name),
        found: found.name(),
    })
}

/// Turns input of another encoding into UTF-8.
#[derive(Debug)]
pub(crate) struct Decoder {
    encoding: Encoding,
    /// A unit or surrogate pair that began in the piece before.
    partial: Vec<u8>,
}

/// Bytes that mean nothing in the encoding.
#[derive(Debug)]
pub(crate) struct Undecodable;

impl Decoder {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            partial: Vec::new(),
        }
    }

    /// Bytes of the input that wait for more.
    pub(crate) fn pending(&self) -> usize {
        self.partial.len()
    }

    /// Appends what `piece` means to `out`.
    pub(crate) fn decode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Undecodable> {
        match self.encoding {
            Encoding::Utf16Le => self.utf16(piece, out, u16::from_le_bytes),
            Encoding::Utf16Be => self.utf16(piece, out, u16::from_be_bytes),
            _ => {
                let high = self.encoding.high_half();
                for &byte in piece {
                    if byte < 0x80 {
                        out.push(byte);
                        continue;
                    }
                    let Some(c) = high[usize::from(byte & 0x7F)] else {
                        return Err(Undecodable);
                    };
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Ok(())
            }
        }
    }

    fn utf16(&mut self, piece: &[u8], out: &mut Vec<u8>, unit: fn([u8; 2]) -> u16) -> Result<(), Undecodable> {
        for &byte in piece {
            self.partial.push(byte);
            let c = match *self.partial {
                [a, b] => match unit([a, b]) {
                    0xD800..=0xDBFF => continue,
                    0xDC00..=0xDFFF => None,
                    plain => char::from_u32(plain.into()),
                },
                [a, b, c, d] => char::decode_utf16([unit([a, b]), unit([c, d])])
                    .next()
                    .and_then(Result::ok),
                _ => continue,
            };
            let Some(c) = c else {
                return Err(Undecodable);
            };
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            self.partial.clear();
        }
        Ok(())
    }
}
