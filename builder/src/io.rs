//! A build's connections to the outside, and what comes of it.

use std::sync::Arc;

use berth_oci::{Digest, Platform};
use tokio_util::sync::CancellationToken;

use crate::cache::CacheRecords;
use crate::{BoxFuture, Event, ImageResolver};

/// Whom a build tells how it goes.
pub type EventSink = Arc<dyn Listener>;

/// Receives progress; called from the build's own threads, several at a time.
pub trait Listener: Send + Sync {
    /// Takes an event, without waiting.
    fn tell(&self, event: Event);

    /// Done when there is room for more. A step waits for it before more of its output is read, so that what a client
    /// does not read fills the step's pipe and not the memory of whoever passes it on.
    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl<F: Fn(Event) + Send + Sync> Listener for F {
    fn tell(&self, event: Event) {
        self(event);
    }
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
    /// The image's id: the digest of its config. Of several, the one for this machine, or else the first.
    pub id: Digest,
    /// The image of each platform, in the order in which they were asked for.
    pub images: Vec<(Platform, Digest)>,
    /// What the build took from the cache or put into it; see [`crate::Builder::export_cache`].
    pub records: CacheRecords,
}
