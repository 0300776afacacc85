//! Recognises the key sequence with which a user leaves an attached container. Pure.

/// Watches input for a sequence. A beginning of it is held back until the next byte decides, as dockerd does.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// An empty sequence never matches.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Append to `output` what of `input` is no detach sequence. True: it was typed, the rest of `input` is dropped.
    pub(crate) fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            output.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            if byte != self.keys[self.matched] {
                output.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                output.push(byte);
            }
        }
        false
    }

    /// What is held back, at the end of the input.
    pub(crate) fn rest(&mut self) -> &[u8] {
        let matched = std::mem::take(&mut self.matched);
        &self.keys[..matched]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[u8], pieces: &[&[u8]], expected: &[u8], detached: bool) {
        let mut scanner = DetachKeys::new(keys.to_vec());
        let mut output = Vec::new();
        let seen = pieces.iter().any(|piece| scanner.feed(piece, &mut output));
        output.extend_from_slice(scanner.rest());
        assert_eq!((output.as_slice(), seen), (expected, detached), "{keys:?} {pieces:?}");
    }

    #[test]
    fn sequences() {
        check(b"\x10\x11", &[b"ls\n"], b"ls\n", false);
        check(b"\x10\x11", &[b"ls\x10\x11gone"], b"ls", true);
        check(b"\x10\x11", &[b"a\x10", b"\x11"], b"a", true);
        check(b"\x10\x11", &[b"a\x10", b"b"], b"a\x10b", false);
        check(b"\x10\x11", &[b"\x10\x10\x11"], b"\x10", true);
        check(b"\x10\x11", &[b"\x10"], b"\x10", false);
        check(b"", &[b"\x10\x11"], b"\x10\x11", false);
        check(b"aab", &[b"aaab"], b"aaab", false);
        check(b"q", &[b"xq"], b"x", true);
    }
}
