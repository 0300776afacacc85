//! A byte stream as lines and parts of lines. Pure.

use memchr::memchr;

/// A line that is longer is cut, as dockerd does.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// Collects one stream's bytes.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// What has come since the last line end or cut.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Give every line that `data` completes, and every full part of one, to `emit`; the second argument says
    /// whether a line ends with it. The line end itself is not included.
    pub(crate) fn feed(&mut self, mut data: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        loop {
            let space = MAX_LINE - self.partial.len();
            let window = &data[..data.len().min(space)];
            if let Some(end) = memchr(b'\n', window) {
                if self.partial.is_empty() {
                    emit(&data[..end], true);
                } else {
                    self.partial.extend_from_slice(&data[..end]);
                    emit(&self.partial, true);
                    self.partial.clear();
                }
                data = &data[end + 1..];
            } else if data.len() >= space {
                self.partial.extend_from_slice(window);
                let cut = whole_characters(&self.partial);
                emit(&self.partial[..cut], false);
                self.partial.drain(..cut);
                data = &data[space..];
            } else {
                self.partial.extend_from_slice(data);
                return;
            }
        }
    }

    /// The stream has ended: what is left is a part without an end.
    pub(crate) fn end(&mut self, emit: impl FnOnce(&[u8], bool)) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            emit(&rest, false);
        }
    }
}

/// The length up to the last whole UTF-8 character: cutting one in two would spoil both halves in JSON. (dockerd
/// does cut them.)
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(back) = tail.iter().rev().position(|byte| byte & 0xc0 != 0x80) else { return bytes.len() };
    let needed = match tail[tail.len() - 1 - back] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if back + 1 < needed { bytes.len() - back - 1 } else { bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in pieces {
            lines.feed(piece, |text, ends| all.push((String::from_utf8(text.to_vec()).unwrap(), ends)));
        }
        lines.end(|text, ends| all.push((String::from_utf8(text.to_vec()).unwrap(), ends)));
        all
    }

    fn lengths(pieces: &[&[u8]]) -> Vec<(usize, bool)> {
        split(pieces).into_iter().map(|(text, ends)| (text.len(), ends)).collect()
    }

    #[test]
    fn lines_across_pieces() {
        let expected = [("one".to_owned(), true), ("two".to_owned(), true), ("three".to_owned(), false)];
        assert_eq!(split(&[b"one\ntw", b"o\nthr", b"ee"]), expected);
        assert_eq!(split(&[b"\n\n"]), [(String::new(), true), (String::new(), true)]);
        assert_eq!(split(&[b""]), []);
    }

    #[test]
    fn long_lines_are_cut_where_dockerd_cuts_them() {
        let long = [b'x'; 40_000];
        let parts = [(16_384, false), (16_384, false), (7_232, true)];
        assert_eq!(lengths(&[&[&long[..], b"\n"].concat()]), parts);
        let bytewise: Vec<&[u8]> = long.chunks(999).chain([b"\n".as_slice()]).collect();
        assert_eq!(lengths(&bytewise), parts);
        let exact = [&[b'x'; 16_384][..], b"\ny"].concat();
        assert_eq!(lengths(&[&exact]), [(16_384, false), (0, true), (1, false)]);
    }

    #[test]
    fn characters_are_not_cut() {
        let text = format!("{}\u{1f600}\u{1f600}", "x".repeat(16_382));
        assert_eq!(lengths(&[text.as_bytes()]), [(16_382, false), (8, false)]);
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4, "no UTF-8 at all");
    }
}
