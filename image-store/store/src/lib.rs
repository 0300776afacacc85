//! The content-addressed store: blobs, layers, snapshots, image metadata, archives, garbage collection.
//!
//! ```text
//! <root>/content/            an OCI image layout: oci-layout, index.json, blobs/<algorithm>/<hex>
//!        content/ingest/     partial blobs (same file system, so that the last step is a rename)
//! <root>/layers/<hex>/       one unpacked tree per diff-id, in overlay-native form
//! <root>/snapshots/<key>/    upper/ and work/ of a container or of a build step
//! <root>/tmp/, trash/        half-made and half-removed trees; emptied at every start
//! <root>/store.db            SQLite: images, tags, which layer has which blobs, snapshots, leases
//! ```
//!
//! Invariants:
//! * Content becomes visible by a rename, after its digest was verified.
//! * A layer directory is exactly the layer's tar: whiteouts are 0:0 character devices, opaque directories
//!   carry `trusted.overlay.opaque=y`. It is never changed again.
//! * Nothing inside a layer or snapshot is reached by a string path; see [`unpack`] and `berth_sys::path`.
//!
//! Durability: see [`durability`]. Start-up: see [`recovery`].

mod archive;
mod changes;
mod check;
mod compression;
mod content;
mod db;
pub mod durability;
mod error;
mod fixup;
mod gc;
mod images;
mod index;
mod ingest;
mod layers;
mod locks;
pub mod members;
mod pack;
mod pins;
mod pipe;
mod quota;
pub mod recovery;
mod shared;
mod snapshots;
mod store;
mod tarball;
mod tidy;
pub mod unpack;
mod usage;

pub use archive::{LoadEvent, Loaded};
pub use changes::{Change, ChangeKind};
pub use check::{CheckOptions, CheckReport, Problem};
pub use compression::Compression;
pub use content::Content;
pub use error::{Result, StoreError};
pub use gc::Reclaimed;
pub use images::{HistoryEntry, Image, Images, NewImage, Ready, Removed, WholeIndex};
pub use ingest::Ingest;
pub use layers::{LayerInfo, Layers};
pub use pins::Lease;
pub use quota::OverCap;
pub use snapshots::{Snapshot, Snapshots};
pub use store::Store;
pub use tidy::Retime;
