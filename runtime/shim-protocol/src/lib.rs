//! The messages between the engine and berth-shim. Pure: no I/O.
//!
//! The transport is a `SOCK_SEQPACKET` unix socket: one JSON message per packet, file descriptors by
//! `SCM_RIGHTS` with the packet, in the order documented on the [`Op`] that carries them.
//!
//! ```text
//!   engine                                   shim
//!     |                   <- Message::Hello(State)   first packet on every connection
//!     | Request{seq, op} ->                    |
//!     |                   <- Message::Event    any time; every connection gets every later event
//!     |                   <- Message::Reply{seq}   exactly one per request, in request order
//! ```
//!
//! A request that does not fit into [`MAX_PACKET`] is written to a memfd; the packet is then the single byte
//! [`SPILL_MARK`] and the memfd comes first among the packet's file descriptors.

pub mod block;
mod bytes_base64;
mod event;
mod failure;
pub mod files;
mod log;
mod op;
mod record;
mod state;
mod stats;
mod wire;

pub use event::{Event, Message, Reply};
pub use failure::{Failure, FailureKind};
pub use log::{
    Forward, Log, LogFile, LogFormat, SyslogAddress, SyslogFormat, Target, identity as log_identity,
};
pub use oci_spec::runtime as oci;
pub use op::{
    Answer, Attach, Create, Exec, Framing, MOUNT_PLACEHOLDER, NETNS_PLACEHOLDER, Op, Request, Restore,
    Rootfs, Runtime, StdinMode, Users, WindowSize,
};
pub use record::{ExecRecord, ExitRecord, SIGNAL_EXIT_BASE};
pub use state::{Phase, RunningExec, State};
pub use stats::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};
pub use wire::{DecodeError, MAX_FDS, MAX_PACKET, MAX_SPILL, SPILL_MARK, decode, encode};
