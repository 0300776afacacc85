//! Packets with descriptors over a `SOCK_SEQPACKET` socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::socket::{recv_with_fds, send_with_fds};
use nix::sys::socket::MsgFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::MAX_PACKET;

/// Sends one message; all or nothing.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > MAX_PACKET {
        return Err(io::Error::other(format!("a message of {} bytes is too long", packet.len())));
    }
    send_with_fds(socket, &packet, fds, MsgFlags::empty())?;
    Ok(())
}

/// The next message with its descriptors; none at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: MsgFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_PACKET];
    let (length, fds) = recv_with_fds(socket, &mut buffer, flags)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..length])?, fds)))
}
