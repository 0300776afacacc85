//! `HostConfig`: the half of a container that belongs to this host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Mount, Resources};

/// Ports: `80/tcp` → where it is published. In answers `None` means exposed, not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// One published address of a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Host address; empty is any.
    #[serde(deserialize_with = "crate::wire::null_default")]
    pub host_ip: String,
    /// Host port or range `8000-8010`; empty lets the engine choose.
    #[serde(deserialize_with = "crate::wire::null_default")]
    pub host_port: String,
}

wire! {
    /// What a container may take from, and show on, this host.
    pub struct HostConfig {
        /// `source:target[:options]`; the source is a host path or a volume's name.
        pub binds: Option<Vec<String>>,
        /// File into which the client wrote the id.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        /// Log driver and its options.
        pub log_config: LogConfig,
        /// `default`, `bridge`, `host`, `none`, `container:<id>` or a network.
        pub network_mode: String,
        /// Requested publications.
        pub port_bindings: PortMap,
        /// What to do when the container ends.
        pub restart_policy: RestartPolicy,
        /// Whether to remove the container when it ends.
        pub auto_remove: bool,
        /// Volume driver for named volumes in `binds`.
        pub volume_driver: String,
        /// Containers whose volumes to mount, `id[:ro|rw]`.
        pub volumes_from: Option<Vec<String>>,
        /// Mounts in the long form.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mounts: Option<Vec<Mount>>,
        /// Height and width of the terminal at the start.
        pub console_size: [u16; 2],
        /// Annotations handed to the OCI runtime.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
        /// Capabilities to add to the default set.
        pub cap_add: Option<Vec<String>>,
        /// Capabilities to drop from the default set.
        pub cap_drop: Option<Vec<String>>,
        /// `host` or `private`; empty takes the host's default.
        pub cgroupns_mode: String,
        /// Name servers.
        pub dns: Option<Vec<String>>,
        /// Resolver options.
        pub dns_options: Option<Vec<String>>,
        /// Search domains.
        pub dns_search: Option<Vec<String>>,
        /// Additional `host:ip` lines.
        pub extra_hosts: Option<Vec<String>>,
        /// Additional groups.
        pub group_add: Option<Vec<String>>,
        /// `private`, `shareable`, `host`, `none`, `container:<id>`.
        pub ipc_mode: String,
        /// Not used by docker any more.
        pub cgroup: String,
        /// Links to other containers, `id:alias`.
        pub links: Option<Vec<String>>,
        /// OOM score adjustment, -1000 to 1000.
        pub oom_score_adj: i64,
        /// `host`, `container:<id>` or empty for an own one.
        pub pid_mode: String,
        /// Whether the container has all privileges.
        pub privileged: bool,
        /// Whether to publish all exposed ports at random ports.
        pub publish_all_ports: bool,
        /// Whether the root is read-only.
        pub readonly_rootfs: bool,
        /// `seccomp=…`, `apparmor=…`, `no-new-privileges`, `label=…`, `systempaths=unconfined`.
        pub security_opt: Option<Vec<String>>,
        /// Options of the storage driver.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub storage_opt: Option<BTreeMap<String, String>>,
        /// tmpfs mounts: path → options.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs: Option<BTreeMap<String, String>>,
        /// `host` or empty.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// `host` or empty.
        pub userns_mode: String,
        /// Size of /dev/shm in bytes; 0 takes 64 MiB.
        pub shm_size: i64,
        /// Kernel parameters.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sysctls: Option<BTreeMap<String, String>>,
        /// OCI runtime; empty takes the daemon's default.
        pub runtime: String,
        /// Windows only.
        pub isolation: String,
        /// Paths masked in the container; `None` takes the default, empty masks none.
        pub masked_paths: Option<Vec<String>>,
        /// Paths read-only in the container; `None` takes the default, empty protects none.
        pub readonly_paths: Option<Vec<String>>,
        /// Whether an init process reaps zombies and forwards signals.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
    }
    flatten {
        /// Limits and devices.
        pub resources: Resources,
    }

    /// Log driver and its options.
    pub struct LogConfig {
        /// Driver; empty takes the daemon's default.
        #[serde(rename = "Type")]
        pub driver: String,
        /// Options.
        pub config: BTreeMap<String, String>,
    }

    /// What to do when a container ends.
    pub struct RestartPolicy {
        /// `no`, `always`, `unless-stopped`, `on-failure`; empty is `no`.
        pub name: String,
        /// Tries of `on-failure`; 0 is no bound.
        pub maximum_retry_count: i64,
    }
}
