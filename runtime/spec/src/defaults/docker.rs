//! The `config.json` of a container as Docker makes it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::oci;
use crate::seccomp::native_arch;

use super::capabilities::DEFAULT_CAPABILITIES;
use super::profile::docker_seccomp;

/// PATH of a container whose image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of /dev/shm.
pub const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// Paths hidden from an unprivileged container.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths an unprivileged container can only read.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Whose namespace a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceMode {
    /// A new one.
    Private,
    /// The host's.
    Host,
    /// The one at this path.
    Path(PathBuf),
}

/// Which seccomp profile applies.
#[derive(Debug, Clone, PartialEq)]
pub enum Seccomp {
    /// Docker's default; none for a privileged container.
    Default,
    /// None.
    Unconfined,
    /// This one, privileged or not.
    Profile(Box<oci::LinuxSeccomp>),
}

/// Builder for the `config.json` of a container as Docker makes it. Every setter replaces what was set before.
#[derive(Debug, Clone)]
#[must_use]
pub struct DockerSpec {
    process: oci::Process,
    capabilities: Vec<oci::Capability>,
    hostname: Option<String>,
    domainname: Option<String>,
    root: PathBuf,
    readonly_root: bool,
    privileged: bool,
    writable_cgroups: Option<bool>,
    mounts: Vec<oci::Mount>,
    shm_size: Option<i64>,
    cgroup_path: Option<PathBuf>,
    resources: oci::LinuxResources,
    network: NamespaceMode,
    pid: NamespaceMode,
    ipc: NamespaceMode,
    uts: NamespaceMode,
    cgroup: NamespaceMode,
    time: NamespaceMode,
    network_sysctls: bool,
    devices: Vec<oci::LinuxDevice>,
    device_rules: Vec<oci::LinuxDeviceCgroup>,
    sysctls: HashMap<String, String>,
    seccomp: Seccomp,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
    annotations: HashMap<String, String>,
}

/// The starting point of a container as Docker makes it.
pub fn docker_spec() -> DockerSpec {
    let mut process = oci::Process::default();
    process.set_args(None).set_env(Some(Vec::new())).set_cwd("/".into()).set_rlimits(None);
    process.set_no_new_privileges(None).set_capabilities(None).set_terminal(None);
    process.set_oom_score_adj(Some(0));
    DockerSpec {
        process,
        capabilities: DEFAULT_CAPABILITIES.to_vec(),
        hostname: None,
        domainname: None,
        root: "rootfs".into(),
        readonly_root: false,
        privileged: false,
        writable_cgroups: None,
        mounts: Vec::new(),
        shm_size: Some(DEFAULT_SHM_SIZE),
        cgroup_path: None,
        resources: oci::LinuxResources::default(),
        network: NamespaceMode::Private,
        pid: NamespaceMode::Private,
        ipc: NamespaceMode::Private,
        uts: NamespaceMode::Private,
        cgroup: NamespaceMode::Private,
        time: NamespaceMode::Host,
        network_sysctls: true,
        devices: Vec::new(),
        device_rules: Vec::new(),
        sysctls: HashMap::new(),
        seccomp: Seccomp::Default,
        masked_paths: None,
        readonly_paths: None,
        annotations: HashMap::new(),
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl DockerSpec {
            $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            })*
        }
    };
}

setters! {
    /// Capabilities of the bounding, effective and permitted sets ([`super::capabilities`] makes the list).
    capabilities: Vec<oci::Capability>;
    /// Host name; without effect in the host's UTS namespace.
    hostname: Option<String>;
    /// NIS domain name; without effect in the host's UTS namespace.
    domainname: Option<String>;
    /// Path of the root file system.
    root: PathBuf;
    /// Read-only root file system (`--read-only`).
    readonly_root: bool;
    /// `--privileged`: no seccomp default, no masked or read-only paths, /sys and cgroups writable, every device. The
    /// capabilities and the device nodes are the caller's to give.
    privileged: bool;
    /// Cgroups mounted writable or not, whatever `privileged` says.
    writable_cgroups: Option<bool>;
    /// Volumes, binds and tmpfs mounts. One on the destination of a default mount replaces that one.
    mounts: Vec<oci::Mount>;
    /// Size of /dev/shm in bytes; `None` leaves /dev/shm out (`--ipc none`).
    shm_size: Option<i64>;
    /// The cgroup, `/berth/<id>`.
    cgroup_path: Option<PathBuf>;
    /// Limits; their `devices` are replaced by Docker's rules and [`Self::device_rules`].
    resources: oci::LinuxResources;
    /// Network namespace; the engine gives `Path("berth:netns")`, which the shim replaces.
    network: NamespaceMode;
    /// Process id namespace.
    pid: NamespaceMode;
    /// IPC namespace; `Host` also shows the host's /dev/shm.
    ipc: NamespaceMode;
    /// UTS namespace.
    uts: NamespaceMode;
    /// Cgroup namespace: Docker's default is private on cgroup v2 and host on v1.
    cgroup: NamespaceMode;
    /// Time namespace.
    time: NamespaceMode;
    /// Docker's two sysctls of a container with its own network: ping and low ports for everybody.
    network_sysctls: bool;
    /// Device nodes (`--device`).
    devices: Vec<oci::LinuxDevice>;
    /// Device rules after Docker's own (`--device`, `--device-cgroup-rule`).
    device_rules: Vec<oci::LinuxDeviceCgroup>;
    /// Kernel parameters (`--sysctl`); they win over the defaults.
    sysctls: HashMap<String, String>;
    /// Seccomp profile.
    seccomp: Seccomp;
    /// Masked paths; `None` is Docker's list.
    masked_paths: Option<Vec<String>>;
    /// Read-only paths; `None` is Docker's list.
    readonly_paths: Option<Vec<String>>;
    /// Annotations.
    annotations: HashMap<String, String>;
}

