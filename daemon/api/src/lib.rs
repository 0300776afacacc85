//! The Docker Engine API as data: wire types, the versioned endpoint table, the stream framing.
//!
//! Nothing here acts. The types are the *newest* shape that Berth serves ([`ApiVersion::MAX`]); what older
//! versions of the API had beyond or instead of it is added at the edge (`berth-http`, module `shape`), so
//! that the engine knows one model only.
//!
//! # Null, absent, default
//! Docker's JSON is Go's: on input an absent field, `null` and the zero value are one and the same, on output a
//! nil slice or map is `null` unless the field is `omitempty`. Here: a plain field (`String`, `i64`, `Vec`, map)
//! reads `null` as its default; `Option<Vec<_>>`/`Option<map>` writes `null` when `None`; a field that docker
//! marks `omitempty` carries `skip_serializing_if`.
//!
//! Golden answers of a real dockerd are read and written back in `tests/golden.rs`.

#[macro_use]
mod wire;

pub mod archive;
pub mod build;
pub mod container;
pub mod endpoint;
pub mod event;
pub mod exec;
pub mod filters;
pub mod image;
pub mod network;
pub mod options;
pub mod progress;
pub mod registry;
pub mod stats;
pub mod stdcopy;
pub mod system;
pub mod version;
pub mod volume;
pub mod when;

pub use filters::Filters;
pub use version::ApiVersion;
pub use wire::{Empty, ErrorBody, IdResponse, Time};
