//! Notices when somebody else changes the instance's table: `nft flush ruleset`, a firewall's reload.

use std::io;
use std::os::fd::AsFd as _;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::SockProtocol;

use crate::netlink::{Received, Socket, messages};

/// `NFNLGRP_NFTABLES` as a bit.
const GROUP: u32 = 1 << (7 - 1);
/// The other's transaction is over, and so are those that follow it, before ours.
const REST: Duration = Duration::from_millis(50);
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`, …: always the first.
const TABLE_NAME: u16 = 1;

/// The thread that listens.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Calls `mend` whenever the table was changed by another socket than the one at `own_port`.
    pub(crate) fn start(table: &str, own_port: u32, mend: impl Fn() + Send + 'static) -> io::Result<Self> {
        let mut socket = Socket::listen(SockProtocol::NetlinkNetFilter, GROUP)?;
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let stopped = stop.as_fd().try_clone_to_owned()?;
        let table = table.to_owned();
        let thread = thread::Builder::new().name("berth-nft-watch".into()).spawn(move || {
            loop {
                let mut ready =
                    [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
                match poll(&mut ready, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => {
                        tracing::warn!(%errno, "changes of the nftables table by others are not noticed any more");
                        return;
                    }
                }
                if ready[1].any().unwrap_or(true) {
                    return;
                }
                if hear(&mut socket, &table, own_port) {
                    thread::sleep(REST);
                    // What came meanwhile is mended along.
                    hear(&mut socket, &table, own_port);
                    mend();
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that watches the nftables table panicked");
        }
    }
}

/// Whether any of the messages that have come tells of our table.
fn hear(socket: &mut Socket, table: &str, own_port: u32) -> bool {
    let mut changed = false;
    loop {
        match socket.receive(false) {
            Ok(Some(datagram)) => {
                changed |=
                    messages(datagram).any(|message| message.port != own_port && names(&message, table));
            }
            // More came than the buffer holds: anything may have happened.
            Err(Errno::ENOBUFS) => changed = true,
            Ok(None) | Err(_) => return changed,
        }
    }
}

/// Whether a message is about something of this table: all of them begin with its name.
fn names(message: &Received<'_>, table: &str) -> bool {
    if message.kind >> 8 != libc::NFNL_SUBSYS_NFTABLES as u16 {
        return false;
    }
    let Some(attribute) = message.payload.get(4..).filter(|rest| rest.len() > 4) else { return false };
    let length = usize::from(u16::from_ne_bytes([attribute[0], attribute[1]]));
    let kind = u16::from_ne_bytes([attribute[2], attribute[3]]);
    let name = attribute.get(4..length).unwrap_or_default();
    kind == TABLE_NAME && name.strip_suffix(&[0]) == Some(table.as_bytes())
}
