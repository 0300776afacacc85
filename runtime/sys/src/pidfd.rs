//! Process descriptors: `pidfd_open(2)`, `pidfd_send_signal(2)`, `pidfd_getfd(2)`, `waitid(P_PIDFD)`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called `exit(2)` with this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// The number a shell shows: the code, or 128 + the signal.
    #[must_use]
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Opens a pidfd for a process.
///
/// # Errors
/// `ESRCH` if there is no such process; see `pidfd_open(2)`.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    crate::own_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Sends a signal by number (0 only checks, realtime signals are allowed).
///
/// # Errors
/// `ESRCH` if the process has ended; see `pidfd_send_signal(2)`.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    let fd = pidfd.as_fd().as_raw_fd();
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo makes the kernel fill in the same as kill(2); no other pointer is passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
    Errno::result(ret).map(drop)
}

/// Copies a file descriptor out of another process.
///
/// # Errors
/// See `pidfd_getfd(2)`.
pub fn getfd(pidfd: impl AsFd, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: three integers, no memory of ours.
    crate::own_fd(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0) })
}

/// Waits for a child and reaps it. With `block` false, `None` means it still runs.
///
/// # Errors
/// `ECHILD` if the process is not a child of the caller; see `waitid(2)`.
pub fn wait(pidfd: impl AsFd, block: bool) -> Result<Option<ExitStatus>, Errno> {
    let options = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    let id = pidfd.as_fd().as_raw_fd() as libc::id_t;
    // SAFETY: siginfo_t is plain data for which all-zero is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` is a valid, writable siginfo_t.
        let ret = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, options) };
        match Errno::result(ret) {
            Err(Errno::EINTR) => {}
            other => {
                other?;
                break;
            }
        };
    }
    // SAFETY: waitid succeeded, so the kernel filled the child fields (or left all zero with WNOHANG).
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok(Some(match info.si_code {
        libc::CLD_EXITED => ExitStatus::Code(status),
        _ => ExitStatus::Signal(status),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn spawn(script: &str) -> (std::process::Child, OwnedFd) {
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let fd = open(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        (child, fd)
    }

    #[test]
    fn exit_codes_and_signals_are_told_apart() {
        let (_child, fd) = spawn("exit 7");
        assert_eq!(wait(&fd, true), Ok(Some(ExitStatus::Code(7))));
        let (_child, fd) = spawn("kill -35 $$; sleep 9");
        let status = wait(&fd, true).unwrap().unwrap();
        assert_eq!(status, ExitStatus::Signal(35), "realtime signals must survive");
        assert_eq!(status.shell_code(), 163);
    }

    #[test]
    fn wait_without_blocking_then_kill() {
        let (_child, fd) = spawn("exec sleep 30");
        assert_eq!(wait(&fd, false), Ok(None));
        send_signal(&fd, libc::SIGKILL).unwrap();
        assert_eq!(wait(&fd, true), Ok(Some(ExitStatus::Signal(9))));
        assert_eq!(send_signal(&fd, 0), Err(Errno::ESRCH));
        assert_eq!(wait(&fd, true), Err(Errno::ECHILD));
    }
}
