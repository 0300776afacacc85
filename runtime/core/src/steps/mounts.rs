//! Mounts below the root. Sources are detached mounts, targets are descriptors inside the root: no path of the
//! container is resolved twice, and none leaves the root.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_spec::{FsOption, IdMaps, MountAttributes, MountSource, MountStep, Propagation, SuperblockFlags};
use berth_sys::mountfd::{self, FsContext, MountAttr, Tree};
use berth_sys::path::{create_file_in_root, mkdir_all_in_root, open_in_root};
use berth_sys::{Errno, Pid};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::root::name_of;
use crate::error::{Context, Fault};
use crate::init::Init;

/// Files of a container's /proc that may be covered (lxcfs does; runc allows the same).
const COVERABLE_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

impl Init<'_> {
    /// One mount.
    pub(super) fn mount(&mut self, step: &MountStep) -> Result<(), Fault> {
        let root = self.stage.root()?;
        let what = || format!("mount {}", step.destination.display());
        match &step.source {
            MountSource::Bind { source, recursive } => {
                let mount = detached(source, *recursive)
                    .at(|| format!("bind {} to {}", source.display(), step.destination.display()))?;
                let target = target_for(root, &step.destination, &mount).at(what)?;
                attach(&mount, &target, step)
            }
            MountSource::Filesystem { fstype, source, superblock, options, copy_up } => {
                if matches!(fstype.as_str(), "proc" | "sysfs") {
                    refuse_link(root, step)?;
                }
                let target = mkdir_all_in_root(root, &step.destination, directory_mode()).at(what)?;
                check_proc(&target, step)?;
                let attributes = if *copy_up { step.attributes.without_readonly() } else { step.attributes };
                let mount =
                    new_filesystem(fstype, source, superblock, options, attributes.set, &step.destination)?;
                if *copy_up {
                    let source = name_of(&target);
                    copy_tree(&source, &name_of(&mount)).map_err(|e| {
                        Fault::new(format!("copy {} into its tmpfs: {e}", step.destination.display()))
                    })?;
                }
                attach(&mount, &target, step)
            }
            MountSource::Cgroup2 { fallback } => {
                let target = mkdir_all_in_root(root, &step.destination, directory_mode()).at(what)?;
                let fresh = FsContext::open("cgroup2").and_then(|fs| {
                    fs.create()?;
                    fs.mount(step.attributes.set)
                });
                let mount = match fresh {
                    Ok(mount) => mount,
                    Err(Errno::EPERM | Errno::EBUSY) => mountfd::open_tree(AT_FDCWD, fallback, Tree::Clone)
                        .at(|| format!("bind {}", fallback.display()))?,
                    Err(errno) => return Err(Fault::os(what(), errno)),
                };
                attach(&mount, &target, step)
            }
            MountSource::Remount { superblock, options } => {
                let target = existing(root, step)?;
                if let Some(superblock) = superblock {
                    remount(&target, *superblock, options).at(what)?;
                }
                change(&target, step)
            }
            MountSource::Existing => change(&existing(root, step)?, step),
        }
    }
}

/// A detached mount of the source. A source that is a detached mount itself, handed over as a descriptor, is taken
/// as it is where the kernel does not copy such (before 6.15).
fn detached(source: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let tree = if recursive { Tree::CloneRecursive } else { Tree::Clone };
    match mountfd::open_tree(AT_FDCWD, source, tree) {
        Err(Errno::EINVAL) if source.starts_with("/proc/self/fd") => {
            mountfd::open_tree(AT_FDCWD, source, Tree::Open)
        }
        other => other,
    }
}

fn directory_mode() -> Mode {
    Mode::from_bits_truncate(0o755)
}

/// The place of a bind: a directory for a directory, a file for anything else.
fn target_for(root: BorrowedFd<'_>, destination: &Path, mount: &OwnedFd) -> Result<OwnedFd, Errno> {
    let kind = SFlag::from_bits_truncate(fstat(mount)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        mkdir_all_in_root(root, destination, directory_mode())
    } else {
        create_file_in_root(root, destination, Mode::from_bits_truncate(0o755))
    }
}

