//! How a container and its execs end.
//!
//! ```text
//!   init is reaped ─▶ its cgroup is killed (with a pid namespace of its own there is nobody left)
//!     ─▶ output is read to its end, execs are reaped    at most 2 s, should somebody else hold a pipe
//!     ─▶ log complete ─▶ cgroup, socket, state.json gone ─▶ exit.json ─▶ Event::Exited
//!     ─▶ attached streams are flushed, shut down, closed ─▶ the shim ends
//! ```
//!
//! The cgroup goes before the record is written: whoever reads the record may create the same container again at
//! once, and a shim killed in between leaves nothing that only the record would explain.

use std::time::{Duration, Instant};

use berth_shim_protocol::{Event, ExecRecord, ExitRecord, Failure, Phase, SIGNAL_EXIT_BASE, files};
use berth_sys::{pidfd::ExitStatus, procfs};
use jiff::Timestamp;
use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};

use crate::{machine::Change, record, shim::Shim};

/// How long output is awaited that a process holds back which is not the container's main one.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// A process that was reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) at: Timestamp,
    /// Its output is not awaited any longer.
    pub(crate) deadline: Instant,
}

impl Ended {
    pub(crate) fn now(status: ExitStatus) -> Self {
        Self { status, at: Timestamp::now(), deadline: Instant::now() + DRAIN }
    }

    pub(crate) fn code(&self) -> i32 {
        self.status.shell_code()
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline <= Instant::now()
    }
}

/// Init is dead; what it left is being drained.
#[derive(Debug)]
pub(crate) struct Ending {
    ended: Ended,
}

impl Ending {
    pub(crate) fn deadline(&self) -> Instant {
        self.ended.deadline
    }
}

impl Shim {
    pub(crate) fn init_died(&mut self, ended: Ended) {
        self.change(Change::InitDied);
        self.ending = Some(Ending { ended });
        if let Some(container) = &self.container
            && let Err(error) = container.kill_rest()
        {
            eprintln!("killing what init left behind: {error}");
        }
        self.hub.drain(&mut self.scratch);
    }

    /// Record what has ended and is drained: execs first, for their container's record ends the story.
    pub(crate) fn end_what_has_ended(&mut self) {
        let overdue = self.ending.as_ref().is_some_and(|ending| ending.ended.is_overdue());
        for id in self.execs.keys().copied().collect::<Vec<_>>() {
            self.end_exec(id, overdue);
        }
        if let Some(Ending { ended }) = &self.ending
            && self.phase() == Phase::Ending
            && (overdue || (self.hub.is_drained() && !self.execs.values().any(|exec| exec.is_running())))
        {
            let (code, at) = (ended.code(), ended.at);
            let signal = match ended.status {
                ExitStatus::Signal(signal) => Some(signal),
                ExitStatus::Code(_) => None,
            };
            let started_at = self.started_at;
            self.conclude(ExitRecord { code, signal, oom_killed: false, started_at, at, error: None });
        }
    }

    /// The container's program could not be run.
    pub(crate) fn start_failed(&mut self, failure: &Failure) {
        let (code, at) = (failure.kind.exit_code(), Timestamp::now());
        let error = Some(failure.message.clone());
        self.conclude(ExitRecord { code, signal: None, oom_killed: false, started_at: None, at, error });
    }

    /// The one end of every container that was created and not shut down.
    fn conclude(&mut self, mut exit: ExitRecord) {
        self.check_oom();
        exit.oom_killed = self.oom_killed;
        self.oom = None;
        self.hub.take_rest(&mut self.scratch);
        let mut problems: Vec<String> = Vec::new();
        if let Some(container) = self.container.take() {
            problems.extend(container.remove().iter().map(ToString::to_string));
        }
        for problem in &problems {
            eprintln!("removing the container: {problem}");
        }
        if !problems.is_empty() {
            exit.error.get_or_insert(problems.join("; "));
        }
        self.leave_directory();
        if let Err(error) = record::write(&self.dir, files::EXIT, &exit) {
            eprintln!("{error}");
        }
        self.exit = Some(exit.clone());
        self.change(Change::Recorded);
        self.announce(Event::Exited(exit));
        self.hub.finish();
    }

    fn end_exec(&mut self, hub: u32, container_overdue: bool) {
        let Some(exec) = self.execs.get_mut(&hub) else { return };
        let ended = match (&exec.ended, container_overdue) {
            (Some(ended), _) if exec.hub.is_drained() || ended.is_overdue() || container_overdue => *ended,
            // The container is dead and yet this process cannot be reaped: it hangs in the kernel.
            (None, true) => Ended::now(ExitStatus::Signal(Signal::SIGKILL as i32)),
            _ => return,
        };
        if !exec.is_running() {
            return;
        }
        exec.recorded = true;
        exec.hub.take_rest(&mut self.scratch);
        let code = ended.code();
        let record = ExecRecord { exec_id: exec.id.clone(), code, at: ended.at };
        if let Err(error) = record::write(&self.dir, &files::exec_record(&record.exec_id), &record) {
            eprintln!("{error}");
        }
        self.announce(Event::ExecExited(record));
        if let Some(exec) = self.execs.get_mut(&hub) {
            exec.hub.tell_exit(code);
            exec.hub.finish();
        }
    }

    /// The memory controller has something to say.
    pub(crate) fn oom_ready(&mut self) {
        if let Some(watch) = &self.oom
            && let Err(error) = watch.get().drain()
        {
            eprintln!("reading the out-of-memory notification: {error}");
            self.oom = None;
        }
        self.check_oom();
    }

    fn check_oom(&mut self) {
        let Some(container) = &mut self.container else { return };
        if container.new_oom_kills() {
            self.oom_killed = true;
            self.announce(Event::Oom);
        }
    }

    /// As a subreaper we inherit what the container's processes leave behind, if it has no pid namespace of its
    /// own. Init and execs are not touched: their status is not lost here.
    pub(crate) fn reap_orphans(&mut self) {
        // Almost always there is nobody, and that is known sooner than a list is read.
        let dead = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if matches!(waitid(Id::All, dead), Ok(WaitStatus::StillAlive) | Err(_)) {
            return;
        }
        let pid = nix::unistd::getpid();
        // Without CONFIG_PROC_CHILDREN there is no such file; then orphans stay zombies until we end.
        let Ok(children) = procfs::read_text(format!("/proc/self/task/{pid}/children")) else { return };
        for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
            let helps = self.hub.helper().is_some_and(|helper| u32::try_from(child) == Ok(helper));
            let known = helps
                || self.container.as_ref().is_some_and(|container| container.pid() == child)
                || self.execs.values().any(|exec| exec.ended.is_none() && exec.pid() == child);
            if !known {
                // Nobody asks how it ended.
                waitpid(Pid::from_raw(child), Some(WaitPidFlag::WNOHANG)).ok();
            }
        }
    }
}

const _: () = assert!(SIGNAL_EXIT_BASE == 128, "ExitStatus::shell_code adds 128");
