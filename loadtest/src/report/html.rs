//! The report as one page that needs nothing else: the figures as JSON in it, and a script of its own that draws them.
//!
//! The page's three parts lie in `page/`, so that each is edited as what it is.

use super::Report;

const PAGE: &str = include_str!("page/report.html");
const STYLE: &str = include_str!("page/report.css");
const SCRIPT: &str = include_str!("page/report.js");

/// The page.
pub(super) fn page(report: &Report) -> Result<String, serde_json::Error> {
    // `</script>` in a text would end the script, `<!--` would change how it is read: JSON may write `<` as an escape.
    let json = serde_json::to_string(report)?.replace('<', "\\u003c");
    Ok(PAGE
        .replacen("/*STYLE*/", STYLE, 1)
        .replacen("/*SCRIPT*/", SCRIPT, 1)
        .replacen("/*REPORT*/", &json, 1))
}
