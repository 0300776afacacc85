//! The engine: containers, images, volumes, networks, execs, builds and their events. No HTTP, no gRPC.
//!
//! ```text
//!   Engine                       the only door; one `impl Engine` block per file
//!     ├─ containers/             one file per verb; `machine` is the state diagram, `container` the live object
//!     ├─ spec/                   config + host config -> OCI config.json (pure, but for `devices` and `user`)
//!     ├─ pods/                   pods of an orchestrator, and their containers
//!     ├─ images/ build volumes networks system
//!     ├─ dns                     names on networks, told to the resolver process (berth-dns)
//!     ├─ logs/                   reads what shims write
//!     ├─ archive/                docker cp: tar in and out of a rooted descriptor
//!     ├─ db                      engine.db: what was promised
//!     └─ events                  what happened
//! ```
//!
//! Invariants:
//! - What the user asked for is kept in the Engine API's own types (`berth-api`); no other model of it exists.
//! - Intent before effect: a container's row says `creating` or `removing` before the first file is made or the
//!   last one goes, so that [`Engine::start`] can finish or undo what a crash interrupted.
//! - One async lock per container; nothing slow is done under a lock that another container needs.
//! - An operation that has begun is finished: it runs in a task of its own, whatever becomes of the client.
//! - Teardown goes on past errors and reports them together.
//! - Error texts are docker's, since clients read them; they carry a kind, never a status code.

mod archive;
mod build;
mod build_progress;
mod build_steps;
mod build_work;
mod cdi;
mod cgroups;
mod config;
mod containers;
mod db;
mod dns;
mod engine;
mod error;
mod events;
mod fsutil;
mod ids;
mod images;
mod init;
mod items;
mod local_build;
mod logs;
mod names;
mod networks;
mod pods;
mod queue;
mod resolve_files;
mod spec;
mod system;
mod users;
mod volumes;

pub use berth_network::Protocol;
pub use berth_runtime_client::protocol::{BlkioEntry, MemoryStats, Stats};
pub use build_work::{Build, Logins};
pub use cdi::CdiDirs;
pub use cgroups::CgroupDriver;
pub use config::{Defaults, EngineConfig, Runtime};
pub use containers::{ExecClient, ExecReader, PreparedAttach, StatsStream};
pub use dns::DNS_ROLE;
pub use engine::Engine;
pub use error::{EngineError, Kind, Result};
pub use events::EventStream;
pub use items::{ByteStream, Items, Progress};
pub use logs::{LogItem, LogStream, SYSLOG_ROLE, SyslogTls, Trust};
pub use pods::{
    CniDirs, ContainerMoment, ContainerPhase, ContainerSpec, ContainerStatus, ContainerView, ExecOutput,
    IdMapping, InterfaceUsage, Pairs, PidScope, PodChange, PodDevice, PodDns, PodEvent, PodImage, PodMoment,
    PodMount, PodNamespaces, PodPlugins, PodPort, PodProcess, PodResources, PodSecurity, PodUsage,
    ProcessCounts, ProcessUser, Propagation, SandboxSpec, SandboxView, SecurityProfile, StoreUsage, Streams,
};
pub use users::{IdRange, UserRange};
