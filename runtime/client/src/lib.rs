//! Spawns berth-shim and speaks to it.
//!
//! This crate is the daemon's side of the process boundary below which containers live: nothing here forks,
//! mounts or enters a namespace. A [`Shim`] is a handle to one shim process and so to one container; dropping
//! it, or the whole daemon's death, changes nothing for the container. [`ShimSpawner::reconnect`] finds it again.
//!
//! ```text
//!   bundle::write ─ ShimSpawner::spawn ─ Shim::{attach} ─ create ─ start ─ … ─ wait
//!   after a daemon restart: ShimSpawner::reconnect -> Alive(Shim) | Exited(record) | Lost
//! ```

pub mod bundle;
mod error;
mod link;
mod records;
mod run;
mod shim;
mod spawner;

pub use berth_shim_protocol as protocol;
pub use error::ClientError;
pub use records::read_exit;
pub use run::{Output, RunRequest, run_to_completion};
pub use shim::{Attached, EventStream, Shim};
pub use spawner::{Reconnected, ShimSpawner};
