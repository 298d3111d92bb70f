//! Libxml2, loaded at run time, as an independent judge: what is well-formed, and what its canonical form is.
//!
//! It is the library behind `xmllint` (apt: libxml2-utils brings it). Strict: no recovery, and namespace errors count.
#![allow(
    dead_code,
    unsafe_code,
    clippy::unwrap_used,
    clippy::multiple_unsafe_ops_per_block,
    clippy::cast_possible_truncation,
    reason = "shared by several tests; a C library is called"
)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{LazyLock, Mutex};

use libloading::Library;

/// Which canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Inclusive = 0,
    Exclusive = 1,
    Inclusive11 = 2,
}

/// Which part of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Document,
    /// The element with this number (document order, the root is 0) and all in it.
    Element(usize),
    /// All but that element and what is in it.
    Without(usize),
}

#[repr(C)]
struct Node {
    private: *mut c_void,
    kind: c_int,
    name: *const c_char,
    children: *mut Node,
    last: *mut Node,
    parent: *mut Node,
    next: *mut Node,
    prev: *mut Node,
}

#[repr(C)]
struct XmlError {
    domain: c_int,
    code: c_int,
    message: *mut c_char,
    level: c_int,
}

type Visible = unsafe extern "C" fn(*mut c_void, *mut Node, *mut Node) -> c_int;
type OnError = unsafe extern "C" fn(*mut c_void, *mut XmlError);

