//! The steps of a container's init, each with what it needs and nothing more.
//!
//! The order in which they stand in a plan is made in `compile/order.rs` and nowhere else:
//!
//! ```text
//!  host view of the file system                    container view
//!  ─────────────────────────────────────────────   ──────────────────────────────────────────────────────
//!  OomScoreAdj  LoopbackUp  NewKeyring             CreateWorkingDirectory  Console  RemountReadonly
//!  RootPropagation  MountRoot                      RootMountPropagation  ReadonlyRoot  Hostname  Domainname
//!  Mount…  Device…  Symlink…                       Sysctls  ReadonlyPaths  MaskPaths
//!  CreateRuntimeHooks (parent)                     Personality  MemoryPolicy  Rlimits  Scheduler  IoPriority …
//!  CreateContainerHooks                            Seccomp or NoNewPrivileges  Bounding  User  Cwd  Capabilities
//!  PivotRoot ────────────────────────────────────▶ ResolveExecutable  Seccomp  Ready/WaitForStart
//!                                                  StartContainerHooks  Exec
//! ```

use std::fmt;
use std::path::PathBuf;

use crate::plan::IdMaps;
use crate::process::{
    CapabilityPlan, CapabilitySet, IoPriority, Rlimit, SchedulerPlan, TerminalPlan, UserPlan,
};

