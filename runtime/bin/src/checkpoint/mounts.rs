//! A container's mounts that CRIU shall take for external: binds, masked files, devices of the host.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use berth_spec::{BindSource, ContainerPlan, InitStep, MountSource, MountStep};
use berth_sys::clone::CloneFlags;
use berth_sys::mountfd::{Tree, move_mount, open_tree};
use berth_sys::path::{create_file_in_root, magic_link, mkdir_all_in_root, open_in_root};
use berth_sys::{Errno, ns};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::fchdir;

use super::rpc::ExternalMount;

/// What stands for all masked files.
const MASK: &str = "/dev/null";

/// For a dump: each has its own place as its name. `root` is the container's, `image` the root file system of the bundle.
pub(super) fn of_dump(plan: &ContainerPlan, root: &Path, image: &Path) -> anyhow::Result<Vec<ExternalMount>> {
    let image = directory(image)?;
    let mut external: Vec<ExternalMount> = binds(plan)
        .map(|(destination, _)| resolved(image.as_fd(), destination))
        .map(|place| ExternalMount { key: place.clone(), value: place })
        .collect();
    let root = directory(root)?;
    for path in masked(plan) {
        let there = open_in_root(root.as_fd(), path, OFlag::O_PATH, Mode::empty());
        if there.is_ok_and(|file| !is_directory(&file)) {
            external.push(ExternalMount { key: path.display().to_string(), value: MASK.to_owned() });
        }
    }
    Ok(external)
}

/// For a restore: the name, and what is to be mounted there.
pub(super) fn of_restore(plan: &ContainerPlan, image: &Path) -> anyhow::Result<Vec<ExternalMount>> {
    let image = directory(image)?;
    let mut external: Vec<ExternalMount> = binds(plan)
        .map(|(destination, source)| ExternalMount {
            key: resolved(image.as_fd(), destination),
            value: source.display().to_string(),
        })
        .collect();
    if masked(plan).next().is_some() {
        external.push(ExternalMount { key: MASK.to_owned(), value: MASK.to_owned() });
    }
    Ok(external)
}

/// Places of binds of what is the host's, and their sources. A device may be a bind too.
fn binds(plan: &ContainerPlan) -> impl Iterator<Item = (&Path, &Path)> {
    plan.steps.iter().filter_map(|step| match step {
        InitStep::Mount(mount) => match &mount.source {
            MountSource::Bind { source: BindSource::Host(source), .. } => {
                Some((mount.destination.as_path(), source.as_path()))
            }
            _ => None,
        },
        InitStep::Device(device) => Some((device.path.as_path(), device.path.as_path())),
        _ => None,
    })
}

fn masked(plan: &ContainerPlan) -> impl Iterator<Item = &Path> {
    let lists = plan.steps.iter().filter_map(|step| match step {
        InitStep::MaskPaths(paths) => Some(paths),
        _ => None,
    });
    lists.flatten().map(PathBuf::as_path)
}

/// The place without the image's links. One that the image has not is where the configuration says.
fn resolved(image: BorrowedFd<'_>, destination: &Path) -> String {
    let real = |file: &OwnedFd| std::fs::read_link(magic_link(file)).ok();
    let found = open_in_root(image, destination, OFlag::O_PATH, Mode::empty()).ok();
    let inside = found.and_then(|file| Some((real(&file)?, std::fs::read_link(magic_link(image)).ok()?)));
    match inside.as_ref().and_then(|(file, root)| file.strip_prefix(root).ok()) {
        Some(place) => Path::new("/").join(place).display().to_string(),
        None => destination.display().to_string(),
    }
}

fn directory(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

fn is_directory(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Runs `start` in a mount namespace that the host never sees, with the root file system mounted at `place` (CRIU asks
/// for a mount point) and with the mount points made that `create` would make. Comes back to the host's.
pub(super) fn with_root<T>(
    plan: &ContainerPlan,
    image: &Path,
    place: &Path,
    start: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let host = File::open("/proc/self/ns/mnt").context("open the mount namespace")?;
    let here = directory(Path::new("."))?;
    ns::unshare(CloneFlags::NEWNS).context("unshare the mount namespace")?;
    let started = prepare(plan, image, place).and_then(|()| start());
    ns::setns(&host, CloneFlags::NEWNS).context("return to the host's mount namespace")?;
    fchdir(&here).context("return to the working directory")?;
    started
}

fn prepare(plan: &ContainerPlan, image: &Path, place: &Path) -> anyhow::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
    mount(Some(image), place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("bind {} to {}", image.display(), place.display()))?;
    let root = directory(image)?;
    let steps = plan
        .steps
        .iter()
        .filter_map(|step| if let InitStep::Mount(mount) = step { Some(mount) } else { None });
    let mounts: Vec<&MountStep> = steps.map(AsRef::as_ref).collect();
    for mount in &mounts {
        // The content of a tmpfs comes back with it.
        if mounts.iter().any(|other| is_tmpfs(other) && is_below(&mount.destination, &other.destination)) {
            continue;
        }
        mount_point(root.as_fd(), mount)
            .with_context(|| format!("make the mount point {}", mount.destination.display()))?;
    }
    Ok(())
}

fn is_tmpfs(mount: &MountStep) -> bool {
    matches!(&mount.source, MountSource::Filesystem { fstype, .. } if fstype == "tmpfs")
}

fn is_below(path: &Path, top: &Path) -> bool {
    path != top && path.starts_with(top)
}

/// Makes the place of a mount. A bind is mounted too, as there may be mount points in it.
fn mount_point(root: BorrowedFd<'_>, step: &MountStep) -> Result<(), Errno> {
    let mode = Mode::from_bits_truncate(0o755);
    match &step.source {
        MountSource::Bind { source: BindSource::Container(source), .. } => {
            let source = open_in_root(root, source, OFlag::O_PATH, Mode::empty())?;
            match is_directory(&source) {
                true => mkdir_all_in_root(root, &step.destination, mode).map(drop),
                false => create_file_in_root(root, &step.destination, mode).map(drop),
            }
        }
        MountSource::Bind { source: BindSource::Host(source), .. } => {
            let tree = open_tree(AT_FDCWD, source, Tree::CloneRecursive)?;
            let target = match is_directory(&tree) {
                true => mkdir_all_in_root(root, &step.destination, mode)?,
                false => create_file_in_root(root, &step.destination, mode)?,
            };
            move_mount(&tree, &target)
        }
        MountSource::Filesystem { .. } => mkdir_all_in_root(root, &step.destination, mode).map(drop),
        MountSource::Cgroup2 { .. } | MountSource::Remount { .. } | MountSource::Existing => Ok(()),
    }
}
