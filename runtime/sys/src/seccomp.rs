//! Loading of seccomp filters: `seccomp(2)`, `PR_SET_NO_NEW_PRIVS`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

/// `SECCOMP_FILTER_FLAG_LOG`: log all actions but allow.
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no speculative-store-bypass mitigation.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a notification descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: only fatal signals interrupt a notified call.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

const SET_MODE_FILTER: libc::c_ulong = 1;

/// One instruction of classic BPF; the layout of `struct sock_filter` of `<linux/filter.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Jump offset if true.
    pub jt: u8,
    /// Jump offset if false.
    pub jf: u8,
    /// Generic operand.
    pub k: u32,
}

const _: () = assert!(size_of::<SockFilter>() == size_of::<libc::sock_filter>());

/// Installs a filter on this thread. Returns the listener if `FLAG_NEW_LISTENER` was given.
///
/// # Errors
/// `EACCES` without `no_new_privs` or `CAP_SYS_ADMIN`, `EINVAL` for a program the kernel refuses or longer than
/// 4096 instructions; see `seccomp(2)`.
pub fn load(program: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let prog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    let flags_arg = libc::c_ulong::from(flags);
    // SAFETY: `prog` and the instructions it points to live across the call; the kernel only reads them, and
    // SockFilter has the layout of sock_filter (asserted above).
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags_arg, std::ptr::from_ref(&prog)) };
    if flags & FLAG_NEW_LISTENER != 0 {
        return crate::own_fd(ret).map(Some);
    }
    Errno::result(ret).map(|_| None)
}

/// Whether the kernel knows these flags, asked with a filter that cannot be read (seccomp(2), `EFAULT`).
#[must_use]
pub fn knows(flags: u32) -> bool {
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel checks the flags first, and then the address, which it refuses.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), none) };
    Errno::result(ret) == Err(Errno::EFAULT)
}

/// A system call that waits for its listener's answer (seccomp_unotify(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// For the answer.
    pub id: u64,
    /// Who makes the call, as the receiver sees it.
    pub pid: nix::unistd::Pid,
    /// The call's number.
    pub number: u32,
    /// `AUDIT_ARCH_*` of its ABI.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// `struct seccomp_notif` of `<linux/seccomp.h>`.
#[repr(C)]
#[derive(Default)]
struct RawNotification {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct RawAnswer {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

const IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100u32 as libc::Ioctl;
const IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101u32 as libc::Ioctl;
const USER_NOTIF_FLAG_CONTINUE: u32 = 1;

const _: () = assert!(size_of::<RawNotification>() == 0x50 && size_of::<RawAnswer>() == 0x18);

/// The next system call that waits.
///
/// # Errors
/// `ENOENT` if its process has died meanwhile; see `seccomp_unotify(2)`.
pub fn receive(listener: impl AsFd) -> Result<Notification, Errno> {
    let mut raw = RawNotification::default();
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the structure has the kernel's layout and size, is zeroed as the call demands, and lives across it.
    let ret = unsafe { libc::ioctl(fd, IOCTL_NOTIF_RECV, std::ptr::from_mut(&mut raw)) };
    Errno::result(ret)?;
    Ok(Notification {
        id: raw.id,
        pid: nix::unistd::Pid::from_raw(raw.pid.cast_signed()),
        number: raw.nr.cast_unsigned(),
        arch: raw.arch,
        args: raw.args,
    })
}

/// Answers: the call fails with this error, or is made after all.
///
/// # Errors
/// `ENOENT` if its process has died meanwhile; see `seccomp_unotify(2)`.
pub fn answer(listener: impl AsFd, id: u64, error: Option<Errno>) -> Result<(), Errno> {
    let (error, flags) = match error {
        Some(errno) => (-(errno as i32), 0),
        None => (0, USER_NOTIF_FLAG_CONTINUE),
    };
    let raw = RawAnswer { id, val: 0, error, flags };
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the structure has the kernel's layout and size and lives across the call, which only reads it.
    let ret = unsafe { libc::ioctl(fd, IOCTL_NOTIF_SEND, std::ptr::from_ref(&raw)) };
    Errno::result(ret).map(drop)
}

/// Sets `no_new_privs` on this thread, for ever (`prctl(2)`).
///
/// # Errors
/// See `prctl(2)`.
pub fn set_no_new_privs() -> Result<(), Errno> {
    nix::sys::prctl::set_no_new_privs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RET: u16 = 0x06;
    const LD_W_ABS: u16 = 0x20;
    const JEQ_K: u16 = 0x15;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;

    #[test]
    fn a_filter_holds_on_its_thread_only() {
        let nr = u32::try_from(libc::SYS_getppid).unwrap();
        let program = [
            SockFilter { code: LD_W_ABS, jt: 0, jf: 0, k: 0 },
            SockFilter { code: JEQ_K, jt: 0, jf: 1, k: nr },
            SockFilter { code: RET, jt: 0, jf: 0, k: ERRNO | 77 },
            SockFilter { code: RET, jt: 0, jf: 0, k: ALLOW },
        ];
        let filtered = std::thread::spawn(move || {
            set_no_new_privs().unwrap();
            assert!(load(&program, 0).unwrap().is_none());
            // SAFETY: getppid takes no argument.
            let ret = unsafe { libc::syscall(libc::SYS_getppid) };
            Errno::result(ret).unwrap_err() as i32
        });
        assert_eq!(filtered.join().unwrap(), 77);
        assert!(nix::unistd::getppid().as_raw() > 0);
    }

    #[test]
    fn a_bad_program_is_refused() {
        let endless = [SockFilter { code: LD_W_ABS, jt: 0, jf: 0, k: 0 }];
        assert_eq!(load(&endless, 0).unwrap_err(), Errno::EINVAL);
    }
}