struct Api {
    _library: Library,
    read: unsafe extern "C" fn(*const c_char, c_int, *const c_char, *const c_char, c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    on_error: unsafe extern "C" fn(*mut c_void, Option<OnError>),
    root: unsafe extern "C" fn(*mut c_void) -> *mut Node,
    execute: unsafe extern "C" fn(
        *mut c_void,
        Option<Visible>,
        *mut c_void,
        c_int,
        *mut *mut c_char,
        c_int,
        *mut c_void,
    ) -> c_int,
    buffer: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    flush: unsafe extern "C" fn(*mut c_void) -> c_int,
    content: unsafe extern "C" fn(*mut c_void) -> *const u8,
    size: unsafe extern "C" fn(*mut c_void) -> usize,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
}

static API: LazyLock<Option<Mutex<Api>>> = LazyLock::new(|| {
    let library = ["libxml2.so.2", "libxml2.so.16"].iter().find_map(|name| {
        // SAFETY: loading libxml2 runs no code that depends on this process.
        unsafe { Library::new(*name) }.ok()
    })?;
    macro_rules! symbol {
        ($name:literal) => {
            // SAFETY: the signatures are those of libxml2's public headers.
            *unsafe { library.get($name) }.ok()?
        };
    }
    let api = Api {
        read: symbol!(b"xmlReadMemory"),
        free: symbol!(b"xmlFreeDoc"),
        on_error: symbol!(b"xmlSetStructuredErrorFunc"),
        root: symbol!(b"xmlDocGetRootElement"),
        execute: symbol!(b"xmlC14NExecute"),
        buffer: symbol!(b"xmlAllocOutputBuffer"),
        flush: symbol!(b"xmlOutputBufferFlush"),
        content: symbol!(b"xmlOutputBufferGetContent"),
        size: symbol!(b"xmlOutputBufferGetSize"),
        close: symbol!(b"xmlOutputBufferClose"),
        _library: library,
    };
    Some(Mutex::new(api))
});

/// Whether libxml2 could be loaded.
pub(crate) fn available() -> bool {
    let there = API.is_some();
    if !there {
        eprintln!("SKIPPED: libxml2 is not installed (apt-get install libxml2-utils)");
    }
    there
}

/// XML_PARSE_NONET | XML_PARSE_HUGE: nothing is fetched, and our own limits are tested elsewhere.
const OPTIONS: c_int = 1 << 11 | 1 << 19;

unsafe extern "C" fn record(worst: *mut c_void, error: *mut XmlError) {
    const XML_FROM_PARSER: c_int = 1;
    const XML_FROM_NAMESPACE: c_int = 3;
    const XML_FROM_IO: c_int = 8;
    const XML_FROM_C14N: c_int = 21;
    const XML_FROM_I18N: c_int = 27;
    // SAFETY: libxml2 hands a valid error, and the pointer it was given.
    let (worst, error) = unsafe { (&mut *worst.cast::<bool>(), &*error) };
    let counts = [
        XML_FROM_PARSER,
        XML_FROM_NAMESPACE,
        XML_FROM_IO,
        XML_FROM_C14N,
        XML_FROM_I18N,
    ]
    .contains(&error.domain);
    *worst |= counts && error.level >= 2;
}

struct Chosen {
    apex: *mut Node,
    inside: bool,
}

unsafe extern "C" fn visible(chosen: *mut c_void, node: *mut Node, parent: *mut Node) -> c_int {
    const XML_NAMESPACE_DECL: c_int = 18;
    // SAFETY: the pointer is the one handed to xmlC14NExecute; nodes are libxml2's.
    let (chosen, kind) = unsafe {
        (
            &*chosen.cast::<Chosen>(),
            (*(node.cast::<[*mut c_void; 2]>()))[1] as usize as c_int,
        )
    };
    // A namespace node is another struct, whose type is at the same place: it belongs to the parent.
    let mut at = if kind == XML_NAMESPACE_DECL { parent } else { node };
    while !at.is_null() {
        if at == chosen.apex {
            return c_int::from(chosen.inside);
        }
        // SAFETY: every node has a parent pointer, null at the document.
        at = unsafe { (*at).parent };
    }
    c_int::from(!chosen.inside)
}

/// The element with this number in document order.
unsafe fn element(root: *mut Node, number: usize) -> *mut Node {
    let mut left = number;
    let mut at = root;
    loop {
        // SAFETY: walks the tree of a live document.
        let node = unsafe { &*at };
        if node.kind == 1 {
            if left == 0 {
                return at;
            }
            left -= 1;
        }
        if node.kind == 1 && !node.children.is_null() {
            at = node.children;
            continue;
        }
        // SAFETY: as above.
        while unsafe { (*at).next.is_null() } {
            // SAFETY: as above; null only at the document.
            at = unsafe { (*at).parent };
            if at.is_null() || at == root {
                return ptr::null_mut();
            }
        }
        // SAFETY: not null, the loop has seen to that.
        at = unsafe { (*at).next };
    }
}

/// What libxml2 makes of the document; `None` where it refuses.
pub(crate) fn canonical(document: &[u8], mode: Mode, comments: bool, prefixes: &[&str], part: Part) -> Option<Vec<u8>> {
    let api = API
        .as_ref()
        .expect("ask `available` first")
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut bad = false;
    // SAFETY: each call as libxml2's documentation asks; the lock makes it one at a time.
    unsafe {
        (api.on_error)((&raw mut bad).cast(), Some(record));
        let doc = (api.read)(
            document.as_ptr().cast(),
            document.len() as c_int,
            ptr::null(),
            ptr::null(),
            OPTIONS,
        );
        if doc.is_null() {
            return None;
        }
        let out = (api.buffer)(ptr::null_mut());
        let apex = match part {
            Part::Document => ptr::null_mut(),
            Part::Element(number) | Part::Without(number) => element((api.root)(doc), number),
        };
        let mut chosen = Chosen {
            apex,
            inside: matches!(part, Part::Element(_)),
        };
        let owned: Vec<_> = prefixes
            .iter()
            .map(|prefix| std::ffi::CString::new(*prefix).unwrap())
            .collect();
        let mut list: Vec<*mut c_char> = owned.iter().map(|prefix| prefix.as_ptr().cast_mut()).collect();
        list.push(ptr::null_mut());
        let wanted = if part == Part::Document {
            None
        } else {
            Some(visible as Visible)
        };
        let list = if prefixes.is_empty() {
            ptr::null_mut()
        } else {
            list.as_mut_ptr()
        };
        let done = (api.execute)(
            doc,
            wanted,
            (&raw mut chosen).cast(),
            mode as c_int,
            list,
            c_int::from(comments),
            out,
        );
        (api.flush)(out);
        let size = (api.size)(out);
        let bytes = if size == 0 {
            Vec::new()
        } else {
            std::slice::from_raw_parts((api.content)(out), size).to_vec()
        };
        (api.close)(out);
        (api.free)(doc);
        (done >= 0 && !bad).then_some(bytes)
    }
}

/// How many elements the document has; 0 where libxml2 refuses it.
pub(crate) fn elements(document: &[u8]) -> usize {
    let form = canonical(document, Mode::Inclusive, false, &[], Part::Document).unwrap_or_default();
    // In canonical XML only start tags and end tags begin with `<`, followed by other than `?`; each element has both.
    form.windows(2).filter(|pair| pair == b"</").count()
}
