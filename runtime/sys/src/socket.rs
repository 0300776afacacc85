//! Passing descriptors over unix sockets (`SCM_RIGHTS`, `unix(7)`).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// The most descriptors one message may carry (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// A pair of connected `SOCK_SEQPACKET` sockets, `FD_CLOEXEC`.
///
/// # Errors
/// See `socketpair(2)`.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Bytes that were sent on this unix stream socket and that its other end has not read yet, with what the kernel needs
/// beside them: only zero is exact (`SIOCOUTQ`, which unix(7) does not tell of).
///
/// # Errors
/// `EBADF`, `ENOTTY` if it is no socket.
pub fn unread_by_peer(socket: impl AsFd) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int, which lives across the call.
    let ret =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) };
    Errno::result(ret)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Sends bytes and descriptors in one message; never raises `SIGPIPE`.
///
/// # Errors
/// See `sendmsg(2)`.
pub fn send_with_fds(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let iov = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &iov, control, flags | MsgFlags::MSG_NOSIGNAL, None)
}

/// Receives one message and the descriptors that came with it. Zero bytes mean end of file.
///
/// # Errors
/// `EMSGSIZE` if the message or its descriptors did not fit (they are lost); see `recvmsg(2)`.
pub fn recv_with_fds(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(buffer)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    // A truncated control buffer makes `cmsgs` fail; whole descriptors cannot be lost then, as the buffer
    // holds the most that the kernel ever sends.
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            for fd in received {
                // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_no_longer_unread() {
        use std::io::{Read as _, Write as _};
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        ours.write_all(b"abc").unwrap();
        assert_ne!(unread_by_peer(&ours).unwrap(), 0);
        theirs.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
    }
    use std::io::{Read, Write};

    #[test]
    fn descriptors_travel_with_their_message() {
        let (left, right) = seqpacket_pair().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        send_with_fds(&left, b"one", &[reader.as_fd()], MsgFlags::empty()).unwrap();
        send_with_fds(&left, b"two", &[], MsgFlags::empty()).unwrap();
        drop((reader, left));
        let mut buffer = [0; 16];
        let (n, mut fds) = recv_with_fds(&right, &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"one"[..], 1));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        let (n, fds) = recv_with_fds(&right, &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"two"[..], 0));
        assert_eq!(recv_with_fds(&right, &mut buffer, MsgFlags::empty()).unwrap().0, 0);
    }

    #[test]
    fn a_message_too_long_is_an_error() {
        let (left, right) = seqpacket_pair().unwrap();
        send_with_fds(&left, &[7; 100], &[], MsgFlags::empty()).unwrap();
        let cut = recv_with_fds(&right, &mut [0; 10], MsgFlags::empty());
        assert_eq!(cut.unwrap_err(), Errno::EMSGSIZE);
    }
}
