//! Checkpoint and restore, by the program criu(8).
//!
//! ```text
//!  checkpoint ─▶ dump.rs ────┐                       ┌─▶ images, descriptors.json, dump.log
//!                            ├─ options ─ criu.rs ───┤
//!  restore ────▶ restore.rs ─┘   rpc.rs  (criu swrk) └─▶ the container's processes, as our children
//!                 mounts.rs: what of the container's mounts is not its own
//! ```
//!
//! CRIU dumps and restores processes and what they hold. Cgroup, mount points and hooks are ours, as in `create`. Nothing
//! here runs unless one of the two commands does.

mod core_image;
mod criu;
mod dump;
mod mounts;
mod options;
mod restore;
mod rpc;

pub(crate) use dump::Dump;
pub(crate) use options::Shared;
pub(crate) use restore::Restore;

/// The standard streams at the time of the dump, beside CRIU's images: a list of what `/proc/<pid>/fd` shows.
const DESCRIPTORS: &str = "descriptors.json";
