//! Finding where plain bytes end: the one place where vector instructions are used.
//!
//! [`run`] does a [`Task`] with the best [`Search`] that the processor at hand has, chosen at run time. The whole task is
//! compiled for it, so that the short searches between two tags are inlined into the walk. [`Scalar`] works everywhere and
//! is the measure: a test holds the other to it, byte by byte, and another holds whole documents together.

use super::chars::{self, NAME, NAME_START, TEXT_BREAK, VALUE_BREAK};

/// Looks for bytes in one slice. Places are given and answered as indices into it.
pub(super) trait Search {
    /// The first byte at or after `from` that ends plain text ([`TEXT_BREAK`]), or the length.
    fn text_break(&mut self, from: usize) -> usize;
    /// The first byte at or after `from` that ends the plain part of an attribute value ([`VALUE_BREAK`]), or the length.
    fn value_break(&mut self, from: usize) -> usize;
    /// Looks at the name that begins at `start`.
    fn name(&mut self, start: usize) -> NameShape;
    /// Whether the `length` bytes at `x` and at `y` are there and equal; those at `y` are known to be there.
    fn same(&self, x: usize, y: usize, length: usize) -> bool;
}

/// A name: where it ends, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameShape {
    pub(super) end: usize,
    /// Behind the first colon; the beginning of the name where there is none.
    pub(super) local: usize,
    /// It is not one or two names in ASCII with a colon between, and must be looked at more closely.
    pub(super) odd: bool,
}

/// What is done with a [`Search`].
pub(super) trait Task {
    type Output;
    /// To be inlined, or it will not be compiled for the processor.
    fn run<S: Search>(self, search: S) -> Self::Output;
}

/// Does the task with the best search in `bytes` that there is.
pub(super) fn run<T: Task>(bytes: &[u8], task: T) -> T::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = x86::Avx2::new(bytes) {
        return avx2.run(task);
    }
    task.run(Scalar(bytes))
}

/// Byte by byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar<'b>(pub(super) &'b [u8]);

