//! Memory does not grow with the document. Alone in its process, since it counts allocations.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use muhurdar_xades::Limits;
use muhurdar_xades::c14n::{Canonicalizer, DigestSink, Method, Subset};
use muhurdar_xades::scan::Scanner;

/// Counts what is allocated, and the most of it at one time.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator that counts")]
// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_ledger_of_200_mb_needs_a_few_megabytes() {
    let entry =
        "<gl-cor:entryDetail><gl-cor:amount decimals='2'>1.00 &gt; Ş</gl-cor:amount><a/></gl-cor:entryDetail>\r\n";
    let piece = entry.repeat(640);
    let pieces = 200_000_000 / piece.len();
    let mut canonicalizer = Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, DigestSink::new(&SHA256));
    let mut scanner = Scanner::new(&Limits::default());
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    scanner
        .feed(
            b"<d xmlns:gl-cor='http://www.xbrl.org/int/gl/cor/2006-10-25'>",
            &mut canonicalizer,
        )
        .unwrap();
    let form = entry
        .replace("'2'", "\"2\"")
        .replace("<a/>", "<a></a>")
        .replace("\r\n", "\n")
        .repeat(640);
    let mut expected = Context::new(&SHA256);
    expected.update(b"<d xmlns:gl-cor=\"http://www.xbrl.org/int/gl/cor/2006-10-25\">");
    for at in 0..pieces {
        // Cut somewhere else each time.
        let (first, second) = piece.as_bytes().split_at(at * 7 % piece.len());
        scanner.feed(first, &mut canonicalizer).unwrap();
        scanner.feed(second, &mut canonicalizer).unwrap();
        expected.update(form.as_bytes());
    }
    scanner.feed(b"</d>", &mut canonicalizer).unwrap();
    scanner.finish(&mut canonicalizer).unwrap();
    expected.update(b"</d>");
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most < 1 << 20, "{most} bytes");
    assert_eq!(canonicalizer.into_sink().finish().as_ref(), expected.finish().as_ref());
}
