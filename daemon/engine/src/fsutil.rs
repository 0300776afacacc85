//! File trees by descriptor: copying one into another, counting one's bytes. No name is ever resolved twice, and
//! no symbolic link is followed.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, futimens, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use xattr::FileExt as _;

/// Deeper trees are refused: every level holds descriptors.
const MAX_DEPTH: usize = 200;

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut dir =
        Dir::openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// stat(2) of a name, of a link itself.
pub(crate) fn lstat_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<FileStat> {
    Ok(fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

/// The type bits of a mode.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

pub(crate) fn permissions(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

/// Opens a directory of a directory.
pub(crate) fn open_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Opens a regular file of a directory; a FIFO in its place does not hang.
pub(crate) fn open_file_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("no regular file any more")) }
}

/// Whether a directory is empty.
pub(crate) fn is_empty(dir: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(names(dir)?.is_empty())
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

/// Copies what is in one directory into another, with owners, modes, times, hard links, extended attributes and
/// special files; and what the first directory itself is.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = nix::sys::stat::fstat(from)?;
    let mut copier = Copier { linked: HashMap::new() };
    copier.children(from, to, 0)?;
    finish_dir(from, to, &stat)
}

fn finish_dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &FileStat) -> io::Result<()> {
    let (from, to) = (File::from(from.try_clone_to_owned()?), File::from(to.try_clone_to_owned()?));
    finish(&from, &to, stat)
}

/// Owner, attributes, mode and times; in this order, since the first two reset the others.
fn finish(from: &File, to: &File, stat: &FileStat) -> io::Result<()> {
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    copy_attributes(from, to)?;
    to.set_permissions(std::fs::Permissions::from_mode(stat.st_mode & 0o7777))?;
    let (accessed, modified) = times(stat);
    Ok(futimens(to, &accessed, &modified)?)
}

fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let names: Vec<OsString> = match from.list_xattr() {
        Ok(names) => names.collect(),
        Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.iter().filter(|name| !name.as_bytes().starts_with(b"trusted.overlay.")) {
        let Some(value) = from.get_xattr(name)? else { continue };
        match to.set_xattr(name, &value) {
            // The target's file system may know fewer namespaces.
            Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => {}
            other => other?,
        }
    }
    Ok(())
}

struct Copier {
    /// Files with several names: the copy, for further links.
    linked: HashMap<(u64, u64), OwnedFd>,
}

impl Copier {
    fn children(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("directories are nested more than {MAX_DEPTH} deep")));
        }
        for name in names(from)? {
            self.entry(from, to, &name, depth).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()))
            })?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> io::Result<()> {
        let stat = lstat_at(from, name)?;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU)?;
                let (source, target) = (open_dir_at(from, name)?, open_dir_at(to, name)?);
                self.children(source.as_fd(), target.as_fd(), depth + 1)?;
                finish_dir(source.as_fd(), target.as_fd(), &stat)
            }
            SFlag::S_IFREG => self.file(from, to, name, &stat),
            SFlag::S_IFLNK => {
                symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
                set_owner_and_times(to, name, &stat)
            }
            // A socket without its process is nothing.
            SFlag::S_IFSOCK => Ok(()),
            special => {
                mknodat(to, name, special, permissions(&stat), stat.st_rdev)?;
                nix::sys::stat::fchmodat(
                    to,
                    name,
                    permissions(&stat),
                    nix::sys::stat::FchmodatFlags::FollowSymlink,
                )?;
                set_owner_and_times(to, name, &stat)
            }
        }
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &FileStat,
    ) -> io::Result<()> {
        if let Some(copy) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
            return Ok(linkat(copy, c"", to, name, AtFlags::AT_EMPTY_PATH)?);
        }
        let mut source = open_file_at(from, name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut target = File::from(openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        io::copy(&mut source, &mut target)?;
        finish(&source, &target, stat)?;
        if stat.st_nlink > 1 {
            self.linked.insert((stat.st_dev, stat.st_ino), target.into());
        }
        Ok(())
    }
}

/// Of a link or special file, by its name.
pub(crate) fn set_owner_and_times(dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let (accessed, modified) = times(stat);
    Ok(utimensat(dir, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

/// Trees that are walked at the same time: a walk mostly waits.
pub(crate) const WALKS: usize = 8;

/// Bytes that the files below a directory of the host take; every file once.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    fn walk(path: &Path, depth: usize, seen: &mut HashMap<(u64, u64), ()>) -> u64 {
        let Ok(entries) = std::fs::read_dir(path) else { return 0 };
        let mut bytes = 0;
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.nlink() > 1 && !meta.is_dir() && seen.insert((meta.dev(), meta.ino()), ()).is_some() {
                continue;
            }
            if meta.is_dir() && depth < MAX_DEPTH {
                bytes += walk(&entry.path(), depth + 1, seen);
            } else if meta.is_file() {
                bytes += meta.len();
            }
        }
        bytes
    }
    walk(path, 0, &mut HashMap::new())
}

/// Bytes on the disk and files below a directory of the host.
pub(crate) fn tree_usage(path: &Path) -> (u64, u64) {
    fn walk(path: &Path, depth: usize, total: &mut (u64, u64)) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            total.0 += meta.blocks() * 512;
            total.1 += 1;
            if meta.is_dir() && depth < MAX_DEPTH {
                walk(&entry.path(), depth + 1, total);
            }
        }
    }
    let mut total = (0, 1);
    walk(path, 0, &mut total);
    total
}

/// Opens a directory of the host by its path, which only the host's administrator controls.
pub(crate) fn open_host_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/file"), "text").unwrap();
        std::fs::hard_link(from.join("a/file"), from.join("again")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        std::os::unix::fs::chown(from.join("a/file"), Some(12), Some(34)).unwrap();
        std::fs::set_permissions(from.join("a/file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o1777)).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), Mode::S_IRWXU).unwrap();
        let (source, target) = (open_host_dir(&from).unwrap(), open_host_dir(&to).unwrap());
        assert!(is_empty(target.as_fd()).unwrap());
        copy_tree(source.as_fd(), target.as_fd()).unwrap();
        let file = std::fs::metadata(to.join("a/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (12, 34, 0o4750));
        assert_eq!(file.ino(), std::fs::metadata(to.join("again")).unwrap().ino());
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(std::fs::metadata(&to).unwrap().mode() & 0o7777, 0o1777);
        assert!(to.join("a/b").is_dir());
        assert_eq!(disk_usage(&to), 4);
    }
}
