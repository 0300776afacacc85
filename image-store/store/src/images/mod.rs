//! Images: what they are made of, what they are called, and who was built on whom.

mod history;
mod index;
mod manifest;
mod names;
mod record;
mod remove;

use std::sync::Arc;

use berth_oci::{Descriptor, DiffId, History, ImageId, Reference};
use jiff::Timestamp;

pub use index::{Ready, WholeIndex};
pub use remove::Removed;

use crate::layers::Layers;
use crate::shared::Shared;

/// What [`Images::put`] needs. The image's layers must be unpacked.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// The config, byte for byte; its digest is the id.
    pub config: Vec<u8>,
    /// The manifest, whose blob must be in the content store.
    pub manifest: Option<Descriptor>,
    /// The image that it was built or committed on.
    pub parent: Option<ImageId>,
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config.
    pub id: ImageId,
    /// When it was made (from the config; the Unix epoch if it does not say).
    pub created: Timestamp,
    /// When its last tag was set.
    pub tagged: Option<Timestamp>,
    /// Bytes of all its layers' files.
    pub size: u64,
    /// The image that it was built on, if it was built here.
    pub parent: Option<ImageId>,
    /// Its layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Its manifest, if there is one.
    pub manifest: Option<Descriptor>,
    /// Its tags.
    pub tags: Vec<Reference>,
    /// `name@sha256:…` under which it was pulled or pushed.
    pub repo_digests: Vec<Reference>,
}

/// One line of `docker history`.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The image as of this step, if it is in the store.
    pub id: Option<ImageId>,
    /// From the config.
    pub history: History,
    /// Bytes of its layer.
    pub size: u64,
    /// Tags of that image.
    pub tags: Vec<Reference>,
}

/// Images.
#[derive(Clone)]
pub struct Images {
    pub(crate) shared: Arc<Shared>,
}

impl Images {
    pub(crate) fn layers(&self) -> Layers {
        Layers { shared: self.shared.clone() }
    }
}
