//! Builds images from Dockerfiles: graph, cache keys, cache, context, solve, run, export.
//!
//! [`Builder::build`] takes a [`BuildRequest`] and reports progress as [`BuildEvent`]s. What the builder cannot
//! know about (networks, registries) reaches it through two traits: [`Sandboxes`] hands out a network namespace
//! for one `RUN` step, [`ImageResolver`] finds or pulls the image that a `FROM` names.
//!
//! The way of a build through the modules:
//!
//! ```text
//! request -> context (unpacked, .dockerignore) -> parser -> graph (pure) -> solve -> BuiltImage
//!                                                             per step:  cache key -> cache hit: next step
//!                                                                        else run | copy -> layer
//! ```

mod agent;
mod builder;
mod cache;
mod context;
#[cfg(test)]
mod conversion_corpus;
mod copy;
mod error;
mod event;
mod failed;
mod fault;
mod fetch;
mod files;
mod flights;
mod git;
mod graph;
mod history;
mod key;
mod lowers;
mod memory;
mod mounts;
mod prune;
mod request;
mod resolve;
mod rootdir;
mod run;
mod sandbox;
mod solve;
mod source;
mod spec;
mod stage;
mod stats;
mod step;
mod traces;
mod transfer;
mod untar;
mod users;

pub use builder::{BuildIo, Builder, BuilderDirs, BuiltImage, EventSink};
pub use error::{BuildError, Excerpt};
pub use event::{BuildEvent, Event, OutputStream, Place};
pub use history::{BuildRecord, StepRecord};
pub use prune::{CacheEntry, PruneOptions, Pruned};
pub use request::{BuildRequest, Context, DockerfileSource, Entitlements, Limits, NetworkMode, Secret};
pub use resolve::{BoxFuture, ImageResolver, ResolveError};
pub use sandbox::{Sandbox, SandboxError, Sandboxes};
pub use transfer::CacheRecords;