fn existing(root: BorrowedFd<'_>, step: &MountStep) -> Result<OwnedFd, Fault> {
    open_in_root(root, &step.destination, OFlag::O_PATH, Mode::empty())
        .at(|| format!("open {}", step.destination.display()))
}

/// An image whose /proc is a link would have what is masked below it masked elsewhere (CVE-2019-19921, CVE-2023-27561).
fn refuse_link(root: BorrowedFd<'_>, step: &MountStep) -> Result<(), Fault> {
    let there = match open_in_root(root, &step.destination, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())
    {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.at(|| format!("open {}", step.destination.display()))?,
    };
    let kind = SFlag::from_bits_truncate(fstat(&there).at(|| "stat".into())?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        return Ok(());
    }
    Err(Fault::new(format!(
        "{} of the image must be a directory, not a link or a file",
        step.destination.display()
    )))
}

/// Refuses to cover parts of a container's /proc: that is how a container fools the runtime about itself.
fn check_proc(target: &OwnedFd, step: &MountStep) -> Result<(), Fault> {
    let on_proc = fstatfs(target).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC);
    let allowed = COVERABLE_PROC.iter().any(|path| step.destination == Path::new(path));
    if on_proc && !allowed {
        let message = format!("{} cannot be mounted because it is inside /proc", step.destination.display());
        return Err(Fault::new(message));
    }
    Ok(())
}

/// Attributes and id mapping while it is detached, then into its place, then propagation.
fn attach(mount: &OwnedFd, target: &OwnedFd, step: &MountStep) -> Result<(), Fault> {
    check_proc(target, step)?;
    let what = |part: &str| format!("{part} of {}", step.destination.display());
    if let Some(idmap) = &step.idmap {
        let namespace = user_namespace(&idmap.maps).at(|| what("the id mapping"))?;
        let change = MountAttr { userns: Some(namespace.as_fd()), ..MountAttr::default() };
        mountfd::mount_setattr(mount, &change, idmap.recursive).at(|| what("the id mapping"))?;
    }
    set(mount, step.attributes, false).at(|| what("attributes"))?;
    set(mount, step.recursive_attributes, true).at(|| what("recursive attributes"))?;
    mountfd::move_mount(mount, target).at(|| format!("mount {}", step.destination.display()))?;
    propagate(mount, &step.propagation).at(|| what("propagation"))
}

fn change(target: &OwnedFd, step: &MountStep) -> Result<(), Fault> {
    let what = || format!("change the mount {}", step.destination.display());
    set(target, step.attributes, false).at(what)?;
    set(target, step.recursive_attributes, true).at(what)?;
    propagate(target, &step.propagation).at(what)
}

fn set(mount: &OwnedFd, attributes: MountAttributes, recursive: bool) -> Result<(), Errno> {
    if attributes.is_empty() {
        return Ok(());
    }
    let change = MountAttr { set: attributes.set, clear: attributes.clear, ..MountAttr::default() };
    mountfd::mount_setattr(mount, &change, recursive)
}

fn propagate(mount: &OwnedFd, changes: &[Propagation]) -> Result<(), Errno> {
    for change in changes {
        let attr = MountAttr { propagation: change.flag, ..MountAttr::default() };
        mountfd::mount_setattr(mount, &attr, change.recursive)?;
    }
    Ok(())
}

fn new_filesystem(
    fstype: &str,
    source: &str,
    superblock: &SuperblockFlags,
    options: &[FsOption],
    attributes: u64,
    destination: &Path,
) -> Result<OwnedFd, Fault> {
    let what = |part: &str| format!("mount {fstype} on {}: {part}", destination.display());
    let fs = FsContext::open(fstype).at(|| what("the kernel does not know this file system"))?;
    let explained = |part: String, errno: Errno| {
        let log = fs.log();
        Fault::os(if log.is_empty() { part } else { format!("{part} ({log})") }, errno)
    };
    if !source.is_empty() {
        fs.set_string("source", source).map_err(|e| explained(what(&format!("source {source}")), e))?;
    }
    for flag in superblock_names(*superblock) {
        fs.set_flag(flag).map_err(|e| explained(what(flag), e))?;
    }
    for FsOption { key, value } in options {
        let result = match value {
            Some(value) => fs.set_string(key, value),
            None => fs.set_flag(key),
        };
        result.map_err(|e| explained(what(&format!("option {key}")), e))?;
    }
    fs.create().map_err(|e| explained(what("make it"), e))?;
    // The access time mode travels as a value in `set`; fsmount takes the same bits.
    fs.mount(attributes).at(|| what("attach it"))
}

