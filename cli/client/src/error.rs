//! What can go wrong between a client and a daemon.

use http::StatusCode;

/// A result of a call to the daemon.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call to the daemon failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the daemon is not one.
    #[error("invalid host {host:?}: {reason}")]
    InvalidHost {
        /// As given.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody answers at the address.
    #[error("cannot connect to the daemon at {host}. Is it running?")]
    Connect {
        /// Address.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The daemon answered with an error.
    #[error("{message}")]
    Daemon {
        /// HTTP status.
        status: StatusCode,
        /// The daemon's message.
        message: String,
    },
    /// The daemon reported an error within a stream of progress.
    #[error("{message}")]
    InBand {
        /// The daemon's message.
        message: String,
        /// Exit code of a failed build step.
        code: Option<i64>,
    },
    /// The connection broke.
    #[error("connection to the daemon broke while {operation}")]
    Transport {
        /// Method and path.
        operation: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// Reading or writing a hijacked connection failed.
    #[error("connection to the daemon broke")]
    Io(#[from] std::io::Error),
    /// The answer cannot be understood.
    #[error("unexpected answer to {operation}: {reason}")]
    Protocol {
        /// Method and path.
        operation: String,
        /// What was unexpected.
        reason: String,
    },
    /// A request cannot be made of the arguments.
    #[error("invalid request {operation}")]
    InvalidRequest {
        /// Method and path.
        operation: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}

impl Error {
    /// The HTTP status, if the daemon answered.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Daemon { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether what was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether the daemon was in the wrong state for it.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(StatusCode::CONFLICT)
    }

    /// Whether nobody answers at the daemon's address.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
