//! The container process: who it is, what it may do and what it executes.

use std::ffi::CString;
use std::path::PathBuf;

use crate::oci;
use crate::seccomp::SeccompProgram;
use crate::step::InitStep;

/// `process`, compiled; for the container's first process and for exec alike.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// Arguments; empty only for a container without a program.
    pub args: Vec<CString>,
    /// Environment as given. The runtime adds HOME from the container's passwd file when it is missing.
    pub env: Vec<CString>,
    /// True if `env` has no HOME.
    pub needs_home: bool,
    /// Working directory, absolute inside the container.
    pub cwd: PathBuf,
    /// The user.
    pub user: UserPlan,
    /// A terminal, if one was asked for.
    pub terminal: Option<TerminalPlan>,
    /// Capability sets; `None` leaves the inherited ones alone.
    pub capabilities: Option<CapabilityPlan>,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// The seccomp filter.
    pub seccomp: Option<SeccompProgram>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    pub scheduler: Option<SchedulerPlan>,
    /// I/O priority.
    pub io_priority: Option<IoPriority>,
    /// AppArmor profile to change to on exec.
    pub apparmor: Option<String>,
    /// SELinux label to change to on exec.
    pub selinux: Option<String>,
    /// The process lives in a user namespace that is not the runtime's.
    pub in_user_namespace: bool,
    /// CPU affinity around an exec.
    pub cpu_affinity: CpuAffinity,
    /// For an exec: what it runs after setns, in order, the last of them [`InitStep::Exec`]. Empty for a container's
    /// first process, whose steps are part of [`crate::ContainerPlan::steps`].
    pub steps: Vec<InitStep>,
    /// For an exec: what its parent does from outside when the process is in a user namespace.
    pub parent: Vec<crate::plan::ParentStep>,
}

/// The terminal of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TerminalPlan {
    /// Initial size as (rows, columns).
    pub size: Option<(u16, u16)>,
}

/// The identity of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserPlan {
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; the runtime's default (0022) if not given.
    pub umask: u32,
}

/// A set of capabilities as the bits of capabilities(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySet(pub u64);

/// The five sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilityPlan {
    /// Bounding set; dropped before the change of user.
    pub bounding: CapabilitySet,
    /// Effective set.
    pub effective: CapabilitySet,
    /// Inheritable set.
    pub inheritable: CapabilitySet,
    /// Permitted set.
    pub permitted: CapabilitySet,
    /// Ambient set.
    pub ambient: CapabilitySet,
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Name as in config.json, for messages.
    pub kind: oci::PosixRlimitType,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Arguments of sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedulerPlan {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// Deadline scheduler: run time, ns.
    pub runtime: u64,
    /// Deadline scheduler: deadline, ns.
    pub deadline: u64,
    /// Deadline scheduler: period, ns.
    pub period: u64,
}

/// Arguments of ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    /// 1 real time, 2 best effort, 3 idle.
    pub class: u8,
    /// 0 (highest) to 7.
    pub level: u8,
}

impl IoPriority {
    /// The value for ioprio_set(2).
    #[must_use]
    pub const fn value(self) -> i32 {
        ((self.class as i32) << 13) | self.level as i32
    }
}

/// `process.execCPUAffinity`: CPU numbers before and after the join of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuAffinity {
    /// Set by the runtime before the process is moved to the container's cgroup.
    pub initial: Option<Vec<usize>>,
    /// Set after it.
    pub last: Option<Vec<usize>>,
}
