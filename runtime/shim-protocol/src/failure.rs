//! Why an operation failed.

use serde::{Deserialize, Serialize};

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people; where a program could not be run, in runc's words (`exec: "x": executable file not found in
    /// $PATH`), from which docker's command line computes its exit code.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What sort of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program, or its interpreter or working directory, does not exist.
    NotFound,
    /// The program may not be executed.
    PermissionDenied,
    /// The program is a directory.
    IsDirectory,
    /// The kernel does not take the file for a program (`exec format error`).
    NotExecutable,
    /// The request contradicts itself or config.json is invalid.
    Invalid,
    /// There is a container already, or an exec of that name.
    AlreadyExists,
    /// The container is not created yet.
    NotCreated,
    /// The container does not run.
    NotRunning,
    /// The container runs already.
    AlreadyRunning,
    /// The container is paused.
    Paused,
    /// The container is not paused.
    NotPaused,
    /// No such exec, or it has ended.
    NoSuchExec,
    /// No such session.
    NoSuchSession,
    /// The process has no terminal.
    NoTerminal,
    /// The answer is longer than a packet can be.
    TooLarge,
    /// The kernel or the host refused something.
    System,
}

impl FailureKind {
    /// The exit code that a process which failed in this way is said to have, as in dockerd: 127 not found, 126
    /// not permitted or a directory, 128 everything else.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::PermissionDenied | Self::IsDirectory => 126,
            _ => 128,
        }
    }
}
