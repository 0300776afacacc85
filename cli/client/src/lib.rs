//! A typed client for the Docker Engine API, over a unix socket or TCP.
//!
//! It speaks to berthd and to any dockerd since API 1.24. The first request is in the newest version, without asking before
//! which one the daemon knows; to a daemon that refuses it for that, it is told again in the one that `/_ping` names. One [`Client`] is cheap to clone and keeps idle connections for reuse.
//!
//! - Answers that end are collected and decoded.
//! - Streams ([`JsonStream`], [`OutputStream`], [`ByteStream`]) are read piece by piece; dropping one closes its
//!   connection, which is how docker's API cancels.
//! - Attach and exec take the connection over: [`Hijacked`].

mod build;
mod connection;
mod containers;
mod error;
mod exec;
mod hijack;
mod host;
mod images;
mod local_build;
mod networks;
mod ping;
mod query;
mod request;
mod streams;
mod system;
mod tls;
mod upload;
mod volumes;

pub use berth_api as api;
pub use connection::dial;
pub use containers::Wait;
pub use error::{Error, Result};
pub use hijack::{HijackReader, HijackWriter, Hijacked};
pub use host::Host;
pub use images::PullOptions;
pub use local_build::LocalMessages;
pub use ping::{Ping, SPOKEN};
pub use request::{Client, Json, Listener};
pub use streams::{ByteStream, JsonStream, OutputStream};
pub use tls::Trust;
pub use upload::Upload;