impl Search for Scalar<'_> {
    #[inline(always)]
    fn text_break(&mut self, from: usize) -> usize {
        chars::find(self.0, from, TEXT_BREAK)
    }

    #[inline(always)]
    fn value_break(&mut self, from: usize) -> usize {
        chars::find(self.0, from, VALUE_BREAK)
    }

    #[inline]
    fn name(&mut self, start: usize) -> NameShape {
        let mut shape = NameShape {
            end: start,
            local: start,
            odd: false,
        };
        let mut begins = true;
        while let Some(&byte) = self.0.get(shape.end)
            && chars::is(byte, NAME)
        {
            shape.odd |= byte >= 0x80 || (begins && (byte == b':' || !chars::is(byte, NAME_START)));
            begins = byte == b':';
            shape.end += 1;
            if begins {
                shape.odd |= shape.local != start;
                if shape.local == start {
                    shape.local = shape.end;
                }
            }
        }
        shape.odd |= begins;
        shape
    }

    #[inline(always)]
    fn same(&self, x: usize, y: usize, length: usize) -> bool {
        let bytes = self.0;
        bytes
            .get(x..x + length)
            .is_some_and(|found| *found == bytes[y..y + length])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(
        unsafe_code,
        reason = "vector loads, and functions for processors that have what they need"
    )]

    use std::arch::x86_64::{
        __m256i, _bzhi_u64, _mm_setr_epi8, _mm256_and_si256, _mm256_andnot_si256, _mm256_broadcastsi128_si256,
        _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256,
        _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_testz_si256,
    };

    use super::{NameShape, Scalar, Search, Task};

    /// 64 bytes at a time, with AVX2 and the bit instructions that every processor with AVX2 has.
    ///
    /// What the bytes of one block are is found out once, a bit for each; a search within the block is then a shift and a
    /// count. That matters more than how much is done for a block: each search begins where the one before ended, and all
    /// of them wait for one another.
    #[derive(Debug)]
    pub(super) struct Avx2<'b> {
        bytes: &'b [u8],
        block: Block,
    }

    /// What the 64 bytes from `base` on are. The first of them is the lowest bit.
    #[derive(Debug)]
    struct Block {
        base: usize,
        /// [`TEXT_BREAK`](super::TEXT_BREAK).
        text: u64,
        /// [`VALUE_BREAK`](super::VALUE_BREAK).
        value: u64,
        /// Not of a name in ASCII.
        other: u64,
        /// May not begin a name in ASCII, or its local part.
        within: u64,
        colon: u64,
        /// Beyond ASCII.
        high: u64,
    }

    impl<'b> Avx2<'b> {
        /// Where the processor has what it needs. There is no other way to an `Avx2`.
        pub(super) fn new(bytes: &'b [u8]) -> Option<Self> {
            let all = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt");
            let block = Block {
                // Behind every place that may be asked about, the end among them.
                base: bytes.len() + 1,
                text: 0,
                value: 0,
                other: 0,
                within: 0,
                colon: 0,
                high: 0,
            };
            all.then_some(Self { bytes, block })
        }

        #[inline]
        pub(super) fn run<T: Task>(self, task: T) -> T::Output {
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
            fn compiled_for_it<T: Task>(task: T, search: Avx2<'_>) -> T::Output {
                task.run(search)
            }
            // SAFETY: the processor has these, or there would be no `Avx2`.
            unsafe { compiled_for_it(task, self) }
        }

        /// Makes the 64 bytes from `base` on the block at hand; `false` where there are fewer.
        #[inline(always)]
        fn look(&mut self, base: usize) -> bool {
            // SAFETY: the processor has what the function needs, or there would be no `Avx2`.
            unsafe { look(self.bytes, base, &mut self.block) }
        }

        /// The first bit of the mask at or after `from`, of what is in this block and, where it is needed, in the next.
        #[inline(always)]
        fn find(&mut self, from: usize, of: fn(&Block) -> u64) -> Found {
            let offset = from.wrapping_sub(self.block.base);
            let next = if offset < 64 {
                let mask = of(&self.block) >> offset;
                if mask != 0 {
                    return Found::At(from + mask.trailing_zeros() as usize);
                }
                self.block.base + 64
            } else {
                from
            };
            if !self.look(next) {
                return Found::NotBefore(next);
            }
            match of(&self.block) {
                0 => Found::NotBefore(next + 64),
                mask => Found::At(next + mask.trailing_zeros() as usize),
            }
        }
    }

    enum Found {
        At(usize),
        NotBefore(usize),
    }

    // What is common is inlined into the walk; what is left over near the end, or is long, stands apart.
    impl Search for Avx2<'_> {
        #[inline(always)]
        fn text_break(&mut self, from: usize) -> usize {
            match self.find(from, |block| block.text) {
                Found::At(at) => at,
                // SAFETY: the processor has what the function needs, or there would be no `Avx2`.
                Found::NotBefore(at) => unsafe { long_text(self.bytes, at) },
            }
        }

        #[inline(always)]
        fn value_break(&mut self, from: usize) -> usize {
            match self.find(from, |block| block.value) {
                Found::At(at) => at,
                Found::NotBefore(at) => long_value(self.bytes, at),
            }
        }

        #[inline(always)]
        fn name(&mut self, start: usize) -> NameShape {
            let mut offset = start.wrapping_sub(self.block.base);
            if offset >= 64 || self.block.other >> offset == 0 {
                if !self.look(start) || self.block.other == 0 {
                    // In parts, or the name would be kept in memory where it is short as well.
                    let NameShape { end, local, odd } = long_name(self.bytes, start);
                    return NameShape { end, local, odd };
                }
                offset = 0;
            }
            let block = &self.block;
            let length = (block.other >> offset).trailing_zeros();
            // SAFETY: the processor has BMI2, or there would be no `Avx2`.
            let colons = unsafe { _bzhi_u64(block.colon >> offset, length) };
            if block.high >> offset >> length & 1 != 0 {
                // Beyond ASCII a name may go on, and this does not see how.
                let NameShape { end, local, odd } = long_name(self.bytes, start);
                return NameShape { end, local, odd };
            }
            let beginnings = colons << 1 | 1;
            NameShape {
                end: start + length as usize,
                local: if colons == 0 {
                    start
                } else {
                    start + colons.trailing_zeros() as usize + 1
                },
                odd: block.within >> offset & beginnings != 0 || colons & colons.wrapping_sub(1) != 0,
            }
        }

        #[inline(always)]
        fn same(&self, x: usize, y: usize, length: usize) -> bool {
            // SAFETY: the processor has what the function needs, or there would be no `Avx2`.
            match unsafe { differences(self.bytes, x, y) } {
                Some(different) if length <= 32 => different.trailing_zeros() as usize >= length,
                _ => long_same(self.bytes, x, y, length),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn last_text(bytes: &[u8], from: usize) -> usize {
        Scalar(bytes).text_break(from)
    }

    #[cold]
    #[inline(never)]
    fn long_value(bytes: &[u8], from: usize) -> usize {
        Scalar(bytes).value_break(from)
    }

    #[cold]
    #[inline(never)]
    fn long_name(bytes: &[u8], start: usize) -> NameShape {
        Scalar(bytes).name(start)
    }

    #[cold]
    #[inline(never)]
    fn long_same(bytes: &[u8], x: usize, y: usize, length: usize) -> bool {
        Scalar(bytes).same(x, y, length)
    }

    /// 32 bytes from `at`, if there are so many.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn load(bytes: &[u8], at: usize) -> Option<__m256i> {
        let block: &[u8; 32] = bytes.get(at..)?.first_chunk()?;
        // SAFETY: the pointer is to 32 readable bytes, and the load asks for no alignment.
        Some(unsafe { _mm256_loadu_si256(block.as_ptr().cast::<__m256i>()) })
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn mask(matches: __m256i) -> u32 {
        _mm256_movemask_epi8(matches).cast_unsigned()
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn is(block: __m256i, byte: u8) -> __m256i {
        _mm256_cmpeq_epi8(block, _mm256_set1_epi8(byte.cast_signed()))
    }

    /// Where none of the classes are.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn none(classes: __m256i) -> __m256i {
        _mm256_cmpeq_epi8(classes, _mm256_setzero_si256())
    }

    /// Where none of these classes are.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn none_of(classes: __m256i, these: u8) -> __m256i {
        none(_mm256_and_si256(classes, _mm256_set1_epi8(these.cast_signed())))
    }

    /// Classes of bytes, a bit each: what the high half of a byte may be, and what the low half. A byte belongs to a class
    /// where both say so. Bytes beyond ASCII belong to none.
    struct Classes {
        high: [u8; 16],
        low: [u8; 16],
    }

    impl Classes {
        /// Each class: the high halves, and the low halves with each of them; a bit each.
        const fn new(classes: &[(u16, u16)]) -> Self {
            let (mut high, mut low) = ([0; 16], [0; 16]);
            let mut class = 0;
            while class < classes.len() {
                let (highs, lows) = classes[class];
                let mut half = 0;
                while half < 16 {
                    high[half] |= ((highs >> half & 1) as u8) << class;
                    low[half] |= ((lows >> half & 1) as u8) << class;
                    half += 1;
                }
                class += 1;
            }
            Self { high, low }
        }

        /// The classes of each byte of a block.
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
        #[inline]
        fn of(&self, block: __m256i) -> __m256i {
            // A byte from 0x80 on picks zero here.
            let low = _mm256_shuffle_epi8(table(&self.low), block);
            let half = _mm256_and_si256(_mm256_srli_epi16::<4>(block), _mm256_set1_epi8(0x0F));
            _mm256_and_si256(low, _mm256_shuffle_epi8(table(&self.high), half))
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn table(of: &[u8; 16]) -> __m256i {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = of.map(u8::cast_signed);
        _mm256_broadcastsi128_si256(_mm_setr_epi8(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p))
    }

    /// What ends text and values, but for 0xEF: the first four classes end text, the others and some of them values.
    const BREAKS: Classes = Classes::new(&[
        (1 << 0, !(1 << 9 | 1 << 0xA)),
        (1 << 1, !0),
        (1 << 2, 1 << 6),
        (1 << 3, 1 << 0xC | 1 << 0xE),
        (1 << 0, 1 << 9 | 1 << 0xA),
        (1 << 2, 1 << 2 | 1 << 7),
        (1 << 3, 1 << 0xC),
    ]);
    const TEXT: u8 = 0b000_1111;
    const VALUE: u8 = 0b111_0111;
    /// [`NAME`](super::NAME) within ASCII. The first three classes may go on in a name; the others may begin one as well.
    const NAME: Classes = Classes::new(&[
        (1 << 2, 1 << 0xD | 1 << 0xE),
        (1 << 3, 0x03FF),
        (1 << 3, 1 << 0xA),
        (1 << 4 | 1 << 6, !1),
        (1 << 5 | 1 << 7, 0x07FF),
        (1 << 5, 1 << 0xF),
    ]);
    const BEGINS: u8 = 0b11_1000;

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline(never)]
    fn look(bytes: &[u8], base: usize, block: &mut Block) -> bool {
        let (Some(first), Some(second)) = (load(bytes, base), load(bytes, base + 32)) else {
            return false;
        };
        let (first, second) = (halves(first), halves(second));
        let [text, value, other, within, colon, high] =
            std::array::from_fn(|at| u64::from(second[at]) << 32 | u64::from(first[at]));
        *block = Block {
            base,
            text,
            value,
            other,
            within,
            colon,
            high,
        };
        true
    }

    /// The masks of a [`Block`], in their order, of 32 bytes.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn halves(block: __m256i) -> [u32; 6] {
        let (breaks, names, far) = (BREAKS.of(block), NAME.of(block), is(block, 0xEF));
        [
            !mask(_mm256_andnot_si256(far, none_of(breaks, TEXT))),
            !mask(_mm256_andnot_si256(far, none_of(breaks, VALUE))),
            mask(none(names)),
            mask(none_of(names, BEGINS)),
            mask(is(block, b':')),
            mask(block),
        ]
    }

    /// Goes on in text that is long: an attachment is 200 KB of it.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline(never)]
    fn long_text(bytes: &[u8], mut from: usize) -> usize {
        loop {
            while let (Some(a), Some(b), Some(c), Some(d)) = (
                load(bytes, from),
                load(bytes, from + 32),
                load(bytes, from + 64),
                load(bytes, from + 96),
            ) {
                let (ab, cd) = (
                    _mm256_or_si256(perhaps(a), perhaps(b)),
                    _mm256_or_si256(perhaps(c), perhaps(d)),
                );
                let any = _mm256_or_si256(ab, cd);
                if _mm256_testz_si256(any, any) == 0 {
                    break;
                }
                from += 128;
            }
            for _ in 0..4 {
                let Some(block) = load(bytes, from) else {
                    return last_text(bytes, from);
                };
                match halves(block)[0] {
                    0 => from += 32,
                    breaks => return from + breaks.trailing_zeros() as usize,
                }
            }
        }
    }

    /// Not zero where text may end, which base64 never does: at `&`, `<` and `>`, at white space and control characters,
    /// and beyond ASCII. Half the work of being sure.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn perhaps(block: __m256i) -> __m256i {
        // By the low half of a byte, what it would have to be. Zero has its own half, and is no markup.
        const MARKUP: [u8; 16] = [1, 0, 0, 0, 0, 0, b'&', 0, 0, 0, 0, 0, b'<', 0, b'>', 0];
        let markup = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table(&MARKUP), block), block);
        // As signed numbers, all beyond ASCII are less than a space too.
        let below = _mm256_cmpgt_epi8(_mm256_set1_epi8(b' '.cast_signed()), block);
        _mm256_or_si256(markup, below)
    }

    /// Which of the 32 bytes at `x` and at `y` are not the same, a bit each.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    #[inline]
    fn differences(bytes: &[u8], x: usize, y: usize) -> Option<u32> {
        Some(!mask(_mm256_cmpeq_epi8(load(bytes, x)?, load(bytes, y)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search says, asked from each of these places on.
    struct Questions<'a>(&'a [usize]);

    impl Task for Questions<'_> {
        type Output = Vec<(usize, usize, NameShape)>;

        fn run<S: Search>(self, mut search: S) -> Self::Output {
            let mut ask = |&from: &usize| (search.text_break(from), search.value_break(from), search.name(from));
            self.0.iter().map(&mut ask).collect()
        }
    }

    fn compare(bytes: &[u8], places: &[usize]) {
        let expected = Questions(places).run(Scalar(bytes));
        assert_eq!(run(bytes, Questions(places)), expected, "{bytes:?}");
    }

    #[test]
    fn the_best_search_finds_what_the_scalar_twin_finds() {
        for byte in 0..=255 {
            for at in (0..70).chain([100, 127, 128, 140, 199]) {
                let mut bytes = *b"\t\n x9_-.:~\x7f\x80\xff ".repeat(15).first_chunk::<200>().unwrap();
                bytes[at] = byte;
                // Backwards too: no place depends on the one asked before.
                compare(&bytes, &[0, 1, 17, 40, 64, 70, 130, 180, 3, 127, 0, 199, 200]);
                compare(&bytes, &[200]);
                for colon in [0, 1, 3, 30, 31, 32, 45, 63, 64, 65, 90] {
                    let mut bytes = [b'a'; 130];
                    bytes[colon] = b':';
                    bytes[at % 130] = byte;
                    compare(&bytes, &[0, 3, 50, 66, 2]);
                    compare(&bytes[..70], &[25, 1, 69]);
                }
            }
        }
    }

    /// The same bytes at two places, but for one.
    struct Same(usize);

    impl Task for Same {
        type Output = bool;

        fn run<S: Search>(self, search: S) -> bool {
            search.same(3, 45, self.0)
        }
    }

    #[test]
    fn equal_bytes_are_told_from_others() {
        for length in 0..40 {
            let mut bytes = [b'x'; 90];
            assert!(run(&bytes, Same(length)), "{length}");
            assert!(run(&bytes[..45 + length], Same(length)), "{length}");
            for at in 0..length {
                bytes[45 + at] = b'y';
                assert!(!run(&bytes, Same(length)), "{at} of {length}");
                bytes[45 + at] = b'x';
            }
        }
    }
}
