//! Fenced blocks of a document, and the regions of sources that they quote.

/// What marks a block that quotes.
const QUOTES: &str = "<!-- snippet: ";
/// What marks one that cannot be run by a test, and says why.
const NOT_RUN: &str = "<!-- not run: ";
const FENCE: &str = "```";
/// Languages in which a block is something to be run.
const RUN: [&str; 7] = ["go", "java", "js", "python", "sh", "toml", "xml"];

/// A document with each block as its source has it.
pub(super) fn renewed(document: &str, read: impl Fn(&str) -> String) -> String {
    let mut renewed = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        renewed.push_str(line);
        renewed.push('\n');
        let Some(source) = line.strip_prefix(QUOTES) else {
            continue;
        };
        let source = source.strip_suffix(" -->").unwrap_or_else(|| panic!("{line}"));
        let opens = lines.next().filter(|line| line.starts_with(FENCE));
        let opens = opens.unwrap_or_else(|| panic!("no block below {line}"));
        assert!(lines.any(|line| line == FENCE), "a block without an end below {line}");
        let (file, name) = source
            .split_once('#')
            .map_or((source, None), |(file, name)| (file, Some(name)));
        let text = read(file);
        let text = name.map_or_else(|| text.clone(), |name| region(&text, name, source));
        renewed.extend([opens, "\n", text.trim_matches('\n'), "\n", FENCE, "\n"]);
    }
    renewed
}

/// What stands in a source between a name and its end, without what all lines are indented by. A region may hold others.
fn region(text: &str, name: &str, source: &str) -> String {
    let mut inside: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let said = line.trim_start_matches([' ', '/', '#', '<', '!', '-']);
        let said = said.trim_end_matches("-->").trim_end();
        if let Some(begins) = said.strip_prefix("snippet: ") {
            inside.push(begins.split(';').next().unwrap_or(begins));
        } else if said == "end snippet" {
            if inside.pop() == Some(name) {
                break;
            }
        } else if inside.contains(&name) && !(line.is_empty() && found.ends_with(&["", ""])) {
            // Blank lines on both sides of another region's end are those of one.
            found.push(line);
        }
    }
    assert!(!found.is_empty(), "there is no {source}");
    let indents = found.iter().filter(|line| !line.trim().is_empty());
    let indent = indents
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or(0);
    let lines = found.iter().map(|line| line.get(indent..).unwrap_or_default());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The lines where a block begins that is to be run, and neither quotes what is nor says why it is not.
pub(super) fn by_hand(document: &str) -> Vec<usize> {
    let (mut found, mut open, mut before) = (Vec::new(), false, "");
    for (number, line) in document.lines().enumerate() {
        if let Some(language) = line.strip_prefix(FENCE) {
            let excused = before.starts_with(QUOTES) || before.starts_with(NOT_RUN);
            if !open && RUN.contains(&language) && !excused {
                found.push(number + 1);
            }
            open = !open;
        }
        before = line;
    }
    found
}

#[test]
fn a_region_is_what_stands_between_its_name_and_its_end() {
    let source = "x\n  # snippet: outer\n  a\n    # snippet: inner; with a word\n    b\n\n      c\n    # end snippet\n  d\n  # end snippet\ne\n";
    let document = "one\n<!-- snippet: f#inner -->\n```py\nold\n```\ntwo\n<!-- snippet: f#outer -->\n```py\n```\n<!-- snippet: f -->\n```py\n```\n";
    let wanted = format!(
        "one\n<!-- snippet: f#inner -->\n```py\nb\n\n  c\n```\ntwo\n<!-- snippet: f#outer -->\n```py\na\n  b\n\n    c\nd\n```\n\
         <!-- snippet: f -->\n```py\n{source}```\n"
    );
    assert_eq!(renewed(document, |_| source.to_owned()), wanted);
}

#[test]
fn a_block_that_is_written_by_hand_is_seen() {
    let document = "```sh\nx\n```\n<!-- not run: y -->\n```sh\n```\n```text\n```\n<!-- snippet: f -->\n```go\n```\n\n```python\n```\n";
    assert_eq!(by_hand(document), [1, 13]);
}
