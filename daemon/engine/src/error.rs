//! The one error of this crate: a kind for programs and docker's text for people.

use std::fmt;
use std::io;
use std::path::Path;

use berth_runtime_client::ClientError;
use berth_runtime_client::protocol::FailureKind;

/// Result of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What kind of failure it was; the edge maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named thing does not exist.
    NotFound,
    /// The state of things forbids it now.
    Conflict,
    /// The request makes no sense.
    InvalidParameter,
    /// It is so already; nothing was done.
    NotModified,
    /// It is never allowed.
    Forbidden,
    /// The credentials are missing or wrong.
    Unauthorized,
    /// It took longer than it was allowed to.
    Timeout,
    /// Somebody else, a registry for instance, cannot be reached.
    Unavailable,
    /// It is understood, but not supported.
    NotImplemented,
    /// The host or Berth itself failed.
    Internal,
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError {
    kind: Kind,
    message: String,
    exit_code: Option<i64>,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub(crate) fn $name(message: impl Into<String>) -> Self {
            Self::new(Kind::$kind, message)
        }
    )*};
}

impl EngineError {
    /// A failure of this kind with this text.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None }
    }

    constructors! {
        not_found => NotFound,
        conflict => Conflict,
        invalid => InvalidParameter,
        not_modified => NotModified,
        forbidden => Forbidden,
        not_implemented => NotImplemented,
        internal => Internal,
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text for the user.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The exit code of the command that failed, if one did (a build step).
    #[must_use]
    pub fn exit_code(&self) -> Option<i64> {
        self.exit_code
    }

    pub(crate) fn with_exit_code(self, code: Option<i64>) -> Self {
        Self { exit_code: code, ..self }
    }

    /// A failed call of the operating system: what was tried, on which path.
    pub(crate) fn io(operation: &str, path: impl AsRef<Path>, error: impl Into<io::Error>) -> Self {
        Self::internal(format!("{operation} {}: {}", path.as_ref().display(), error.into()))
    }

    /// Puts words before the text.
    pub(crate) fn context(self, words: impl fmt::Display) -> Self {
        Self { message: format!("{words}: {}", self.message), ..self }
    }

    /// The errors of a teardown as one; `None` if there were none.
    pub(crate) fn collect(what: &str, errors: Vec<EngineError>) -> Option<Self> {
        let mut texts: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        match texts.len() {
            0 => None,
            1 => texts.pop().map(|text| Self::internal(format!("{what}: {text}"))),
            _ => Some(Self::internal(format!("{what}: {}", texts.join("; ")))),
        }
    }
}

/// Attaches operation and path to an error of the operating system.
pub(crate) trait IoContext<T> {
    fn during(self, operation: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn during(self, operation: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| EngineError::io(operation, path, error))
    }
}

impl From<berth_oci::ReferenceError> for EngineError {
    fn from(error: berth_oci::ReferenceError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<berth_store::StoreError> for EngineError {
    fn from(error: berth_store::StoreError) -> Self {
        use berth_store::StoreError as E;
        let kind = match &error {
            E::NoSuchImage(_) | E::NotFound { .. } => Kind::NotFound,
            E::AmbiguousId(_) | E::Reference(_) => Kind::InvalidParameter,
            E::MultipleReferences { .. } | E::HasChildren { .. } => Kind::Conflict,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<berth_network::NetworkError> for EngineError {
    fn from(error: berth_network::NetworkError) -> Self {
        use berth_network::ErrorKind as K;
        let kind = match error.kind() {
            K::NotFound => Kind::NotFound,
            K::Conflict => Kind::Conflict,
            K::Forbidden => Kind::Forbidden,
            K::InvalidParameter => Kind::InvalidParameter,
            K::Internal => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<berth_registry::RegistryError> for EngineError {
    fn from(error: berth_registry::RegistryError) -> Self {
        use berth_registry::ErrorKind as K;
        let kind = match error.kind() {
            K::NotFound => Kind::NotFound,
            K::Unauthorized => Kind::Unauthorized,
            K::Forbidden => Kind::Forbidden,
            // docker: 500. (503 says that the daemon itself has no time.)
            K::Unavailable => Kind::Internal,
            K::InvalidParameter => Kind::InvalidParameter,
            K::Internal => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ClientError> for EngineError {
    fn from(error: ClientError) -> Self {
        let kind = match error.kind() {
            Some(
                FailureKind::NotFound
                | FailureKind::PermissionDenied
                | FailureKind::IsDirectory
                | FailureKind::NotExecutable
                | FailureKind::Invalid,
            ) => Kind::InvalidParameter,
            Some(
                FailureKind::NotRunning
                | FailureKind::NotCreated
                | FailureKind::AlreadyRunning
                | FailureKind::AlreadyExists
                | FailureKind::Paused
                | FailureKind::NotPaused,
            ) => Kind::Conflict,
            Some(FailureKind::NoSuchExec | FailureKind::NoSuchSession) => Kind::NotFound,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<tokio::task::JoinError> for EngineError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(format!("an operation of the engine was cut short: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teardown_errors_are_told_together() {
        assert_eq!(EngineError::collect("remove", vec![]), None);
        let both =
            EngineError::collect("remove", vec![EngineError::internal("a"), EngineError::conflict("b")]);
        assert_eq!(both.unwrap().message(), "remove: a; b");
    }
}
