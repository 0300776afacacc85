//! What can go wrong with a project on an engine.

use std::{io, path::PathBuf};

use crate::load::LoadError;

/// A result of an operation on a project.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on a project failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The files are wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine refused.
    #[error("{what}")]
    Engine {
        /// What was tried.
        what: String,
        /// The engine's words.
        #[source]
        source: berth_client::Error,
    },
    /// A service asks for what cannot be done.
    #[error("service {service:?}: {message}")]
    Service {
        /// Service.
        service: String,
        /// What.
        message: String,
    },
    /// A dependency did not come up.
    #[error("dependency failed to start: {0}")]
    Dependency(String),
    /// A dependency that had to end well did not.
    #[error("service {service:?} didn't complete successfully: exit {code}")]
    Incomplete {
        /// Dependency.
        service: String,
        /// Its exit code.
        code: i64,
    },
    /// Waiting took too long.
    #[error("application not healthy after {0}s")]
    Timeout(u64),
    /// A command of a hook failed.
    #[error("{service} hook exited with status {code}")]
    Hook {
        /// Service.
        service: String,
        /// Its exit code.
        code: i64,
    },
    /// A file of a config, secret or profile cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What stands in the way must be taken away by the user.
    #[error("{0}")]
    Conflict(String),
    /// Building or pulling failed.
    #[error("{0}")]
    Image(String),
    /// A task broke down.
    #[error("a task broke down")]
    Task(#[from] tokio::task::JoinError),
}

/// Adds what was tried to an engine's error.
pub(crate) trait Context<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for berth_client::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Engine { what: what(), source })
    }
}

impl Error {
    pub(crate) fn service(service: &str, message: impl Into<String>) -> Self {
        Self::Service { service: service.to_owned(), message: message.into() }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if source.is_not_found())
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if source.is_conflict())
    }
}
