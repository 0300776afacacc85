//! Builds images from Dockerfiles: graph, cache keys, cache, context, solve, run, export.
//!
//! [`Builder::build`] takes a [`BuildRequest`] and reports progress as [`BuildEvent`]s. What the builder cannot
//! know about reaches it through traits: [`Sandboxes`] hands out a network namespace for one `RUN` step,
//! [`ImageResolver`] finds or pulls the image that a `FROM` names, [`Devices`] knows the machine's devices.
//!
//! The way of a build through the modules:
//!
//! ```text
//! request -> context (unpacked, .dockerignore) -> parser -> graph (pure) -> solve -> BuiltImage
//!                                                             per step:  cache key -> cache hit: next step
//!                                                                        else run | copy -> layer
//! ```

mod agent;
mod arguments;
mod builder;
mod cache;
mod context;
#[cfg(test)]
mod conversion_corpus;
mod copy;
mod device;
mod error;
mod event;
mod failed;
mod fault;
mod fetch;
mod files;
mod flights;
mod fresh;
mod git;
mod graph;
mod history;
mod io;
mod key;
mod lowers;
mod memory;
mod mounts;
mod node;
mod parallel;
mod placed;
mod prune;
mod recover;
mod request;
mod resolve;
#[allow(clippy::missing_errors_doc, reason = "the module's head says it for all")]
pub mod rootdir;
mod run;
mod sandbox;
mod shared;
mod solve;
mod source;
mod spec;
mod stage;
mod start;
mod stats;
mod step;
mod tick;
mod traces;
mod transfer;
mod trees;
mod untar;
mod users;

pub use builder::Builder;
pub use cache::CacheRecords;
pub use device::{DeviceError, Devices};
pub use error::{BuildError, Excerpt};
pub use event::{BuildEvent, Event, OutputStream, Place};
pub use history::{BuildRecord, StepRecord};
pub use io::{BuildIo, BuiltImage, EventSink, Listener};
pub use prune::{CacheEntry, PruneOptions, Pruned};
pub use request::{BuildRequest, Context, DockerfileSource, Entitlements, Limits, NetworkMode, Secret};
pub use resolve::{BoxFuture, ImageResolver, ResolveError};
pub use sandbox::{Sandbox, SandboxError, Sandboxes};
pub use shared::BuilderDirs;
