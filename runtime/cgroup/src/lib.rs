//! Control groups: a pure plan of writes, its application, and readers of statistics; by ourselves or through systemd.
//!
//! ```text
//!   oci::LinuxResources ──plan──▶ Plan (file, value, how)* ──apply──▶ /sys/fs/cgroup/…
//!                        pure                               I/O
//! ```
//!
//! Version 2, version 1 and hybrid hosts share the plan's shape, the [`Stats`] and the [`Cgroup`] handle. A process
//! joins by itself ([`Cgroup::join_self`]) or is born inside ([`Cgroup::dir_fd`] with CLONE_INTO_CGROUP): moving
//! another process takes a global lock and an RCU grace period (about 10 ms for each hierarchy).

mod delegation;
mod device;
mod dir;
mod error;
mod group;
mod layout;
mod oom;
mod plan;
pub mod resctrl;
mod signals;
mod stats;
mod systemd;
mod tree;
mod v1;
mod v2;

pub use error::CgroupError;
pub use group::{Cgroup, FreezerState};
pub use layout::{Hierarchy, Layout, detect};
pub use oom::OomWatch;
pub use plan::{Plan, Write};
pub use stats::{
    CpuStats, HugePageStats, IoStats, MemoryStats, PidsStats, Pressure, PressureStats, Stall, Stats,
};
pub use systemd::Unit;
pub use tree::prune;
