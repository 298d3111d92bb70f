//! The scanner: reads a document once, checks that it is well-formed, and tells a [`Handler`] what is in it.
//!
//! In comes the document, in pieces cut anywhere and in any of the [encodings](Encoding) read here. Out go events, whose
//! slices point into the piece at hand; nothing is copied but what was cut in two. It refuses what a strict parser of
//! XML 1.0 (Fifth Edition) with Namespaces in XML 1.0 refuses, and beyond that document type declarations, relative
//! namespace names (C14N 1.0, section 1.3), XML versions other than 1.0, encodings not read here, and what is over the
//! [`Limits`]. It knows nothing of canonical XML, of documents or of seals.
//!
//! Memory does not grow with the document: it holds the names of the open elements, the namespaces in scope, and at
//! most one tag that was cut in two.

mod chars;
mod core;
mod data;
mod declaration;
mod event;
mod namespaces;
mod place;
mod reference;
mod simd;
mod tag;
mod value;

pub use chars::is_ncname;
pub use event::{Attribute, Deaf, Declaration, EndTag, Handler, Name, Part, StartTag, Text, Window};

use self::core::Core;
use self::place::Place;
use crate::encoding::{self, Decoder, Encoding, Origin, Sniffed};
use crate::error::{Fault, Inside, Reason, Refusal};
use crate::limits::Limits;

/// How much of another encoding is decoded at a time, in bytes of input.
const DECODED_PIECE: usize = 16 << 10;

/// A scan under way: [`feed`](Self::feed) it the document, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Scanner {
    core: Core,
    stage: Stage,
    encoding: Encoding,
    /// Input so far, in bytes.
    taken: u64,
    /// Where what is not used up yet begins in the input, in bytes.
    base: u64,
    /// The same, in lines and columns.
    place: Place,
    /// What is not used up yet, in UTF-8: a token that was cut in two.
    carry: Vec<u8>,
    /// The quotation mark that is open in `carry`, where it is a tag; 0 where none is.
    quote: u8,
    /// A UTF-8 character that was cut in two.
    partial: Vec<u8>,
    decoded: Vec<u8>,
    refused: Option<Refusal>,
}

#[derive(Debug)]
enum Stage {
    Sniffing(Vec<u8>),
    Utf8,
    Decoding(Decoder),
}

impl Scanner {
    /// A scanner for one document.
    pub fn new(limits: &Limits) -> Self {
        Self {
            core: Core::new(limits.clone()),
            stage: Stage::Sniffing(Vec::new()),
            encoding: Encoding::Utf8,
            taken: 0,
            base: 0,
            place: Place::START,
            carry: Vec::new(),
            quote: 0,
            partial: Vec::new(),
            decoded: Vec::new(),
            refused: None,
        }
    }

    /// The encoding of the document; UTF-8 until it is known.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Reads a whole document that is in memory.
    ///
    /// # Errors
    /// What is wrong with the document, or what the handler refuses.
    pub fn run<H: Handler>(mut self, document: &[u8], handler: &mut H) -> Result<Encoding, Refusal> {
        self.take(document)?;
        let sniffed = encoding::sniff(document, true, declaration::LONGEST);
        let Sniffed::Found(encoding, mark) = sniffed.map_err(|reason| self.refuse_here(reason))? else {
            unreachable!("with the whole document at hand the answer is not to wait for more");
        };
        if encoding != Encoding::Utf8 {
            self.taken = 0;
            self.feed(document, handler)?;
            self.finish(handler)?;
            return Ok(encoding);
        }
        // The straight way: one window, no lines counted unless something is wrong.
        self.base = mark as u64;
        let text = &document[mark..];
        let (valid, broken) = validate(text);
        let whole = valid == text.len();
        let window = Window {
            bytes: &text[..valid],
            origin: self.origin(),
        };
        let scanned = self
            .core
            .scan(&window, whole, handler)
            .and_then(|end| match (whole, broken) {
                (true, _) => self.core.end(end),
                (false, true) => Err(Fault::new(valid, Reason::Encoding { encoding: "UTF-8" })),
                (false, false) => Err(Fault::new(
                    valid,
                    Reason::UnexpectedEnd {
                        inside: Inside::Character,
                    },
                )),
            });
        scanned.map_err(|fault| self.refuse(&window, fault))?;
        Ok(encoding)
    }

