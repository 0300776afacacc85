//! The program file of this process, out of the reach of containers.
//!
//! A process that sets up a container is this program until its last execve, and that execve may lead back to it: by a
//! path such as `/proc/self/exe`, as an interpreter, as an ELF loader. Then other processes of the container can open
//! `/proc/<pid>/exe`, and through it the file on the host, for writing (runc CVE-2019-5736).
//!
//! So the process runs from a file that cannot be written by anybody: a read-only bind mount of its own that is no part
//! of any mount namespace, which nobody can therefore make writable again, or, where such a mount cannot be made, a
//! sealed copy in memory.
//!
//! ```text
//!  started ─▶ read-only or sealed? ─ yes ─▶ go on
//!                     │ no
//!                     └─ open_tree(CLONE) ─ mount_setattr(RDONLY) ─ execveat ─▶ started
//!                            └ EPERM: memfd, copy, seal ──────────────┘
//! ```

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::mountfd::{MountAttr, attr, clone_of, mount_setattr};

/// The program file could not be put out of reach.
#[derive(Debug, thiserror::Error)]
#[error("protect the runtime's program file from the container: {operation}: {errno}")]
pub struct SealError {
    /// The call that failed.
    pub operation: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
}

/// How the program file is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// By a read-only mount of its own.
    Mount,
    /// It is a sealed copy in memory.
    Copy,
}

/// Makes sure that this process runs from a file nobody can write; starts the program again, with the same arguments
/// and environment, where it does not yet. Call it first of all in a program that sets up containers.
///
/// # Errors
/// `/proc` is missing, or the kernel allows neither a mount nor a copy.
pub fn seal() -> Result<Sealed, SealError> {
    let at = |operation| move |errno| SealError { operation, errno };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let own = open("/proc/self/exe", flags, Mode::empty()).map_err(at("open /proc/self/exe"))?;
    if let Some(sealed) = sealed(&own).map_err(at("statvfs /proc/self/exe"))? {
        return Ok(sealed);
    }
    // Without the privilege to mount (a user who is not root), or on a kernel without the call: a copy.
    let safe = match read_only_mount(&own) {
        Ok(mount) => mount,
        Err(_) => sealed_copy(own).map_err(at("copy /proc/self/exe to memory"))?,
    };
    let args: Vec<CString> = std::env::args_os().filter_map(c_string).collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect();
    match nix::unistd::execveat(&safe, c"", &args, &env, AtFlags::AT_EMPTY_PATH) {
        Err(errno) => Err(at("execveat")(errno)),
        Ok(never) => match never {},
    }
}

/// Arguments and environment came from execve(2): they hold no NUL.
fn c_string(text: OsString) -> Option<CString> {
    CString::new(text.into_vec()).ok()
}

fn sealed(own: &OwnedFd) -> Result<Option<Sealed>, Errno> {
    if fstatvfs(own)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(Some(Sealed::Mount));
    }
    // EINVAL: no file in memory.
    let seals = fcntl(own, FcntlArg::F_GET_SEALS).unwrap_or(0);
    Ok(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE).then_some(Sealed::Copy))
}

/// The mount belongs to no namespace once its descriptor is closed, which execve does.
fn read_only_mount(own: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mount = clone_of(own, false)?;
    mount_setattr(&mount, &MountAttr { set: attr::RDONLY, ..MountAttr::default() }, false)?;
    Ok(mount)
}

fn sealed_copy(own: OwnedFd) -> Result<OwnedFd, Errno> {
    let raw = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = memfd_create(c"berth-runtime", flags)?;
    let mut file = File::from(copy);
    std::io::copy(&mut File::from(own), &mut file).map_err(raw)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnedFd {
        File::open("/proc/self/exe").unwrap().into()
    }

    /// Both ways give a file that runs and that root cannot write.
    #[test]
    fn neither_way_can_be_written() {
        assert_eq!(sealed(&own()), Ok(None));
        let ways =
            [(read_only_mount(&own()).unwrap(), Sealed::Mount), (sealed_copy(own()).unwrap(), Sealed::Copy)];
        for (safe, way) in ways {
            let path = crate::path::magic_link(&safe);
            let readable = File::open(&path).unwrap().into();
            assert_eq!(sealed(&readable), Ok(Some(way)));
            let error = File::options()
                .write(true)
                .open(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"#!/evil"));
            let errno = Errno::from_raw(error.unwrap_err().raw_os_error().unwrap());
            assert!(matches!(errno, Errno::EROFS | Errno::EPERM | Errno::ETXTBSY), "{errno}");
            let listed = std::process::Command::new(&path).arg("--list").output().unwrap();
            assert!(listed.status.success());
        }
    }
}
