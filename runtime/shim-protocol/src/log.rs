//! Where a container's output is kept, and where it is sent.

use std::{
    collections::BTreeMap, fs::Metadata, net::SocketAddr, os::unix::fs::MetadataExt as _, path::PathBuf,
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

/// Where a container's output is kept, and where it is sent; the default is neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// What `docker logs` reads.
    pub file: Option<LogFile>,
    /// A log service.
    pub forward: Option<Forward>,
}

/// A file; lines over 16 KiB are in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// How an entry is written.
    #[serde(default)]
    pub format: LogFormat,
    /// The current file; older ones are `<path>.1` (newest) and so on.
    pub path: PathBuf,
    /// Rotate when the file has at least so many bytes; 0: never.
    pub max_size: u64,
    /// How many files there may be, the current one included; with 1 the file is emptied instead.
    pub max_file: u32,
    /// Older files are compressed, to `<path>.1.gz`; what the comment in such a file is, [`identity`] says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// What stands beside each line: labels, variables, the tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Which file this is, whatever its name has become: a reader knows it again by that, also once it was compressed. The
/// inode's number alone may come again.
pub fn identity(file: &Metadata) -> String {
    let born = file.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{} {}", file.ino(), born.unwrap_or_default().as_nanos())
}

/// How an entry of a log file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Docker's `json-file`: an object `{"log","stream","attrs","time"}`.
    #[default]
    Json,
    /// Kubernetes': `<time> <stdout|stderr> <F|P> <text>`, the parts of a line being `P … P F`. Whoever rotates the file
    /// sends [`Op::ReopenLog`](crate::Op::ReopenLog).
    Cri,
    /// The `local` driver's: [blocks](crate::block) of output as it came.
    Local,
}

/// A log service that gets each line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Which.
    pub to: Target,
    /// When so many bytes wait for the service, further lines are dropped; none: the container waits.
    #[serde(default)]
    pub drop_beyond: Option<u64>,
}

/// Which log service, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// syslog(3), RFC 3164, RFC 5424.
    Syslog {
        /// Where it listens.
        address: SyslogAddress,
        /// Facility, 0 to 23.
        facility: u8,
        /// How a message is written.
        format: SyslogFormat,
        /// Name of this host.
        hostname: String,
        /// Who speaks.
        tag: String,
    },
    /// The journal's native protocol.
    Journald {
        /// Its socket.
        socket: PathBuf,
        /// Fields of every entry beside the message.
        fields: BTreeMap<String, String>,
    },
}

/// Where a syslog service listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogAddress {
    /// A datagram socket.
    Unix(PathBuf),
    /// UDP.
    Udp(SocketAddr),
    /// TCP; messages end with a newline.
    Tcp(SocketAddr),
    /// A program that the shim runs: it takes on its standard input what would go over TCP, and sends that on.
    Relay {
        /// Its file.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// How a message for syslog is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// As programs of this host write to /dev/log: no host name.
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, time in seconds.
    Rfc5424,
    /// RFC 5424, time in microseconds.
    Rfc5424Micro,
}
