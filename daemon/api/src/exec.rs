//! Execs: further processes in a running container.

//!
//! A client that offers to switch to [`RUN`] when it creates an exec asks to have it run at once: it is answered by
//! `101 UPGRADED`, and the connection is the exec's. Its output is framed, with a terminal or without, and ends with a frame
//! of [`crate::stdcopy::Stream::Exit`]. An engine that does not know this creates the exec and answers `201 Created`, as to
//! everybody else.

use serde::{Deserialize, Serialize};

use crate::wire::is_default;

/// What a client offers to switch to (`Upgrade:`) that wants an exec created, run and its exit code in one exchange.
pub const RUN: &str = "berth-exec";

/// The header that then names the exec.
pub const RUN_ID: &str = "berth-exec-id";

wire! {
    /// Body of `POST /containers/{id}/exec`.
    pub struct ExecConfig {
        /// `user[:group]`; empty takes the container's.
        pub user: String,
        /// Whether the process has all capabilities.
        pub privileged: bool,
        /// Whether it has a terminal.
        pub tty: bool,
        /// Height and width of the terminal.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<[u16; 2]>,
        /// Whether a client attaches to stdin.
        pub attach_stdin: bool,
        /// Whether a client attaches to stderr.
        pub attach_stderr: bool,
        /// Whether a client attaches to stdout.
        pub attach_stdout: bool,
        /// Of no effect here; see [`ExecStartRequest::detach`].
        pub detach: bool,
        /// Keys that detach, `ctrl-p,ctrl-q`. The SDK for Python writes it small.
        #[serde(alias = "detachKeys")]
        pub detach_keys: String,
        /// Environment added to the container's.
        pub env: Option<Vec<String>>,
        /// Working directory; empty takes the container's.
        pub working_dir: String,
    }
    strings {
        /// Command and arguments.
        pub cmd: Option<Vec<String>>,
    }

    /// Body of `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        /// Whether to answer at once and let it run.
        pub detach: bool,
        /// Must be what create said.
        pub tty: bool,
        /// Height and width of the terminal.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<[u16; 2]>,
    }

    /// Answer of `GET /exec/{id}/json`.
    pub struct ExecInspect {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Whether it runs.
        pub running: bool,
        /// Exit code; `None` before the end.
        pub exit_code: Option<i64>,
        /// What runs.
        pub process_config: ExecProcessConfig,
        /// Whether stdin is attached.
        pub open_stdin: bool,
        /// Whether stderr is attached.
        pub open_stderr: bool,
        /// Whether stdout is attached.
        pub open_stdout: bool,
        /// Always false.
        pub can_remove: bool,
        /// Container's id.
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// Keys that detach.
        pub detach_keys: String,
        /// Process on the host; 0 before the start.
        pub pid: i64,
    }
}

/// What an exec runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecProcessConfig {
    /// Whether it has a terminal.
    pub tty: bool,
    /// Program.
    pub entrypoint: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Whether it has all capabilities.
    pub privileged: bool,
    /// User, if one was asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
}
