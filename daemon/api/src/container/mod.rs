//! Containers: what the user asks for, what the engine answers.

mod config;
mod create;
mod host;
mod inspect;
mod line;
mod list;
mod mount;
mod resources;

pub use config::{ContainerConfig, HealthConfig};
pub use create::{
    CreateRequest, CreateResponse, FilesystemChange, PruneContainersResponse, TopResponse, UpdateRequest,
    UpdateResponse, WaitError, WaitResponse,
};
pub use host::{HostConfig, LogConfig, PortBinding, PortMap, RestartPolicy};
pub use inspect::{ContainerInspect, ContainerState, GraphDriver, Health, HealthLogEntry, NetworkSettings};
pub use line::{ContainerLine, MountLine, NetworkNames};
pub use list::{ContainerSummary, HealthSummary, HostConfigSummary, NetworkSettingsSummary, PortSummary};
pub use mount::{
    BindOptions, ImageMountOptions, Mount, MountPoint, SecretOptions, TmpfsOptions, VolumeDriverConfig,
    VolumeMountOptions,
};
pub use resources::{DeviceMapping, DeviceRequest, Resources, ThrottleDevice, Ulimit, WeightDevice};
