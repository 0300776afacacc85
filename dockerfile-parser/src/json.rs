//! The JSON form of instructions: `["a", "b"]`, as strictly as Go's `encoding/json` reads it.

/// What a text that starts with `[` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JsonArray {
    /// An array of strings: each with the bytes of the text that it came from.
    Strings(Vec<(String, usize, usize)>),
    /// A valid array with something else in it.
    OtherValues,
    /// Not JSON: the shell form then.
    NotJson,
}

/// Deeper nesting is refused, as in Go.
const MAX_DEPTH: usize = 10_000;

/// Reads `text`, which may have blanks around the array.
pub(crate) fn array(text: &str) -> JsonArray {
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
    if !text.trim_start().starts_with('[') {
        return JsonArray::NotJson;
    }
    // Go's own idea of blanks before the array is wider than JSON's, but then its JSON reader refuses them.
    match reader.top() {
        Some(Some(strings)) => JsonArray::Strings(strings),
        Some(None) => JsonArray::OtherValues,
        None => JsonArray::NotJson,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// `None`: not JSON; `Some(None)`: JSON, but not all strings.
    #[allow(clippy::option_option)]
    fn top(&mut self) -> Option<Option<Vec<(String, usize, usize)>>> {
        // Leading blanks were trimmed by Unicode's idea of them.
        self.at = self.text.len() - self.text.trim_start().len();
        self.expect(b'[')?;
        let mut strings = Vec::new();
        let mut all_strings = true;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.blanks();
                let start = self.at;
                if self.peek() == Some(b'"') {
                    let value = self.string()?;
                    strings.push((value, start, self.at));
                } else {
                    all_strings = false;
                    self.skip_value()?;
                }
                self.blanks();
                match self.next()? {
                    b',' => {}
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.blanks();
        (self.at == self.bytes.len()).then_some(all_strings.then_some(strings))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.next()? {
                b'"' => return Some(out),
                b'\\' => self.escape(&mut out)?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        out.push(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                self.surrogates(unit)?
            }
            _ => return None,
        });
        Some(())
    }

    /// Pairs are joined, lone surrogates become U+FFFD.
    fn surrogates(&mut self, unit: u32) -> Option<char> {
        if let Some(c) = char::from_u32(unit) {
            return Some(c);
        }
        let before = self.at;
        if self.bytes[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xd800..0xdc00).contains(&unit) && (0xdc00..0xe000).contains(&low) {
                return char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            }
            self.at = before;
        }
        Some('\u{fffd}')
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut value = 0;
        for _ in 0..4 {
            value = value * 16 + char::from(self.next()?).to_digit(16)?;
        }
        Some(value)
    }

    /// Skips any value without recursion, so that no input overflows the stack.
    fn skip_value(&mut self) -> Option<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                bracket @ (b'[' | b'{') => {
                    self.at += 1;
                    open.push(bracket);
                    if open.len() >= MAX_DEPTH {
                        return None;
                    }
                    self.blanks();
                    if self.peek() != Some(closing(bracket)) {
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => {
                    self.string()?;
                }
                _ => self.literal()?,
            }
            loop {
                let Some(&bracket) = open.last() else { return Some(()) };
                self.blanks();
                let byte = self.next()?;
                if byte == closing(bracket) {
                    open.pop();
                } else if byte == b',' {
                    if bracket == b'{' {
                        self.key()?;
                    }
                    break;
                } else {
                    return None;
                }
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.blanks();
        self.string()?;
        self.blanks();
        self.expect(b':')
    }

    fn literal(&mut self) -> Option<()> {
        for word in ["true", "false", "null"] {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Some(());
            }
        }
        self.number()
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'[' { b']' } else { b'}' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Option<Vec<String>> {
        match array(text) {
            JsonArray::Strings(s) => Some(s.into_iter().map(|(s, ..)| s).collect()),
            _ => None,
        }
    }

    #[test]
    fn arrays_of_strings() {
        assert_eq!(strings(r#" ["a", "b\n\u0041\ud83d\ude00\ud800"] "#).unwrap(), ["a", "b\nA😀\u{fffd}"]);
        assert_eq!(strings("[]").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn other_values_are_told_from_rubbish() {
        for text in ["[1]", "[\"a\", null]", "[[1,{\"a\":[]}],-0.5e+3]", "[{}]"] {
            assert_eq!(array(text), JsonArray::OtherValues, "{text}");
        }
        for text in
            ["['a']", "[\"a\",]", "[\"a\"] x", "[01]", "[", "[\"a\" \"b\"]", "[\"\\x\"]", "[{\"a\"}]", "[-]"]
        {
            assert_eq!(array(text), JsonArray::NotJson, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(200_000);
        assert_eq!(array(&deep), JsonArray::NotJson);
    }
}
