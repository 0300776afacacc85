//! The life of a shim and its container: what may be asked when. Pure.
//!
//! ```text
//!            Create          Start             Pause
//!   Empty ──────────▶ Created ──────▶ Running ◀──────▶ Paused
//!     │                 │    └─fails─┐   │     Resume     │
//!     │ Shutdown        │ Shutdown   │   │ init dies      │ init dies
//!     ▼                 ▼            │   ▼                │
//!   (gone)            (gone)         │ Ending ◀───────────┘   output and execs are drained
//!                                    │   │ drained, or 2 s have passed
//!                                    ▼   ▼
//!                                    Exited   cgroup gone, exit.json written, Exited sent;
//!                                        │    attached streams are flushed and closed
//!                                        ▼
//!                                      (gone)
//! ```
//!
//! In `Empty` the shim also ends when its last control connection closes: nobody would ever find it. From `Created`
//! on the daemon's death changes nothing. SIGTERM ends the shim in `Empty` and `Created` (as `Shutdown` does) and is
//! ignored later: the container must not die silently. SIGKILL cannot be ignored; init then gets SIGKILL by its
//! parent-death signal, its pid namespace dies with it, and `berth-shim sweep` removes the cgroup.

use berth_shim_protocol::{Failure, FailureKind, Op, Phase};

/// A step from one phase to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The container was made.
    Created,
    /// Its program runs.
    Started,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Resumed,
    /// Init was reaped.
    InitDied,
    /// The record is written (after `InitDied`, or because the start failed).
    Recorded,
}

/// The phase after this step; none if there is no such step from here.
pub(crate) fn next(phase: Phase, change: Change) -> Option<Phase> {
    match (phase, change) {
        (Phase::Empty, Change::Created) => Some(Phase::Created),
        (Phase::Created, Change::Started) => Some(Phase::Running),
        (Phase::Running, Change::Paused) => Some(Phase::Paused),
        (Phase::Paused, Change::Resumed) => Some(Phase::Running),
        (Phase::Created | Phase::Running | Phase::Paused, Change::InitDied) => Some(Phase::Ending),
        (Phase::Created | Phase::Ending, Change::Recorded) => Some(Phase::Exited),
        _ => None,
    }
}

/// Whether the operation may be tried in this phase.
pub(crate) fn admit(phase: Phase, op: &Op) -> Result<(), Failure> {
    use Phase::{Created, Empty, Ending, Exited, Paused, Running};
    let refusal = match (op, phase) {
        (Op::Release { .. } | Op::State, _)
        | (Op::Create(_) | Op::Shutdown | Op::Attach(_) | Op::CloseStdin, Empty)
        | (Op::Start | Op::Shutdown, Created)
        | (Op::Exec(_) | Op::Pause, Running)
        | (Op::Kill { .. } | Op::KillExec { .. } | Op::ResizeExec { .. }, Running | Paused)
        | (Op::Resume, Paused)
        | (
            Op::Attach(_)
            | Op::CloseStdin
            | Op::ReopenLog
            | Op::ResizeInit(_)
            | Op::Update(_)
            | Op::Stats
            | Op::Pids,
            Created | Running | Paused,
        ) => return Ok(()),

        (Op::Create(_), _) => FailureKind::AlreadyExists,
        (Op::Start | Op::Shutdown, Running | Paused) => FailureKind::AlreadyRunning,
        (Op::Exec(_) | Op::Pause, Paused) => FailureKind::Paused,
        (Op::Resume, Running) => FailureKind::NotPaused,
        (_, Empty) => FailureKind::NotCreated,
        (_, Created | Ending | Exited) => FailureKind::NotRunning,
    };
    Err(Failure::new(refusal, explain(refusal)))
}

fn explain(refusal: FailureKind) -> &'static str {
    match refusal {
        FailureKind::AlreadyExists => "this shim has a container already",
        FailureKind::AlreadyRunning => "container is already running",
        FailureKind::Paused => "container is paused",
        FailureKind::NotPaused => "container is not paused",
        FailureKind::NotCreated => "the container has not been created yet",
        _ => "container is not running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_shim_protocol::{Attach, Create, Exec, Framing, Log, Rootfs, StdinMode, WindowSize};
    use std::collections::BTreeSet;

    const PHASES: [Phase; 6] =
        [Phase::Empty, Phase::Created, Phase::Running, Phase::Paused, Phase::Ending, Phase::Exited];
    const CHANGES: [Change; 6] = [
        Change::Created,
        Change::Started,
        Change::Paused,
        Change::Resumed,
        Change::InitDied,
        Change::Recorded,
    ];

    fn create() -> Op {
        Op::Create(Box::new(Create {
            id: "c".into(),
            bundle: "/b".into(),
            rootfs: Rootfs::Path("/r".into()),
            terminal: false,
            console_size: None,
            stdin: StdinMode::Closed,
            log: Log::default(),
            systemd_cgroup: false,
            runtime: None,
            restore: None,
        }))
    }

    fn exec() -> Op {
        let (exec_id, process) = ("e".into(), Default::default());
        Op::Exec(Box::new(Exec { exec_id, process, console_size: None, attach: None }))
    }

    /// For every phase: admitted, or refused for this reason.
    fn check(op: Op, expected: [Result<(), FailureKind>; 6]) {
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            let answer = admit(phase, &op).map_err(|failure| failure.kind);
            assert_eq!(answer, expected, "{op:?} in {phase:?}");
        }
    }

    #[test]
    fn what_may_be_asked_when() {
        use FailureKind::{AlreadyExists, AlreadyRunning, NotCreated, NotPaused, NotRunning, Paused};
        let (ok, gone) = (Ok(()), Err(NotRunning));
        let exists = Err(AlreadyExists);
        let early = Err(NotCreated);
        check(create(), [ok, exists, exists, exists, exists, exists]);
        let running = Err(AlreadyRunning);
        check(Op::Start, [early, ok, running, running, gone, gone]);
        check(Op::Shutdown, [ok, ok, running, running, gone, gone]);
        check(Op::Attach(Attach::output(Framing::Raw)), [ok, ok, ok, ok, gone, gone]);
        check(exec(), [early, gone, ok, Err(Paused), gone, gone]);
        check(Op::Kill { signal: 9, all: false }, [early, gone, ok, ok, gone, gone]);
        check(Op::Pause, [early, gone, ok, Err(Paused), gone, gone]);
        check(Op::Resume, [early, gone, Err(NotPaused), ok, gone, gone]);
        check(Op::ResizeInit(WindowSize { rows: 1, cols: 1 }), [early, ok, ok, ok, gone, gone]);
        check(Op::ReopenLog, [early, ok, ok, ok, gone, gone]);
        check(Op::Stats, [early, ok, ok, ok, gone, gone]);
        check(Op::State, [ok; 6]);
    }

    #[test]
    fn every_path_ends_and_never_returns_to_created() {
        let mut reachable = BTreeSet::new();
        let mut open = vec![Phase::Empty];
        while let Some(phase) = open.pop() {
            if reachable.insert(format!("{phase:?}")) {
                open.extend(CHANGES.into_iter().filter_map(|change| next(phase, change)));
            }
        }
        assert_eq!(reachable.len(), PHASES.len(), "{reachable:?}");
        for change in CHANGES {
            assert_eq!(next(Phase::Exited, change), None);
        }
        let to_created: Vec<_> = PHASES
            .into_iter()
            .filter(|phase| CHANGES.into_iter().any(|change| next(*phase, change) == Some(Phase::Created)))
            .collect();
        assert_eq!(to_created, [Phase::Empty]);
    }
}
