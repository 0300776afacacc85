//! Attributes of the calling process that `nix` lacks: descriptors at exec, names, limits, priorities.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
/// How far descriptors are closed one by one. The kernel gives the lowest free number, so that there are never this many.
const MOST_DESCRIPTORS: u32 = 65_536;
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Sets `FD_CLOEXEC` on every open descriptor from `first` on (`close_range(2)`).
///
/// # Errors
/// See `close_range(2)`.
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    let last = libc::c_uint::MAX;
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed, so nobody's ownership is touched.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC) };
    Errno::result(ret).map(drop)
}

/// Every signal there is. (The sets of C libraries leave out those that they keep for themselves, and musl keeps one that others
/// may send.)
#[must_use]
pub fn all_signals() -> SigSet {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is as long as its type says.
    unsafe { set.as_mut_ptr().write_bytes(u8::MAX, 1) };
    // SAFETY: the whole of it was written; a sigset_t is bits, of which any may be set.
    let set = unsafe { set.assume_init() };
    // SAFETY: as before.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// A process that waits as the init of a pid namespace is immune to signals it has no handler for (pid_namespaces(7)).
/// From here to execve(2), which takes handlers away, these end it: SIGTERM, SIGINT, SIGHUP, SIGQUIT.
///
/// # Errors
/// See `sigaction(2)`.
pub fn end_when_asked() -> Result<(), Errno> {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal);
    }
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, sigaction};
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: the handler calls only _exit(2), which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// From here to execve(2), children that end leave no zombie (`SIGCHLD` in wait(2)).
///
/// # Errors
/// See `sigaction(2)`.
pub fn reap_unseen() -> Result<(), Errno> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, sigaction};
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.map(drop)
}

