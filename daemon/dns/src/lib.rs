//! Names on container networks.
//!
//! Every container on a user-defined network has the name server 127.0.0.11. Behind it stands one small process for
//! all containers of a daemon, which goes on when the daemon ends:
//!
//! ```text
//!   berthd ── makes sockets and port rules inside the container's network namespace (berth-network)
//!     │
//!     │ client ── SOCK_SEQPACKET <run-root>/dns.sock, JSON + descriptors (protocol, link) ──▶ server
//!     │                                                                                     │
//!   container ── 127.0.0.11:53, UDP and TCP ──────────────────────────────────────────▶ sockets of the container
//!                                                                                           ├─ table: names it sees
//!                                                                                           ├─ cache
//!                                                                                           └─ upstream
//! ```
//!
//! Invariants:
//! - What [`Client`] was told is in force when its method returns: a container's first instruction can ask.
//! - The process keeps a namespace alive only as long as the container's first process lives.
//! - A name of a network is never asked upstream, and a container without a way out never reaches a server.

mod cache;
mod client;
mod control;
mod link;
mod message;
mod protocol;
mod server;
mod table;
mod upstream;

pub use client::{Client, DnsError};
pub use protocol::{Member, Upstream, View};
pub use server::{ServeError, serve};
