//! What the container may not write or see.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::Errno;
use berth_sys::mountfd::{self, FsContext, MountAttr, attr};
use berth_sys::path::open_in_root;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};

use super::root::is_null;
use crate::error::{Context, Fault};
use crate::init::Init;

const READONLY: MountAttr<'static> = MountAttr { set: attr::RDONLY, clear: 0, propagation: 0, userns: None };

/// The root mount itself.
pub(super) fn readonly_root(root: BorrowedFd<'_>) -> Result<(), Fault> {
    mountfd::mount_setattr(root, &READONLY, false).at(|| "make the root file system read-only".into())
}

/// A mount that was filled before.
pub(super) fn remount_readonly(root: BorrowedFd<'_>, path: &Path) -> Result<(), Fault> {
    let what = || format!("make {} read-only", path.display());
    let mount = open_in_root(root, path, OFlag::O_PATH, Mode::empty()).at(what)?;
    mountfd::mount_setattr(&mount, &READONLY, false).at(what)
}

/// A path of the container, if it exists.
fn find(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Fault> {
    match open_in_root(root, path, OFlag::O_PATH, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(None),
        Err(errno) => Err(Fault::os(format!("open {}", path.display()), errno)),
    }
}

/// Binds each path onto itself, read-only.
pub(super) fn readonly_paths(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), Fault> {
    for path in paths {
        let Some(target) = find(root, path)? else { continue };
        let what = || format!("make {} read-only", path.display());
        let mount = mountfd::clone_of(&target, true).at(what)?;
        mountfd::mount_setattr(&mount, &READONLY, true).at(what)?;
        mountfd::move_mount(&mount, &target).at(what)?;
    }
    Ok(())
}

impl Init<'_> {
    /// Hides paths: a file behind /dev/null, a directory behind an empty tmpfs.
    pub(super) fn mask_paths(&mut self, paths: &[PathBuf]) -> Result<(), Fault> {
        let mut null = None;
        for path in paths {
            let Some(target) = find(self.stage.root()?, path)? else { continue };
            let what = || format!("mask {}", path.display());
            let kind = SFlag::from_bits_truncate(fstat(&target).at(what)?.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR {
                self.cover_with_nothing(&target).at(what)?;
                continue;
            }
            if null.is_none() {
                null = Some(real_null(self.stage.root()?)?);
            }
            let null = null.as_ref().ok_or_else(|| Fault::new("there is no /dev/null"))?;
            let mount = mountfd::clone_of(null, false).at(what)?;
            mountfd::move_mount(&mount, &target).at(what)?;
        }
        Ok(())
    }

    /// Puts an empty read-only tmpfs over a directory. The first is made; the others are binds of it, once it is
    /// attached: before Linux 6.15 a detached mount cannot be cloned.
    fn cover_with_nothing(&mut self, target: &OwnedFd) -> Result<(), Errno> {
        if let Some(mask) = &self.stage.mask {
            return mountfd::move_mount(mountfd::clone_of(mask, false)?, target);
        }
        let fs = FsContext::open("tmpfs")?;
        fs.set_string("source", "tmpfs")?;
        fs.set_flag("ro")?;
        fs.set_string("nr_inodes", "1")?;
        fs.create()?;
        let mount = fs.mount(attr::RDONLY)?;
        mountfd::move_mount(&mount, target)?;
        self.stage.mask = Some(mount);
        Ok(())
    }
}

/// The container's /dev/null, if that is what it is: a container may have put something else there
/// (runc CVE-2025-31133).
fn real_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let what = || "open /dev/null of the container".to_owned();
    let null = open_in_root(root, "/dev/null", OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).at(what)?;
    if !is_null(&fstat(&null).at(what)?) {
        return Err(Fault::new("/dev/null of the container is not the null device"));
    }
    Ok(null)
}