fn superblock_names(flags: SuperblockFlags) -> impl Iterator<Item = &'static str> {
    [
        (flags.readonly, "ro"),
        (flags.synchronous, "sync"),
        (flags.dirsync, "dirsync"),
        (flags.lazytime, "lazytime"),
        (flags.mandatory_locks, "mand"),
        (flags.iversion, "iversion"),
        (flags.silent, "silent"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
}

/// `remount` without `bind`: the superblock itself changes (mount(2)).
fn remount(target: &OwnedFd, superblock: SuperblockFlags, options: &[FsOption]) -> Result<(), Errno> {
    let mut flags = MsFlags::MS_REMOUNT;
    for (set, flag) in [
        (superblock.readonly, MsFlags::MS_RDONLY),
        (superblock.synchronous, MsFlags::MS_SYNCHRONOUS),
        (superblock.dirsync, MsFlags::MS_DIRSYNC),
        (superblock.silent, MsFlags::MS_SILENT),
    ] {
        flags.set(flag, set);
    }
    let data: Vec<String> = options
        .iter()
        .map(|option| match &option.value {
            Some(value) => format!("{}={value}", option.key),
            None => option.key.clone(),
        })
        .collect();
    let data = data.join(",");
    let none: Option<&str> = None;
    nix::mount::mount(none, &name_of(target), none, flags, Some(data.as_str()))
}

/// A user namespace with these maps; without maps, the container's own (mount_setattr(2), MOUNT_ATTR_IDMAP).
fn user_namespace(maps: &IdMaps) -> Result<OwnedFd, Errno> {
    use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
    let open = |path: String| {
        std::fs::File::open(path)
            .map(OwnedFd::from)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    };
    if maps.is_empty() {
        return open("/proc/self/ns/user".into());
    }
    // A short-lived child holds the namespace while its maps are written.
    match clone3(&Clone3 { flags: CloneFlags::NEWUSER, cgroup: None })? {
        Forked::Child => {
            nix::unistd::pause();
            berth_sys::process::exit_now(0)
        }
        Forked::Parent { pidfd, .. } => {
            // Its number in our own namespace may be another one than in the host's /proc, which is still ours.
            let namespace = pid_in_proc(&pidfd)
                .and_then(|pid| write_maps(pid, maps).and_then(|()| open(format!("/proc/{pid}/ns/user"))));
            // Both fail only if it is gone already, which it cannot be.
            berth_sys::pidfd::send_signal(&pidfd, nix::libc::SIGKILL).ok();
            berth_sys::pidfd::wait(&pidfd, true).ok();
            namespace
        }
    }
}

/// The number of a process in the pid namespace that /proc shows (proc_pid_fdinfo(5)).
fn pid_in_proc(pidfd: &OwnedFd) -> Result<Pid, Errno> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw).ok_or(Errno::ESRCH)
}

fn write_maps(pid: Pid, maps: &IdMaps) -> Result<(), Errno> {
    for (name, map) in [("gid_map", &maps.gid), ("uid_map", &maps.uid)] {
        let written = std::fs::write(format!("/proc/{pid}/{name}"), IdMaps::text(map));
        written.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    }
    Ok(())
}

/// Copies a directory's content with owners and modes (`tmpcopyup`).
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        if metadata.is_symlink() {
            symlink(std::fs::read_link(&source)?, &copy)?;
            lchown(&copy, Some(metadata.uid()), Some(metadata.gid()))?;
            continue;
        }
        if metadata.is_dir() {
            std::fs::create_dir(&copy)?;
            copy_tree(&source, &copy)?;
        } else if metadata.is_file() {
            std::fs::copy(&source, &copy)?;
        } else {
            // Sockets, pipes and devices of an image's directory mean nothing in a fresh tmpfs.
            continue;
        }
        chown(&copy, Some(metadata.uid()), Some(metadata.gid()))?;
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(metadata.mode()))?;
    }
    Ok(())
}
