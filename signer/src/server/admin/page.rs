//! The status page: one document that needs nothing else, and the policy that holds the browser to that.
//!
//! Its three parts lie in `page/`, so that each is edited as what it is.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};

const PAGE: &str = include_str!("page/status.html");
const STYLE: &str = include_str!("page/status.css");
const SCRIPT: &str = include_str!("page/status.js");

/// The page, and its Content-Security-Policy.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let html = PAGE.replacen("/*STYLE*/", STYLE, 1).replacen("/*SCRIPT*/", SCRIPT, 1);
        // Only this style and this script run (CSP level 2, hash sources), and only this listener is asked for anything: were
        // a text of a token or a log line ever taken for markup, it could load and send nothing.
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source(STYLE),
            source(SCRIPT)
        );
        Self { html, policy }
    }
}

/// The hash source of an inline element with exactly this text.
fn source(text: &str) -> String {
    // The element's text has the line breaks around the placeholder too.
    let text = format!("\n{text}\n");
    format!("sha256-{}", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}
