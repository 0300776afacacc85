//! The tree being unpacked: how directories are found and made, below one descriptor.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use berth_sys::path::open_beneath_strict;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::tarball::Entry;
use crate::unpack::EntryProblem;

/// Directories that are kept open.
const CACHE: usize = 128;
/// As the kernel's limits.
const MAX_LINKS: usize = 40;
const MAX_PATH: usize = 4095;

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// What files that are made in a directory inherit.
pub(super) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// What a directory gets when nothing more is made in it.
#[derive(Default)]
struct Last {
    mtime: (i64, u32),
    default_acl: Option<Vec<u8>>,
}

/// A tree being unpacked.
pub(super) struct Tree {
    pub(super) root: Rc<OwnedFd>,
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Directories made because something lies in them, not because the archive names them.
    implicit: BTreeSet<String>,
    last: BTreeMap<PathBuf, Last>,
    /// Bits that the kernel takes from the mode of what is made.
    pub(super) umask: u32,
    /// Some directory has a group other than root's.
    pub(super) groups: bool,
    pub(super) size: u64,
    pub(super) reserve: u64,
    pub(super) until_space_check: u64,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, reserve: u64) -> Self {
        let implicit = BTreeSet::from([String::new()]);
        let (cache, last) = (HashMap::new(), BTreeMap::new());
        Self {
            root: Rc::new(root),
            cache,
            implicit,
            last,
            umask: umask(),
            groups: false,
            size: 0,
            reserve,
            until_space_check: 0,
        }
    }

    /// Opens the directory of these components, making what lacks.
    pub(super) fn directory(&mut self, components: &[&[u8]]) -> Result<Rc<OwnedFd>, EntryProblem> {
        if components.is_empty() {
            return Ok(self.root.clone());
        }
        let key = components.join(&b'/');
        if let Some(directory) = self.cache.get(&key) {
            return Ok(directory.clone());
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let found = open_beneath_strict(self.root.as_fd(), Path::new(OsStr::from_bytes(&key)), flags);
        let directory = match found {
            Ok(directory) => Rc::new(directory),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => self.walk(components)?,
            Err(errno) => return Err(io_problem("open its directory", errno)),
        };
        if self.cache.len() >= CACHE {
            self.cache.clear();
        }
        self.cache.insert(key, directory.clone());
        Ok(directory)
    }

    /// Component by component: follows links that stay within the layer, makes directories that lack.
    fn walk(&mut self, components: &[&[u8]]) -> Result<Rc<OwnedFd>, EntryProblem> {
        let mut stack: Vec<(Rc<OwnedFd>, Vec<u8>)> = Vec::new();
        let mut pending: VecDeque<Vec<u8>> = components.iter().map(|c| c.to_vec()).collect();
        // Components at the front of `pending` that a link put there, and that link.
        let mut from_link = 0_usize;
        let mut link = (Vec::new(), OsString::new());
        let mut links = 0;
        while let Some(component) = pending.pop_front() {
            let of_link = from_link > 0;
            from_link = from_link.saturating_sub(1);
            let escape = || EntryProblem::Escape {
                link: lossy(&link.0),
                target: link.1.to_string_lossy().into_owned(),
            };
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    stack.pop().ok_or_else(escape)?;
                    continue;
                }
                _ => {}
            }
            let here = stack.last().map_or_else(|| self.root.clone(), |(fd, _)| fd.clone());
            let path = joined(&stack, &component);
            // Through links a tree could grow deeper than any path can say.
            if path.len() > MAX_PATH {
                return Err(io_problem("make its directory", Errno::ENAMETOOLONG));
            }
            let name = OsStr::from_bytes(&component);
            let next = match openat(
                &*here,
                name,
                OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            ) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) if of_link => return Err(escape()),
                Err(Errno::ENOENT) => {
                    stack.push((Rc::new(self.make_implicit(&here, name, &path)?), component));
                    continue;
                }
                Err(errno) => return Err(io_problem("open its directory", errno)),
            };
            let stat = fstat(&next).map_err(|e| io_problem("stat its directory", e))?;
            match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFDIR => stack.push((Rc::new(next), component)),
                SFlag::S_IFLNK => {
                    links += 1;
                    let target = readlinkat(&*here, name).map_err(|e| io_problem("read a link", e))?;
                    link = (path, target.clone());
                    let target = target.into_vec();
                    if links > MAX_LINKS {
                        return Err(EntryProblem::NotADirectory(lossy(&link.0)));
                    }
                    if target.starts_with(b"/") {
                        stack.clear();
                    }
                    let parts: Vec<_> = target.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
                    from_link += parts.len();
                    parts.into_iter().rev().for_each(|part| pending.push_front(part));
                }
                _ if is_whiteout(&stat) => {
                    // The archive hid the name before it used it as a directory: an opaque directory.
                    unlinkat(&*here, name, UnlinkatFlags::NoRemoveDir)
                        .map_err(|e| io_problem("unlink", e))?;
                    let made = self.make_implicit(&here, name, &path)?;
                    set_opaque(&here, name)?;
                    stack.push((Rc::new(made), component));
                }
                _ => return Err(EntryProblem::NotADirectory(lossy(&path))),
            }
        }
        Ok(stack.pop().map_or_else(|| self.root.clone(), |(fd, _)| fd))
    }

    fn make_implicit(&mut self, at: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<OwnedFd, EntryProblem> {
        mkdirat(at, name, Mode::from_bits_truncate(0o755)).map_err(|e| io_problem("mkdir", e))?;
        let fd = openat(
            at,
            name,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| io_problem("open its directory", e))?;
        nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(0o755)).map_err(|e| io_problem("chmod", e))?;
        self.implicit.insert(lossy(path));
        // Against the group of a set-group-id parent.
        nix::unistd::fchown(&fd, Some(0.into()), Some(0.into())).map_err(|e| io_problem("chown", e))?;
        self.last.insert(PathBuf::from(OsStr::from_bytes(path)), Last::default());
        Ok(fd)
    }

    /// The archive names this directory itself.
    pub(super) fn named_directory(&mut self, components: &[&[u8]], entry: &Entry) {
        self.groups |= entry.gid != 0;
        let path = components.join(&b'/');
        self.implicit.remove(&lossy(&path));
        let acl = entry.xattrs.iter().find(|(key, _)| key == DEFAULT_ACL.as_bytes());
        let last = Last { mtime: entry.mtime, default_acl: acl.map(|(_, value)| value.clone()) };
        self.last.insert(PathBuf::from(OsString::from_vec(path)), last);
    }

    /// Gives the directories their times and default ACLs; returns the bytes of all files and the implicit
    /// directories.
    pub(super) fn finish(self) -> Result<(u64, BTreeSet<String>), (String, EntryProblem)> {
        for (path, last) in &self.last {
            let parent = path.parent().unwrap_or(Path::new(""));
            // It may have gone with its parent, or been replaced by something that is no directory.
            let Some(at) = self.real_directory(parent) else { continue };
            let name = path.file_name().unwrap_or(OsStr::new("."));
            if fstatat(&*at, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| is_directory(&stat)) {
                apply(&at, name, last).map_err(|problem| (path.to_string_lossy().into_owned(), problem))?;
            }
        }
        let implicit = self.implicit.iter().filter(|path| {
            path.is_empty()
                || open_beneath_strict(self.root.as_fd(), Path::new(path), OFlag::O_PATH | OFlag::O_DIRECTORY)
                    .is_ok()
        });
        Ok((self.size, implicit.cloned().collect()))
    }

    fn real_directory(&self, path: &Path) -> Option<Rc<OwnedFd>> {
        if path.as_os_str().is_empty() {
            return Some(self.root.clone());
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        open_beneath_strict(self.root.as_fd(), path, flags).ok().map(Rc::new)
    }
}

