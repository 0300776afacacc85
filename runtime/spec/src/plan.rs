//! What a container is made of, after every decision has been taken.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use crate::oci;
use crate::process::{ProcessPlan, Rlimit};
use crate::step::InitStep;

/// `config.json`, compiled. Nothing in here is optional to honour and nothing is left to decide.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Namespaces to create with clone3 and to join with setns.
    pub namespaces: NamespacePlan,
    /// Id maps of the new user namespace; empty when none is created.
    pub id_maps: IdMaps,
    /// The root file system.
    pub root: RootPlan,
    /// What the parent does to the child between clone and the child's first step, in order.
    pub parent: Vec<ParentStep>,
    /// What the child does, in order. The last one is always [`InitStep::Exec`].
    pub steps: Vec<InitStep>,
    /// The process itself; its own steps are already part of `steps`.
    pub process: ProcessPlan,
    /// The control group asked for.
    pub cgroup: CgroupRequest,
    /// The group of the file system resctrl asked for.
    pub rdt: Option<RdtPlan>,
    /// Hooks by the point at which they run.
    pub hooks: HookPlans,
    /// `hostname` of the container, when one was given.
    pub hostname: Option<String>,
    /// Annotations, for the state handed to hooks.
    pub annotations: Vec<(String, String)>,
    /// Problems that do not stop the container: things runc ignores too, said aloud.
    pub warnings: Vec<SpecWarning>,
}

/// Something in `config.json` that has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecWarning {
    /// Path of the field.
    pub field: String,
    /// Why it is without effect.
    pub message: String,
}

impl std::fmt::Display for SpecWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A kind of Linux namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// User ids and capabilities. First: joining it decides what may be joined next.
    User,
    /// Process ids.
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Root of the visible cgroup tree.
    Cgroup,
    /// Monotonic and boot clocks.
    Time,
    /// Mount points. Last: after it the host's paths are gone.
    Mount,
}

impl NamespaceKind {
    /// The `CLONE_NEW*` flag.
    #[must_use]
    pub const fn clone_flag(self) -> u64 {
        match self {
            Self::User => libc::CLONE_NEWUSER as u64,
            Self::Pid => libc::CLONE_NEWPID as u64,
            Self::Network => libc::CLONE_NEWNET as u64,
            Self::Ipc => libc::CLONE_NEWIPC as u64,
            Self::Uts => libc::CLONE_NEWUTS as u64,
            Self::Cgroup => libc::CLONE_NEWCGROUP as u64,
            Self::Time => 0x80,
            Self::Mount => libc::CLONE_NEWNS as u64,
        }
    }

    /// The name of the file under `/proc/<pid>/ns`.
    #[must_use]
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
            Self::Mount => "mnt",
        }
    }

    /// Every kind, in the order in which namespaces are joined.
    pub const JOIN_ORDER: [Self; 8] =
        [Self::User, Self::Pid, Self::Network, Self::Ipc, Self::Uts, Self::Cgroup, Self::Time, Self::Mount];
}

/// Which namespaces are made and which are entered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespacePlan {
    /// `CLONE_NEW*` flags of the namespaces to create. `CLONE_NEWTIME` (0x80) may be among them: clone3(2) takes it as it
    /// is, unless there are `time_offsets`, which have to be written between an unshare(2) and the fork
    /// (time_namespaces(7)).
    pub create: u64,
    /// Namespaces to join, in the order in which it has to be done.
    pub join: Vec<JoinNamespace>,
    /// Clock offsets for a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

impl NamespacePlan {
    /// True if a namespace of this kind is created.
    #[must_use]
    pub fn creates(&self, kind: NamespaceKind) -> bool {
        self.create & kind.clone_flag() != 0
    }

    /// The path of the namespace of this kind to join, if one is joined.
    #[must_use]
    pub fn joins(&self, kind: NamespaceKind) -> Option<&PathBuf> {
        self.join.iter().find(|j| j.kind == kind).map(|j| &j.path)
    }

    /// True if the container has its own namespace of this kind, made or joined.
    #[must_use]
    pub fn has(&self, kind: NamespaceKind) -> bool {
        self.creates(kind) || self.joins(kind).is_some()
    }
}

