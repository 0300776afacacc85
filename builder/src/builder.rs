//! The crate's front door.

use std::path::PathBuf;
use std::sync::Arc;

use berth_oci::Digest;
use berth_runtime_client::ShimSpawner;
use berth_store::Store;
use tokio_util::sync::CancellationToken;

use crate::{BuildError, BuildEvent, BuildRequest, ImageResolver, Sandboxes, solve};

/// Receives progress; called from the build's own threads, one call at a time.
pub type EventSink = Arc<dyn Fn(BuildEvent) + Send + Sync>;

/// Where the builder keeps its things.
#[derive(Debug, Clone)]
pub struct BuilderDirs {
    /// Cache records, cache mounts and contexts in use: `<root>/builds`.
    pub builds: PathBuf,
    /// One directory per running step: `<run root>/builds`.
    pub run: PathBuf,
}

/// A build's connections to the outside.
pub struct BuildIo {
    /// Finds base images.
    pub resolver: Arc<dyn ImageResolver>,
    /// Receives progress.
    pub events: EventSink,
    /// Ends the build when cancelled.
    pub cancel: CancellationToken,
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image's id: the digest of its config.
    pub id: Digest,
}

/// Builds images. Cheap to clone; builds may run concurrently.
#[derive(Clone)]
pub struct Builder {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) spawner: ShimSpawner,
    pub(crate) sandboxes: Arc<dyn Sandboxes>,
    pub(crate) dirs: BuilderDirs,
}

impl Builder {
    /// A builder over `store`, whose `RUN` steps are started by `spawner` in networks from `sandboxes`.
    pub fn new(store: Store, spawner: ShimSpawner, sandboxes: Arc<dyn Sandboxes>, dirs: BuilderDirs) -> Self {
        Self { shared: Arc::new(Shared { store, spawner, sandboxes, dirs }) }
    }

    /// Builds one image. Dropping the future cancels the build. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`BuildError`]; whatever it is, the running step's container and snapshot are gone.
    pub async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuiltImage, BuildError> {
        let shared = Arc::clone(&self.shared);
        let cancel = io.cancel.child_token();
        let _cancel_when_dropped = cancel.clone().drop_guard();
        let io = BuildIo { cancel, ..io };
        let handle = tokio::runtime::Handle::current();
        // The solver reads and copies files and waits for the store: it is a thread's work.
        let work = tokio::task::spawn_blocking(move || solve::solve(&shared, request, &io, &handle));
        match work.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(BuildError::Cancelled),
        }
    }
}
