//! The Docker Engine API over HTTP/1.1: requests to engine calls, answers to bytes.
//!
//! ```text
//! listener ── connection ── router ── handlers/* ── Engine
//!                 │            │          │
//!                 │            │          └─ error: EngineError kind → status, once
//!                 │            └─ /vX.YY prefix, endpoint table of berth-api
//!                 └─ take-over: attach and exec get the raw socket out of hyper
//! ```
//!
//! - The engine speaks the newest shapes; `shape` turns them into what older versions of the API had.
//! - A request is worked on in a task of its own: a client that goes away does not leave a container half made.
//!   What streams ends with its client, because the body that hyper drops owns the work.
//! - Nothing outside of this crate knows a status code.

mod body;
mod connection;
mod context;
mod culprit;
mod error;
mod handlers;
mod keys;
mod query;
mod request_line;
mod router;
mod server;
mod shape;
mod takeover;

pub use server::{Listener, Server, ShutdownMode};
