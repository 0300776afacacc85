//! BuildKit's protocol: `docker buildx build`, `docker build` and `docker compose build` speak it with the daemon. The
//! Dockerfile is built by Berth's own builder; there is no solver of BuildKit's graphs here.
//!
//! ```text
//! client ── POST /grpc ─────▶ serve ─▶ control   Solve, Status, Prune …        the daemon is the server
//!                                   └▶ bridge    Solve(dockerfile.v0), Return
//! client ◀── POST /session ── channel ◀─ session                               the daemon is the client:
//!                                          ├─ filesync   the client's directories, and places for results
//!                                          ├─ auth       its credentials for registries
//!                                          └─ secrets, ssh
//! ```
//!
//! A build is a [`jobs::Job`]. `Control.Solve` opens it and waits; the client then asks the bridge to build a Dockerfile,
//! says by `Return` what it wants of the results, and `Control.Solve` exports that. `Control.Status` tells how it goes.
//! When `Control.Solve` ends, for whatever reason, its job is cancelled and gone.
//!
//! The client is not trusted: its paths are taken by descriptor, its messages are bounded.

mod attributes;
mod auth;
mod bridge;
mod build;
mod capabilities;
mod channel;
mod control;
mod export;
mod failure;
mod files;
mod filesync;
mod jobs;
mod lint;
mod progress;
mod secrets;
mod serve;
mod session;
mod ssh;
mod steps;
mod tunnel;

pub use serve::BuildKit;
pub use session::Hello;

/// Messages and services, generated from their definitions. Public for tests, which are the client.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod protocol {
    include!(concat!(env!("OUT_DIR"), "/protocol.rs"));

    pub use moby::buildkit::secrets::v1 as secrets;
    pub use moby::buildkit::v1 as control;
    pub use moby::buildkit::v1::frontend;
    pub use moby::buildkit::v1::types;
    pub use moby::filesync::v1 as filesync;
    pub use moby::sshforward::v1 as sshforward;
    pub use moby::upload::v1 as upload;
}

/// BuildKit's own limit for a message.
const MAX_MESSAGE: usize = 16 << 20;
