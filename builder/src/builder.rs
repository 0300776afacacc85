//! The crate's front door.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use berth_oci::{Digest, Platform};
use berth_runtime_client::ShimSpawner;
use berth_store::Store;

use crate::cache::CacheRecords;
use crate::flights::{Flights, Slots};
use crate::history::{BuildRecord, Recorder};
use crate::io::{BuildIo, BuiltImage};
use crate::prune::{CacheEntry, PruneOptions, Pruned};
use crate::shared::{BuilderDirs, Shared};
use crate::{BuildError, BuildRequest, Devices, Sandboxes, history, prune, recover, start, transfer};

/// Builds images. Cheap to clone; builds may run concurrently.
#[derive(Clone)]
pub struct Builder {
    shared: Arc<Shared>,
}

impl Builder {
    /// A builder over `store`, whose `RUN` steps are started by `spawner` in networks from `sandboxes` and with devices
    /// from `devices`.
    pub fn new(
        store: Store,
        spawner: ShimSpawner,
        sandboxes: Arc<dyn Sandboxes>,
        devices: Arc<dyn Devices>,
        dirs: BuilderDirs,
    ) -> Self {
        // Steps wait for disks and networks as well, so that every core has use for more than one of them.
        const EACH: usize = 2;
        const LEAST: usize = 8;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = Slots::new((cores * EACH).max(LEAST));
        let flights = Flights::default();
        let (pruning, cached) = (Mutex::default(), AtomicU64::new(0));
        let shared = Shared { store, spawner, sandboxes, devices, dirs, flights, slots, pruning, cached };
        Self { shared: Arc::new(shared) }
    }

    /// Ends and removes what the builds of a daemon that was killed have left. To be called before the first build; the
    /// work is the future's.
    pub fn recover(&self) -> impl Future<Output = ()> + Send + 'static {
        recover::recover(&self.shared)
    }

    /// Builds one image. Dropping the future cancels the build. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`BuildError`]; whatever it is, the running step's container and snapshot are gone.
    pub async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuiltImage, BuildError> {
        let shared = Arc::clone(&self.shared);
        let cancel = io.cancel.child_token();
        let _cancel_when_dropped = cancel.clone().drop_guard();
        let recorder = Recorder::new(&request, Arc::clone(&io.events));
        let io = BuildIo { cancel, events: Arc::clone(&recorder) as _, ..io };
        let handle = tokio::runtime::Handle::current();
        // The solver reads and copies files and waits for the store: it is a thread's work.
        let work = tokio::task::spawn_blocking(move || {
            let result = start::build(&shared, request, &io, &handle);
            recorder.finish(&shared.dirs.builds, &result);
            result
        });
        match work.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(BuildError::Cancelled),
        }
    }

    /// Makes an image of parts of the cache, so that they can be saved, pushed and pulled like any other. With
    /// `mounts` the contents of cache mounts come along. Blocking.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn export_cache(&self, records: &CacheRecords, mounts: bool) -> Result<Digest, BuildError> {
        transfer::export(&self.shared, records, mounts)
    }

    /// Takes over what an image tells of the cache: one made by [`Self::export_cache`], or one that was built with the
    /// cache inline. Returns how many records it had. Blocking.
    ///
    /// # Errors
    /// If there is no such image or the store refuses.
    pub fn import_cache(&self, image: &Digest) -> Result<usize, BuildError> {
        transfer::import(&self.shared, image)
    }

    /// Writes the files of an image into a directory; those of several platforms each into one of its own
    /// (`linux_arm64`). Everything belongs to `owner`, if one is given. Blocking.
    ///
    /// # Errors
    /// If there is no such image, or the directory cannot be written to.
    pub fn export_files(
        &self,
        images: &[(Platform, Digest)],
        to: OwnedFd,
        owner: Option<(u32, u32)>,
    ) -> Result<(), BuildError> {
        transfer::export_files(&self.shared, images, to, owner)
    }

    /// What the cache holds. Blocking.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn cache(&self) -> Result<Vec<CacheEntry>, BuildError> {
        prune::entries(&self.shared)
    }

    /// Removes parts of the cache. Blocking.
    ///
    /// # Errors
    /// If the disk or the store refuses; what was removed until then stays removed.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, BuildError> {
        prune::prune(&self.shared, options)
    }

    /// Builds of the past, the newest first. Blocking.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn history(&self) -> Result<Vec<BuildRecord>, BuildError> {
        history::list(&self.shared.dirs.builds)
    }

    /// What a build of the past printed; none if there is no such build. Blocking.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn log(&self, id: &str) -> Result<Option<String>, BuildError> {
        history::log(&self.shared.dirs.builds, id)
    }
}
