//! Netlink sockets and what the kernel answers on them (netlink(7)).

mod link;
mod route;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

pub(crate) use link::{BridgeLink, Link, PortFlags, SubKind, SubLink, VethLink};
pub(crate) use route::RouteSocket;

/// The kernel refused a request, or no answer came.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {errno}")]
pub struct NetlinkError {
    operation: String,
    errno: Errno,
}

impl NetlinkError {
    pub(crate) fn new(operation: impl Into<String>, errno: Errno) -> Self {
        Self { operation: operation.into(), errno }
    }

    /// What was attempted.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The kernel's word.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

/// The kernel fills a dump's datagrams up to 32 KiB, and never more than the buffer it saw last.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// The kernel answers while the request is being sent; a silence this long is a bug.
const PATIENCE: i64 = 10;

/// A netlink socket, bound to the network namespace of the thread that opens it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; RECEIVE_BUFFER] })
    }

    /// A socket that hears the messages of these multicast groups (a bit for each, as in bind(2) of netlink(7)).
    pub(crate) fn listen(protocol: SockProtocol, groups: u32) -> Result<Self, Errno> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; RECEIVE_BUFFER] })
    }

    /// The address that the kernel gave the socket, by which others see who caused a change.
    pub(crate) fn port(&self) -> Result<u32, Errno> {
        getsockname::<NetlinkAddr>(self.fd.as_raw_fd()).map(|address| address.pid())
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A sequence number not used before on this socket.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Hands the kernel one or more messages; it has processed them all when this returns.
    pub(crate) fn send(&self, messages: &[u8]) -> Result<(), Errno> {
        let kernel = NetlinkAddr::new(0, 0);
        loop {
            match sendmsg(
                self.fd.as_raw_fd(),
                &[IoSlice::new(messages)],
                &[],
                MsgFlags::empty(),
                Some(&kernel),
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The next datagram from the kernel; `None` when `wait` is false and there is none.
    ///
    /// Any process may send to a netlink socket's port, so datagrams from elsewhere are dropped.
    pub(crate) fn receive(&mut self, wait: bool) -> Result<Option<&[u8]>, Errno> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        loop {
            let mut pieces = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut pieces, None, flags) {
                Ok(message) if message.address.is_some_and(|from| from.pid() != 0) => {}
                Ok(message) => {
                    let length = message.bytes;
                    return Ok(Some(&self.buffer[..length]));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if wait => return Err(Errno::ETIMEDOUT),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Throws away answers that nobody will read.
    pub(crate) fn drain(&mut self) {
        while let Ok(Some(_)) = self.receive(false) {}
    }
}

/// One netlink message inside a datagram.
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Address of the socket whose request this answers or reports.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

impl Received<'_> {
    /// For `NLMSG_ERROR`: the errno, where 0 is an acknowledgement.
    pub(crate) fn error(&self) -> Option<Result<(), Errno>> {
        if i32::from(self.kind) != libc::NLMSG_ERROR {
            return None;
        }
        let code = self.payload.first_chunk::<4>().map_or(-libc::EBADMSG, |bytes| i32::from_ne_bytes(*bytes));
        Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) })
    }
}

/// Splits a datagram into its messages; a malformed tail ends the walk.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = datagram.split_first_chunk::<16>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = datagram.get(16..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn datagrams_split_at_message_boundaries() {
        let mut datagram = message(20, b"abcde");
        datagram.extend(message(2, &(-libc::ENOENT).to_ne_bytes()));
        let parts: Vec<_> = messages(&datagram).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].kind, parts[0].sequence, parts[0].payload), (20, 7, &b"abcde"[..]));
        assert_eq!(parts[0].error(), None);
        assert_eq!(parts[1].error(), Some(Err(Errno::ENOENT)));
    }

    #[test]
    fn a_lying_length_ends_the_walk() {
        let mut datagram = message(20, b"abcd");
        datagram[..4].copy_from_slice(&4096_u32.to_ne_bytes());
        assert_eq!(messages(&datagram).count(), 0);
        datagram[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(messages(&datagram).count(), 0);
    }
}
