//! What a log is made of: lines of a json-file, `{"log":"hello\n","stream":"stdout","time":"2026-11-21T02:42:25.69323788Z"}`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use berth_api::stdcopy::Stream;
use berth_runtime_client::protocol::block::{CONTINUES, Head};
use bytes::Bytes;
use jiff::Timestamp;
use memchr::memchr;
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

/// A piece of output of one time: a line of a json-file, or the many lines of a block.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) stream: Stream,
    pub(super) time: Timestamp,
    text: Bytes,
    attributes: BTreeMap<String, String>,
    /// The text goes on with a line that has begun before.
    continues: bool,
}

impl Entry {
    /// A line of a json-file.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let stream = if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
        let text = line.log.into_owned().into();
        Some(Self { stream, time: line.time, text, attributes: line.attrs, continues: false })
    }

    /// A block of a `local` log.
    pub(super) fn of_block(head: &Head, text: Bytes) -> Self {
        let stream = if head.stream == 2 { Stream::Stderr } else { Stream::Stdout };
        let time = Timestamp::from_nanosecond(head.time.into()).unwrap_or_default();
        let continues = head.flags & CONTINUES != 0;
        Self { stream, time, text, attributes: BTreeMap::new(), continues }
    }

    /// Its lines for the client, each an item of its own, as docker sends them; times have nine digits, never fewer. Details are
    /// `a=b,c=d`, escaped as in a query.
    pub(super) fn show(
        &self,
        timestamps: bool,
        details: bool,
    ) -> impl Iterator<Item = LogItem> + Send + use<> {
        let mut before = String::new();
        if timestamps {
            before.push_str(&format!("{:.9} ", self.time));
        }
        if details {
            let pairs =
                self.attributes.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
            before.push_str(&pairs.collect::<Vec<_>>().join(","));
            before.push(' ');
        }
        let (stream, mut rest, mut begins) = (self.stream, self.text.clone(), !self.continues);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = memchr(b'\n', &rest).map_or(rest.len(), |end| end + 1);
            let line = rest.split_to(end);
            let bare = before.is_empty() || !std::mem::replace(&mut begins, true);
            Some((stream, if bare { line } else { [before.as_bytes(), &line].concat().into() }))
        })
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
        let show = |line: &[u8], timestamps, details| -> Vec<LogItem> {
            Entry::parse(line).unwrap().show(timestamps, details).collect()
        };
        let line = br#"{"log":"h\u00e9\n","stream":"stderr","time":"2026-11-21T02:56:14.2091Z"}"#;
        assert_eq!(show(line, true, false), [(Stream::Stderr, "2026-11-21T02:56:14.209100000Z hé\n".into())]);
        assert_eq!(show(line, false, false), [(Stream::Stderr, "hé\n".into())]);
        assert_eq!(Entry::parse(b"{\"log\":"), None);
        let line = br#"{"log":"x\n","stream":"stdout","attrs":{"a":"1 2","b":"/"},"time":"2026-11-21T02:56:14.2091Z"}"#;
        assert_eq!(show(line, false, true), [(Stream::Stdout, "a=1+2,b=%2F x\n".into())]);
    }

    #[test]
    fn a_block_is_shown_line_by_line_and_what_goes_on_has_no_time() {
        let show = |flags, timestamps| -> Vec<Bytes> {
            let head = Head { stream: 1, flags, length: 8, time: 1_000_000_000 };
            let entry = Entry::of_block(&head, Bytes::from_static(b"a\nbc\n\nd"));
            entry.show(timestamps, false).map(|(_, text)| text).collect()
        };
        assert_eq!(show(0, false), ["a\n", "bc\n", "\n", "d"]);
        let time = "1970-01-01T00:00:01.000000000Z";
        let with = |text: &str| Bytes::from(format!("{time} {text}"));
        assert_eq!(show(0, true), [with("a\n"), with("bc\n"), with("\n"), with("d")]);
        assert_eq!(show(CONTINUES, true), ["a\n".into(), with("bc\n"), with("\n"), with("d")]);
    }
}
