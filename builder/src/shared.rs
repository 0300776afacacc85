//! What all builds of a builder have in common.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use berth_runtime_client::ShimSpawner;
use berth_store::Store;

use crate::flights::{Flights, Slots};
use crate::{Devices, Sandboxes};

/// Where the builder keeps its things, and how much of them.
#[derive(Debug, Clone)]
pub struct BuilderDirs {
    /// Cache records, cache mounts and contexts in use: `<root>/builds`.
    pub builds: PathBuf,
    /// One directory per running step: `<run root>/builds`.
    pub run: PathBuf,
    /// Bytes that the cache may take, its records and cache mounts included; none means a fifth of the file system.
    pub cache_limit: Option<u64>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) spawner: ShimSpawner,
    pub(crate) sandboxes: Arc<dyn Sandboxes>,
    pub(crate) devices: Arc<dyn Devices>,
    pub(crate) dirs: BuilderDirs,
    /// Work that is being done, so that nobody does it a second time.
    pub(crate) flights: Flights,
    pub(crate) slots: Slots,
    /// Held while the cache is being pruned.
    pub(crate) pruning: Mutex<()>,
    /// Bytes in the cache, as far as is known; 0 means not counted yet.
    pub(crate) cached: AtomicU64,
}
