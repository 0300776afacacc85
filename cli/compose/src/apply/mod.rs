//! Doing it: the operations on a project, over the Engine API.

mod containers;
mod create;
mod down;
mod hooks;
mod images;
mod lifecycle;
mod oneoff;
mod resources;
mod start;

use std::sync::Arc;

use berth_client::{Client, api::container::ContainerSummary};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use create::{Created, UpOptions};
pub use down::{DownOptions, RemoveImages};
pub use images::{BuildOptions, ImageStep, Images, PullPolicy, image_labels};
pub use lifecycle::StopOptions;
pub use oneoff::RunOptions;

use crate::labels::Labelled;

/// How a step goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is under way.
    Working,
    /// It is done.
    Done,
    /// It is done, but the user should look.
    Warning,
    /// It failed.
    Error,
}

/// Who is told how things go.
pub trait Progress: Send + Sync {
    /// Something happens to `what` (`Container web-1`).
    fn tell(&self, what: &str, status: Status, text: &str);
    /// Something the user should know.
    fn warn(&self, text: &str);
}

/// Who hears what containers and hooks print.
pub trait Listener: Send + Sync {
    /// A line of the output of `source`.
    fn line(&self, source: &str, line: &str);
}

/// The operations on projects of one engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    /// The client of the engine.
    pub client: Client,
    progress: Arc<dyn Progress>,
    listener: Option<Arc<dyn Listener>>,
    limit: Option<Arc<Semaphore>>,
    dry: bool,
    /// What stands between the parts of names: `-`, or `_` as Compose 1 did.
    pub separator: char,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Engine {
    /// Operations over this client, told to `progress`.
    #[must_use]
    pub fn new(client: Client, progress: Arc<dyn Progress>) -> Self {
        Self { client, progress, listener: None, limit: None, dry: false, separator: '-' }
    }

    /// At most so many things at the same time.
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit: Some(Arc::new(Semaphore::new(limit))), ..self }
    }

    /// Tells what would be done, and does nothing of it.
    #[must_use]
    pub fn dry(self, dry: bool) -> Self {
        Self { dry, ..self }
    }

    /// Whether only what would be done is told.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// Sends a call that changes something, unless only what would be done is to be told.
    pub(crate) async fn act<T: Default>(
        &self,
        call: impl Future<Output = berth_client::Result<T>>,
    ) -> berth_client::Result<T> {
        // What is not polled is not sent.
        if self.dry { Ok(T::default()) } else { call.await }
    }

    /// Hooks' output goes to `listener`.
    #[must_use]
    pub fn with_listener(self, listener: Arc<dyn Listener>) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// A turn among the things done at the same time. One that holds a turn waits for no other.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        match &self.limit {
            // The semaphore is never closed.
            Some(limit) => limit.acquire().await.ok(),
            None => None,
        }
    }

    fn working(&self, what: &str, text: &str) {
        self.progress.tell(what, Status::Working, text);
    }

    fn done(&self, what: &str, text: &str) {
        self.progress.tell(what, Status::Done, text);
    }

    /// Tells of the failure, and gives it back.
    fn failed<T>(&self, what: &str, result: crate::Result<T>) -> crate::Result<T> {
        if result.is_err() {
            self.progress.tell(what, Status::Error, "Error");
        }
        result
    }
}

/// What progress is told of a container.
fn titled(container: &ContainerSummary) -> String {
    format!("Container {}", container.short_name())
}
