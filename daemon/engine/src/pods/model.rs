//! What is asked for: pods and their containers, as an orchestrator describes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_network::Protocol;
use serde::{Deserialize, Serialize};

/// Key and value pairs that belong to the orchestrator: kept to the byte.
pub type Pairs = BTreeMap<String, String>;

/// A pod sandbox: what the containers of a pod share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Name of the pod.
    pub name: String,
    /// Unique id of the pod.
    pub uid: String,
    /// Kubernetes namespace of the pod.
    pub namespace: String,
    /// Which sandbox of this pod it is, from 0.
    pub attempt: u32,
    /// Host name; empty takes the host's.
    pub hostname: String,
    /// Directory of the containers' logs on the host; empty: nothing is logged.
    pub log_directory: String,
    /// What resolv.conf says; none copies the host's.
    pub dns: Option<PodDns>,
    /// Ports of the host that lead to the pod.
    pub ports: Vec<PodPort>,
    /// The orchestrator's labels.
    pub labels: Pairs,
    /// The orchestrator's annotations.
    pub annotations: Pairs,
    /// Name of the runtime handler that was asked for.
    pub runtime_handler: String,
    /// The pod's cgroup: a path, or a slice of systemd; empty: the engine's own.
    pub cgroup_parent: String,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: Pairs,
    /// Whose namespaces the pod uses.
    pub namespaces: PodNamespaces,
    /// Privileged containers may run in it.
    pub privileged: bool,
}

/// Whose namespaces a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodNamespaces {
    /// The host's network.
    pub host_network: bool,
    /// The host's System V IPC and message queues.
    pub host_ipc: bool,
    /// Process ids.
    pub pid: PidScope,
    /// A user namespace of its own, with these ids.
    pub users: Option<IdMapping>,
}

/// Whom a process sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidScope {
    /// All processes of the pod.
    #[default]
    Pod,
    /// Those of its container.
    Container,
    /// All processes of the host.
    Node,
    /// Those of another container of the pod.
    Target(String),
}

/// Ids from 0 on in the pod, and what they are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// What root of the pod is on the host.
    pub host_id: u32,
    /// How many ids there are.
    pub length: u32,
}

/// What a pod's resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A port of the host that leads to the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPort {
    /// Port in the pod.
    pub container_port: u16,
    /// Port of the host.
    pub host_port: u16,
    /// Address of the host; none: all.
    pub host_ip: Option<IpAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Name, unique in the pod together with `attempt`.
    pub name: String,
    /// How often it was made before.
    pub attempt: u32,
    /// The image: any reference, or its id.
    pub image: String,
    /// The image as the user wrote it.
    pub asked_image: String,
    /// Replaces the image's entrypoint and command.
    pub command: Vec<String>,
    /// Arguments; without `command` they replace the image's command.
    pub args: Vec<String>,
    /// Working directory; empty takes the image's.
    pub working_dir: String,
    /// Variables beside the image's.
    pub env: Vec<(String, String)>,
    /// Files and directories of the host, and images.
    pub mounts: Vec<PodMount>,
    /// Devices of the host.
    pub devices: Vec<PodDevice>,
    /// Devices by the names that their vendors' CDI files give them.
    pub cdi_devices: Vec<String>,
    /// The orchestrator's labels.
    pub labels: Pairs,
    /// The orchestrator's annotations.
    pub annotations: Pairs,
    /// The log, relative to the sandbox's directory; empty: nothing is logged.
    pub log_path: String,
    /// It reads standard input.
    pub stdin: bool,
    /// Standard input ends with the first client that was attached to it.
    pub stdin_once: bool,
    /// It has a terminal.
    pub tty: bool,
    /// Signal that asks it to end; none takes the image's.
    pub stop_signal: Option<String>,
    /// Its limits.
    pub resources: PodResources,
    /// What it may do.
    pub security: PodSecurity,
}

/// How mounts travel between host and container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodMount {
    /// Where, in the container.
    pub container_path: String,
    /// What, on the host; empty with `image`.
    pub host_path: String,
    /// It cannot be written to.
    pub read_only: bool,
    /// Neither can what is mounted below it.
    pub recursive_read_only: bool,
    /// SELinux may relabel it.
    pub relabel: bool,
    /// How mounts travel.
    pub propagation: Propagation,
    /// Ids on the disk as the container sees them.
    pub ids: Option<IdMapping>,
    /// The file system of this image instead of a path of the host.
    pub image: Option<String>,
    /// A directory within the image.
    pub image_sub_path: String,
}

/// A device of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDevice {
    /// Path in the container.
    pub container_path: String,
    /// Path on the host.
    pub host_path: String,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// Limits of a container; 0 and empty change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodResources {
    /// Length of a period, in microseconds.
    pub cpu_period: i64,
    /// Processor time in a period, in microseconds.
    pub cpu_quota: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Processors, `0-2,7`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap together.
    pub memory_swap: i64,
    /// Bytes of memory that are left to it when memory is short.
    pub memory_reservation: i64,
    /// Processes and threads.
    pub pids: i64,
    /// Whom the kernel kills first, -1000 to 1000.
    pub oom_score_adj: i64,
    /// Page size (`2MB`) → bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Files of cgroup v2.
    pub unified: Pairs,
}

/// A profile of a security module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProfile {
    /// None at all.
    Unconfined,
    /// The engine's own.
    RuntimeDefault,
    /// seccomp: a file of the host; AppArmor: a loaded profile.
    Localhost(String),
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSecurity {
    /// Everything that the engine may.
    pub privileged: bool,
    /// Capabilities beside the usual ones, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities less than usual.
    pub drop_capabilities: Vec<String>,
    /// Ambient capabilities.
    pub ambient_capabilities: Vec<String>,
    /// Whom it sees.
    pub pid: PidScope,
    /// User id.
    pub run_as_user: Option<u32>,
    /// Group id.
    pub run_as_group: Option<u32>,
    /// User by name, from the image's passwd file.
    pub run_as_username: String,
    /// The root file system cannot be written to.
    pub readonly_rootfs: bool,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// Without those of the image's group file.
    pub strict_groups: bool,
    /// execve gives no privileges.
    pub no_new_privs: bool,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written to.
    pub readonly_paths: Vec<String>,
    /// System calls.
    pub seccomp: Option<SecurityProfile>,
    /// AppArmor.
    pub apparmor: Option<SecurityProfile>,
}

impl SandboxSpec {
    /// Whether something of the pod runs from its beginning to its end: a shared pid namespace needs an init, a user
    /// namespace a process to be made by.
    pub(super) fn needs_holder(&self) -> bool {
        self.namespaces.pid == PidScope::Pod || self.namespaces.users.is_some()
    }
}
