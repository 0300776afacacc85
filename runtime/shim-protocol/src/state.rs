//! What a shim holds at one moment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ExitRecord;

/// Where the container is in its life; the diagram is at the head of the shim's `machine` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There is a shim but no container yet.
    Empty,
    /// It is prepared; its program does not run.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// Init is dead; output is being drained.
    Ending,
    /// It has ended and its record is written.
    Exited,
}

/// What a shim holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The shim's own pid.
    pub shim_pid: i32,
    /// Where the container is in its life.
    pub phase: Phase,
    /// Init's pid on the host, from `Created` on until it is dead.
    pub pid: Option<i32>,
    /// When its program began.
    pub started_at: Option<Timestamp>,
    /// The kernel has killed a process of it for want of memory.
    pub oom_killed: bool,
    /// The execs that run; for those that ended see their records.
    pub execs: Vec<RunningExec>,
    /// How it ended, in the phase `Exited`.
    pub exit: Option<ExitRecord>,
}

/// An exec that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningExec {
    /// Which.
    pub exec_id: String,
    /// Its pid on the host.
    pub pid: i32,
}
