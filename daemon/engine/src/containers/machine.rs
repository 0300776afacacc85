//! The life of a container.
//!
//! ```text
//!             create                 start                  pause
//!   creating ────────▶ created ───────────────▶ running ◀──────────▶ paused
//!                        │                     ▲  │  │      unpause     │
//!                        │      start (timer)  │  │  │ exit             │ exit (kill)
//!                        │         ┌───────────┘  │  └─────┐            │
//!                        │         │   exit, to   │        ▼            │
//!                        │     restarting ◀───────┘      exited ◀───────┘
//!                        │      be restarted  │stop        │  ▲ │
//!                        │                    └────────────┼──┘ │ start ─▶ running
//!                        ▼                                 ▼    │
//!                     removing ◀───────────────────────────┴────┘
//!                        │  │ could not remove everything
//!                  gone ◀┘  └────▶ dead ──▶ removing (again)
//! ```
//!
//! `creating` and `removing` are intents: what a daemon finds in them at its start was interrupted, and is undone
//! or finished. A start that fails leaves the state as it was, with the reason beside it.

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Being made; no one can see it yet.
    Creating,
    /// Made, never started.
    #[default]
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended; the restart policy will start it again.
    Restarting,
    /// Ended.
    Exited,
    /// Its removal failed; only another removal is possible.
    Dead,
    /// Being removed.
    Removing,
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its making is complete.
    Made,
    /// Its program runs.
    Started,
    /// It is frozen.
    Paused,
    /// It is thawed.
    Resumed,
    /// It ended and will be started again.
    EndedToRestart,
    /// It ended, or its restart was called off.
    Ended,
    /// It is to be removed.
    Remove,
    /// Something of it could not be removed.
    RemovalFailed,
}

/// The change is not possible from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {} cannot take the change {change:?}", phase.as_str())]
pub(crate) struct Impossible {
    phase: Phase,
    change: Change,
}

impl Phase {
    /// Docker's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating | Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Removing => "removing",
        }
    }

    /// What docker calls running: also paused, and waiting for the restart policy.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether there is a process.
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// The phase after a change.
    pub(crate) fn after(self, change: Change) -> Result<Self, Impossible> {
        use Change as C;
        match (self, change) {
            (Self::Creating, C::Made) => Ok(Self::Created),
            (Self::Created | Self::Exited | Self::Restarting, C::Started) => Ok(Self::Running),
            (Self::Running, C::Paused) => Ok(Self::Paused),
            (Self::Paused, C::Resumed) => Ok(Self::Running),
            (Self::Running | Self::Paused, C::EndedToRestart) => Ok(Self::Restarting),
            (Self::Running | Self::Paused | Self::Restarting, C::Ended) => Ok(Self::Exited),
            (Self::Creating | Self::Created | Self::Exited | Self::Dead | Self::Removing, C::Remove) => {
                Ok(Self::Removing)
            }
            (Self::Removing, C::RemovalFailed) => Ok(Self::Dead),
            _ => Err(Impossible { phase: self, change }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 8] = [
        Phase::Creating,
        Phase::Created,
        Phase::Running,
        Phase::Paused,
        Phase::Restarting,
        Phase::Exited,
        Phase::Dead,
        Phase::Removing,
    ];

    fn walk(changes: &[Change]) -> Result<Phase, Impossible> {
        changes.iter().try_fold(Phase::Creating, |phase, change| phase.after(*change))
    }

    #[test]
    fn whole_lives() {
        use Change as C;
        assert_eq!(
            walk(&[C::Made, C::Started, C::Paused, C::Resumed, C::Ended, C::Started]),
            Ok(Phase::Running)
        );
        assert_eq!(walk(&[C::Made, C::Started, C::EndedToRestart, C::Started]), Ok(Phase::Running));
        assert_eq!(walk(&[C::Made, C::Started, C::EndedToRestart, C::Ended, C::Remove]), Ok(Phase::Removing));
        assert_eq!(walk(&[C::Made, C::Remove, C::RemovalFailed, C::Remove]), Ok(Phase::Removing));
        assert_eq!(walk(&[C::Remove]), Ok(Phase::Removing));
    }

    #[test]
    fn what_is_alive_must_end_before_it_is_removed() {
        for phase in PHASES {
            assert_eq!(phase.after(Change::Remove).is_ok(), !phase.is_running(), "{phase:?}");
        }
    }

    #[test]
    fn nothing_returns_from_death_or_removal() {
        for phase in [Phase::Dead, Phase::Removing] {
            for change in [Change::Started, Change::Paused, Change::Resumed, Change::Ended, Change::Made] {
                assert!(phase.after(change).is_err(), "{phase:?} {change:?}");
            }
        }
    }

    #[test]
    fn an_exit_is_only_possible_once() {
        assert!(walk(&[Change::Made, Change::Started, Change::Ended, Change::Ended]).is_err());
    }
}
