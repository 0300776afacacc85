//! Splitting an instruction's text into words. Three ways are in use, each with its own idea of quotes.

use crate::span::Span;

/// A word with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text; quotes and `$` are still in it unless stated otherwise.
    pub text: String,
    /// Where it came from.
    pub span: Span,
}

/// A word as a part of a line that is being split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Go's `[\t\v\f\r ]`, the blanks around keywords and in lists.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits at runs of blanks; leading or trailing ones give empty words, quotes mean nothing.
pub(crate) fn by_blanks(text: &str, offset: usize) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut start = 0;
    loop {
        let end = text[start..].find(is_blank).map_or(text.len(), |i| start + i);
        out.push(Piece { text: text[start..end].to_owned(), start: offset + start, end: offset + end });
        if end == text.len() {
            return out;
        }
        start = text[end..].find(|c| !is_blank(c)).map_or(text.len(), |i| end + i);
    }
}

/// Splits once at the first run of blanks.
pub(crate) fn split_once_blank(text: &str) -> Option<(&str, &str, usize)> {
    let end = text.find(is_blank)?;
    let next = text[end..].find(|c| !is_blank(c)).map_or(text.len(), |i| end + i);
    Some((&text[..end], &text[next..], next))
}

/// Words for `ENV`, `LABEL` and `ARG`: quotes group and are kept, as are escape characters. A quote that is not
/// closed ends with the text.
pub(crate) fn quoted(text: &str, escape: char, offset: usize) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut word: Option<Piece> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            out.extend(word.take());
            continue;
        }
        let current =
            word.get_or_insert_with(|| Piece { text: String::new(), start: offset + at, end: offset + at });
        current.end = offset + at + c.len_utf8();
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        let escapes = c == escape && quote != Some('\'');
        if !escapes {
            current.text.push(c);
            continue;
        }
        // An escape character at the very end is dropped.
        if let Some((at, next)) = chars.next() {
            current.text.push(c);
            current.text.push(next);
            current.end = offset + at + next.len_utf8();
        }
    }
    out.extend(word.take());
    // Such an escape character may have left a word without text or quotes.
    out.retain(|piece| !piece.text.is_empty());
    out
}

/// Cuts the `--flags` that follow a keyword. Quotes and escape characters are taken off them. Returns them and the
/// offset of the rest.
pub(crate) fn flags(text: &str, escape: char, offset: usize) -> (Vec<Piece>, usize) {
    let mut out = Vec::new();
    let mut chars = text.char_indices().peekable();
    loop {
        while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some(&(start, _)) = chars.peek() else { return (out, text.len()) };
        if !text[start..].starts_with("--") {
            return (out, start);
        }
        let mut word = String::new();
        let mut quote = None;
        let mut was_quoted = false;
        let mut end = text.len();
        while let Some((at, c)) = chars.next() {
            match quote {
                None if c.is_whitespace() => {
                    end = at;
                    break;
                }
                None if c == '\'' || c == '"' => {
                    quote = Some(c);
                    was_quoted = true;
                }
                Some(q) if c == q => quote = None,
                _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
                _ => word.push(c),
            }
        }
        if word == "--" {
            return (out, end);
        }
        if was_quoted || !word.is_empty() {
            out.push(Piece { text: word, start: offset + start, end: offset + end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[Piece]) -> Vec<&str> {
        pieces.iter().map(|p| p.text.as_str()).collect()
    }

    #[test]
    fn quotes_group_and_stay() {
        assert_eq!(texts(&quoted("a='b c' d\\ e \"f", '\\', 0)), ["a='b c'", "d\\ e", "\"f"]);
        assert_eq!(texts(&quoted("a\u{a0}b", '\\', 0)), ["a", "b"]);
    }

    #[test]
    fn flags_stop_at_the_first_other_word() {
        let (found, rest) = flags("--a='x y' --b=c\\ d cmd --e", '\\', 0);
        assert_eq!(texts(&found), ["--a=x y", "--b=c d"]);
        assert_eq!(rest, 19);
        let (found, rest) = flags("--a -- --b", '\\', 0);
        assert_eq!((texts(&found), rest), (vec!["--a"], 6));
    }

    #[test]
    fn blanks_do_not_know_quotes() {
        assert_eq!(texts(&by_blanks("\"a b\" c", 0)), ["\"a", "b\"", "c"]);
    }
}