/// This process's umask, which can otherwise only be read by setting it (proc_pid_status(5)).
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == 0
}

pub(super) fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

pub(super) fn io_problem(operation: &'static str, errno: Errno) -> EntryProblem {
    EntryProblem::Io { operation, source: io::Error::from(errno) }
}

pub(super) fn set_opaque(at: &OwnedFd, name: &OsStr) -> Result<(), EntryProblem> {
    set_xattr(at.as_fd(), name, OPAQUE.as_ref(), b"y")
        .map_err(|source| EntryProblem::Io { operation: "mark as opaque", source })
}

/// `lsetxattr(2)` on one component below a descriptor: the magic link leads to the directory, and the last
/// component is not followed.
pub(super) fn set_xattr(at: BorrowedFd<'_>, name: &OsStr, key: &OsStr, value: &[u8]) -> io::Result<()> {
    xattr::set(Path::new("/proc/self/fd").join(at.as_raw_fd().to_string()).join(name), key, value)
}

pub(super) fn set_time_at(at: &OwnedFd, name: &OsStr, mtime: (i64, u32)) -> Result<(), Errno> {
    let time = TimeSpec::new(mtime.0, i64::from(mtime.1));
    utimensat(at, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

fn apply(at: &OwnedFd, name: &OsStr, last: &Last) -> Result<(), EntryProblem> {
    if let Some(acl) = &last.default_acl {
        match set_xattr(at.as_fd(), name, DEFAULT_ACL.as_ref(), acl) {
            Err(error) if error.raw_os_error() != Some(Errno::EOPNOTSUPP as i32) => {
                return Err(EntryProblem::Io { operation: "set the default ACL", source: error });
            }
            _ => {}
        }
    }
    set_time_at(at, name, last.mtime).map_err(|errno| io_problem("set the time", errno))
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn joined(stack: &[(Rc<OwnedFd>, Vec<u8>)], last: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    for (_, name) in stack {
        path.extend_from_slice(name);
        path.push(b'/');
    }
    path.extend_from_slice(last);
    path
}
