//! Safe wrappers for the system calls a container engine needs. The only crate with unsafe code.
//!
//! Invariants:
//! * every file descriptor leaves this crate as an [`std::os::fd::OwnedFd`] with `FD_CLOEXEC` set;
//! * no function keeps state between calls;
//! * what `nix` offers as a safe function is not wrapped again here.

pub mod bpf;
pub mod clone;
#[cfg(target_arch = "x86_64")]
mod entry;
pub mod exe;
pub mod heap;
pub mod keyring;
pub mod mountfd;
pub mod net;
pub mod ns;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod quota;
pub mod seccomp;
pub mod socket;
pub mod text;
pub mod tty;

pub use nix::errno::Errno;
pub use nix::unistd::Pid;

use std::os::fd::{FromRawFd, OwnedFd};

/// Takes ownership of the descriptor a system call has just returned.
fn own_fd(ret: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(Errno::result(ret)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the caller passes the return value of a system call that creates a new descriptor;
    // it is not negative (checked above) and nobody else has seen the number yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
