//! Answer of `GET /containers/{id}/json`.

use std::collections::BTreeMap;

use super::{ContainerConfig, HostConfig, MountPoint, PortMap};
use crate::{image::Descriptor, network::EndpointSettings, wire::Time};

wire! {
    /// A container in full.
    pub struct ContainerInspect {
        /// Id, 64 hex digits.
        pub id: String,
        /// When it was created.
        pub created: Time,
        /// Program.
        pub path: String,
        /// Its arguments.
        pub args: Vec<String>,
        /// What it is doing.
        pub state: ContainerState,
        /// Image id, `sha256:…`.
        pub image: String,
        /// Path of resolv.conf on the host.
        pub resolv_conf_path: String,
        /// Path of hostname on the host.
        pub hostname_path: String,
        /// Path of hosts on the host.
        pub hosts_path: String,
        /// Path of the log on the host.
        pub log_path: String,
        /// Name with a leading slash.
        pub name: String,
        /// Restarts by the restart policy.
        pub restart_count: i64,
        /// Storage driver.
        pub driver: String,
        /// `linux`.
        pub platform: String,
        /// SELinux label of its files.
        pub mount_label: String,
        /// SELinux label of its processes.
        pub process_label: String,
        /// AppArmor profile.
        #[serde(rename = "AppArmorProfile")]
        pub app_armor_profile: String,
        /// Running execs; `None` when there are none.
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        /// The host's half of the configuration.
        pub host_config: HostConfig,
        /// Where the file system comes from.
        pub graph_driver: GraphDriver,
        /// Bytes in the writable layer (with `size=1`).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        /// Bytes in all layers (with `size=1`).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
        /// The portable half of the configuration.
        pub config: ContainerConfig,
        /// Addresses and ports.
        pub network_settings: NetworkSettings,
        /// Manifest of the image (API 1.48).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_manifest_descriptor: Option<Descriptor>,
    }

    /// What a container is doing.
    pub struct ContainerState {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        pub status: String,
        /// Also true while paused or restarting.
        pub running: bool,
        /// Frozen.
        pub paused: bool,
        /// Waiting for the restart policy.
        pub restarting: bool,
        /// Killed for want of memory.
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        /// Removal failed.
        pub dead: bool,
        /// Process on the host; 0 if none.
        pub pid: i64,
        /// Exit code of the last run.
        pub exit_code: i64,
        /// Why the last start failed.
        pub error: String,
        /// Start of the last run.
        pub started_at: Time,
        /// End of the last run.
        pub finished_at: Time,
        /// Health, if there is a check.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub health: Option<Health>,
    }

    /// Result of the health checks.
    pub struct Health {
        /// `none`, `starting`, `healthy`, `unhealthy`.
        pub status: String,
        /// Failures in a row.
        pub failing_streak: i64,
        /// The last five checks, oldest first.
        pub log: Option<Vec<HealthLogEntry>>,
    }

    /// One health check.
    pub struct HealthLogEntry {
        /// When it began.
        pub start: Time,
        /// When it ended.
        pub end: Time,
        /// 0 healthy, 1 unhealthy, -1 the check itself failed.
        pub exit_code: i64,
        /// What it printed.
        pub output: String,
    }

    /// The storage driver's view.
    pub struct GraphDriver {
        /// Directories, if the driver shows them.
        pub data: Option<BTreeMap<String, String>>,
        /// Driver.
        pub name: String,
    }

    /// Addresses and ports of a container.
    pub struct NetworkSettings {
        /// Sandbox; empty when stopped.
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        /// Path of the network namespace.
        pub sandbox_key: String,
        /// Exposed ports with their allocated publications.
        pub ports: PortMap,
        /// Network name → endpoint.
        pub networks: BTreeMap<String, EndpointSettings>,
    }
}
