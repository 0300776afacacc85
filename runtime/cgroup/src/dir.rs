//! A cgroup's directory in one hierarchy.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::path::open_beneath_strict;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, stat};
use nix::unistd::fchownat;

use crate::CgroupError;

/// A directory. That of cgroup2 is held open, for births and device programs. Those of version 1 are many, and to walk to a
/// file anew costs less than to open its directory before.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) path: PathBuf,
    /// Controllers of the hierarchy; `name=systemd` for a named one; empty for version 2.
    pub(crate) controllers: Vec<String>,
    held: Option<OwnedFd>,
}

impl Dir {
    pub(crate) fn open(path: &Path, controllers: Vec<String>) -> Result<Self, CgroupError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
        let fd = open(path, flags, Mode::empty()).map_err(|errno| CgroupError::io("open", path, errno))?;
        Ok(Self { path: path.to_owned(), controllers, held: Some(fd) })
    }

    /// One that is not held open.
    pub(crate) fn named(path: &Path, controllers: Vec<String>) -> Self {
        Self { path: path.to_owned(), controllers, held: None }
    }

    /// One that has been made: held open if it is cgroup2's, which has no controllers of its own.
    pub(crate) fn made(path: &Path, controllers: Vec<String>) -> Result<Self, CgroupError> {
        if controllers.is_empty() {
            Self::open(path, controllers)
        } else {
            Ok(Self::named(path, controllers))
        }
    }

    /// The same of one that may be gone.
    pub(crate) fn find(path: &Path, controllers: Vec<String>) -> Result<Self, CgroupError> {
        stat(path).map_err(|errno| CgroupError::io("open", path, errno))?;
        Self::made(path, controllers)
    }

    /// A directory in it (`.` is itself), without following links.
    pub(crate) fn child(&self, name: &str) -> Result<Self, CgroupError> {
        let path = if name == "." { self.path.clone() } else { self.path.join(name) };
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let fd = open_beneath_strict(self.fd(), name, flags)
            .map_err(|errno| CgroupError::io("open", &path, errno))?;
        Ok(Self { path, controllers: Vec::new(), held: Some(fd) })
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    /// Of one that is held open.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.held.as_ref().map_or(AT_FDCWD, AsFd::as_fd)
    }

    /// A file in it, as seen from [`Self::fd`].
    fn reach<'a>(&self, name: &'a str) -> Cow<'a, Path> {
        match &self.held {
            Some(_) => Cow::Borrowed(Path::new(name)),
            None => Cow::Owned(self.path.join(name)),
        }
    }

    /// Gives a file in it, or itself (`.`), to a user.
    pub(crate) fn chown(&self, name: &str, uid: u32) -> Result<(), CgroupError> {
        fchownat(self.fd(), self.reach(name).as_ref(), Some(uid.into()), None, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| CgroupError::io("change the owner of", self.path.join(name), errno))
    }

    pub(crate) fn open_file(&self, name: &str, flags: OFlag) -> Result<File, CgroupError> {
        openat(self.fd(), self.reach(name).as_ref(), flags | OFlag::O_CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(|errno| CgroupError::io("open", self.path.join(name), errno))
    }

    pub(crate) fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        self.write_to(&mut None, name, value)
    }

    /// Writes to the file that is open already, or opens it.
    pub(crate) fn write_to(
        &self,
        open: &mut Option<File>,
        name: &str,
        value: &str,
    ) -> Result<(), CgroupError> {
        let file = match open.take() {
            Some(file) => Ok(file),
            None => {
                let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                openat(self.fd(), self.reach(name).as_ref(), flags, Mode::empty())
                    .map(File::from)
                    .map_err(std::io::Error::from)
            }
        };
        let written = file.and_then(|file| open.insert(file).write_all(value.as_bytes()));
        written.map_err(|source| CgroupError::Write {
            path: self.path.join(name),
            value: value.to_owned(),
            hint: hint(name, &source),
            source,
        })
    }

    pub(crate) fn read(&self, name: &str) -> Result<String, CgroupError> {
        let file = self.open_file(name, OFlag::O_RDONLY)?;
        berth_sys::procfs::text_of(file).map_err(|error| CgroupError::io("read", self.path.join(name), error))
    }

    /// The names of its files and directories.
    pub(crate) fn names(&self) -> Result<Vec<String>, CgroupError> {
        let failed = |error| CgroupError::io("list", &self.path, error);
        let entries = std::fs::read_dir(&self.path).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The text of a file that not every kernel has.
    pub(crate) fn read_optional(&self, name: &str) -> Result<Option<String>, CgroupError> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_not_found() || error.is_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What a refusal of the kernel means.
fn hint(name: &str, error: &std::io::Error) -> Option<&'static str> {
    match (name, error.raw_os_error().map(Errno::from_raw)?) {
        ("memory.limit_in_bytes" | "memory.max", Errno::EBUSY) => {
            Some("the limit is below what the container uses now")
        }
        ("cpuset.cpus" | "cpuset.mems", _) => Some("not among those of the parent cgroup"),
        (_, Errno::ENOENT) => Some("the kernel or the parent cgroup does not offer this controller"),
        ("cpu.rt_runtime_us", Errno::EINVAL) => Some("the parent cgroup has no real-time budget left"),
        _ => None,
    }
}

/// Makes a directory; one that is there already is fine. True if it is new.
pub(crate) fn make(path: &Path) -> Result<bool, CgroupError> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(CgroupError::io("create", path, error)),
    }
}

/// The directories below this one, parents before children.
pub(crate) fn descendants(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![path.to_owned()];
    while let Some(next) = pending.pop() {
        // A directory that vanishes meanwhile has no children any more.
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
                pending.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
