//! The model: a project as the Compose specification has it, canonical and complete.
//!
//! Fields stand in docker compose's order and are written by its rules, because the hash over what is written
//! decides whether a container is made anew.

#[macro_use]
mod omit;
mod build;
mod decode;
mod deploy;
mod develop;
mod env_file;
mod hash;
mod limits;
mod maps;
mod mounts;
mod project;
mod render;
mod resources;
mod scalars;
mod service;

use berth_client::api::container::Ulimit as ApiUlimit;

/// Resource limits in the engine's words.
#[must_use]
pub fn ulimits_of(limits: &std::collections::BTreeMap<String, Ulimit>) -> Vec<ApiUlimit> {
    crate::request::ulimits(limits)
}

pub use build::{Build, SshKeys};
pub(crate) use decode::decode;
pub use deploy::{
    Deploy, DeviceRequest, DiscreteResource, GenericResource, Placement, Preference, Resource, Resources,
    RestartPolicy, Update,
};
pub use develop::{Develop, Hook, Trigger};
pub use env_file::EnvFile;
pub use limits::Ulimit;
pub use maps::{Hosts, Pairs, Variables};
pub use mounts::{BindOptions, FileReference, ImageOptions, Mount, TmpfsOptions, VolumeOptions};
pub use omit::Always;
pub use project::{Dependencies, Project};
pub use render::{Format, render_tree};
pub use resources::{FileObject, Ipam, IpamPool, Model, Network, Volume};
pub use scalars::{Bytes, Command, DeviceCount, Duration, FileMode, Float, HealthTest, Strings};
pub use service::{
    Blkio, CredentialSpec, Dependency, Device, DeviceRate, DeviceWeight, HealthCheck, Logging, MaybeCommand,
    Port, Provider, Service, ServiceModel, ServiceNetwork, Services,
};
