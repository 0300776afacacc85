//! Mounts below the root. Sources are detached mounts, targets are descriptors inside the root: no path of the
//! container is resolved twice, and none leaves the root.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_spec::{
    COVERABLE_PROC, FsOption, MountAttributes, MountSource, MountStep, Propagation, SuperblockFlags,
};
use berth_sys::Errno;
use berth_sys::mountfd::{self, FsContext, MountAttr, Tree};
use berth_sys::path::{mkdir_all_in_root, open_in_root};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::copy_up;
use super::root::name_of;
use crate::error::{Context, Fault};
use crate::init::Init;

impl Init<'_> {
    /// One mount. A failure is told in runc's words, which are looked for.
    pub(super) fn mount(&mut self, step: &MountStep) -> Result<(), Fault> {
        self.make(step).map_err(|fault| {
            let (source, place) = (shown(&step.source), &step.destination);
            let told =
                format!("error during container init: error mounting {source:?} to rootfs at {place:?}");
            Fault { message: format!("{told}: {}", fault.message), ..fault }
        })
    }

    fn make(&mut self, step: &MountStep) -> Result<(), Fault> {
        let what = || format!("mount {}", step.destination.display());
        match &step.source {
            MountSource::Bind { source, recursive } => self.bind(step, source, *recursive),
            MountSource::Filesystem { fstype, source, superblock, options, copy_up } => {
                let root = self.stage.root()?;
                let mut options = Cow::Borrowed(options.as_slice());
                if fstype == "tmpfs"
                    && !options.iter().any(|option| option.key == "mode")
                    && let Some(mode) = mode_of(root, step)
                {
                    let mode = FsOption { key: "mode".to_owned(), value: Some(format!("{mode:o}")) };
                    options.to_mut().push(mode);
                }
                let target = match fstype.as_str() {
                    "proc" | "sysfs" => real_directory(root, step)?,
                    _ => mkdir_all_in_root(root, &step.destination, directory_mode()).at(what)?,
                };
                check_proc(&target, step)?;
                let attributes = if *copy_up { step.attributes.without_readonly() } else { step.attributes };
                let mount =
                    new_filesystem(fstype, source, superblock, &options, attributes.set, &step.destination)?;
                if *copy_up {
                    copy_up::copy(target.as_fd(), mount.as_fd())
                        .at(|| format!("copy {} into its tmpfs", step.destination.display()))?;
                    set(&mount, step.attributes, false).at(what)?;
                }
                place(&mount, &target, step)
            }
            MountSource::Cgroup2 { fallback } => {
                let root = self.stage.root()?;
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
                let root = self.stage.root()?;
                let target = existing(root, step)?;
                if let Some(superblock) = superblock {
                    remount(&target, *superblock, options).at(what)?;
                }
                change(&target, step)
            }
            MountSource::Existing => change(&existing(self.stage.root()?, step)?, step),
        }
    }
}

/// What is mounted, as config.json names it.
fn shown(source: &MountSource) -> String {
    match source {
        MountSource::Bind { source, .. } => source.to_string(),
        MountSource::Filesystem { source, .. } => source.clone(),
        MountSource::Cgroup2 { .. } => "cgroup".to_owned(),
        MountSource::Remount { .. } | MountSource::Existing => "none".to_owned(),
    }
}

/// The mode of the directory that a mount covers: a tmpfs that was given none has the same, as runc has it.
fn mode_of(root: BorrowedFd<'_>, step: &MountStep) -> Option<u32> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let there = open_in_root(root, &step.destination, flags, Mode::empty()).ok()?;
    fstat(&there).ok().map(|stat| stat.st_mode & 0o7777)
}

pub(super) fn directory_mode() -> Mode {
    Mode::from_bits_truncate(0o755)
}

fn existing(root: BorrowedFd<'_>, step: &MountStep) -> Result<OwnedFd, Fault> {
    open_in_root(root, &step.destination, OFlag::O_PATH, Mode::empty())
        .at(|| format!("open {}", step.destination.display()))
}

/// The place for a procfs or sysfs. An image whose /proc is a link would have what is masked below it masked elsewhere
/// (CVE-2019-19921, CVE-2023-27561).
fn real_directory(root: BorrowedFd<'_>, step: &MountStep) -> Result<OwnedFd, Fault> {
    let what = || format!("open {}", step.destination.display());
    let look = || open_in_root(root, &step.destination, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty());
    let there = match look() {
        Err(Errno::ENOENT) => {
            mkdir_all_in_root(root, &step.destination, directory_mode()).at(what)?;
            look().at(what)?
        }
        other => other.at(what)?,
    };
    let kind = SFlag::from_bits_truncate(fstat(&there).at(what)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        return Ok(there);
    }
    Err(Fault::new(format!(
        "filesystem {:?} must be mounted on ordinary directory: {} of the image is a link or a file",
        step.destination.file_name().unwrap_or_default(),
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

/// Attributes while it is detached, then into its place, then propagation.
pub(super) fn attach(mount: &OwnedFd, target: &OwnedFd, step: &MountStep) -> Result<(), Fault> {
    check_proc(target, step)?;
    let what = |part: &str| format!("{part} of {}", step.destination.display());
    let attributes = match set(mount, step.attributes, false) {
        Err(Errno::EPERM) => set(mount, step.attributes.without_clearing(step.implied), false),
        other => other,
    };
    attributes.at(|| what("attributes"))?;
    place(mount, target, step)
}

/// Into its place, then propagation. A new file system has its attributes from its birth on.
fn place(mount: &OwnedFd, target: &OwnedFd, step: &MountStep) -> Result<(), Fault> {
    let what = |part: &str| format!("{part} of {}", step.destination.display());
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
            Some(value) if fstype == "overlay" && value.len() > mountfd::MAX_STRING => {
                long_overlay_option(&fs, key, value)
            }
            Some(value) => fs.set_string(key, value),
            None => fs.set_flag(key),
        };
        result.map_err(|e| explained(what(&format!("option {key}")), e))?;
    }
    fs.create().map_err(|e| explained(what("make it"), e))?;
    // The access time mode travels as a value in `set`; fsmount takes the same bits.
    fs.mount(attributes).at(|| what("attach it"))
}

/// Directories of an overlay in more characters than one option takes: one by one (`lowerdir+`, Linux 6.8).
fn long_overlay_option(fs: &FsContext, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "upperdir" | "workdir" => fs.set_path(key, Path::new(value)),
        // Colons and backslashes are escaped in the one string; a path that needs that keeps to its limit.
        "lowerdir" if !value.contains('\\') && !value.contains("::") => {
            value.split(':').try_for_each(|lower| fs.set_path("lowerdir+", Path::new(lower)))
        }
        _ => fs.set_string(key, value),
    }
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
