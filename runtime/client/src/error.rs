//! What can go wrong between the engine and a shim.

use std::{io, path::PathBuf};

use berth_shim_protocol::{Failure, FailureKind};

/// What can go wrong between the engine and a shim.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The shim refused or failed the operation; the message is meant for the user as it is.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The shim program could not be started.
    #[error("cannot start {}: {source}; is Berth installed completely?", .binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the run directory could not be read or written.
    #[error("cannot {operation} {}: {source}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection to the shim broke while something was asked, or before.
    #[error("the shim of {} has gone; its complaints, if any, are in shim.log there", .dir.display())]
    Gone {
        /// The container's run directory.
        dir: PathBuf,
    },
    /// A message could not be sent.
    #[error("cannot send to the shim of {}: {source}", .dir.display())]
    Send {
        /// The container's run directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shim answered something else than what was asked: the shim is of another version.
    #[error("the shim of {} does not answer `{operation}` as expected; was it started by another version of Berth?", .dir.display())]
    UnexpectedAnswer {
        /// The container's run directory.
        dir: PathBuf,
        /// What was asked.
        operation: &'static str,
    },
}

impl ClientError {
    /// The shim's own reason, if it was the shim that failed the operation.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Refused(failure) => Some(failure),
            _ => None,
        }
    }

    /// The kind of the shim's failure, if it was the shim that failed the operation.
    pub fn kind(&self) -> Option<FailureKind> {
        self.failure().map(|failure| failure.kind)
    }
}
