//! Parser directives: `# syntax=`, `# escape=` and `# check=` at the top of the file.

use crate::span::{LineRange, Span};

/// A directive that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: &'static str,
    /// Everything after the `=`, trimmed.
    pub value: String,
    /// Its line.
    pub span: Span,
    /// Its line's number.
    pub lines: LineRange,
}

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

/// Reads directives line by line; the first line that is none ends it.
#[derive(Debug, Default)]
pub(crate) struct DirectiveReader {
    done: bool,
    seen: Vec<&'static str>,
}

impl DirectiveReader {
    /// Whether `line` (without its line end) is a directive. A repeated one is an error.
    pub(crate) fn read(
        &mut self,
        line: &str,
        comment: &str,
    ) -> Result<Option<(&'static str, String)>, String> {
        if self.done {
            return Ok(None);
        }
        let found = line.strip_prefix(comment).and_then(|rest| split(rest.trim_start()));
        let known = found.and_then(|(key, value)| {
            KNOWN.into_iter().find(|known| key.eq_ignore_ascii_case(known)).map(|known| (known, value))
        });
        let Some((name, value)) = known else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(name);
        Ok(Some((name, value.to_owned())))
    }
}

/// `key = value`; the value must not be empty.
fn split(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim_end_matches(is_regex_space);
    let value = value.trim_matches(is_regex_space);
    let good = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    good.then_some((key, value))
}

/// What `\s` means in Go's regular expressions.
fn is_regex_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

/// Finds the `name` directive the way BuildKit's front end selection does: a `#!` line is skipped, and blanks before
/// the `#` are not.
pub(crate) fn detect(name: &str, source: &str) -> Option<Directive> {
    let mut offset = 0;
    let mut line_number = 1;
    let mut rest = source;
    if let Some(stripped) = rest.strip_prefix('\u{feff}') {
        offset += rest.len() - stripped.len();
        rest = stripped;
    }
    if rest.starts_with("#!") {
        let cut = rest.find('\n').map_or(rest.len(), |i| i + 1);
        offset += cut;
        rest = &rest[cut..];
        line_number += 1;
    }
    ["#", "//"].into_iter().take(if name == "syntax" { 2 } else { 1 }).find_map(|comment| {
        let mut reader = DirectiveReader::default();
        let (mut at, mut number) = (offset, line_number);
        for line in rest.split_inclusive('\n') {
            let text = line.strip_suffix('\n').unwrap_or(line);
            let text = text.strip_suffix('\r').unwrap_or(text);
            match reader.read(text, comment) {
                Ok(Some((found, value))) if found == name => {
                    let span = Span::new(at, at + text.len());
                    return Some(Directive {
                        name: found,
                        value,
                        span,
                        lines: LineRange::new(number, number),
                    });
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
            at += line.len();
            number += 1;
        }
        None
    })
}
