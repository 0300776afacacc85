//! The process a scope is made with.
//!
//! systemd makes no scope without a process. Moving the container's own would cost it a grace period of the kernel and
//! its birth in the cgroup; so a process of no other use takes the place until the container's is there.

use std::os::fd::OwnedFd;

use berth_sys::clone::{Clone3, Forked, clone3};
use berth_sys::{Errno, Pid, pidfd, process};
use nix::libc::SIGKILL;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getppid, pause};

/// A sleeping child. It ends with this value, and with the process that made it.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Placeholder {
    /// Forks: the caller has one thread.
    pub(crate) fn start() -> Result<Self, Errno> {
        let parent = Pid::this();
        match clone3(&Clone3::default())? {
            Forked::Parent { pid, pidfd } => Ok(Self { pid, pidfd }),
            Forked::Child => {
                // A parent that died before this would never take us along.
                if set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent {
                    process::exit_now(1)
                }
                loop {
                    pause();
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // Both fail only if it has ended and been reaped already.
        pidfd::send_signal(&self.pidfd, SIGKILL).ok();
        pidfd::wait(&self.pidfd, true).ok();
    }
}