    /// Reads the next piece of the document.
    ///
    /// # Errors
    /// What is wrong with the document so far, or what the handler refuses; once refused, always refused.
    pub fn feed<H: Handler>(&mut self, piece: &[u8], handler: &mut H) -> Result<(), Refusal> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        self.take(piece)
            .and_then(|()| self.route(piece, false, handler))
            .inspect_err(|refusal| {
                self.refused = Some(refusal.clone());
            })
    }

    /// Ends the document.
    ///
    /// # Errors
    /// As [`feed`](Self::feed), and where the document is not complete.
    pub fn finish<H: Handler>(&mut self, handler: &mut H) -> Result<(), Refusal> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        if matches!(self.stage, Stage::Sniffing(_)) {
            self.route(&[], true, handler)?;
        }
        let pending = match &self.stage {
            Stage::Decoding(decoder) => decoder.pending(),
            _ => self.partial.len(),
        };
        let carry = std::mem::take(&mut self.carry);
        let window = Window {
            bytes: &carry,
            origin: self.origin(),
        };
        let scanned = self.core.scan(&window, pending == 0, handler).and_then(|end| {
            if pending > 0 {
                return Err(Fault::new(
                    carry.len(),
                    Reason::UnexpectedEnd {
                        inside: Inside::Character,
                    },
                ));
            }
            self.core.end(end)
        });
        scanned.map_err(|fault| self.refuse(&window, fault))
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.taken += piece.len() as u64;
        let limit = self.core.limits.bytes;
        if self.taken > limit {
            return Err(Refusal::new(
                Reason::Limit {
                    what: "bytes of input",
                    limit,
                },
                None,
            ));
        }
        Ok(())
    }

    /// Sends a piece to what reads its encoding.
    fn route<H: Handler>(&mut self, piece: &[u8], last: bool, handler: &mut H) -> Result<(), Refusal> {
        let Stage::Sniffing(head) = &mut self.stage else {
            return if matches!(self.stage, Stage::Utf8) {
                self.utf8(piece, handler)
            } else {
                self.decode(piece, handler)
            };
        };
        let mut seen = std::mem::take(head);
        let head = if seen.is_empty() {
            piece
        } else {
            seen.extend_from_slice(piece);
            &seen
        };
        let sniffed = encoding::sniff(head, last, declaration::LONGEST);
        match sniffed.map_err(|reason| self.refuse_here(reason))? {
            Sniffed::Short => {
                self.stage = Stage::Sniffing(head.to_vec());
                Ok(())
            }
            Sniffed::Found(encoding, mark) => {
                self.encoding = encoding;
                self.core.encoding = encoding;
                self.base = mark as u64;
                self.stage = match encoding {
                    Encoding::Utf8 => Stage::Utf8,
                    other => Stage::Decoding(Decoder::new(other)),
                };
                self.route(&head[mark..], last, handler)
            }
        }
    }

    fn utf8<H: Handler>(&mut self, mut piece: &[u8], handler: &mut H) -> Result<(), Refusal> {
        while !self.partial.is_empty() && !piece.is_empty() {
            self.partial.push(piece[0]);
            piece = &piece[1..];
            match std::str::from_utf8(&self.partial) {
                Ok(_) => {
                    let character = std::mem::take(&mut self.partial);
                    self.text(&character, handler)?;
                }
                Err(error) if error.error_len().is_some() => return Err(self.undecodable(handler)),
                Err(_) => {}
            }
        }
        let (valid, broken) = validate(piece);
        self.text(&piece[..valid], handler)?;
        if broken {
            return Err(self.undecodable(handler));
        }
        self.partial.extend_from_slice(&piece[valid..]);
        Ok(())
    }

    fn decode<H: Handler>(&mut self, piece: &[u8], handler: &mut H) -> Result<(), Refusal> {
        for piece in piece.chunks(DECODED_PIECE) {
            let mut text = std::mem::take(&mut self.decoded);
            text.clear();
            let Stage::Decoding(decoder) = &mut self.stage else {
                return Ok(());
            };
            let decoded = decoder.decode(piece, &mut text);
            self.text(&text, handler)?;
            self.decoded = text;
            if decoded.is_err() {
                return Err(self.undecodable(handler));
            }
        }
        Ok(())
    }

    /// Scans text that is known to be UTF-8, whole characters only.
    fn text<H: Handler>(&mut self, mut text: &[u8], handler: &mut H) -> Result<(), Refusal> {
        while !self.carry.is_empty() && !text.is_empty() {
            let taken = text
                .iter()
                .position(|&byte| self.completes(byte))
                .map_or(text.len(), |at| at + 1);
            let limit = self.core.limits.start_tag as usize;
            // Over the limit, the scan below says so; or what else is wrong with the tag.
            let room = (limit + 2).saturating_sub(self.carry.len()).max(1).min(taken);
            // A character must not be cut in two.
            let rest = text[room..].iter().take_while(|&&byte| byte & 0xC0 == 0x80).count();
            let room = room + rest;
            let ready = room != taken || self.completed(text[taken - 1]);
            self.carry.extend_from_slice(&text[..room]);
            text = &text[room..];
            if !ready {
                continue;
            }
            let mut carry = std::mem::take(&mut self.carry);
            let used = self.window(&carry, handler)?;
            carry.drain(..used);
            self.carry = carry;
            self.recount();
        }
        if !text.is_empty() {
            let used = self.window(text, handler)?;
            self.carry.extend_from_slice(&text[used..]);
            self.recount();
        }
        Ok(())
    }

    fn window<H: Handler>(&mut self, bytes: &[u8], handler: &mut H) -> Result<usize, Refusal> {
        let window = Window {
            bytes,
            origin: self.origin(),
        };
        let used = self
            .core
            .scan(&window, false, handler)
            .map_err(|fault| self.refuse(&window, fault))?;
        self.base = window.offset(used);
        self.place = self.place.advance(&bytes[..used]);
        Ok(used)
    }

    fn origin(&self) -> Origin {
        Origin {
            encoding: self.encoding,
            base: self.base,
        }
    }

    /// The refusal of bytes that are no text. What stands before them may be wrong already, though it is not complete: the
    /// first fault is named, however the input was cut.
    #[cold]
    fn undecodable<H: Handler>(&mut self, handler: &mut H) -> Refusal {
        let carry = std::mem::take(&mut self.carry);
        let window = Window {
            bytes: &carry,
            origin: self.origin(),
        };
        let encoding = self.encoding.name();
        let undecodable = Fault::new(carry.len(), Reason::Encoding { encoding });
        let fault = self.core.scan(&window, false, handler).err().unwrap_or(undecodable);
        self.refuse(&window, fault)
    }

    fn refuse(&self, window: &Window<'_>, fault: Fault) -> Refusal {
        let before = &window.bytes[..fault.at];
        Refusal::new(
            fault.reason,
            Some(self.place.advance(before).at(window.offset(fault.at))),
        )
    }

    fn refuse_here(&self, reason: Reason) -> Refusal {
        Refusal::new(reason, Some(self.place.at(self.base)))
    }
}

