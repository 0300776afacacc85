//! Physical lines to logical lines: comments dropped, continuations joined, every byte's origin remembered.

use crate::span::Span;

/// Longest physical line that BuildKit reads.
const LONGEST_LINE: usize = 65536;

/// Hands out physical lines with their offsets.
#[derive(Debug)]
pub(crate) struct PhysicalLines<'a> {
    source: &'a str,
    at: usize,
    /// Lines handed out so far.
    pub(crate) count: usize,
    /// Set when a line was too long; nothing follows then.
    pub(crate) too_long: bool,
}

/// A physical line with its line end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhysicalLine<'a> {
    pub(crate) text: &'a str,
    pub(crate) start: usize,
}

impl<'a> PhysicalLines<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self { source, at: 0, count: 0, too_long: false }
    }

    /// Where the next line starts.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for PhysicalLines<'a> {
    type Item = PhysicalLine<'a>;

    fn next(&mut self) -> Option<PhysicalLine<'a>> {
        let rest = &self.source[self.at..];
        if rest.is_empty() || self.too_long {
            return None;
        }
        let (length, ended) = rest.find('\n').map_or((rest.len(), false), |i| (i + 1, true));
        if length > LONGEST_LINE || (!ended && length == LONGEST_LINE) {
            self.too_long = true;
            return None;
        }
        let mut line = PhysicalLine { text: &rest[..length], start: self.at };
        if self.count == 0
            && let Some(stripped) = line.text.strip_prefix('\u{feff}')
        {
            line.start += line.text.len() - stripped.len();
            line.text = stripped;
        }
        self.at += length;
        self.count += 1;
        Some(line)
    }
}

/// An instruction's text with its continuation lines joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogicalLine {
    pub(crate) text: String,
    /// (offset in `text`, offset in the source), ascending.
    origins: Vec<(usize, usize)>,
}

impl LogicalLine {
    pub(crate) fn push(&mut self, text: &str, source_offset: usize) {
        // A line of nothing but continuations has a place as well.
        if !text.is_empty() || self.origins.is_empty() {
            self.origins.push((self.text.len(), source_offset));
            self.text.push_str(text);
        }
    }

    /// A part of this line as a line of its own (the instruction inside an `ONBUILD`).
    pub(crate) fn tail(&self, from: usize) -> Self {
        let mut tail = Self { text: self.text[from..].to_owned(), origins: Vec::new() };
        tail.origins.push((0, self.origin(from)));
        tail.origins.extend(
            self.origins
                .iter()
                .filter(|(offset, _)| *offset > from)
                .map(|(offset, source)| (offset - from, *source)),
        );
        tail
    }

    /// Where in the source a part of the text came from.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let first = self.origin(start);
        let last = if end > start { self.origin(end - 1) + 1 } else { first };
        Span::new(first, last.max(first))
    }

    fn origin(&self, offset: usize) -> usize {
        let after = self.origins.partition_point(|(at, _)| *at <= offset);
        match after.checked_sub(1).and_then(|i| self.origins.get(i)) {
            Some((at, source)) => source + (offset - at),
            None => offset,
        }
    }
}

/// Cuts a trailing continuation: the escape character, perhaps followed by blanks, unless another escape character
/// stands before it. Says whether the line goes on.
pub(crate) fn cut_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// Whether the first character that is not blank is `#`.
pub(crate) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Cuts all trailing `\r` and `\n`.
pub(crate) fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuation_rules() {
        assert_eq!(cut_continuation("RUN a \\", '\\'), ("RUN a ", true));
        assert_eq!(cut_continuation("RUN a \\ \t", '\\'), ("RUN a ", true));
        assert_eq!(cut_continuation("RUN a \\\\", '\\'), ("RUN a \\\\", false));
        assert_eq!(cut_continuation("\\", '\\'), ("", true));
        assert_eq!(cut_continuation("RUN a `", '`'), ("RUN a ", true));
        assert_eq!(cut_continuation("RUN a", '\\'), ("RUN a", false));
    }

    #[test]
    fn origins_survive_joining() {
        let mut line = LogicalLine::default();
        line.push("RUN a ", 10);
        line.push("b c", 20);
        assert_eq!(line.span(0, 3), Span::new(10, 13));
        assert_eq!(line.span(6, 7), Span::new(20, 21));
        assert_eq!(line.span(4, 7), Span::new(14, 21));
        assert_eq!(line.tail(4).span(2, 3), Span::new(20, 21));
        let mut empty = LogicalLine::default();
        empty.push("", 7);
        assert_eq!(empty.span(0, 0), Span::new(7, 7));
    }
}
