//! The Node Resource Interface (NRI, `nri.pkg.api.v1alpha1`): programs of the node's administrator that see pods and
//! containers come and go, and adjust containers before they are made.
//!
//! ```text
//!   plugin ──unix socket──▶ server ─▶ plugin (register, configure, synchronize) ─▶ list, by index
//!                             ▲            connection: one trunk, a ttrpc connection each way
//!   engine ──PodPlugins───▶ rounds: every subscribed plugin in turn ─▶ adjust, owners ─▶ engine
//! ```
//!
//! A plugin that goes away, answers nonsense or nothing in time is dropped, and the round goes on without it. One that says
//! no to a new pod, a new container or a start is heard: that pod or container is not made.

mod adjust;
mod connection;
mod owners;
mod plugin;
mod resources;
mod rounds;
mod server;
mod view;
mod wire;

pub use server::{Listening, NriServer, Timeouts};

/// The interface's messages, generated from its definition.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/nri.pkg.api.v1alpha1.rs"));
}
