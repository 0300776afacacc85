//! What a shim sends.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Answer, ExecRecord, ExitRecord, Failure, State};

/// One packet from the shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The first packet of every connection.
    Hello(State),
    /// The end of a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub seq: u64,
    /// How it ended.
    pub result: Result<Answer, Failure>,
}

/// Something that happened to the container. An event that an operation causes comes before its reply, but for
/// `Exited` after a start that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The container's program runs.
    Started {
        /// Init's pid on the host.
        pid: i32,
        /// Since when.
        at: Timestamp,
    },
    /// The kernel killed a process of the container for want of memory.
    Oom,
    /// It is frozen.
    Paused,
    /// It runs again.
    Resumed,
    /// An exec's program runs.
    ExecStarted {
        /// Which.
        exec_id: String,
        /// Its pid on the host.
        pid: i32,
    },
    /// A client typed the keys that end its session.
    Detached {
        /// Of which exec; none: of the container itself.
        exec_id: Option<String>,
    },
    /// An exec ended; its record is in the run directory already.
    ExecExited(ExecRecord),
    /// The container ended: its log is complete, its record is in the run directory, its cgroup and shim.sock
    /// are gone, so that it can be started anew by another shim. Attached streams may still be flushing.
    Exited(ExitRecord),
}
