//! Bytes as the inside of a JSON string, exactly as dockerd's json-file driver writes them. Pure.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Append `text`, escaped. What is no UTF-8 becomes U+FFFD, one for each byte, as in Go.
pub(crate) fn escape_into(text: &[u8], output: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid().as_bytes(), output);
        for _ in chunk.invalid() {
            output.extend_from_slice(br"\ufffd");
        }
    }
}

/// Whether all of it stands for itself, but for line ends, which stand between entries.
pub(super) fn is_plain(text: &[u8]) -> bool {
    all(text, |byte| plain(byte) | (byte == b'\n'))
}

/// Stands for itself, whatever comes behind it.
fn plain(byte: u8) -> bool {
    (0x20..0x80).contains(&byte)
        & (byte != b'"')
        & (byte != b'\\')
        & (byte != b'<')
        & (byte != b'>')
        & (byte != b'&')
}

/// Almost every line is plain, and without branches in between the compiler looks at many bytes at once.
fn all(text: &[u8], is: impl Fn(u8) -> bool) -> bool {
    let every = |bytes: &[u8]| bytes.iter().fold(true, |all, byte| all & is(*byte));
    let (blocks, rest) = text.as_chunks::<32>();
    blocks.iter().all(|block| every(block)) && every(rest)
}

/// How many bytes from the beginning are plain; it may tell less, never more.
fn plain_run(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<16>();
    let whole =
        blocks.iter().take_while(|block| block.iter().fold(true, |all, byte| all & plain(*byte))).count();
    let rest = &text[whole * 16..];
    whole * 16 + rest.iter().take(16).take_while(|byte| plain(**byte)).count()
}

fn escape_valid(mut bytes: &[u8], output: &mut Vec<u8>) {
    while !bytes.is_empty() {
        let (run, rest) = bytes.split_at(plain_run(bytes));
        output.extend_from_slice(run);
        bytes = &rest[escape_first(rest, output)..];
    }
}

/// Append the first character, if there is one, escaped if it must be; how many of these bytes that was.
fn escape_first(bytes: &[u8], output: &mut Vec<u8>) -> usize {
    match *bytes {
        [] => return 0,
        // U+2028 and U+2029, which are line ends in JavaScript.
        [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
            output.extend([b'\\', b'u', b'2', b'0', b'2', HEX[usize::from(last & 0xf)]]);
            return 3;
        }
        [byte @ (b'"' | b'\\'), ..] => output.extend([b'\\', byte]),
        [b'\n', ..] => output.extend_from_slice(br"\n"),
        [b'\r', ..] => output.extend_from_slice(br"\r"),
        [byte @ (b'<' | b'>' | b'&' | 0..=0x1f), ..] => {
            output.extend_from_slice(br"\u00");
            output.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
        [byte, ..] => output.push(byte),
    }
    1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &[u8], expected: &str) {
        let mut output = Vec::new();
        escape_into(text, &mut output);
        assert_eq!(String::from_utf8(output.clone()).unwrap(), expected);
        let json = [b"\"".as_slice(), &output, b"\""].concat();
        let read: String = serde_json::from_slice(&json).unwrap();
        if let Ok(text) = std::str::from_utf8(text) {
            assert_eq!(read, text);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_written(text in "\\PC*|[a-z\"\\\\<>&\r\t\u{2028}é]{0,80}") {
            let mut output = b"\"".to_vec();
            escape_into(text.as_bytes(), &mut output);
            output.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&output).unwrap(), text.clone());
            let same = output[1..output.len() - 1] == *text.as_bytes();
            prop_assert!(!is_plain(text.as_bytes()) || same || text.contains('\n'));
        }
    }

    #[test]
    fn as_dockerd_writes_it() {
        check(b"plain", "plain");
        check(b"a\"b\\c\r\n\t", r#"a\"b\\c\r\n\u0009"#);
        check(b"<a&b>\x1b[0m\x00", r"\u003ca\u0026b\u003e\u001b[0m\u0000");
        check(
            "gr\u{fc}n \u{1f600} \u{2028}\u{2029}\u{2027}".as_bytes(),
            "gr\u{fc}n \u{1f600} \\u2028\\u2029\u{2027}",
        );
        check(b"bad\xff\xfe!", r"bad\ufffd\ufffd!");
        check(b"\xe2\x80", r"\ufffd\ufffd");
        check(b"", "");
    }
}
