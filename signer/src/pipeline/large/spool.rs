//! Where a large document lies while it is being sealed: a file without a name, encrypted with a key that only this process
//! has and forgets with it. A crash leaves nothing that could be read, and what was digested is what comes back: a block that
//! somebody changed is refused.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use bytes::Bytes;
use zeroize::Zeroizing;

/// Bytes of the document in a block.
const BLOCK: usize = 256 << 10;
/// The tag that follows it in the file.
const TAG: usize = 16;

/// A document on its way in.
pub(super) struct Spool {
    file: File,
    key: LessSafeKey,
    /// What does not fill a block yet.
    block: Vec<u8>,
    blocks: u64,
}

/// A document that is whole.
#[derive(Debug)]
pub(super) struct Spooled {
    file: File,
    key: LessSafeKey,
    bytes: u64,
}

impl Spool {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *secret).map_err(unspecified)?;
        let key = UnboundKey::new(&AES_256_GCM, &*secret).map_err(unspecified)?;
        Ok(Self {
            file: tempfile::tempfile_in(folder)?,
            key: LessSafeKey::new(key),
            block: Vec::with_capacity(BLOCK + TAG),
            blocks: 0,
        })
    }

    pub(super) fn push(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            let (taken, rest) = piece.split_at(piece.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(taken);
            piece = rest;
            if self.block.len() == BLOCK {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.key
            .seal_in_place_append_tag(nonce(self.blocks), Aad::empty(), &mut self.block)
            .map_err(unspecified)?;
        self.file.write_all_at(&self.block, at(self.blocks))?;
        self.block.clear();
        self.blocks += 1;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Spooled> {
        let bytes = self.blocks * BLOCK as u64 + self.block.len() as u64;
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(Spooled {
            file: self.file,
            key: self.key,
            bytes,
        })
    }
}

impl Spooled {
    /// The `number`th block; empty behind the last.
    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let left = self.bytes.saturating_sub(number * BLOCK as u64);
        let bytes = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let mut block = vec![0; bytes + TAG];
        self.file.read_exact_at(&mut block, at(number))?;
        self.key
            .open_in_place(nonce(number), Aad::empty(), &mut block)
            .map_err(unspecified)?;
        block.truncate(bytes);
        Ok(block)
    }
}

/// The sealed document, piece by piece: the spooled one with the seal in its place.
pub(super) struct Spliced {
    document: Spooled,
    gives_way: Range<u64>,
    seal: Option<Vec<u8>>,
    next: u64,
    digest: digest::Context,
    bytes: u64,
}

impl Spliced {
    pub(super) fn new(document: Spooled, gives_way: Range<u64>, seal: Vec<u8>) -> Self {
        Self {
            document,
            gives_way,
            seal: Some(seal),
            next: 0,
            digest: digest::Context::new(&digest::SHA256),
            bytes: 0,
        }
    }

    /// The next piece; none at the end.
    pub(super) fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let block = self.document.block(self.next)?;
        let start = self.next * BLOCK as u64;
        let end = start + block.len() as u64;
        self.next += 1;
        if block.is_empty() && self.seal.is_none() {
            return Ok(None);
        }
        let within = |offset: u64| usize::try_from(offset.clamp(start, end) - start).unwrap_or(block.len());
        let mut piece = block[..within(self.gives_way.start)].to_vec();
        if self.gives_way.start <= end
            && let Some(seal) = self.seal.take()
        {
            piece.extend(seal);
        }
        piece.extend_from_slice(&block[within(self.gives_way.end)..]);
        self.digest.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(Some(piece.into()))
    }

    /// SHA-256 and length of all pieces.
    pub(super) fn end(self) -> ([u8; 32], u64) {
        let sha256 = self.digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        (sha256, self.bytes)
    }
}

impl std::fmt::Debug for Spliced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spliced")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Each block of a key has a number of its own.
fn nonce(block: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&block.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn at(block: u64) -> u64 {
    block * (BLOCK + TAG) as u64
}

fn unspecified(_: aws_lc_rs::error::Unspecified) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a spooled block does not decrypt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled(document: &[u8], pieces: usize) -> Spooled {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(folder.path()).unwrap();
        document.chunks(pieces).for_each(|piece| spool.push(piece).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the file has no name");
        spool.finish().unwrap()
    }

    #[test]
    fn the_seal_stands_in_its_place_wherever_that_is() {
        let document: Vec<u8> = (0..2 * BLOCK + 1000).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let (block, all) = (BLOCK as u64, document.len() as u64);
        let places = [
            0..0,
            0..10,
            5..5,
            block - 3..block,
            block..block,
            block..block + 7,
            block - 3..block + 3,
            10..2 * block + 10,
            2 * block..2 * block,
            all - 8..all,
            all..all,
            0..all,
        ];
        for place in places {
            let (start, end) = (
                usize::try_from(place.start).unwrap(),
                usize::try_from(place.end).unwrap(),
            );
            let mut spliced = Spliced::new(spooled(&document, 100_003), place.clone(), b"<seal/>".to_vec());
            let mut sealed = Vec::new();
            while let Some(piece) = spliced.piece().unwrap() {
                sealed.extend_from_slice(&piece);
            }
            let expected = [&document[..start], b"<seal/>", &document[end..]].concat();
            assert!(sealed == expected, "{place:?}");
            let (sha256, bytes) = spliced.end();
            assert_eq!(bytes, expected.len() as u64);
            assert_eq!(sha256, digest::digest(&digest::SHA256, &expected).as_ref());
        }
    }

    #[test]
    fn what_lies_there_cannot_be_read_and_not_be_changed() {
        let document = vec![b'g'; BLOCK + 5];
        let spooled = spooled(&document, 999);
        let mut raw = vec![0; BLOCK + 5 + 2 * TAG];
        spooled.file.read_exact_at(&mut raw, 0).unwrap();
        assert!(!raw.windows(8).any(|w| w == b"gggggggg"));
        assert_eq!(spooled.block(1).unwrap(), b"ggggg");
        spooled.file.write_all_at(b"x", 17).unwrap();
        assert!(spooled.block(0).is_err());
        // Nor moved to another place.
        spooled.file.write_all_at(&raw[BLOCK + TAG..], 0).unwrap();
        assert!(spooled.block(0).is_err());
    }
}
