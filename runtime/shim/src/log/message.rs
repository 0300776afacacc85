//! A line as a message for syslog or the journal. Pure.

use std::collections::BTreeMap;

use berth_shim_protocol::SyslogFormat;
use jiff::{Timestamp, tz::TimeZone};

use crate::stdio::Stream;

/// Severities of RFC 5424: what docker takes for the two streams.
const INFORMATIONAL: u8 = 6;
const ERROR: u8 = 3;

/// How a stream's lines are weighed.
pub(super) fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => INFORMATIONAL,
        Stream::Stderr => ERROR,
    }
}

/// Who speaks to syslog, and how.
#[derive(Debug)]
pub(super) struct Syslog {
    pub(super) facility: u8,
    pub(super) format: SyslogFormat,
    pub(super) hostname: String,
    pub(super) tag: String,
}

impl Syslog {
    /// One message, with its newline.
    pub(super) fn message(&self, stream: Stream, text: &[u8], time: Timestamp) -> Vec<u8> {
        let Self { facility, format, hostname, tag } = self;
        let priority = facility * 8 + severity(stream);
        let time = time.to_zoned(TimeZone::UTC);
        let pid = std::process::id();
        let head = match format {
            SyslogFormat::Local => format!("<{priority}>{} {tag}[{pid}]: ", time.strftime("%b %e %H:%M:%S")),
            SyslogFormat::Rfc3164 => {
                format!("<{priority}>{} {hostname} {tag}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
            SyslogFormat::Rfc5424 => {
                format!(
                    "<{priority}>1 {} {hostname} {tag} {pid} {tag} - ",
                    time.strftime("%Y-%m-%dT%H:%M:%SZ")
                )
            }
            SyslogFormat::Rfc5424Micro => format!(
                "<{priority}>1 {} {hostname} {tag} {pid} {tag} - ",
                time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
            ),
        };
        [head.as_bytes(), text, b"\n"].concat()
    }
}

/// One entry in the journal's native protocol (systemd, docs/JOURNAL_NATIVE_PROTOCOL.md).
pub(super) fn journal(
    fields: &BTreeMap<String, String>,
    stream: Stream,
    text: &[u8],
    ends: bool,
    time: Timestamp,
) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut field = |name: &str, value: &[u8]| {
        entry.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value);
        entry.push(b'\n');
    };
    field("MESSAGE", text);
    field("PRIORITY", severity(stream).to_string().as_bytes());
    field("SYSLOG_TIMESTAMP", time.to_string().as_bytes());
    for (name, value) in fields {
        field(name, value.as_bytes());
    }
    if !ends {
        field("CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_standards_form() {
        let time: Timestamp = "2026-11-02T03:04:05.123456789Z".parse().unwrap();
        let pid = std::process::id();
        let message = |format| {
            let syslog = Syslog { facility: 3, format, hostname: "host".into(), tag: "tag".into() };
            String::from_utf8(syslog.message(Stream::Stderr, b"text", time)).unwrap()
        };
        assert_eq!(message(SyslogFormat::Local), format!("<27>Nov  2 03:04:05 tag[{pid}]: text\n"));
        assert_eq!(message(SyslogFormat::Rfc3164), format!("<27>Nov  2 03:04:05 host tag[{pid}]: text\n"));
        assert_eq!(
            message(SyslogFormat::Rfc5424Micro),
            format!("<27>1 2026-11-02T03:04:05.123456Z host tag {pid} tag - text\n")
        );
    }

    #[test]
    fn a_journal_entry_survives_newlines() {
        let fields = BTreeMap::from([("CONTAINER_NAME".to_owned(), "x".to_owned())]);
        let entry = journal(&fields, Stream::Stdout, b"a\nb", false, Timestamp::UNIX_EPOCH);
        assert!(entry.starts_with(b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=6\n"));
        assert!(entry.ends_with(b"CONTAINER_NAME=x\nCONTAINER_PARTIAL_MESSAGE=true\n"));
    }
}