/// Takes ownership of a descriptor this process was started with.
///
/// Inherited descriptors are those without `FD_CLOEXEC` (Rust opens its own with it). Taking one sets the flag,
/// so the same number cannot be taken twice.
///
/// # Errors
/// `EBADF` if it is not open, a standard stream, or not an inherited descriptor.
pub fn take_inherited_fd(fd: RawFd) -> Result<OwnedFd, Errno> {
    if fd <= libc::STDERR_FILENO {
        return Err(Errno::EBADF);
    }
    // SAFETY: F_GETFD takes no further argument and is harmless on any number.
    let flags = Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: F_SETFD takes an integer; the descriptor is open (checked above).
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: open, inherited across exec and so owned by nobody in this program; the flag just set keeps a
    // second call from claiming it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Becomes another program, or calls `tell` with why not and ends with exit code 1.
///
/// Before, all descriptors from `first` on are closed, but for `keep`: a path of the program, of its interpreter or of
/// its loader must not lead through a descriptor of this process to a place outside (runc CVE-2024-21626). Descriptors
/// below `first` stay open.
///
/// `tell` may use what is in `keep`, and nothing else that is open.
pub fn exec_alone(
    path: &CStr,
    argv: &[CString],
    env: &[CString],
    first: u32,
    keep: &[BorrowedFd<'_>],
    tell: impl FnOnce(Errno),
) -> ! {
    let Err(errno) = close_others(first, keep).and_then(|()| nix::unistd::execve(path, argv, env));
    tell(errno);
    exit_now(1)
}

/// Closes all descriptors from `first` on but those in `keep` (`close_range(2)`).
///
/// Only for a process that never returns from here to whoever owns one of them: it becomes another program, or ends by
/// [`exit_now`], which drops nothing.
///
/// # Errors
/// See `close_range(2)`.
pub fn close_others(first: u32, keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut from = first;
    for kept in keep.into_iter().filter(|kept| *kept >= first) {
        if from < kept {
            close_range(from, kept - 1)?;
        }
        from = kept + 1;
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the owners of these descriptors never run again: by the contract of close_others the process ends in
    // execve or _exit, and what runs in between is told which descriptors are left.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match Errno::result(ret) {
        // A container's seccomp filter that does not know the call: it may answer with any number.
        Err(_) => {
            for fd in first..=last.min(MOST_DESCRIPTORS) {
                // SAFETY: as above. EBADF, for most of them, is of no interest.
                unsafe { libc::close(fd.cast_signed()) };
            }
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Sets the NIS domain name of the UTS namespace (`setdomainname(2)`).
///
/// # Errors
/// See `setdomainname(2)`.
pub fn set_domainname(name: &str) -> Result<(), Errno> {
    // SAFETY: the pointer and length describe a live string.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(ret).map(drop)
}

/// Sets a resource limit by its number (`RLIMIT_*`) in a process; `None` is the caller.
///
/// # Errors
/// `EPERM` when the hard limit would rise without `CAP_SYS_RESOURCE`; see `prlimit(2)`.
pub fn set_rlimit(pid: Option<Pid>, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    let pid = pid.map_or(0, Pid::as_raw);
    // SAFETY: `limit` lives across the call, the old value is not asked for.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::from_ref(&limit), old) };
    Errno::result(ret).map(drop)
}

/// The soft and hard limit of a process; `None` is the caller.
///
/// # Errors
/// See `prlimit(2)`.
pub fn rlimit(pid: Option<Pid>, resource: u32) -> Result<(u64, u64), Errno> {
    let new = std::ptr::null::<libc::rlimit64>();
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let pid = pid.map_or(0, Pid::as_raw);
    // SAFETY: no new limit is given, and `limit` is a live structure of the type the call fills.
    let ret =
        unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, std::ptr::from_mut(&mut limit)) };
    Errno::result(ret)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the I/O priority of this process: class 1 realtime, 2 best effort, 3 idle; level 0 to 7.
///
/// # Errors
/// See `ioprio_set(2)`.
pub fn set_io_priority(class: u32, level: u32) -> Result<(), Errno> {
    let value = (class << 13) | level;
    // SAFETY: three integers.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    Errno::result(ret).map(drop)
}

/// Sets the NUMA policy of this thread: an `MPOL_*` mode with its flags, and the nodes.
///
/// # Errors
/// `EINVAL` for nodes that do not exist; see `set_mempolicy(2)`.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<(), Errno> {
    let bits = usize::BITS as usize;
    let words = nodes.iter().max().map_or(0, |max| max / bits + 1);
    let mut mask = vec![0usize; words];
    for node in nodes {
        mask[node / bits] |= 1 << (node % bits);
    }
    // The kernel takes one bit more than it reads.
    let length = if words == 0 { 0 } else { words * bits + 1 };
    // MPOL_DEFAULT and MPOL_LOCAL insist on an absent mask; the pointer of an empty vector is not null.
    let mask = if words == 0 { std::ptr::null() } else { mask.as_ptr() };
    // SAFETY: `mask` lives across the call and holds `length - 1` bits, which is what the kernel reads.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, length) };
    Errno::result(ret).map(drop)
}

/// `struct sched_attr` of `<linux/sched/types.h>`, version 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Set by [`set_scheduler`].
    size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value (normal policies).
    pub nice: i32,
    /// Priority (realtime policies).
    pub priority: u32,
    /// Deadline policy: runtime in ns.
    pub runtime: u64,
    /// Deadline policy: deadline in ns.
    pub deadline: u64,
    /// Deadline policy: period in ns.
    pub period: u64,
}

/// Sets the scheduling policy of this process.
///
/// # Errors
/// See `sched_setattr(2)`.
pub fn set_scheduler(attr: &SchedAttr) -> Result<(), Errno> {
    let mut attr = *attr;
    attr.size = u32::try_from(size_of::<SchedAttr>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `attr` lives across the call and carries its own size; pid 0 is the caller.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_mut(&mut attr), 0) };
    Errno::result(ret).map(drop)
}

/// Unblocks all signals and gives each its default action, as a program expects at its start.
///
/// # Errors
/// See `sigprocmask(2)`.
pub fn reset_signals() -> Result<(), Errno> {
    // SAFETY: sigset_t is plain data; all-zero is a valid (empty) set.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    let old = std::ptr::null_mut();
    // SAFETY: `empty` lives across the call; the old mask is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, std::ptr::from_ref(&empty), old) };
    Errno::result(ret)?;
    // Rust ignores SIGPIPE, and exec passes ignored signals on; handlers are reset by exec itself.
    // SAFETY: SIG_DFL installs no code.
    let ret = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if ret == libc::SIG_ERR {
        return Err(Errno::last());
    }
    // posix_spawn(3) of the C library leaves its own two signals ignored, and its sigaction(3) refuses to name them.
    for signal in [32, 33] {
        let default = [0_u64; 4];
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads one `struct sigaction`, whose four words of zero are SIG_DFL, and eight bytes are the size of
        // its signal mask.
        let ret = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) };
        Errno::result(ret)?;
    }
    Ok(())
}

/// Replaces standard input, output and error; `FD_CLOEXEC` is clear on the copies.
///
/// # Errors
/// See `dup2(2)`.
pub fn set_stdio(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), Errno> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)
}

/// Ends the process at once: no destructors, no exit handlers, no flushing (`_exit(2)`).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and runs no code of ours.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_descriptors_cannot_be_taken() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(take_inherited_fd(file.as_raw_fd()).unwrap_err(), Errno::EBADF);
        assert_eq!(take_inherited_fd(0).unwrap_err(), Errno::EBADF);
        assert_eq!(take_inherited_fd(9999).unwrap_err(), Errno::EBADF);
    }

    #[test]
    fn limits_go_down_by_number() {
        let core = libc::RLIMIT_CORE;
        set_rlimit(None, core, 0, 4096).unwrap();
        let now = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE);
        assert_eq!(now, Ok((0, 4096)));
    }

    #[test]
    fn idle_io_priority_is_accepted() {
        std::thread::spawn(|| set_io_priority(3, 0).unwrap()).join().unwrap();
    }
}
