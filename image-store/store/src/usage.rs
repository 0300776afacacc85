//! Walks over trees, by descriptors.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use crate::error::{IoContext, Result};
use crate::pack::names;
use crate::shared::open_directory;

pub(crate) fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Calls `visit` for everything below `root`, a directory before its members. `path` is only for messages.
pub(crate) fn walk(
    root: &OwnedFd,
    path: &Path,
    visit: &mut impl FnMut(&OwnedFd, &OsStr, &FileStat, &Path) -> Result<()>,
) -> Result<()> {
    for name in names(root).during("list", path)? {
        let path = path.join(&name);
        let stat = fstatat(root, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).during("stat", &path)?;
        visit(root, &name, &stat, &path)?;
        if is_directory(&stat) {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let directory = openat(root, name.as_os_str(), flags, Mode::empty()).during("open", &path)?;
            walk(&directory, &path, visit)?;
        }
    }
    Ok(())
}

/// Bytes of all regular files, each inode once.
pub(crate) fn file_bytes(tree: &Path) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut total = 0;
    walk(&open_directory(tree)?, tree, &mut |_, _, stat, _| {
        let regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        if regular && (stat.st_nlink == 1 || seen.insert(stat.st_ino)) {
            total += u64::try_from(stat.st_size).unwrap_or(0);
        }
        Ok(())
    })?;
    Ok(total)
}
