//! Heredocs: `<<NAME` words and the lines that belong to them.

use crate::expand::{self, Lexer};
use crate::span::Span;

/// A heredoc with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter, without quotes.
    pub name: String,
    /// The number before `<<`, 0 without one.
    pub fd: u64,
    /// Whether `$variables` in the body are meant to be expanded: no quote in the delimiter.
    pub expand: bool,
    /// `<<-`: leading tabs of each line do not count. They are still in `body`; see [`Heredoc::text`].
    pub chomp: bool,
    /// The body as written, with its line ends.
    pub body: String,
    /// Place of the body.
    pub span: Span,
}

impl Heredoc {
    /// The body as it is to be used.
    pub fn text(&self) -> String {
        if self.chomp { chomp(&self.body) } else { self.body.clone() }
    }

    /// Whether `line` (a physical line) ends this heredoc.
    pub(crate) fn ends_with(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.chomp { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

/// Cuts leading tabs of every line.
pub fn chomp(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// The heredocs that a `RUN`, `COPY` or `ADD` line starts, still without bodies. A line that does not lex (an open
/// quote) has none.
pub(crate) fn in_line(line: &str) -> Vec<Heredoc> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::default() };
    match lexer.words(line, &expand::NoVariables) {
        Ok(words) => words.iter().filter_map(|word| parse_word(word)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Reads a word as a heredoc: `^(\d*)<<(-?)\s*([^<]*)$`, whose rest must be one word.
pub fn parse_word(word: &str) -> Option<Heredoc> {
    let digits = word.find(|c: char| !c.is_ascii_digit())?;
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let plain = Lexer { skip_unset: true, ..Lexer::default() };
    let raw = Lexer { raw_quotes: true, ..plain };
    let words = plain.words(rest, &expand::NoVariables).ok()?;
    let raw_words = raw.words(rest, &expand::NoVariables).ok()?;
    let ([name], [with_quotes]) = (words.as_slice(), raw_words.as_slice()) else { return None };
    Some(Heredoc {
        name: name.clone(),
        fd: word[..digits].parse().unwrap_or(0),
        expand: quotes(name) == quotes(with_quotes),
        chomp,
        body: String::new(),
        span: Span::default(),
    })
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_heredocs() {
        for (word, name, expand, chomp) in [
            ("<<EOF", "EOF", true, false),
            ("<<-'EOF'", "EOF", false, true),
            ("3<<E'O'F", "EOF", false, false),
            ("<<\"a b\"", "a b", false, false),
        ] {
            let doc = parse_word(word).unwrap_or_else(|| panic!("{word}"));
            assert_eq!((doc.name.as_str(), doc.expand, doc.chomp), (name, expand, chomp));
        }
        for word in ["<<", "<<<x", "a<<EOF", "<<a b", "EOF", "<<'a"] {
            assert_eq!(parse_word(word), None, "{word}");
        }
    }

    #[test]
    fn quoted_text_holds_none() {
        assert_eq!(in_line("RUN echo \"<<EOF\" $((1<<3))"), Vec::new());
        assert_eq!(in_line("RUN cat <<A <<B").len(), 2);
    }
}
