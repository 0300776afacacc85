//! What became of pods and containers: what is kept of them, and what is shown.
//!
//! ```text
//!   sandbox     creating ──▶ ready ──stop, its init or namespaces gone──▶ not ready ──▶ removing ──▶ gone
//!   container   created ──start──▶ running ──end──▶ exited            any but running ──▶ gone
//!                  └──start fails──────────────────▶ exited
//! ```
//!
//! `creating` and `removing` are intents: a daemon that finds them at its start undoes or finishes them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cni::Attachment;
use super::model::{ContainerSpec, SandboxSpec};

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SandboxPhase {
    /// Being made; nobody sees it.
    #[default]
    Creating,
    /// Containers can be started in it.
    Ready,
    /// Stopped, or something of it is gone.
    NotReady,
    /// Being removed.
    Removing,
}

/// What is kept of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) created: Timestamp,
    pub(crate) phase: SandboxPhase,
    /// The first is the pod's address.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) network: PodNetwork,
}

/// How a pod is on the network, and so how it is taken off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum PodNetwork {
    /// Nothing to undo: the host's, or taken off already.
    #[default]
    None,
    /// The engine's own bridge.
    Bridge,
    /// CNI plugins.
    Cni(Box<Attachment>),
}

/// A sandbox as it is shown.
#[derive(Debug, Clone)]
pub struct SandboxView {
    /// 64 hex digits.
    pub id: String,
    /// What was asked for.
    pub spec: Arc<SandboxSpec>,
    /// When it was made.
    pub created: Timestamp,
    /// Whether containers can be started in it.
    pub ready: bool,
    /// Its addresses; none on the host's network.
    pub addresses: Vec<IpAddr>,
    /// The network namespace; none on the host's network.
    pub network: Option<PathBuf>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerPhase {
    /// Made, not started.
    #[default]
    Created,
    /// Runs.
    Running,
    /// Ended, or could not be started.
    Exited,
}

/// What is kept of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) spec: Arc<ContainerSpec>,
    pub(crate) created: Timestamp,
    /// `sha256:…`
    pub(crate) image_id: String,
    /// Its first tag, else as it was asked for.
    pub(crate) image_name: String,
    /// `name@sha256:…`, else its id.
    pub(crate) image_ref: String,
    /// Ids of the images whose file systems it has mounted.
    pub(crate) mounted_images: Vec<String>,
    /// Number of the signal that asks it to end.
    pub(crate) stop_signal: i32,
    pub(crate) user: ProcessUser,
    /// Absolute; none: it is not logged.
    pub(crate) log: Option<PathBuf>,
    /// It is made of a checkpoint.
    #[serde(default)]
    pub(crate) restored: bool,
    pub(crate) status: ContainerStatus,
}

/// As whom a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// What became of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Where it is in its life.
    pub phase: ContainerPhase,
    /// Its init, as the host sees it; 0 if there is none.
    pub pid: i32,
    /// When its program began.
    pub started: Option<Timestamp>,
    /// When it ended, or failed to start.
    pub finished: Option<Timestamp>,
    /// Exit code; 128 + n after signal n.
    pub exit_code: i32,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// It never ran.
    pub start_failed: bool,
    /// Nobody saw how it ended.
    pub lost: bool,
    /// What went wrong.
    pub message: String,
}

/// A container as it is shown.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// 64 hex digits.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// What was asked for; its limits are those in force.
    pub spec: Arc<ContainerSpec>,
    /// When it was made.
    pub created: Timestamp,
    /// `sha256:…`
    pub image_id: String,
    /// Its first tag, else as it was asked for.
    pub image_name: String,
    /// `name@sha256:…`, else its id.
    pub image_ref: String,
    /// Ids of the images that are mounted, in the order of their mounts.
    pub mounted_images: Vec<String>,
    /// Signal that asks it to end.
    pub stop_signal: i32,
    /// As whom it runs.
    pub user: ProcessUser,
    /// Its log on the host.
    pub log: Option<PathBuf>,
    /// What became of it.
    pub status: ContainerStatus,
}

impl SandboxRecord {
    pub(crate) fn new(id: String, spec: SandboxSpec) -> Self {
        Self {
            id,
            spec: Arc::new(spec),
            created: Timestamp::now(),
            phase: SandboxPhase::Creating,
            addresses: Vec::new(),
            network: PodNetwork::None,
        }
    }
}

impl From<&ContainerRecord> for ContainerView {
    fn from(record: &ContainerRecord) -> Self {
        Self {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            spec: Arc::clone(&record.spec),
            created: record.created,
            image_id: record.image_id.clone(),
            image_name: record.image_name.clone(),
            image_ref: record.image_ref.clone(),
            mounted_images: record.mounted_images.clone(),
            stop_signal: record.stop_signal,
            user: record.user.clone(),
            log: record.log.clone(),
            status: record.status.clone(),
        }
    }
}
