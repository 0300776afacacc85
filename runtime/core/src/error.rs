//! What can go wrong, for callers; and what a child process says when it fails.

use std::fmt;
use std::path::{Path, PathBuf};

use berth_cgroup::CgroupError;
use berth_spec::SpecError;
use berth_sys::Errno;
use serde::{Deserialize, Serialize};

/// What a failure means to whoever asked; the docker CLI derives exit codes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program does not exist (127).
    NotFound,
    /// The program may not be executed (126).
    PermissionDenied,
    /// The program is a directory (126).
    IsDirectory,
    /// Anything else.
    Other,
}

/// A failure in the child, as it travels to the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildFailure {
    /// The step of the plan that failed, e.g. `Mount`.
    pub step: String,
    /// What was tried and on which path.
    pub message: String,
    /// The kernel's answer, if there was one.
    pub errno: Option<i32>,
    /// What it means.
    pub kind: FailureKind,
    /// The cause in the user's terms, and the way out.
    #[serde(default)]
    pub hint: Option<String>,
}

impl ChildFailure {
    /// The name of the step that becomes the program.
    pub(crate) const EXEC: &'static str = "Exec";

    /// Without the hint: `exec /program: no such file or directory`.
    #[must_use]
    pub fn bare(&self) -> String {
        match self.errno {
            Some(code) => format!("{}: {}", self.message, errno_text(Errno::from_raw(code))),
            None => self.message.clone(),
        }
    }

    /// Everything was ready, and the kernel would not execute the program.
    #[must_use]
    pub fn is_of_the_program(&self) -> bool {
        self.step == Self::EXEC && self.errno.is_some()
    }
}

impl fmt::Display for ChildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bare())?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The text of an error number as Go programs print it, which is what clients match: with a small initial.
pub(crate) fn errno_text(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !text.starts_with("RFS") => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// A failed operation of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `config.json` is invalid.
    #[error("invalid config.json: {0}")]
    Spec(#[from] SpecError),
    /// The cgroup could not be made, changed or removed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A step of the child failed.
    #[error("unable to start container process: {0}")]
    Child(ChildFailure),
    /// The child died without a word.
    #[error("unable to start container process: it was ended {how} during its set-up{}", hint_if_killed(how))]
    ChildDied {
        /// `by signal 9` or `with exit code 1`.
        how: String,
    },
    /// The child broke the protocol.
    #[error("the container's init sent {got} while {expected} was expected")]
    Protocol {
        /// What came.
        got: String,
        /// What should have come.
        expected: &'static str,
    },
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {}: {problem}", path.display())]
    Hook {
        /// The point of the life cycle.
        kind: &'static str,
        /// Index in its list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// How it failed, with what it printed.
        problem: String,
    },
    /// A system call failed.
    #[error("{operation}: {}", errno_text(*errno))]
    Os {
        /// What was tried, with the path.
        operation: String,
        /// The answer.
        errno: Errno,
    },
    /// Something about a file.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// A state file does not hold what it should.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's complaint.
        source: serde_json::Error,
    },
    /// There is no such container.
    #[error("container {id:?} does not exist")]
    NoContainer {
        /// Its id.
        id: String,
    },
    /// There is such a container already.
    #[error("container with given ID {id:?} already exists (choose another id, or delete it first)")]
    Exists {
        /// Its id.
        id: String,
    },
    /// The operation does not fit the container's status.
    #[error("{0}")]
    Status(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Several things went wrong while cleaning up.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Many(Vec<Error>),
}

fn hint_if_killed(how: &str) -> &'static str {
    if how == "by signal 9" { " (is its memory limit too low?)" } else { "" }
}

impl Error {
    /// What the failure means to whoever asked.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Child(failure) => failure.kind,
            Self::Many(errors) => errors.first().map_or(FailureKind::Other, Self::kind),
            _ => FailureKind::Other,
        }
    }

    pub(crate) fn os(operation: impl Into<String>, errno: Errno) -> Self {
        Self::Os { operation: operation.into(), errno }
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}

/// A failed step, inside the child.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) errno: Option<Errno>,
    pub(crate) kind: FailureKind,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), errno: None, kind: FailureKind::Other, hint: None }
    }

    pub(crate) fn os(message: impl Into<String>, errno: Errno) -> Self {
        Self { errno: Some(errno), ..Self::new(message) }
    }

    /// Adds the cause in the user's terms.
    pub(crate) fn hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// Adds what was tried to a bare error number.
pub(crate) trait Context<T> {
    fn at(self, message: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn at(self, message: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|errno| Fault::os(message(), errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_clients_match() {
        let failure = ChildFailure {
            step: "ResolveExecutable".into(),
            message: "exec: \"/x\"".into(),
            errno: Some(Errno::EACCES as i32),
            kind: FailureKind::PermissionDenied,
            hint: Some("chmod +x".into()),
        };
        let text = Error::Child(failure).to_string();
        assert_eq!(text, "unable to start container process: exec: \"/x\": permission denied (chmod +x)");
        assert_eq!(errno_text(Errno::ENOENT), "no such file or directory");
        assert_eq!(errno_text(Errno::EISDIR), "is a directory");
    }
}