/// How many bytes are UTF-8, whole characters only, and whether what follows never can be.
fn validate(bytes: &[u8]) -> (usize, bool) {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(text) => (text.len(), false),
        Err(error) => (error.valid_up_to(), error.error_len().is_some()),
    }
}

/// When a token that was cut in two is worth scanning again.
impl Scanner {
    fn is_tag(&self) -> bool {
        self.carry[0] == b'<' && self.carry.len() > 1 && !matches!(self.carry[1], b'!' | b'?')
    }

    /// Whether scanning again may get further once `byte` is there. Called with each byte in turn.
    fn completes(&mut self, byte: u8) -> bool {
        if !self.is_tag() {
            return true;
        }
        match byte {
            b'>' if self.quote == 0 => return true,
            b'"' | b'\'' if self.quote == 0 => self.quote = byte,
            _ if byte == self.quote => self.quote = 0,
            _ => {}
        }
        false
    }

    /// Whether the last byte that [`completes`](Self::completes) was asked about was a yes.
    fn completed(&self, byte: u8) -> bool {
        let name = self.carry[0] == b'&' || self.carry.starts_with(b"<?");
        if self.is_tag() {
            self.quote == 0 && byte == b'>'
        } else {
            !(name && chars::is_name_byte(byte))
        }
    }

    /// Looks at what is carried over from its beginning.
    fn recount(&mut self) {
        self.quote = 0;
        if self.carry.len() > 2 && self.is_tag() {
            let carry = std::mem::take(&mut self.carry);
            for &byte in &carry {
                match byte {
                    b'"' | b'\'' if self.quote == 0 => self.quote = byte,
                    _ if byte == self.quote => self.quote = 0,
                    _ => {}
                }
            }
            self.carry = carry;
        }
    }
}
