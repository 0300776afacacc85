//! What the process is told that sends a container's messages to syslog over TLS. The shim starts it, and writes to its
//! standard input what it would write to a TCP connection.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The argument that makes berthd that process; behind it stands a [`SyslogTls`] as JSON.
pub const SYSLOG_ROLE: &str = "syslog-tls";

/// A syslog service that is spoken to over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogTls {
    /// `host:port`.
    pub address: String,
    /// In front of each message its length is said (RFC 5425).
    pub counted: bool,
    /// How the two know each other.
    pub trust: Trust,
}

/// How a syslog service and we know each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Certificates of authorities that are trusted besides the system's.
    pub authority: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Whoever answers is believed.
    pub anybody: bool,
}
