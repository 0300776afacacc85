//! Namespaces: `setns(2)`, `unshare(2)`, and the question which kind a descriptor is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::clone::CloneFlags;

/// `NS_GET_NSTYPE` of `<linux/nsfs.h>`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Enters the namespace behind `fd`; with a pidfd, all kinds in `kinds` at once.
///
/// # Errors
/// See `setns(2)`.
pub fn setns(fd: impl AsFd, kinds: CloneFlags) -> Result<(), Errno> {
    let kinds = i32::try_from(kinds.bits()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: two integers, no memory of ours.
    let ret = unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds) };
    Errno::result(ret).map(drop)
}

/// Leaves namespaces for new ones.
///
/// # Errors
/// See `unshare(2)`.
pub fn unshare(kinds: CloneFlags) -> Result<(), Errno> {
    let kinds = i32::try_from(kinds.bits()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: one integer. Only flags that fit an int reach the kernel; those that unshare memory or
    // descriptors would leave this process with its own copies, which is sound too.
    let ret = unsafe { libc::unshare(kinds) };
    Errno::result(ret).map(drop)
}

/// The kind of namespace behind a descriptor, as its clone flag.
///
/// # Errors
/// `ENOTTY` if the descriptor is no namespace.
pub fn kind(fd: BorrowedFd<'_>) -> Result<CloneFlags, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(ret).map(|bits| CloneFlags::from_bits_retain(bits as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn tells_namespace_kinds() {
        let net = File::open("/proc/self/ns/net").unwrap();
        assert_eq!(kind(net.as_fd()), Ok(CloneFlags::NEWNET));
        let file = File::open("/proc/self/status").unwrap();
        assert_eq!(kind(file.as_fd()), Err(Errno::ENOTTY));
    }

    #[test]
    fn enters_and_leaves_in_a_thread() {
        let id = || std::fs::read_link("/proc/thread-self/ns/uts").unwrap();
        let outside = id();
        let inside = std::thread::spawn(move || {
            let old = File::open("/proc/thread-self/ns/uts").unwrap();
            unshare(CloneFlags::NEWUTS).unwrap();
            let new = id();
            setns(&old, CloneFlags::NEWUTS).unwrap();
            (new, id())
        });
        let (new, back) = inside.join().unwrap();
        assert_ne!(new, outside);
        assert_eq!(back, outside);
    }
}
