//! The vocabulary of images: digests, references, descriptors, manifests, configs. Pure: no I/O.
//!
//! The types here are Berth's own and not those of `oci-spec`, because an image store must keep what it does
//! not understand (Docker's extra config fields, annotations of tomorrow) and must accept Docker's schema 2
//! beside OCI. `tests/oracle.rs` holds them against `oci-spec`'s reading of the same documents.

mod config;
mod descriptor;
mod digest;
mod manifest;
pub mod media_type;
mod platform;
mod reference;

pub use config::{EmptyObject, Healthcheck, History, ImageConfig, RootFs, RuntimeConfig};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Hasher, chain_id, chain_ids};
pub use manifest::{Document, DocumentError, Index, MAX_DOCUMENT, Manifest};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// The id of an image: the digest of its config.
pub type ImageId = Digest;
