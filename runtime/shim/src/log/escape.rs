//! Bytes as the inside of a JSON string, exactly as dockerd's json-file driver writes them. Pure.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Append `text`, escaped. What is no UTF-8 becomes U+FFFD, one for each byte, as in Go.
pub(crate) fn escape_into(text: &[u8], output: &mut Vec<u8>) {
    if is_plain(text) {
        output.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid(), output);
        for _ in chunk.invalid() {
            output.extend_from_slice(br"\ufffd");
        }
    }
}

/// Whether all of it stands for itself. Almost every line does, and without branches in between the compiler looks at many
/// bytes at once.
fn is_plain(text: &[u8]) -> bool {
    let plain = |byte: u8| {
        (0x20..0x80).contains(&byte)
            & (byte != b'"')
            & (byte != b'\\')
            & (byte != b'<')
            & (byte != b'>')
            & (byte != b'&')
    };
    let all = |bytes: &[u8]| bytes.iter().fold(true, |all, byte| all & plain(*byte));
    let (blocks, rest) = text.as_chunks::<32>();
    blocks.iter().all(|block| all(block)) && all(rest)
}

fn escape_valid(text: &str, output: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut index = 0;
    while index < bytes.len() {
        let length = match bytes[index] {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f => 1,
            // U+2028 and U+2029, which are line ends in JavaScript.
            0xe2 if bytes[index + 1] == 0x80 && matches!(bytes[index + 2], 0xa8 | 0xa9) => 3,
            _ => 0,
        };
        if length == 0 {
            index += 1;
            continue;
        }
        output.extend_from_slice(&bytes[plain..index]);
        match bytes[index] {
            byte @ (b'"' | b'\\') => output.extend([b'\\', byte]),
            b'\n' => output.extend_from_slice(br"\n"),
            b'\r' => output.extend_from_slice(br"\r"),
            0xe2 => output.extend([b'\\', b'u', b'2', b'0', b'2', HEX[usize::from(bytes[index + 2] & 0xf)]]),
            byte => {
                output.extend_from_slice(br"\u00");
                output.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
        }
        index += length;
        plain = index;
    }
    output.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
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
