//! `info`, `version`, `system df`.

use std::collections::BTreeMap;

use crate::{
    build::BuildCacheRecord,
    container::ContainerSummary,
    image::ImageSummary,
    volume::Volume,
    wire::{Empty, Time, is_default},
};

wire! {
    /// Answer of `GET /info`.
    pub struct SystemInfo {
        /// Id of the daemon.
        #[serde(rename = "ID")]
        pub id: String,
        /// Containers.
        pub containers: i64,
        /// Containers that run.
        pub containers_running: i64,
        /// Containers that are paused.
        pub containers_paused: i64,
        /// Containers that do neither.
        pub containers_stopped: i64,
        /// Images.
        pub images: i64,
        /// Storage driver.
        pub driver: String,
        /// Lines about it.
        pub driver_status: Vec<[String; 2]>,
        /// Drivers by kind.
        pub plugins: PluginsInfo,
        /// Whether memory can be limited.
        pub memory_limit: bool,
        /// Whether swap can be limited.
        pub swap_limit: bool,
        /// Whether the CFS period can be set.
        pub cpu_cfs_period: bool,
        /// Whether the CFS quota can be set.
        pub cpu_cfs_quota: bool,
        /// Whether CPU weights can be set.
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        /// Whether CPUs can be assigned.
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        /// Whether processes can be limited.
        pub pids_limit: bool,
        /// Whether IPv4 is forwarded.
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        /// Whether the daemon logs debug lines.
        pub debug: bool,
        /// Open files of the daemon.
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        /// Whether the OOM killer can be switched off.
        pub oom_kill_disable: bool,
        /// Threads of the daemon.
        #[serde(rename = "NGoroutines")]
        pub n_goroutines: i64,
        /// Now.
        pub system_time: Time,
        /// Default log driver.
        pub logging_driver: String,
        /// `cgroupfs` or `systemd`.
        pub cgroup_driver: String,
        /// `1` or `2`.
        pub cgroup_version: String,
        /// Clients that listen to events.
        #[serde(rename = "NEventsListener")]
        pub n_events_listener: i64,
        /// Kernel.
        pub kernel_version: String,
        /// Distribution.
        pub operating_system: String,
        /// Its version.
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        /// `linux`.
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// `x86_64`.
        pub architecture: String,
        /// Default registry.
        pub index_server_address: String,
        /// Registries.
        pub registry_config: RegistryServiceConfig,
        /// CPUs.
        #[serde(rename = "NCPU")]
        pub n_cpu: i64,
        /// Bytes of memory.
        pub mem_total: i64,
        /// Swarm only; `null`.
        pub generic_resources: Option<Vec<Empty>>,
        /// The daemon's root.
        pub docker_root_dir: String,
        /// Proxy for http.
        pub http_proxy: String,
        /// Proxy for https.
        pub https_proxy: String,
        /// Hosts without proxy.
        pub no_proxy: String,
        /// Host name.
        pub name: String,
        /// Labels of the daemon.
        pub labels: Vec<String>,
        /// Whether experimental features are on.
        pub experimental_build: bool,
        /// Version of the daemon.
        pub server_version: String,
        /// OCI runtimes by name.
        pub runtimes: BTreeMap<String, RuntimeInfo>,
        /// The default one.
        pub default_runtime: String,
        /// Swarm state.
        pub swarm: SwarmInfo,
        /// Whether containers outlive the daemon.
        pub live_restore_enabled: bool,
        /// Windows only.
        pub isolation: String,
        /// Init of `--init`.
        pub init_binary: String,
        /// Version of containerd.
        pub containerd_commit: Commit,
        /// Version of the runtime.
        pub runc_commit: Commit,
        /// Version of the init.
        pub init_commit: Commit,
        /// `name=seccomp,profile=builtin`, …
        pub security_options: Vec<String>,
        /// Product licence.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub product_license: String,
        /// Pools of subnets.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub default_address_pools: Option<Vec<AddressPool>>,
        /// Firewall (API 1.49).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub firewall_backend: Option<FirewallInfo>,
        /// Directories with CDI specifications.
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Vec<String>,
        /// Warnings for the user.
        pub warnings: Option<Vec<String>>,
    }

    /// Drivers by kind.
    pub struct PluginsInfo {
        /// Volume drivers.
        pub volume: Vec<String>,
        /// Network drivers.
        pub network: Vec<String>,
        /// Authorisation plugins.
        pub authorization: Option<Vec<String>>,
        /// Log drivers.
        pub log: Vec<String>,
    }

    /// Registries.
    pub struct RegistryServiceConfig {
        /// Networks with registries without TLS.
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        /// Registries by name.
        pub index_configs: BTreeMap<String, IndexInfo>,
        /// Mirrors of docker.io.
        pub mirrors: Option<Vec<String>>,
    }

    /// One registry.
    pub struct IndexInfo {
        /// Name.
        pub name: String,
        /// Mirrors.
        pub mirrors: Vec<String>,
        /// Whether TLS is demanded.
        pub secure: bool,
        /// Whether it is docker's.
        pub official: bool,
    }

    /// One OCI runtime.
    pub struct RuntimeInfo {
        /// Program.
        #[serde(rename = "path", skip_serializing_if = "String::is_empty")]
        pub path: String,
        /// Arguments.
        #[serde(rename = "runtimeArgs", skip_serializing_if = "Option::is_none")]
        pub runtime_args: Option<Vec<String>>,
        /// What it can do (API 1.46).
        #[serde(rename = "status", skip_serializing_if = "Option::is_none")]
        pub status: Option<BTreeMap<String, String>>,
    }

    /// Swarm state of a node that is in no swarm.
    pub struct SwarmInfo {
        /// Empty.
        #[serde(rename = "NodeID")]
        pub node_id: String,
        /// Empty.
        pub node_addr: String,
        /// `inactive`.
        pub local_node_state: String,
        /// False.
        pub control_available: bool,
        /// Empty.
        pub error: String,
        /// `null`.
        pub remote_managers: Option<Vec<Empty>>,
    }

    /// A component's commit.
    pub struct Commit {
        /// Commit or version.
        #[serde(rename = "ID")]
        pub id: String,
    }

    /// A pool of subnets.
    pub struct AddressPool {
        /// The pool in CIDR form.
        pub base: String,
        /// Prefix length of each subnet.
        pub size: i64,
    }

    /// The firewall.
    pub struct FirewallInfo {
        /// Driver, `nftables`.
        pub driver: String,
        /// Lines about it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub info: Vec<[String; 2]>,
    }

    /// Answer of `GET /version`.
    pub struct Version {
        /// Product.
        pub platform: PlatformName,
        /// Components.
        pub components: Vec<Component>,
        /// Version of the daemon.
        pub version: String,
        /// Newest API version.
        pub api_version: String,
        /// Oldest API version.
        #[serde(rename = "MinAPIVersion")]
        pub min_api_version: String,
        /// Commit.
        pub git_commit: String,
        /// Compiler; docker's clients show it.
        pub go_version: String,
        /// `linux`.
        pub os: String,
        /// `amd64`.
        pub arch: String,
        /// Kernel.
        pub kernel_version: String,
        /// Whether experimental features are on.
        #[serde(skip_serializing_if = "is_default")]
        pub experimental: bool,
        /// When the daemon was built.
        pub build_time: String,
    }

    /// Product.
    pub struct PlatformName {
        /// Its name.
        pub name: String,
    }

    /// One component.
    pub struct Component {
        /// Name.
        pub name: String,
        /// Version.
        pub version: String,
        /// Further lines.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub details: Option<BTreeMap<String, String>>,
    }

    /// Answer of `GET /system/df`. A kind that was not asked for is `None`.
    pub struct DiskUsage {
        /// Bytes of all layers of images.
        pub layers_size: i64,
        /// Bytes of compressed layers and documents that are kept beside them (Berth only).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub blobs_size: Option<i64>,
        /// Images.
        pub images: Option<Vec<ImageSummary>>,
        /// Containers.
        pub containers: Option<Vec<ContainerSummary>>,
        /// Volumes.
        pub volumes: Option<Vec<Volume>>,
        /// Build cache.
        pub build_cache: Option<Vec<BuildCacheRecord>>,
    }
}

wire! {
    /// Answer of `POST /berth/check` (Berth only).
    pub struct StoreCheck {
        /// What is wrong; empty is good.
        pub problems: Vec<StoreProblem>,
        /// Images that were looked at.
        pub images: i64,
        /// Layers that were looked at.
        pub layers: i64,
        /// Blobs whose digests were computed.
        pub blobs: i64,
    }

    /// One problem of the image store.
    pub struct StoreProblem {
        /// What is wrong with what.
        pub what: String,
        /// Whether it was mended.
        pub repaired: bool,
    }
}
