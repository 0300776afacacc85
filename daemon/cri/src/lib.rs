//! The Kubernetes Container Runtime Interface, v1, over the engine's pods and images.
//!
//! ```text
//!   kubelet, crictl ──gRPC, unix socket──▶ runtime, images ──▶ engine
//!                   ──SPDY, websocket────▶ streaming ────────▶ engine      exec, attach, port-forward
//! ```
//!
//! Nothing is decided here: `convert` turns requests into the engine's words and its views into answers, `failure` maps
//! what went wrong. What a client asks for outlives its patience: the engine finishes it, and a retry joins it.

mod convert;
mod deadline;
mod failure;
mod images;
mod metrics;
mod runtime;
mod serve;
mod stats;
mod streaming;

pub use serve::{CriServer, Listening};

/// The interface's types, generated from its definition.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}
