//! Finding where plain bytes end: the one place where vector instructions are used.
//!
//! Each search has a scalar twin that gives the same answer; a test holds them together. Short searches use SSE2, which
//! every x86-64 has, and are inlined into the scan. Long ones (an attachment is 200 KB of plain text) go on with the
//! widest registers that the processor has, chosen at run time. Other architectures take the scalar way.

use super::chars::{self, NAME, TEXT_BREAK, VALUE_BREAK};

/// The first byte at or after `from` that ends plain text ([`TEXT_BREAK`]), or the length.
#[inline(always)]
pub(super) fn find_text_break(bytes: &[u8], from: usize) -> usize {
    // Between two tags there is often nothing.
    if bytes.get(from) == Some(&b'<') {
        return from;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(found) = x86::find_text_break(bytes, from) {
        return found;
    }
    chars::find(bytes, from, TEXT_BREAK)
}

/// The first byte at or after `from` that ends the plain part of an attribute value ([`VALUE_BREAK`]), or the length.
#[inline(always)]
pub(super) fn find_value_break(bytes: &[u8], mut from: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    while let Some(block) = x86::block(bytes, from) {
        match x86::value_breaks(block) {
            0 => from += 16,
            mask => return from + mask.trailing_zeros() as usize,
        }
    }
    chars::find(bytes, from, VALUE_BREAK)
}

/// A name: where it ends, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameShape {
    pub(super) end: usize,
    /// The last colon, if there is one.
    pub(super) colon: Option<usize>,
    /// There is more than one colon, or a byte beyond ASCII.
    pub(super) odd: bool,
}

/// Looks at the name that begins at `start`.
#[inline(always)]
pub(super) fn name(bytes: &[u8], start: usize) -> NameShape {
    let mut shape = NameShape {
        end: start,
        colon: None,
        odd: false,
    };
    #[cfg(target_arch = "x86_64")]
    while let Some(block) = x86::block(bytes, shape.end) {
        let masks = x86::name_masks(block);
        let length = masks.other.trailing_zeros().min(16);
        let inside = (1u32 << length) - 1;
        let colons = masks.colons & inside;
        if colons != 0 {
            shape.odd |= shape.colon.is_some() || colons & (colons - 1) != 0;
            shape.colon = Some(shape.end + 31 - colons.leading_zeros() as usize);
        }
        shape.odd |= masks.high & inside != 0;
        shape.end += length as usize;
        if length < 16 {
            return shape;
        }
    }
    scalar_name(bytes, shape)
}

/// The scalar twin of [`name`], from where it stands.
#[inline(always)]
fn scalar_name(bytes: &[u8], mut shape: NameShape) -> NameShape {
    while let Some(&byte) = bytes.get(shape.end)
        && chars::is(byte, NAME)
    {
        shape.odd |= byte >= 0x80;
        if byte == b':' {
            shape.odd |= shape.colon.is_some();
            shape.colon = Some(shape.end);
        }
        shape.end += 1;
    }
    shape
}

/// Whether two short slices of the same length are equal, without a call.
#[inline(always)]
pub(super) fn same(x: &[u8], y: &[u8]) -> bool {
    let ((x8, x1), (y8, y1)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let different = |(x, y): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*x) != u64::from_ne_bytes(*y);
    !x8.iter().zip(y8).any(different) && x1.iter().zip(y1).all(|(x, y)| x == y)
}

