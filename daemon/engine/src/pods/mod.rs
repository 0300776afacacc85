//! Pods: what an orchestrator runs. A sandbox holds the namespaces that the containers of a pod share; no process is
//! needed for them (`namespaces`), unless process ids are shared (`holder`). Containers are shims like all others.
//!
//! Pods are a world of their own: the Engine API neither lists nor removes them, for the orchestrator believes that
//! nobody else does.

mod checkpoint;
mod classes;
mod cni;
mod create;
mod events;
mod files;
mod holder;
mod hooks;
mod images;
mod life;
mod model;
mod mounts;
mod namespaces;
mod network;
mod process;
mod record;
mod recover;
mod registry;
mod sandbox;
mod spec;
mod usage;
mod users;

pub(crate) use classes::check_file as check_block_io_classes;
pub use cni::CniDirs;
pub use events::{PodChange, PodEvent};
pub use hooks::{ContainerMoment, PodMoment, PodPlugins};
pub use images::PodImage;
pub use model::{
    ContainerSpec, IdMapping, Pairs, PidScope, PodDevice, PodDns, PodMount, PodNamespaces, PodPort,
    PodResources, PodSecurity, Propagation, SandboxSpec, SecurityProfile,
};
pub use process::{ExecOutput, PodProcess, Streams};
pub use record::{ContainerPhase, ContainerStatus, ContainerView, ProcessUser, SandboxView};
pub(crate) use record::{ContainerRecord, SandboxRecord};
pub(crate) use registry::Pods;
pub use usage::{InterfaceUsage, PodUsage, ProcessCounts, StoreUsage};
