//! One line of a json-file log: `{"log":"hello\n","stream":"stdout","time":"2026-11-21T02:42:25.69323788Z"}`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use berth_api::stdcopy::Stream;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use super::LogItem;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: Timestamp,
}

/// One piece of output.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) stream: Stream,
    pub(super) time: Timestamp,
    text: String,
    attributes: BTreeMap<String, String>,
}

impl Entry {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let stream = if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
        Some(Self { stream, time: line.time, text: line.log.into_owned(), attributes: line.attrs })
    }

    /// For the client; times have nine digits, never fewer. Details are `a=b,c=d`, escaped as in a query.
    pub(super) fn show(self, timestamps: bool, details: bool) -> LogItem {
        let mut text = String::new();
        if timestamps {
            text.push_str(&format!("{:.9} ", self.time));
        }
        if details {
            let pairs =
                self.attributes.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
            text.push_str(&pairs.collect::<Vec<_>>().join(","));
            text.push(' ');
        }
        if text.is_empty() {
            return (self.stream, Bytes::from(self.text));
        }
        text.push_str(&self.text);
        (self.stream, Bytes::from(text))
    }
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_shown() {
        let line = br#"{"log":"h\u00e9\n","stream":"stderr","time":"2026-11-21T02:56:14.2091Z"}"#;
        let (stream, bytes) = Entry::parse(line).unwrap().show(true, false);
        assert_eq!(stream, Stream::Stderr);
        assert_eq!(bytes, "2026-11-21T02:56:14.209100000Z hé\n");
        assert_eq!(Entry::parse(line).unwrap().show(false, false).1, "hé\n");
        assert_eq!(Entry::parse(b"{\"log\":"), None);
        let line = br#"{"log":"x\n","stream":"stdout","attrs":{"a":"1 2","b":"/"},"time":"2026-11-21T02:56:14.2091Z"}"#;
        assert_eq!(Entry::parse(line).unwrap().show(false, true).1, "a=1+2,b=%2F x\n");
    }
}
