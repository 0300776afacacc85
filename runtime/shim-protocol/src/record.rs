//! How processes ended, as events and as durable records in the run directory.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A process that signal `n` ended has the exit code `128 + n`, as in sh(1).
pub const SIGNAL_EXIT_BASE: i32 = 128;

/// How the container ended; `exit.json` in the run directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Init's exit code; 128 + n after signal n; 126, 127 or 128 when it could not be started.
    pub code: i32,
    /// The signal that ended init.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When its program began; none if it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
    /// Why it could not be started, or what went wrong in its teardown.
    pub error: Option<String>,
}

/// How an exec ended; `exec-<id>.json` in the run directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRecord {
    /// Which.
    pub exec_id: String,
    /// Its exit code; 128 + n after signal n.
    pub code: i32,
    /// When it ended.
    pub at: Timestamp,
}