impl DockerSpec {
    /// Command line.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.process.set_args(Some(args.into_iter().map(Into::into).collect()));
        self
    }

    /// The whole environment.
    pub fn env<S: Into<String>>(mut self, env: impl IntoIterator<Item = S>) -> Self {
        self.process.set_env(Some(env.into_iter().map(Into::into).collect()));
        self
    }

    /// Working directory.
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.process.set_cwd(cwd.into());
        self
    }

    /// User and groups.
    pub fn user(mut self, uid: u32, gid: u32, additional_gids: Vec<u32>) -> Self {
        let mut user = oci::User::default();
        user.set_uid(uid).set_gid(gid).set_additional_gids(Some(additional_gids));
        self.process.set_user(user);
        self
    }

    /// A terminal, with its size as (rows, columns) if known.
    pub fn terminal(mut self, terminal: bool, size: Option<(u16, u16)>) -> Self {
        self.process.set_terminal(Some(terminal));
        self.process.set_console_size(size.and_then(|(rows, columns)| {
            oci::BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build().ok()
        }));
        self
    }

    /// Resource limits (`--ulimit`).
    pub fn ulimits(mut self, ulimits: Vec<oci::PosixRlimit>) -> Self {
        self.process.set_rlimits((!ulimits.is_empty()).then_some(ulimits));
        self
    }

    /// `--oom-score-adj`
    pub fn oom_score_adj(mut self, score: i32) -> Self {
        self.process.set_oom_score_adj(Some(score));
        self
    }

    /// `--security-opt no-new-privileges`
    pub fn no_new_privileges(mut self, on: bool) -> Self {
        self.process.set_no_new_privileges(Some(on));
        self
    }

    /// `--security-opt apparmor=…`
    pub fn apparmor_profile(mut self, profile: Option<String>) -> Self {
        self.process.set_apparmor_profile(profile);
        self
    }

    /// The finished configuration.
    #[must_use]
    pub fn build(mut self) -> oci::Spec {
        let mut spec = oci::Spec::default();
        let linux = self.linux();
        let mut root = oci::Root::default();
        root.set_path(self.root.clone()).set_readonly(Some(self.readonly_root));
        let own_uts = self.uts != NamespaceMode::Host;
        spec.set_version("1.2.1".to_owned());
        spec.set_root(Some(root));
        spec.set_mounts(Some(self.all_mounts()));
        spec.set_hostname(self.hostname.take().filter(|_| own_uts));
        spec.set_domainname(self.domainname.take().filter(|_| own_uts));
        spec.set_annotations((!self.annotations.is_empty()).then(|| std::mem::take(&mut self.annotations)));
        spec.set_process(Some(self.process()));
        spec.set_linux(Some(linux));
        spec
    }

    /// Only its process: what an exec of the same container is made of.
    #[must_use]
    pub fn process(mut self) -> oci::Process {
        let set: oci::Capabilities = self.capabilities.into_iter().collect();
        let mut capabilities = oci::LinuxCapabilities::default();
        capabilities
            .set_bounding(Some(set.clone()))
            .set_effective(Some(set.clone()))
            .set_permitted(Some(set));
        capabilities.set_inheritable(None).set_ambient(None);
        self.process.set_capabilities(Some(capabilities));
        self.process
    }

    fn linux(&self) -> oci::Linux {
        let mut linux = oci::Linux::default();
        let paths = |given: &Option<Vec<String>>, default: &[&str]| match given {
            Some(paths) => Some(paths.clone()),
            None if self.privileged => None,
            None => Some(default.iter().map(|path| (*path).to_owned()).collect()),
        };
        let mut sysctls = HashMap::new();
        if self.network_sysctls && self.network != NamespaceMode::Host {
            sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
            sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        }
        sysctls.extend(self.sysctls.clone());
        let mut resources = self.resources.clone();
        resources.set_devices(Some(self.rules()));
        linux.set_namespaces(Some(self.namespaces()));
        linux.set_masked_paths(paths(&self.masked_paths, &MASKED_PATHS));
        linux.set_readonly_paths(paths(&self.readonly_paths, &READONLY_PATHS));
        linux.set_sysctl((!sysctls.is_empty()).then_some(sysctls));
        linux.set_resources(Some(resources));
        linux.set_devices((!self.devices.is_empty()).then(|| self.devices.clone()));
        linux.set_cgroups_path(self.cgroup_path.clone());
        linux.set_rootfs_propagation(self.root_propagation());
        linux.set_seccomp(match &self.seccomp {
            Seccomp::Default if !self.privileged => Some(docker_seccomp(&self.capabilities, native_arch())),
            Seccomp::Default | Seccomp::Unconfined => None,
            Seccomp::Profile(profile) => Some((**profile).clone()),
        });
        linux
    }

    /// A shared or slave volume needs a root that lets events through.
    fn root_propagation(&self) -> Option<String> {
        let has = |names: [&str; 2]| {
            self.mounts
                .iter()
                .flat_map(|mount| mount.options().iter().flatten())
                .any(|option| names.contains(&option.as_str()))
        };
        let name = if has(["shared", "rshared"]) {
            "shared"
        } else if has(["slave", "rslave"]) {
            "rslave"
        } else {
            return None;
        };
        Some(name.to_owned())
    }

    fn namespaces(&self) -> Vec<oci::LinuxNamespace> {
        use oci::LinuxNamespaceType as T;
        let modes = [
            (T::Mount, &NamespaceMode::Private),
            (T::Network, &self.network),
            (T::Time, &self.time),
            (T::Uts, &self.uts),
            (T::Pid, &self.pid),
            (T::Ipc, &self.ipc),
            (T::Cgroup, &self.cgroup),
        ];
        let mut namespaces = Vec::with_capacity(modes.len());
        for (typ, mode) in modes {
            let mut namespace = oci::LinuxNamespace::default();
            namespace.set_typ(typ);
            match mode {
                NamespaceMode::Host => continue,
                NamespaceMode::Private => {}
                NamespaceMode::Path(path) => {
                    namespace.set_path(Some(path.clone()));
                }
            }
            namespaces.push(namespace);
        }
        namespaces
    }

    fn rules(&self) -> Vec<oci::LinuxDeviceCgroup> {
        let rule = |allow, numbers: Option<(i64, i64)>| {
            let mut rule = oci::LinuxDeviceCgroup::default();
            rule.set_allow(allow).set_access(Some("rwm".to_owned()));
            rule.set_typ(numbers.map(|_| oci::LinuxDeviceType::C));
            rule.set_major(numbers.map(|(major, _)| major)).set_minor(numbers.map(|(_, minor)| minor));
            rule
        };
        if self.privileged {
            return vec![rule(true, None)];
        }
        // zero, null, urandom, random, tty, console; and fuse, refused by name.
        let mut rules = vec![rule(false, None)];
        let known = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
        rules.extend(known.map(|numbers| rule(true, Some(numbers))));
        rules.push(rule(false, Some((10, 229))));
        rules.extend(self.device_rules.iter().cloned());
        rules
    }

    fn all_mounts(&mut self) -> Vec<oci::Mount> {
        let mut own = std::mem::take(&mut self.mounts);
        // Outer ones first, so that a volume inside a volume is not hidden.
        own.sort_by_key(|mount| mount.destination().components().count());
        let taken = |path: &Path| own.iter().any(|mount| mount.destination() == path);
        let dev_taken = taken(Path::new("/dev"));
        let mut mounts: Vec<oci::Mount> = self
            .default_mounts()
            .into_iter()
            .filter(|mount| {
                let path = mount.destination();
                !(taken(path) || dev_taken && path.starts_with("/dev"))
            })
            .collect();
        mounts.extend(own);
        mounts
    }

    fn default_mounts(&self) -> Vec<oci::Mount> {
        let writable_cgroups = self.writable_cgroups.unwrap_or(self.privileged);
        let sys_ro = if self.privileged { None } else { Some("ro") };
        let cgroup_ro = if writable_cgroups { None } else { Some("ro") };
        let base = ["nosuid", "noexec", "nodev"];
        let with = |extra: Option<&str>| base.iter().copied().chain(extra).map(str::to_owned).collect();
        let mut mounts = vec![
            mount("/proc", "proc", "proc", with(None)),
            mount("/dev", "tmpfs", "tmpfs", strings(&["nosuid", "strictatime", "mode=755", "size=65536k"])),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                strings(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            ),
            mount("/sys", "sysfs", "sysfs", with(sys_ro)),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", with(cgroup_ro)),
            mount("/dev/mqueue", "mqueue", "mqueue", with(None)),
        ];
        match (self.shm_size, &self.ipc) {
            (None, _) => {}
            (Some(_), NamespaceMode::Host) => {
                mounts.push(mount("/dev/shm", "bind", "/dev/shm", strings(&["rbind", "rprivate"])));
            }
            (Some(size), _) => {
                let mut options: Vec<String> = with(Some("mode=1777"));
                options.push(format!("size={size}"));
                mounts.push(mount("/dev/shm", "tmpfs", "shm", options));
            }
        }
        mounts
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn mount(destination: &str, typ: &str, source: &str, options: Vec<String>) -> oci::Mount {
    let mut mount = oci::Mount::default();
    mount.set_destination(destination.into()).set_typ(Some(typ.to_owned()));
    mount.set_source(Some(source.into())).set_options(Some(options));
    mount
}
