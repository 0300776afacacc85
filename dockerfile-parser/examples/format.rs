//! Formats a Dockerfile: standard input to standard output.
//!
//! All that the syntax tree does not cover (comments, empty lines) is copied from the source between the spans of the
//! nodes, all that it covers but a formatter has no opinion on (arguments, continuations, heredocs) from within them. So
//! nothing can get lost.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use berth_dockerfile_parser::diagnostic::Severity;
use berth_dockerfile_parser::syntax::{self, Node};

fn main() -> std::io::Result<ExitCode> {
    let mut source = String::new();
    std::io::stdin().read_to_string(&mut source)?;
    match format(&source) {
        Ok(formatted) => {
            std::io::stdout().write_all(formatted.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            eprintln!("{faults}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The text as it should look, or what is wrong with it.
pub(crate) fn format(source: &str) -> Result<String, String> {
    let syntax = syntax::parse(source);
    let errors = syntax.diagnostics.iter().filter(|fault| fault.severity == Severity::Error);
    let errors: Vec<String> = errors.map(|error| error.render("-", source)).collect();
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    let (mut formatted, mut at) = (String::new(), 0);
    for node in &syntax.nodes {
        between(&source[at..node.span.start], &mut formatted);
        instruction(node, source, syntax.escape, &mut formatted);
        at = node.span.end;
    }
    between(&source[at..], &mut formatted);
    let end = formatted.trim_end().len();
    formatted.truncate(end);
    formatted.push('\n');
    Ok(formatted)
}

/// Comments and empty lines: no blanks around them, and no two empty lines in a row.
fn between(text: &str, formatted: &mut String) {
    let mut lines = text.split('\n').map(str::trim).peekable();
    // The first is what comes after an instruction on its line, and the last what comes before one.
    let mut empty = if formatted.is_empty() { 0 } else { -1 };
    while let Some(line) = lines.next() {
        if lines.peek().is_none() {
            formatted.push_str(line);
            return;
        }
        empty = if line.is_empty() { empty + 1 } else { 0 };
        if empty <= 1 {
            formatted.push_str(line);
            formatted.push('\n');
        }
    }
}

/// Keyword in capitals, one blank between flags; the arguments as they are written.
fn instruction(node: &Node, source: &str, escape: char, formatted: &mut String) {
    formatted.push_str(&node.name());
    let mut at = node.keyword.span.end;
    for flag in &node.flags {
        gap(&source[at..flag.span.start], formatted);
        formatted.push_str(flag.span.of(source));
        at = flag.span.end;
    }
    let rest = &source[at..node.span.end];
    let arguments = rest.trim_start_matches([' ', '\t']);
    gap(&rest[..rest.len() - arguments.len()], formatted);
    let tidy = arguments.trim_end();
    // What a heredoc ends with is its own, and an escape character at the end of a line would mean that it goes on.
    let is_done = node.heredocs.is_empty() && !tidy.ends_with(escape);
    formatted.push_str(if is_done { tidy } else { arguments });
}

/// Blanks become one; a continuation with its comments stays.
fn gap(text: &str, formatted: &mut String) {
    let blank = !text.is_empty() && text.chars().all(|c| c == ' ' || c == '\t');
    formatted.push_str(if blank { " " } else { text });
}