/// Whether the `length` bytes at `x` and at `y` are equal.
#[inline(always)]
pub(super) fn same_within(bytes: &[u8], x: usize, y: usize, length: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    if length <= 32
        && let (Some(x1), Some(y1)) = (x86::block(bytes, x), x86::block(bytes, y))
    {
        if length <= 16 {
            return x86::same(x1, y1, length);
        }
        let tail = length - 16;
        if let (Some(x2), Some(y2)) = (x86::block(bytes, x + tail), x86::block(bytes, y + tail)) {
            return x86::same(x1, y1, 16) && x86::same(x2, y2, 16);
        }
    }
    bytes.get(x..x + length).is_some_and(|x| same(x, &bytes[y..y + length]))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(
        unsafe_code,
        reason = "vector loads, and functions for processors that have what they need"
    )]

    use std::arch::x86_64::{
        __m128i, __m256i, _mm_and_si128, _mm_andnot_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8,
        _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_sub_epi8, _mm256_andnot_si256, _mm256_cmpeq_epi8,
        _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };

    /// Sixteen bytes from `at`, if there are so many.
    #[inline(always)]
    pub(super) fn block(bytes: &[u8], at: usize) -> Option<__m128i> {
        let block: &[u8; 16] = bytes.get(at..)?.first_chunk()?;
        // SAFETY: the pointer is to sixteen readable bytes, and the load asks for no alignment.
        Some(unsafe { _mm_loadu_si128(block.as_ptr().cast::<__m128i>()) })
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn all(byte: u8) -> __m128i {
        _mm_set1_epi8(byte.cast_signed())
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn mask(matches: __m128i) -> u32 {
        _mm_movemask_epi8(matches).cast_unsigned()
    }

    /// Where bytes are at most `limit`.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn at_most(block: __m128i, limit: u8) -> __m128i {
        _mm_cmpeq_epi8(_mm_min_epu8(block, all(limit)), block)
    }

    /// The bytes of [`TEXT_BREAK`](super::TEXT_BREAK), a bit each.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn sse2_text_breaks(block: __m128i) -> u32 {
        // `<` is `>` but for one bit.
        let angle = _mm_cmpeq_epi8(_mm_or_si128(block, all(2)), all(b'>'));
        let rest = _mm_or_si128(_mm_cmpeq_epi8(block, all(b'&')), _mm_cmpeq_epi8(block, all(0xEF)));
        let space = _mm_or_si128(_mm_cmpeq_epi8(block, all(b'\t')), _mm_cmpeq_epi8(block, all(b'\n')));
        let control = _mm_andnot_si128(space, at_most(block, 0x1F));
        mask(_mm_or_si128(_mm_or_si128(angle, rest), control))
    }

    /// The bytes of [`VALUE_BREAK`](super::VALUE_BREAK), a bit each.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn sse2_value_breaks(block: __m128i) -> u32 {
        let quotes = _mm_or_si128(_mm_cmpeq_epi8(block, all(b'"')), _mm_cmpeq_epi8(block, all(b'\'')));
        let markup = _mm_or_si128(_mm_cmpeq_epi8(block, all(b'<')), _mm_cmpeq_epi8(block, all(b'&')));
        let rest = _mm_or_si128(_mm_cmpeq_epi8(block, all(0xEF)), at_most(block, 0x1F));
        mask(_mm_or_si128(_mm_or_si128(quotes, markup), rest))
    }

    pub(super) struct NameMasks {
        /// Bytes that end a name.
        pub(super) other: u32,
        pub(super) colons: u32,
        /// Bytes beyond ASCII.
        pub(super) high: u32,
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn sse2_name_masks(block: __m128i) -> NameMasks {
        let letters = at_most(_mm_sub_epi8(_mm_or_si128(block, all(0x20)), all(b'a')), 25);
        // The colon follows the nine.
        let digits = at_most(_mm_sub_epi8(block, all(b'0')), 10);
        let marks = at_most(_mm_sub_epi8(block, all(b'-')), 1);
        let low = _mm_cmpeq_epi8(block, all(b'_'));
        let high = mask(block);
        let ascii = mask(_mm_or_si128(_mm_or_si128(letters, digits), _mm_or_si128(marks, low)));
        let colons = mask(_mm_and_si128(_mm_cmpeq_epi8(block, all(b':')), digits));
        NameMasks {
            other: !(ascii | high),
            colons,
            high,
        }
    }

    /// As [`sse2_text_breaks`].
    #[inline(always)]
    fn text_breaks(block: __m128i) -> u32 {
        // SAFETY: every x86-64 has SSE2.
        unsafe { sse2_text_breaks(block) }
    }

    /// As [`sse2_value_breaks`].
    #[inline(always)]
    pub(super) fn value_breaks(block: __m128i) -> u32 {
        // SAFETY: every x86-64 has SSE2.
        unsafe { sse2_value_breaks(block) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn sse2_same(x: __m128i, y: __m128i) -> u32 {
        mask(_mm_cmpeq_epi8(x, y))
    }

    /// Whether the first `length` bytes, at most 16, are equal.
    #[inline(always)]
    pub(super) fn same(x: __m128i, y: __m128i, length: usize) -> bool {
        // SAFETY: every x86-64 has SSE2.
        let equal = unsafe { sse2_same(x, y) };
        equal.trailing_ones() as usize >= length
    }

    /// What the bytes are to a name.
    #[inline(always)]
    pub(super) fn name_masks(block: __m128i) -> NameMasks {
        // SAFETY: every x86-64 has SSE2.
        unsafe { sse2_name_masks(block) }
    }

    /// `None` where fewer bytes are left than a register holds, none of them a break so far.
    #[inline(always)]
    pub(super) fn find_text_break(bytes: &[u8], from: usize) -> Option<usize> {
        for at in [from, from + 16] {
            match text_breaks(block(bytes, at)?) {
                0 => {}
                mask => return Some(at + mask.trailing_zeros() as usize),
            }
        }
        Some(long(bytes, from + 32))
    }

    /// Goes on in text that is long.
    #[inline(never)]
    fn long(bytes: &[u8], from: usize) -> usize {
        let at = if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            unsafe { avx2(bytes, from) }
        } else {
            sse2(bytes, from)
        };
        super::chars::find(bytes, at, super::TEXT_BREAK)
    }

    /// As far as the first break, or to where too few bytes are left for a register.
    fn sse2(bytes: &[u8], mut from: usize) -> usize {
        while let Some(block) = block(bytes, from) {
            match text_breaks(block) {
                0 => from += 16,
                mask => return from + mask.trailing_zeros() as usize,
            }
        }
        from
    }

    /// As [`sse2`], 32 bytes at a time.
    #[target_feature(enable = "avx2")]
    fn avx2(bytes: &[u8], mut from: usize) -> usize {
        let all = |byte: u8| _mm256_set1_epi8(byte.cast_signed());
        while let Some(block) = bytes.get(from..).and_then(|rest| rest.first_chunk::<32>()) {
            // SAFETY: the pointer is to 32 readable bytes, and the load asks for no alignment.
            let block = unsafe { _mm256_loadu_si256(block.as_ptr().cast::<__m256i>()) };
            let angle = _mm256_cmpeq_epi8(_mm256_or_si256(block, all(2)), all(b'>'));
            let rest = _mm256_or_si256(_mm256_cmpeq_epi8(block, all(b'&')), _mm256_cmpeq_epi8(block, all(0xEF)));
            let space = _mm256_or_si256(
                _mm256_cmpeq_epi8(block, all(b'\t')),
                _mm256_cmpeq_epi8(block, all(b'\n')),
            );
            let low = _mm256_cmpeq_epi8(_mm256_min_epu8(block, all(0x1F)), block);
            let breaks = _mm256_or_si256(_mm256_or_si256(angle, rest), _mm256_andnot_si256(space, low));
            match _mm256_movemask_epi8(breaks).cast_unsigned() {
                0 => from += 32,
                mask => return from + mask.trailing_zeros() as usize,
            }
        }
        from
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn every_width_finds_what_the_scalar_twin_finds() {
            for byte in 0..=255 {
                for at in 0..200 {
                    let mut bytes = *b"\t\n x9_-.:~\x7f\x80\xff ".repeat(15).first_chunk::<200>().unwrap();
                    bytes[at] = byte;
                    for from in [0, 1, 17] {
                        let expected = super::super::chars::find(&bytes, from, super::super::TEXT_BREAK);
                        let finish = |at| super::super::chars::find(&bytes, at, super::super::TEXT_BREAK);
                        assert_eq!(super::super::find_text_break(&bytes, from), expected);
                        assert_eq!(finish(sse2(&bytes, from)), expected);
                        if is_x86_feature_detected!("avx2") {
                            // SAFETY: asked for in the line above.
                            assert_eq!(finish(unsafe { avx2(&bytes, from) }), expected);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_told_from_others() {
        for length in 0..40 {
            let mut bytes = [b'x'; 90];
            assert!(same_within(&bytes, 3, 45, length), "{length}");
            assert_eq!(same_within(&bytes, 89, 3, length), length < 2, "{length}");
            for at in 0..length {
                bytes[45 + at] = b'y';
                assert!(!same_within(&bytes, 3, 45, length) && !same(&bytes[3..3 + length], &bytes[45..45 + length]));
                bytes[45 + at] = b'x';
            }
        }
    }

    #[test]
    fn names_and_values_are_found_as_the_scalar_twins_find_them() {
        for byte in 0..=255 {
            for at in 0..40 {
                for colon in [3, 14, 15, 16, 33, 39] {
                    let mut bytes = [b'a'; 40];
                    bytes[at] = byte;
                    bytes[colon] = b':';
                    let start = NameShape {
                        end: 0,
                        colon: None,
                        odd: false,
                    };
                    assert_eq!(name(&bytes, 0), scalar_name(&bytes, start), "{byte} at {at}");
                    assert_eq!(find_value_break(&bytes, 1), chars::find(&bytes, 1, VALUE_BREAK));
                }
            }
        }
    }
}
