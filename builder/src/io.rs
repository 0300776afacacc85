//! A build's connections to the outside, and what comes of it.

use std::sync::Arc;

use berth_oci::{Digest, Platform};
use tokio_util::sync::CancellationToken;

use crate::cache::CacheRecords;
use crate::{Event, ImageResolver};

/// Receives progress; called from the build's own threads, several at a time.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

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