/// One step of the init process. `berth-core` runs a plan's steps in order and knows no other order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitStep {
    /// Write `/proc/self/oom_score_adj`.
    OomScoreAdj(i32),
    /// Bring `lo` up: the network namespace is new.
    LoopbackUp,
    /// Join the session keyring named after the container (keyctl(2)), unless the caller said `--no-new-keyring`.
    NewKeyring,
    /// Change the propagation of the host's tree in the new mount namespace (recursively where it says so), so that
    /// nothing leaks out. `MS_SLAVE|MS_REC` unless config.json asks for another.
    RootPropagation(Propagation),
    /// Put the root file system in place: bind `root.path` onto itself, or attach the detached mount. The parent mount
    /// is made private first, so that the pivot is allowed.
    MountRoot,
    /// One mount below the root.
    Mount(Box<MountStep>),
    /// One device node below the root.
    Device(DeviceStep),
    /// One symbolic link below the root.
    Symlink(SymlinkStep),
    /// Tell the parent that the mounts are done and wait until it has run prestart and createRuntime hooks.
    CreateRuntimeHooks,
    /// Run the createContainer hooks.
    CreateContainerHooks,
    /// Make the root file system `/`: pivot_root(2), or move and chroot when the caller said `--no-pivot`. Without a
    /// mount namespace of its own: chroot(2). Afterwards /dev/null is reopened for standard streams that point at it.
    PivotRoot {
        /// The container has a mount namespace.
        mount_namespace: bool,
    },
    /// Create the working directory, if it is missing.
    CreateWorkingDirectory(PathBuf),
    /// Open a pty from the container's devpts, mount it on /dev/console, make it the controlling terminal and hand the
    /// master to the parent.
    Console(TerminalPlan),
    /// Open a pty from the container's devpts for an exec: no /dev/console.
    ExecConsole(TerminalPlan),
    /// Change attributes of the mount at this path inside the container (`/dev` and cgroup tmpfs, filled before).
    RemountReadonly(PathBuf),
    /// Propagation of the container's root mount (`linux.rootfsPropagation` shared or unbindable), after the pivot.
    RootMountPropagation(Propagation),
    /// Make the root mount read-only.
    ReadonlyRoot,
    /// sethostname(2).
    Hostname(String),
    /// setdomainname(2).
    Domainname(String),
    /// Write these below /proc/sys.
    Sysctls(Vec<SysctlStep>),
    /// Make these paths read-only by a bind mount onto themselves; a missing path is skipped.
    ReadonlyPaths(Vec<PathBuf>),
    /// Hide these paths: /dev/null over a file, an empty read-only tmpfs over a directory; a missing path is skipped.
    MaskPaths(Vec<PathBuf>),
    /// personality(2).
    Personality(u32),
    /// set_mempolicy(2).
    MemoryPolicy(MemoryPolicyStep),
    /// setrlimit(2). A limit that may not be raised is a warning when the caller is lenient.
    Rlimits(Vec<Rlimit>),
    /// sched_setattr(2).
    Scheduler(SchedulerPlan),
    /// ioprio_set(2).
    IoPriority(IoPriority),
    /// Write the profile to `/proc/self/attr/apparmor/exec`.
    AppArmor(String),
    /// Write the label to `/proc/self/attr/exec`.
    SelinuxLabel(String),
    /// prctl(PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
    /// Install the process's seccomp program ([`crate::ProcessPlan::seccomp`]).
    Seccomp,
    /// Drop what is not in this set from the bounding set.
    BoundingCapabilities(CapabilitySet),
    /// umask(2), setgroups(2), setresgid(2), setresuid(2), keeping capabilities across.
    User(UserPlan),
    /// chdir(2) to the working directory; verify that it lies inside the root.
    WorkingDirectory(PathBuf),
    /// Set the four thread sets and the ambient set.
    Capabilities(CapabilityPlan),
    /// Find the program in PATH, so that a missing one fails `create`.
    ResolveExecutable,
    /// Report readiness and wait for `start`.
    WaitForStart,
    /// Run the startContainer hooks.
    StartContainerHooks,
    /// execve(2).
    Exec,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountStep {
    /// Index in `mounts` of config.json; `None` if the compiler added it.
    pub index: Option<usize>,
    /// Absolute, lexically clean path inside the container; to be resolved inside the root (RESOLVE_IN_ROOT).
    pub destination: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Attributes of the mount itself.
    pub attributes: MountAttributes,
    /// Those of `attributes.clear` that config.json has not named. Where the kernel lets nobody clear them they stay.
    pub implied: u64,
    /// Attributes applied to the whole tree (`rro` and the like).
    pub recursive_attributes: MountAttributes,
    /// Changes of propagation, in order, after the mount is attached.
    pub propagation: Vec<Propagation>,
    /// Id mapping of the mount.
    pub idmap: Option<IdmapStep>,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A file or directory that is there already. The target is created as the one or the other, after the source's type.
    Bind {
        /// Where it is.
        source: BindSource,
        /// `rbind`.
        recursive: bool,
    },
    /// A new file system.
    Filesystem {
        /// File system type.
        fstype: String,
        /// The source string.
        source: String,
        /// Flags of the superblock.
        superblock: SuperblockFlags,
        /// Options for the file system.
        options: Vec<FsOption>,
        /// tmpfs only: copy what the image has at the destination into it (`tmpcopyup`). The mount attributes (read-only!)
        /// are set after the copy.
        copy_up: bool,
    },
    /// The cgroup2 hierarchy: a new mount, or, where that is refused (EPERM, EBUSY in a user namespace), a bind of
    /// `fallback` .
    Cgroup2 {
        /// Host directory to bind instead.
        fallback: PathBuf,
    },
    /// Change what is mounted there already (`remount`).
    Remount {
        /// Flags of the superblock (only without `bind`).
        superblock: Option<SuperblockFlags>,
        /// Options for the file system.
        options: Vec<FsOption>,
    },
    /// Nothing new: only attributes and propagation of what is mounted there.
    Existing,
}

/// Whose file or directory a bind mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindSource {
    /// Absolute path on the host.
    Host(PathBuf),
    /// Absolute path inside the container, as the mounts before this one have made it. So it cannot be opened before its
    /// step is reached, and its links lead nowhere but inside the root.
    Container(PathBuf),
}

impl fmt::Display for BindSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(path) => write!(f, "{}", path.display()),
            Self::Container(path) => write!(f, "{} of the container", path.display()),
        }
    }
}

/// An option for fsconfig(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsOption {
    /// Name.
    pub key: String,
    /// Value; `None` for a flag.
    pub value: Option<String>,
}

/// `MOUNT_ATTR_*` bits for mount_setattr(2). An access time mode comes as `clear` = `MOUNT_ATTR__ATIME` and its value in `set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

