//! Where canonical bytes go.

use std::fmt;

use aws_lc_rs::digest;

/// Takes canonical bytes, in order.
pub trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts.
impl Sink for u64 {
    fn put(&mut self, bytes: &[u8]) {
        *self += bytes.len() as u64;
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn put(&mut self, bytes: &[u8]) {
        (**self).put(bytes);
    }
}

/// Small pieces are gathered up to so many bytes, since a call into the digest costs as much as hashing some of them.
const GATHERED: usize = 512;

/// Digests canonical bytes. A clone goes on by itself: a way to come back to a place.
#[derive(Clone)]
pub struct DigestSink {
    context: digest::Context,
    gathered: [u8; GATHERED],
    length: usize,
}

impl fmt::Debug for DigestSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestSink").finish_non_exhaustive()
    }
}

impl From<digest::Context> for DigestSink {
    fn from(context: digest::Context) -> Self {
        Self {
            context,
            gathered: [0; GATHERED],
            length: 0,
        }
    }
}

impl DigestSink {
    /// An empty digest.
    pub fn new(algorithm: &'static digest::Algorithm) -> Self {
        digest::Context::new(algorithm).into()
    }

    /// The digest of all that was put.
    pub fn finish(mut self) -> digest::Digest {
        self.flush();
        self.context.finish()
    }

    fn flush(&mut self) {
        self.context.update(&self.gathered[..self.length]);
        self.length = 0;
    }
}

impl Sink for DigestSink {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > GATHERED - self.length {
            self.flush();
            if bytes.len() >= GATHERED {
                self.context.update(bytes);
                return;
            }
        }
        self.gathered[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}
