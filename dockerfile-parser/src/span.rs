//! Places in the source text.

/// A range of bytes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// A span from `start` up to, not including, `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The text it covers, empty if it lies outside of `source` or cuts a character.
    pub fn of<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.start..self.end).unwrap_or("")
    }
}

/// Lines of the source, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LineRange {
    /// First line.
    pub start: usize,
    /// Last line.
    pub end: usize,
}

impl LineRange {
    /// Lines `start` to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// The line and column (both from 1; the column counts characters) of a byte offset.
pub fn position(source: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &source[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Renders the lines `lines` of `source` with two lines around them; those meant are marked with `>>>`.
pub fn excerpt(source: &str, lines: LineRange) -> String {
    use std::fmt::Write;
    const AROUND: usize = 2;
    const LONGEST: usize = 12;
    const WIDEST: usize = 400;
    let all: Vec<&str> = source.lines().collect();
    let start = lines.start.clamp(1, all.len().max(1));
    let end = lines.end.max(start).min(all.len().max(1));
    let from = start.saturating_sub(AROUND).max(1);
    let to = (end + AROUND).min(all.len());
    let rule = "-".repeat(20);
    let mut out = format!("{rule}\n");
    for number in from..=to {
        if number > start + LONGEST && number < end {
            if number + 1 == end {
                out.push_str("     | >>> ...\n");
            }
            continue;
        }
        let mark = if (start..=end).contains(&number) { ">>>" } else { "   " };
        // A String never fails to be written to.
        let mut text: String = all[number - 1].chars().take(WIDEST).collect();
        if text.len() < all[number - 1].len() {
            text.push_str("...");
        }
        let line = format!("{number:4} | {mark} {text}");
        writeln!(out, "{}", line.trim_end()).ok();
    }
    out.push_str(&rule);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_marks_the_lines_meant() {
        let text = "FROM a\nRUN b\nRUN c\nRUN d\nRUN e\n";
        let got = excerpt(text, LineRange::new(3, 3));
        assert_eq!(
            got,
            "--------------------\n   1 |     FROM a\n   2 |     RUN b\n   3 | >>> RUN c\n   4 |     RUN d\n   5 |     RUN e\n--------------------"
        );
    }

    #[test]
    fn excerpt_of_nothing_does_not_panic() {
        excerpt("", LineRange::new(0, 0));
        excerpt("a", LineRange::new(7, 9));
    }

    #[test]
    fn position_counts_characters() {
        assert_eq!(position("é\nab", 4), (2, 2));
        assert_eq!(position("é", 1), (1, 1));
    }
}
