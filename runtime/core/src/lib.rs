//! The container life cycle: create, start, exec, kill, delete.
//!
//! One thread only: everything here forks. `berth-shim` and `berth-runtime` link this crate, the daemon never does.
//!
//! ```text
//!  create(): parent stage            child: init stage
//!  ─────────────────────             ───────────────────────────────────────────────
//!  compile ─ cgroup ─ clone3 ──────▶ namespaces ─ for step in plan.steps { run(step) }
//!  serve(): maps, hooks, console ◀──▶ protocol.rs
//!  CreatedContainer::start() ──────▶ gate ─ startContainer hooks ─ execve
//! ```
//!
//! Invariants:
//! * the order of a container's set-up is `ContainerPlan::steps`; this crate knows no other order;
//! * a path inside the container is only ever resolved by `openat2(RESOLVE_IN_ROOT)` on the root's descriptor;
//! * an error of the child crosses the fork as data ([`ChildFailure`]) and is told once, by the parent.
//!
//! Absent on purpose: standard streams' contents, logs, exit records (the shim's), the daemon's notions.

mod create;
pub mod elf;
mod error;
mod exec;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hooks;
mod id_maps;
mod idmap;
mod init;
mod namespaces;
mod netdev;
mod parent;
mod protocol;
mod stdio;
mod steps;
mod trace;
mod watch;

pub use create::{
    CreateRequest, CreatedContainer, Gate, Newborn, Recorder, RootfsSource, create, unmount_root,
};
pub use error::{ChildFailure, Error, FailureKind};
pub use exec::{ExecChild, ExecRequest, exec};
pub use hooks::{ContainerState, run_all_hooks, run_hooks};
pub use idmap::mapped as user_namespace;
pub use stdio::{ConsoleSink, Stdio};
pub use trace::Trace;
pub use watch::SeccompWatch;