/// A namespace given by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinNamespace {
    /// Its kind.
    pub kind: NamespaceKind,
    /// Absolute path of the namespace file.
    pub path: PathBuf,
}

/// One line of `/proc/<pid>/timens_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: &'static str,
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// One range of an id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// Number of ids.
    pub size: u32,
}

/// User and group id maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uid: Vec<IdMap>,
    /// Group ids.
    pub gid: Vec<IdMap>,
}

impl ContainerPlan {
    /// False if the container's mounts are the host's: they have to be undone when it is deleted.
    #[must_use]
    pub fn has_own_mounts(&self) -> bool {
        self.namespaces.has(NamespaceKind::Mount)
    }
}

impl IdMaps {
    /// True if there is no mapping at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty()
    }

    /// The text for `/proc/<pid>/uid_map` or `gid_map` (user_namespaces(7)).
    #[must_use]
    pub fn text(maps: &[IdMap]) -> String {
        maps.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
    }
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPlan {
    /// `root.path`, made absolute with the bundle directory.
    pub path: PathBuf,
    /// Mounted read-only once everything has been set up.
    pub readonly: bool,
}

/// Work of the parent on the child's behalf: things that need the parent's user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentStep {
    /// Write `uid_map` and `gid_map` ([`ContainerPlan::id_maps`]), `setgroups` untouched.
    IdMaps,
    /// Write `/proc/<pid>/oom_score_adj`. Only with a user namespace; otherwise the child does it.
    OomScoreAdj(i32),
    /// prlimit(2). Only with a user namespace; otherwise the child does it.
    Rlimits(Vec<Rlimit>),
    /// Move these links into the container's network namespace and rename them.
    NetDevices(Vec<NetDevicePlan>),
}

/// A host network device that moves into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevicePlan {
    /// Name on the host.
    pub host_name: String,
    /// Name inside.
    pub container_name: String,
}

/// The control group asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupRequest {
    /// `linux.cgroupsPath`; `None` leaves the choice to the runtime.
    pub path: Option<PathBuf>,
    /// The limits, device rules included (the runtime's default rules appended as runc does).
    pub resources: oci::LinuxResources,
    /// The host user whom the cgroup is handed to (cgroups(7), "Delegation"): the container's process, when it can write
    /// to its own cgroup namespace's root.
    pub owner: Option<u32>,
}

/// A share of caches and memory bandwidth (config-linux.md, "IntelRdt").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdtPlan {
    /// The class of service; `None`: one of the container's own, `/`: the default one.
    pub clos: Option<String>,
    /// `l3CacheSchema`, by lines.
    pub cache: Vec<String>,
    /// `memBwSchema`.
    pub bandwidth: Option<String>,
    /// More lines, to be written after those.
    pub schemata: Vec<String>,
    /// It gets a monitoring group of its own.
    pub monitoring: bool,
}

impl RdtPlan {
    /// All that is to be written to `schemata`, in order.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.cache.iter().chain(&self.bandwidth).chain(&self.schemata).map(String::as_str)
    }
}

/// Hooks, by their point in the life cycle (config.md, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookPlans {
    /// Deprecated; run by the parent with the namespaces made, before `create_runtime`.
    pub prestart: Vec<HookPlan>,
    /// Run by the parent, in the runtime's namespaces, after the mounts and before the pivot.
    pub create_runtime: Vec<HookPlan>,
    /// Run by the child, in the container's namespaces, before the pivot.
    pub create_container: Vec<HookPlan>,
    /// Run by the child, inside the container, after start and before exec.
    pub start_container: Vec<HookPlan>,
    /// Run by the parent after exec.
    pub poststart: Vec<HookPlan>,
    /// Run by the parent after deletion.
    pub poststop: Vec<HookPlan>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookPlan {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Arguments, `argv[0]` included.
    pub args: Vec<CString>,
    /// The whole environment; `None`: that of the process it is run by (for startContainer: the container's program).
    pub env: Option<Vec<CString>>,
    /// The time after which it is killed and counts as failed.
    pub timeout: Option<Duration>,
}
