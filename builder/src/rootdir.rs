//! A directory tree as a root: every path is looked up inside of it by file descriptor, whatever symlinks say.
//!
//! Paths are relative to the root, without a leading `/`. Functions that take a *plain* path refuse to cross a
//! symlink (`openat2` with `RESOLVE_NO_SYMLINKS`); [`RootDir::resolve`] makes a plain path of any path. All errors are
//! the system's own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

/// As many symlinks as the kernel follows.
const MAX_LINKS: usize = 40;

/// A tree, by a descriptor of its root.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say all")]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A file's metadata.
#[derive(Debug, Clone)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// The twelve mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// When contents changed last, as far as anybody says.
    pub mtime: TimeSpec,
    /// When contents or metadata changed last; nobody can set it.
    pub ctime: TimeSpec,
    /// For a device: which.
    pub device: u64,
    /// Device and inode number: the file's identity.
    pub identity: (u64, u64),
    /// How many names it has.
    pub links: u64,
}

impl Meta {
    /// From what stat(2) says.
    pub fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => Kind::Dir,
            SFlag::S_IFLNK => Kind::Symlink,
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFSOCK => Kind::Socket,
            SFlag::S_IFCHR => Kind::CharDevice,
            SFlag::S_IFBLK => Kind::BlockDevice,
            _ => Kind::File,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
            ctime: TimeSpec::new(stat.st_ctime, stat.st_ctime_nsec),
            device: stat.st_rdev,
            identity: (stat.st_dev, stat.st_ino),
            links: stat.st_nlink,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

impl RootDir {
    /// The tree below this directory.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The tree below a directory of this machine.
    pub fn open_host(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::new(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// A directory of this tree, by its plain path, as a tree of its own.
    pub fn subtree(&self, path: &Path) -> io::Result<Self> {
        self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).map(Self::new)
    }

    /// Opens a plain path.
    pub fn open(&self, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(
            ResolveFlag::RESOLVE_IN_ROOT
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_SYMLINKS,
        );
        Ok(openat2(&self.fd, path, how)?)
    }

    /// Opens a plain path for reading.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        // O_NONBLOCK: a fifo must not hold us up.
        Ok(File::from(self.open(
            path,
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK,
            Mode::empty(),
        )?))
    }

    /// Opens a directory by its plain path.
    pub fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
    }

