//! The loopback device of a new network namespace (`netdevice(7)`).

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings `lo` of the current network namespace up.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
pub fn loopback_up() -> Result<(), Errno> {
    let handle = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which all-zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    // A fresh namespace's `lo` has no flag worth keeping, so there is no need to read them first.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    let ret = unsafe {
        libc::ioctl(handle.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, std::ptr::from_ref(&request))
    };
    Errno::result(ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_of_a_new_namespace_comes_up() {
        let state = std::thread::spawn(|| {
            crate::ns::unshare(crate::clone::CloneFlags::NEWNET).unwrap();
            let flags = || std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.connect("127.0.0.1:9"));
            let before = flags().is_ok();
            loopback_up().unwrap();
            (before, flags().is_ok())
        });
        assert_eq!(state.join().unwrap(), (false, true));
    }
}
