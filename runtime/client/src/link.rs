//! The packets of one control connection: `SOCK_SEQPACKET`, descriptors by `SCM_RIGHTS`.

use std::{
    fs::File,
    io::{self, IoSlice, Write as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::Path,
};

use berth_shim_protocol::{MAX_PACKET, SPILL_MARK};
use nix::{
    fcntl::{OFlag, open},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
            socket, socketpair,
        },
        stat::Mode,
    },
};
use tokio::{io::Interest, net::UnixStream};

/// One end of a control connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// tokio has no type for `SOCK_SEQPACKET`; of this one only readiness is used.
    socket: UnixStream,
}

impl Link {
    /// A new connection and its other end, which is for a shim to inherit.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        Ok((Self::new(ours)?, theirs))
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: UnixStream::from_std(StdUnixStream::from(socket))? })
    }

    /// Connect to the socket `name` in `dir`. It is named through a descriptor of the directory, for its path
    /// may be longer than a socket's address can be (108 bytes, unix(7)).
    pub(crate) fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        let dir = open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let address = UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(socket.as_raw_fd(), &address)?;
        Self::new(socket)
    }

    /// Send one message with descriptors; all or nothing.
    pub(crate) async fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if message.len() <= MAX_PACKET {
            return self.send_packet(message, fds).await;
        }
        let spill = spill(message)?;
        let with_spill: Vec<BorrowedFd<'_>> =
            [spill.as_fd()].into_iter().chain(fds.iter().copied()).collect();
        self.send_packet(SPILL_MARK, &with_spill).await
    }

    async fn send_packet(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || send_now(&self.socket, packet, fds)).await
    }

    /// Send one short message now or not at all; for destructors, which cannot wait.
    pub(crate) fn try_send(&self, message: &[u8]) -> io::Result<()> {
        send_now(&self.socket, message, &[])
    }

    /// The next message; none when the other end is gone.
    pub(crate) async fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        self.socket.async_io(Interest::READABLE, || receive_now(&self.socket)).await
    }
}

fn send_now(socket: &UnixStream, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The length first, so that an idle connection needs no buffer.
fn receive_now(socket: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let fd = socket.as_raw_fd();
    let length = match recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
        Ok(0) | Err(nix::Error::ECONNRESET) => return Ok(None),
        length => length?,
    };
    let mut packet = vec![0; length];
    let received = recv(fd, &mut packet, MsgFlags::empty())?;
    packet.truncate(received);
    Ok(Some(packet))
}

fn spill(message: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"berth-request", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(message)?;
    Ok(file.into())
}
