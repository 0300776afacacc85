//! Device nodes and the links of /dev.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_spec::{DeviceKind, DeviceMethod, DeviceStep, SymlinkStep};
use berth_sys::Errno;
use berth_sys::mountfd::{self, Tree};
use berth_sys::path::{create_file_in, mkdir_all_in_root};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, makedev, mknodat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::Stage;
use super::root::name_of;
use crate::error::{Context, Fault};

/// The directory of a path in the container, made if it is missing, and the name in it. Nodes and links follow one
/// another, and nearly all are in /dev: it is looked up once.
fn place<'s, 'a>(stage: &'s mut Stage, path: &'a Path) -> Result<(&'s OwnedFd, &'a OsStr), Fault> {
    let name = path.file_name().ok_or_else(|| Fault::new(format!("{} has no name", path.display())))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let known = stage.directory.take().filter(|(known, _)| known == parent);
    let directory = match known {
        Some(known) => known,
        None => {
            let dir = mkdir_all_in_root(stage.root()?, parent, Mode::from_bits_truncate(0o755))
                .at(|| format!("mkdir {}", parent.display()))?;
            (parent.to_owned(), dir)
        }
    };
    Ok((&stage.directory.insert(directory).1, name))
}

/// One node.
pub(super) fn device(stage: &mut Stage, step: &DeviceStep) -> Result<(), Fault> {
    let what = || format!("create device {}", step.path.display());
    match step.method {
        DeviceMethod::BindHost => bind(stage, step),
        DeviceMethod::Mknod => match mknod(stage, step) {
            Err(Fault { errno: Some(Errno::EPERM), .. }) => bind(stage, step),
            Err(fault) => Err(Fault { message: format!("{}: {}", what(), fault.message), ..fault }),
            Ok(()) => Ok(()),
        },
    }
}

fn mknod(stage: &mut Stage, step: &DeviceStep) -> Result<(), Fault> {
    let (dir, name) = place(stage, &step.path)?;
    let kind = match step.kind {
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    let number = makedev(step.major.into(), step.minor.into());
    let mode = Mode::from_bits_truncate(step.mode);
    let mask = umask(Mode::empty());
    let made = mknodat(dir, name, kind, mode, number);
    umask(mask);
    match made {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno).at(|| "mknod".into()),
    }
    // Whoever else writes to this directory may have put something else there meanwhile.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = openat(dir, name, flags, Mode::empty()).at(|| "open".into())?;
    let there = fstat(&node).at(|| "stat".into())?;
    let same = SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT == kind
        && (kind == SFlag::S_IFIFO || there.st_rdev == number);
    if !same {
        return Err(Fault::new("something else is there already"));
    }
    if (there.st_uid, there.st_gid, there.st_mode & 0o7777) == (step.uid, step.gid, mode.bits()) {
        return Ok(());
    }
    // It was there before, or it is for a user of its own.
    fchmodat(AT_FDCWD, &name_of(&node), mode, FchmodatFlags::FollowSymlink).at(|| "chmod".into())?;
    let (uid, gid) = (Some(Uid::from_raw(step.uid)), Some(Gid::from_raw(step.gid)));
    fchownat(&node, "", uid, gid, AtFlags::AT_EMPTY_PATH).at(|| "chown".into())
}

/// The host's node of the same path. A link of the image would have it cover another file of the container's.
fn bind(stage: &mut Stage, step: &DeviceStep) -> Result<(), Fault> {
    let what = || format!("bind device {}", step.path.display());
    let mount = mountfd::open_tree(AT_FDCWD, &step.path, Tree::Clone).at(what)?;
    let (dir, name) = place(stage, &step.path)?;
    let target = create_file_in(dir, name, Mode::from_bits_truncate(0o644)).at(what)?;
    mountfd::move_mount(&mount, &target).at(what)
}

/// One link.
pub(super) fn symlink(stage: &mut Stage, step: &SymlinkStep) -> Result<(), Fault> {
    if step.if_exists.as_ref().is_some_and(|path| !path.exists()) {
        return Ok(());
    }
    let what = || format!("link {} to {}", step.path.display(), step.target.display());
    let (dir, name) = place(stage, &step.path)?;
    match symlinkat(&step.target, dir, name) {
        Err(Errno::EEXIST) if step.replace => {
            unlinkat(dir, name, UnlinkatFlags::NoRemoveDir).at(what)?;
            symlinkat(&step.target, dir, name).at(what)
        }
        Err(Errno::EEXIST) => Ok(()),
        other => other.at(what),
    }
}
