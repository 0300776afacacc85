//! What the user asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_oci::{Platform, Reference};

/// One build, as asked for.
#[derive(Debug)]
pub struct BuildRequest {
    /// Where the files come from.
    pub context: Context,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// Names for the result.
    pub tags: Vec<Reference>,
    /// Stage to stop at; none means the last.
    pub target: Option<String>,
    /// `--build-arg`: a name without value takes nothing from anywhere (the client resolves it).
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--label`: added to the result after all others.
    pub labels: BTreeMap<String, String>,
    /// Run every step, whatever the cache says. Results are still recorded.
    pub no_cache: bool,
    /// Look for newer base images even if the store has them.
    pub pull: bool,
    /// Target platforms, each for an image of its own; none means this machine's.
    pub platforms: Vec<Platform>,
    /// Network of `RUN` steps.
    pub network_mode: NetworkMode,
    /// Resources of `RUN` steps.
    pub limits: Limits,
    /// Size of `/dev/shm` in `RUN` steps, in bytes; none means 64 MiB.
    pub shm_size: Option<u64>,
    /// `host:ip` lines added to `/etc/hosts` of `RUN` steps.
    pub extra_hosts: Vec<String>,
    /// Secrets that `RUN --mount=type=secret` may ask for, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Parent cgroup for `RUN` steps; none means `/berth/builds`.
    pub cgroup_parent: Option<String>,
    /// What this build is called, from one time to the next: what changed is told against the last build of that
    /// name. None means the first tag, or else the Dockerfile's name.
    pub name: Option<String>,
    /// Stages whose steps are run whatever the cache says.
    pub no_cache_filter: Vec<String>,
    /// `--build-context`: trees and images by the name that `FROM` and `--from` use.
    pub named_contexts: BTreeMap<String, Context>,
    /// Sockets of ssh agents that `RUN --mount=type=ssh` may use, by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// What steps may ask for beyond Docker's default confinement.
    pub allow: Entitlements,
    /// Nothing in a new layer is newer than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// What the image's layers were made of goes into its config, so that others can build on from it.
    pub inline_cache: bool,
    /// Limits of setrlimit(2) in `RUN` steps.
    pub ulimits: Vec<oci_spec::runtime::PosixRlimit>,
}

/// What steps may ask for: `docker build --allow`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --security=insecure`
    pub insecure: bool,
    /// `RUN --network=host`
    pub host_network: bool,
    /// `RUN --device`: names or kinds of devices; an empty one stands for all.
    pub devices: Vec<String>,
}

impl Entitlements {
    /// Whether a step may have this device.
    pub(crate) fn has_device(&self, name: &str) -> bool {
        let kind = name.split('=').next().unwrap_or_default();
        self.devices.iter().any(|allowed| {
            allowed.is_empty() || allowed == name || allowed.strip_suffix("=*").unwrap_or(allowed) == kind
        })
    }
}

impl BuildRequest {
    /// A request with nothing but a context: the file `Dockerfile` in it, no tags, default everything.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            dockerfile: DockerfileSource::Path("Dockerfile".into()),
            tags: Vec::new(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            pull: false,
            platforms: Vec::new(),
            network_mode: NetworkMode::Default,
            limits: Limits::default(),
            shm_size: None,
            extra_hosts: Vec::new(),
            secrets: BTreeMap::new(),
            cgroup_parent: None,
            name: None,
            no_cache_filter: Vec::new(),
            named_contexts: BTreeMap::new(),
            ssh: BTreeMap::new(),
            allow: Entitlements::default(),
            rewrite_timestamp: false,
            inline_cache: false,
            ulimits: Vec::new(),
        }
    }
}

/// Where a build's files come from.
#[derive(Debug)]
pub enum Context {
    /// A tar stream in a file, plain or compressed (gzip, bzip2, xz, zstd).
    Tar(File),
    /// A directory of this machine. It is read in place, never written.
    Directory(PathBuf),
    /// The same, already open.
    Open(OwnedFd),
    /// A git repository, an archive or a single Dockerfile, by its URL.
    Url(String),
    /// The files of an image. Not as the main context.
    Image(String),
    /// No files at all.
    Empty,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone)]
pub enum DockerfileSource {
    /// A path inside the context.
    Path(String),
    /// The text itself, as from `docker build -f -`.
    Inline(Vec<u8>),
    /// The text of a file that lies elsewhere, with its name and its own `.dockerignore`; without one the context's counts.
    Given {
        /// For messages.
        name: String,
        /// The Dockerfile.
        text: Vec<u8>,
        /// What `NAME.dockerignore` says.
        ignore: Option<String>,
    },
}

/// The network that `RUN` steps see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The engine's default network.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's own.
    Host,
    /// A network by name or id, or `container:<id>`.
    Named(String),
}

/// Resource limits of each `RUN` step; none means unlimited.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<i64>,
    /// CFS period in microseconds.
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds.
    pub cpu_quota: Option<i64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// CPUs, as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
}

/// A value that a step may see and the image must not keep. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