    /// Metadata of a plain path itself; none if it does not exist.
    pub fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        match self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Meta::of(&fstat(&fd)?))),
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENOTDIR)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Where the symlink at a plain path points.
    pub fn read_link(&self, path: &Path) -> io::Result<OsString> {
        let fd = self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
        Ok(readlinkat(&fd, "")?)
    }

    /// Names in a directory, sorted.
    pub fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        names(self.open_dir(path)?)
    }

    /// The plain path that `path` leads to: all symlinks followed within the root, `..` clamped at it. A part that
    /// does not exist stays as it is.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut pending: Vec<OsString> = parts(path).rev().collect();
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            let meta = self.meta(&next)?;
            if meta.is_none_or(|meta| meta.kind != Kind::Symlink) {
                done = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            let target = PathBuf::from(self.read_link(&next)?);
            if target.is_absolute() {
                done = PathBuf::new();
            }
            pending.extend(parts(&target).rev());
        }
        Ok(done)
    }

    /// Descriptor of the directory of a plain path, and the last name.
    pub fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned();
        Ok((self.open_dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Makes a plain directory and its parents as far as they are missing; `set_up` gets each new one.
    pub fn make_dirs(&self, path: &Path, set_up: &dyn Fn(&Self, &Path) -> io::Result<()>) -> io::Result<()> {
        let mut done = PathBuf::new();
        for part in path {
            done.push(part);
            match self.meta(&done)? {
                Some(meta) if meta.is_dir() => {}
                Some(_) => return Err(Errno::ENOTDIR.into()),
                None => {
                    let (dir, name) = self.parent(&done)?;
                    mkdirat(&dir, name.as_os_str(), Mode::from_bits_truncate(0o755))?;
                    // The umask must not count.
                    self.set_mode(&done, 0o755)?;
                    set_up(self, &done)?;
                }
            }
        }
        Ok(())
    }

    /// Sets the mode of what a plain path names, which is no symlink.
    pub fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let bits = Mode::from_bits_truncate(mode);
        if path.as_os_str().is_empty() {
            let fd = self.open_dir(path)?;
            return Ok(fchmod(&fd, bits)?);
        }
        let (dir, name) = self.parent(path)?;
        Ok(fchmodat(&dir, name.as_os_str(), bits, FchmodatFlags::FollowSymlink)?)
    }

    /// Sets the owner of what a plain path names.
    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if path.as_os_str().is_empty() {
            return Ok(nix::unistd::fchown(self.open_dir(path)?, uid, gid)?);
        }
        let (dir, name) = self.parent(path)?;
        Ok(fchownat(&dir, name.as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Sets the modification time of what a plain path names.
    pub fn set_mtime(&self, path: &Path, mtime: TimeSpec) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(nix::sys::stat::futimens(self.open_dir(path)?, &mtime, &mtime)?);
        }
        let (dir, name) = self.parent(path)?;
        Ok(utimensat(&dir, name.as_os_str(), &mtime, &mtime, UtimensatFlags::NoFollowSymlink)?)
    }

    /// Removes a plain path that is no directory, if it exists.
    pub fn unlink(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match unlinkat(&dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) | Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an empty directory by its plain path.
    pub fn rmdir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        Ok(unlinkat(&dir, name.as_os_str(), UnlinkatFlags::RemoveDir)?)
    }

    /// Removes a plain path with everything below it. Never leaves the tree: symlinks are removed, not followed.
    pub fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match self.meta(path)? {
            None => Ok(()),
            Some(meta) if meta.is_dir() => {
                for name in self.read_dir(path)? {
                    self.remove_tree(&path.join(name))?;
                }
                self.rmdir(path)
            }
            Some(_) => self.unlink(path),
        }
    }

    /// Contents of a small file, symlinks followed within the root; none if it does not exist or is no file.
    pub fn read_small(&self, path: &str, max: u64) -> io::Result<Option<String>> {
        use std::io::Read;
        let plain = self.resolve(Path::new(path))?;
        if !self.meta(&plain)?.is_some_and(|meta| meta.kind == Kind::File) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.open_file(&plain)?.take(max).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Names in an open directory, sorted.
pub(crate) fn names(directory: OwnedFd) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt;
    let mut dir = nix::dir::Dir::from_fd(directory)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The names in a path; `.` and `/` are dropped, `..` stays.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// `path` without `.`, `..` (clamped at the root) and a leading `/`, by text alone.
pub(crate) fn clamp(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in parts(path) {
        if part == ".." {
            out.pop();
        } else {
            out.push(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/sub")).unwrap();
        symlink("/real", dir.path().join("abs")).unwrap();
        symlink("../../../../etc", dir.path().join("up")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let root = RootDir::open_host(dir.path()).unwrap();
        assert_eq!(root.resolve(Path::new("/abs/sub/new")).unwrap(), Path::new("real/sub/new"));
        assert_eq!(root.resolve(Path::new("up/passwd")).unwrap(), Path::new("etc/passwd"));
        assert_eq!(root.resolve(Path::new("../../x")).unwrap(), Path::new("x"));
        assert!(root.resolve(Path::new("loop")).is_err());
        assert!(root.open_file(Path::new("abs/sub")).is_err(), "a plain path crosses no symlink");
    }

    #[test]
    fn trees_are_removed_without_following() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("keep"), "").unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink(outside.path(), dir.path().join("a/b/out")).unwrap();
        let root = RootDir::open_host(dir.path()).unwrap();
        root.remove_tree(Path::new("a")).unwrap();
        assert!(outside.path().join("keep").exists() && !dir.path().join("a").exists());
    }

    #[test]
    fn clamp_is_lexical() {
        assert_eq!(clamp(Path::new("/a/../../b/./c")), Path::new("b/c"));
    }
}
