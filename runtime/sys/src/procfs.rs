//! A procfs that can be trusted: detached where the kernel lets us, verified where not.
//!
//! Writes to `/proc/sys` or `/proc/self/attr` by path could be redirected by a container that mounts something
//! over its `/proc` (runc CVE-2025-52881). Through this handle no mount point, symbolic link or foreign file
//! system is ever crossed.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::mountfd::FsContext;
use crate::path::open_beneath_strict;

/// `PROC_ROOT_INO`: the inode number of the root of every procfs.
pub const ROOT_INO: u64 = 1;

/// Most files of the kernel are shorter.
const CHUNK: usize = 4096;

/// The text of a file of procfs, cgroupfs and the like by its path; see [`text_of`].
///
/// # Errors
/// See `open(2)` and `read(2)`; `InvalidData` if it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> std::io::Result<String> {
    text_of(File::open(path)?)
}

/// The rest of a file whose size the kernel does not tell. The standard library would ask for it, and then read such a
/// file in pieces of 32 bytes and up, each of which makes the kernel format it anew.
///
/// # Errors
/// See `read(2)`; `InvalidData` if it is not UTF-8.
pub fn text_of(file: File) -> std::io::Result<String> {
    let mut text = String::with_capacity(CHUNK);
    file.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A handle on the root of a procfs of the caller's pid namespace.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// A new detached procfs; if the kernel refuses (in some user namespaces), the verified `/proc`.
    ///
    /// # Errors
    /// `ENODEV` if `/proc` is not the root of a procfs.
    pub fn open() -> Result<Self, Errno> {
        let detached = FsContext::open("proc").and_then(|fs| {
            fs.create()?;
            fs.mount(0)
        });
        match detached {
            Ok(fd) => Ok(Self(fd)),
            Err(_) => Self::open_attached(),
        }
    }

    /// The `/proc` of the current mount namespace, verified to be the root of a procfs.
    ///
    /// # Errors
    /// `ENODEV` if it is something else.
    pub fn open_attached() -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = open("/proc", flags, Mode::empty())?;
        if fstatfs(&fd)?.filesystem_type() != PROC_SUPER_MAGIC || fstat(&fd)?.st_ino != ROOT_INO {
            return Err(Errno::ENODEV);
        }
        Ok(Self(fd))
    }

    /// Opens a file, e.g. `sys/net/ipv4/ip_forward`. `self` and `thread-self` at the start are resolved first.
    ///
    /// # Errors
    /// `EXDEV` if something is mounted on the way, `ELOOP` for a symbolic link; see `openat2(2)`.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlag) -> Result<OwnedFd, Errno> {
        let path = path.as_ref();
        for link in ["thread-self", "self"] {
            if let Ok(rest) = path.strip_prefix(link) {
                let target = nix::fcntl::readlinkat(&self.0, link)?;
                return open_beneath_strict(self.0.as_fd(), Path::new(&target).join(rest), flags);
            }
        }
        open_beneath_strict(self.0.as_fd(), path, flags)
    }

    /// Writes a whole value with one `write(2)`.
    ///
    /// # Errors
    /// As [`Self::open_file`], and what the file answers.
    pub fn write(&self, path: impl AsRef<Path>, value: &[u8]) -> Result<(), Errno> {
        let file = self.open_file(path, OFlag::O_WRONLY)?;
        match nix::unistd::write(&file, value)? {
            n if n == value.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// The descriptors of the calling thread.
    ///
    /// # Errors
    /// As [`Self::open_file`].
    pub fn descriptors(&self) -> Result<Descriptors, Errno> {
        self.open_file("thread-self/fd", OFlag::O_PATH | OFlag::O_DIRECTORY).map(Descriptors)
    }
}

/// `/proc/thread-self/fd`. What is opened through it takes no call but `openat(2)`, which every seccomp filter knows.
#[derive(Debug)]
pub struct Descriptors(OwnedFd);

impl AsFd for Descriptors {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Descriptors {
    /// Opens what an `O_PATH` descriptor of this process refers to, for real.
    ///
    /// # Errors
    /// See `open(2)`.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
        use std::os::fd::AsRawFd;
        let name = fd.as_raw_fd().to_string();
        openat(&self.0, name.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn reads_and_writes_its_own_attributes() {
        for proc in [Procfs::open().unwrap(), Procfs::open_attached().unwrap()] {
            let fd = proc.open_file("thread-self/comm", OFlag::O_RDONLY).unwrap();
            let mut name = String::new();
            std::fs::File::from(fd).read_to_string(&mut name).unwrap();
            proc.write("thread-self/comm", b"renamed").unwrap();
            let renamed = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_eq!(renamed, "renamed\n");
            proc.write("thread-self/comm", name.trim_end().as_bytes()).unwrap();
        }
    }

    #[test]
    fn magic_links_cannot_be_walked() {
        let proc = Procfs::open().unwrap();
        let walked = proc.open_file("self/root/etc", OFlag::O_PATH);
        assert_eq!(walked.unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn reopen_gives_a_usable_descriptor() {
        let handle = open("/dev/null", OFlag::O_PATH, Mode::empty()).unwrap();
        assert_eq!(nix::unistd::write(&handle, b"x"), Err(Errno::EBADF));
        let proc = Procfs::open().unwrap();
        let real = proc.descriptors().unwrap().reopen(handle.as_fd(), OFlag::O_WRONLY).unwrap();
        assert_eq!(nix::unistd::write(&real, b"x"), Ok(1));
    }
}