impl MountAttributes {
    /// `MOUNT_ATTR_RDONLY`
    pub const RDONLY: u64 = 0x1;
    /// `MOUNT_ATTR_NOSUID`
    pub const NOSUID: u64 = 0x2;
    /// `MOUNT_ATTR_NODEV`
    pub const NODEV: u64 = 0x4;
    /// `MOUNT_ATTR_NOEXEC`
    pub const NOEXEC: u64 = 0x8;
    /// `MOUNT_ATTR__ATIME`, the mask of the access time modes.
    pub const ATIME: u64 = 0x70;
    /// `MOUNT_ATTR_NOATIME`
    pub const NOATIME: u64 = 0x10;
    /// `MOUNT_ATTR_STRICTATIME`
    pub const STRICTATIME: u64 = 0x20;
    /// `MOUNT_ATTR_NODIRATIME`
    pub const NODIRATIME: u64 = 0x80;
    /// `MOUNT_ATTR_NOSYMFOLLOW`
    pub const NOSYMFOLLOW: u64 = 0x20_0000;

    /// What the kernel lets nobody clear on a copy that a less privileged mount namespace has got, access times aside
    /// (mount_namespaces(7)).
    pub const LOCKABLE: u64 = Self::RDONLY | Self::NOSUID | Self::NODEV | Self::NOEXEC;

    /// True if nothing changes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    /// The same without the read-only bit.
    #[must_use]
    pub const fn without_readonly(self) -> Self {
        Self { set: self.set & !Self::RDONLY, clear: self.clear }
    }

    /// The same, but that these bits are left as they are.
    #[must_use]
    pub const fn without_clearing(self, bits: u64) -> Self {
        Self { set: self.set, clear: self.clear & !bits }
    }

    /// True if the mount becomes read-only.
    #[must_use]
    pub const fn readonly(self) -> bool {
        self.set & Self::RDONLY != 0
    }
}

/// Flags of a superblock, set with fsconfig(2) as flag options of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // Four independent switches of the kernel, not a state.
pub struct SuperblockFlags {
    /// `ro`
    pub readonly: bool,
    /// `sync`
    pub synchronous: bool,
    /// `dirsync`
    pub dirsync: bool,
    /// `lazytime`
    pub lazytime: bool,
    /// `mand`
    pub mandatory_locks: bool,
    /// `iversion`
    pub iversion: bool,
    /// `silent`
    pub silent: bool,
}

/// A propagation type with its reach (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub flag: u64,
    /// The whole tree.
    pub recursive: bool,
}

/// The id mapping of a mount (mount_setattr(2), MOUNT_ATTR_IDMAP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdmapStep {
    /// Where the mapping comes from.
    pub source: IdmapSource,
    /// `ridmap`.
    pub recursive: bool,
}

/// Where the mapping of a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdmapSource {
    /// Its own mappings, or those of the container's new user namespace.
    Maps(IdMaps),
    /// The user namespace that the container joins.
    Namespace(PathBuf),
}

/// Type of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block device.
    Block,
    /// Character device.
    Char,
    /// Named pipe.
    Fifo,
}

/// How a device node comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceMethod {
    /// mknod(2); where that is refused with EPERM, bind the host's node of the same path.
    Mknod,
    /// Bind the host's node of the same path: mknod(2) is impossible in a user namespace.
    BindHost,
}

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStep {
    /// Absolute path inside the container (and, for a bind, on the host).
    pub path: PathBuf,
    /// Type.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
    /// How to make it.
    pub method: DeviceMethod,
}

/// One symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkStep {
    /// Absolute path of the link inside the container.
    pub path: PathBuf,
    /// Its target.
    pub target: PathBuf,
    /// Replace what is there (ptmx); otherwise an existing file is left alone.
    pub replace: bool,
    /// Only if this exists on the host.
    pub if_exists: Option<PathBuf>,
}

/// One kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlStep {
    /// As in config.json, `net.ipv4.ip_forward`.
    pub key: String,
    /// Path below /proc/sys, `net/ipv4/ip_forward`.
    pub path: PathBuf,
    /// The value.
    pub value: String,
}

/// Arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicyStep {
    /// `MPOL_*` mode with its `MPOL_F_*` flags.
    pub mode: u32,
    /// Node numbers.
    pub nodes: Vec<usize>,
}
