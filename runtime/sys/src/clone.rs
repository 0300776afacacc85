//! `clone3(2)`: a fork with new namespaces, a pidfd and, on cgroup v2, a birth inside the cgroup.

use std::ops::{BitOr, BitOrAssign};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// Flags of `clone3(2)`. All namespace flags have the values that `unshare(2)` and `setns(2)` take too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// New mount namespace.
    pub const NEWNS: Self = Self(0x0002_0000);
    /// New cgroup namespace.
    pub const NEWCGROUP: Self = Self(0x0200_0000);
    /// New UTS namespace.
    pub const NEWUTS: Self = Self(0x0400_0000);
    /// New IPC namespace.
    pub const NEWIPC: Self = Self(0x0800_0000);
    /// New user namespace.
    pub const NEWUSER: Self = Self(0x1000_0000);
    /// New pid namespace.
    pub const NEWPID: Self = Self(0x2000_0000);
    /// New network namespace.
    pub const NEWNET: Self = Self(0x4000_0000);
    /// New time namespace.
    pub const NEWTIME: Self = Self(0x0000_0080);
    /// The child's parent is the caller's parent.
    pub const PARENT: Self = Self(0x0000_8000);
    /// Return a pidfd (always set by [`clone3`]).
    pub const PIDFD: Self = Self(0x0000_1000);
    /// Start the child in the given cgroup v2 directory (set by [`clone3`] when one is given).
    pub const INTO_CGROUP: Self = Self(0x2_0000_0000);
    /// Reset all signal handlers in the child to their defaults.
    pub const CLEAR_SIGHAND: Self = Self(0x1_0000_0000);

    /// No flag.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }
    /// The raw bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Flags from raw bits; unknown bits are kept and left for the kernel to judge.
    #[must_use]
    pub const fn from_bits_retain(bits: u64) -> Self {
        Self(bits)
    }
    /// True if all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// True if nothing is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// `self` without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for CloneFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for CloneFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What to clone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clone3<'a> {
    /// Namespaces and modifiers; sharing flags such as `CLONE_VM` are refused.
    pub flags: CloneFlags,
    /// cgroup v2 directory to be born in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of the fork we are on.
#[derive(Debug)]
pub enum Forked {
    /// The calling process.
    Parent {
        /// Pid of the child in the caller's pid namespace.
        pid: Pid,
        /// The child's pidfd, `FD_CLOEXEC`.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// The flags a caller may ask for; everything else would share memory, descriptors or signal handlers.
const ALLOWED: u64 = CloneFlags::NEWNS.0
    | CloneFlags::NEWCGROUP.0
    | CloneFlags::NEWUTS.0
    | CloneFlags::NEWIPC.0
    | CloneFlags::NEWUSER.0
    | CloneFlags::NEWPID.0
    | CloneFlags::NEWNET.0
    | CloneFlags::NEWTIME.0
    | CloneFlags::PARENT.0
    | CloneFlags::PIDFD.0
    | CloneFlags::INTO_CGROUP.0
    | CloneFlags::CLEAR_SIGHAND.0;

/// Forks with `clone3(2)`.
///
/// The caller must be single-threaded: the child has only the calling thread, and a lock that another thread
/// held would stay locked in it for ever. Debug builds check this.
///
/// # Errors
/// `EINVAL` for flags outside the documented set, `EDEADLK` (debug builds) if the process has more than one
/// thread, else what `clone3(2)` says.
pub fn clone3(req: &Clone3<'_>) -> Result<Forked, Errno> {
    if req.flags.bits() & !ALLOWED != 0 {
        return Err(Errno::EINVAL);
    }
    if cfg!(debug_assertions) && thread_count() > 1 {
        return Err(Errno::EDEADLK);
    }
    let mut flags = req.flags | CloneFlags::PIDFD;
    if req.cgroup.is_some() {
        flags |= CloneFlags::INTO_CGROUP;
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = libc::clone_args {
        flags: flags.bits(),
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the kernel insists on the caller's own exit signal, written as zero.
        exit_signal: if flags.contains(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: req.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: `args` lives across the call and has the size we pass; `pidfd` is a valid place for an int.
    // Without CLONE_VM (excluded by ALLOWED) the child gets a copy of the address space and returns here on
    // its own copy of the stack, exactly as after fork(2); the caller is single-threaded.
    let ret = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<libc::clone_args>())
    };
    match Errno::result(ret)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent {
            pid: Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?),
            pidfd: crate::own_fd(pidfd.into())?,
        }),
    }
}

/// Number of threads of this process; 1 if procfs cannot be read (then nothing can be checked).
fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, |entries| entries.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_sharing_flags() {
        let vm = CloneFlags::from_bits_retain(0x100);
        let refused = clone3(&Clone3 { flags: vm, cgroup: None });
        assert_eq!(refused.unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn refuses_to_fork_a_threaded_process() {
        // The test harness itself is threaded. tests/clone3.rs makes the successful calls.
        assert_eq!(clone3(&Clone3::default()).unwrap_err(), Errno::EDEADLK);
    }
}
