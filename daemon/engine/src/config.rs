//! What a daemon tells its engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cdi::CdiDirs;
use crate::cgroups::CgroupDriver;
use crate::error::Result;
use crate::pods::CniDirs;
use crate::users::UserRange;

/// An OCI runtime: a program with runc's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The program.
    pub path: PathBuf,
    /// Arguments before the command.
    pub args: Vec<String>,
}

/// What containers get that do not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Name of the runtime.
    pub runtime: String,
    /// Log driver.
    pub log_driver: String,
    /// Options of this log driver.
    pub log_options: BTreeMap<String, String>,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// Bytes that a container may write into its own tree; `None` is no bound.
    pub size: Option<u64>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            runtime: BUILT_IN.to_owned(),
            log_driver: "json-file".to_owned(),
            log_options: BTreeMap::new(),
            shm_size: berth_spec::defaults::DEFAULT_SHM_SIZE,
            size: None,
        }
    }
}

/// The name that clients expect of the runtime that is always there; here it is Berth's own.
pub(crate) const BUILT_IN: &str = "runc";

/// Where an engine keeps its things and what it may use.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// State that survives a reboot: images, volumes, containers.
    pub root: PathBuf,
    /// State that does not: sockets, bundles, exit records.
    pub run_root: PathBuf,
    /// The program `berth-shim`, absolute.
    pub shim_binary: PathBuf,
    /// The program that becomes the resolver process when its argument is [`crate::DNS_ROLE`], absolute.
    pub dns_program: PathBuf,
    /// berthd, which shims run to send logs over TLS ([`SYSLOG_ROLE`](crate::SYSLOG_ROLE)).
    pub relay_program: PathBuf,
    /// Link name of the default bridge; `None` derives one from `root`.
    pub default_bridge: Option<String>,
    /// Registries spoken to over plain HTTP, beside those of this host.
    pub insecure_registries: Vec<String>,
    /// Directories with a directory for each registry: `hosts.toml`, certificates.
    pub registry_dirs: Vec<PathBuf>,
    /// Bytes of blobs and layers that the image store never passes; images that no container uses go before it does.
    pub image_cap: Option<u64>,
    /// Bytes that the build cache never passes; `None` means a fifth of the file system.
    pub build_cache_cap: Option<u64>,
    /// Labels of the daemon, shown by `info`.
    pub labels: Vec<String>,
    /// Name servers of containers that ask for none, instead of the host's.
    pub dns: Vec<String>,
    /// Who makes the cgroups of containers.
    pub cgroup_driver: CgroupDriver,
    /// Parent cgroup of containers that name none; `None` is the driver's own.
    pub cgroup_parent: Option<String>,
    /// Full names of images that an orchestrator must not remove to make room.
    pub pinned_images: Vec<String>,
    /// File with classes of block I/O that pods may ask for.
    pub block_io_classes: Option<PathBuf>,
    /// Whether a pod's container may be made of an image that is a checkpoint.
    pub restore_images: bool,
    /// Networks of pods.
    pub cni: CniDirs,
    /// Other OCI runtimes than Berth's own that containers may ask for, by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// What containers get that do not say otherwise.
    pub defaults: Defaults,
    /// Devices by name.
    pub cdi: CdiDirs,
    /// Whether containers that do not say otherwise get an init process.
    pub init: bool,
    /// The host's ids that containers have which do not ask for the host's users.
    pub userns_remap: Option<UserRange>,
    /// Whether `info` says that the daemon logs debug lines.
    pub debug: bool,
}

impl EngineConfig {
    /// Defaults in these directories; `berthd` is beside the shim.
    pub fn new(
        root: impl Into<PathBuf>,
        run_root: impl Into<PathBuf>,
        shim_binary: impl Into<PathBuf>,
    ) -> Self {
        let shim_binary = shim_binary.into();
        Self {
            root: root.into(),
            run_root: run_root.into(),
            dns_program: shim_binary.with_file_name("berthd"),
            relay_program: shim_binary.with_file_name("berthd"),
            shim_binary,
            default_bridge: None,
            insecure_registries: Vec::new(),
            registry_dirs: ["/etc/berth/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
            image_cap: None,
            build_cache_cap: None,
            labels: Vec::new(),
            dns: Vec::new(),
            cgroup_driver: CgroupDriver::default(),
            cgroup_parent: None,
            pinned_images: Vec::new(),
            block_io_classes: None,
            restore_images: false,
            cdi: CdiDirs(["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec()),
            cni: CniDirs {
                configurations: "/etc/cni/net.d".into(),
                plugins: ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from).to_vec(),
            },
            runtimes: BTreeMap::new(),
            defaults: Defaults::default(),
            init: false,
            userns_remap: None,
            debug: false,
        }
    }

    /// Reads the daemon's storage options: `overlay2.size=10G` bounds each container's tree.
    ///
    /// # Errors
    /// An option that is not known, or no size.
    pub fn set_storage_options<'a>(&mut self, options: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for option in options {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let key = key.strip_prefix("overlay2.").unwrap_or(key).to_owned();
            self.defaults.size = crate::containers::size::asked([(&key, &value.to_owned())])?;
        }
        Ok(())
    }

    /// Whether containers can be where these settings say.
    pub(crate) fn check_cgroups(&self) -> Result<()> {
        self.cgroup_driver.check()?;
        self.cgroup_driver.check_parent(self.cgroup_parent())
    }

    /// The program `berth-runtime`, which drives CRIU.
    pub(crate) fn runtime_program(&self) -> PathBuf {
        self.shim_binary.with_file_name("berth-runtime")
    }

    fn cgroup_parent(&self) -> &str {
        self.cgroup_parent.as_deref().unwrap_or(self.cgroup_driver.default_parent())
    }

    /// The cgroup of a container below the parent that it names, if it does, as config.json has it.
    pub(crate) fn cgroup_of(&self, parent: &str, id: &str) -> Result<PathBuf> {
        let parent = if parent.is_empty() { self.cgroup_parent() } else { parent };
        self.cgroup_driver.path(parent, id)
    }
}
