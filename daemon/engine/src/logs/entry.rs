//! One line of a json-file log: `{"log":"hello\n","stream":"stdout","time":"2026-11-21T02:42:25.69323788Z"}`.

use std::borrow::Cow;

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
    time: Timestamp,
}

/// One piece of output.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) stream: Stream,
    pub(super) time: Timestamp,
    text: String,
}

impl Entry {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let stream = if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
        Some(Self { stream, time: line.time, text: line.log.into_owned() })
    }

    /// For the client; times have nine digits, never fewer.
    pub(super) fn show(self, timestamps: bool) -> LogItem {
        let text = if timestamps { format!("{:.9} {}", self.time, self.text) } else { self.text };
        (self.stream, Bytes::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_shown() {
        let line = br#"{"log":"h\u00e9\n","stream":"stderr","time":"2026-11-21T02:56:14.2091Z"}"#;
        let (stream, bytes) = Entry::parse(line).unwrap().show(true);
        assert_eq!(stream, Stream::Stderr);
        assert_eq!(bytes, "2026-11-21T02:56:14.209100000Z hé\n");
        assert_eq!(Entry::parse(line).unwrap().show(false).1, "hé\n");
        assert_eq!(Entry::parse(b"{\"log\":"), None);
    }
}
