//! Notices when somebody else changes the instance's table (`nft flush ruleset`, a firewall's reload), or a table of its
//! own that may be in the way.

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

/// Tables of other instances, which are no business of ours.
const INSTANCES: &str = "berth-";
/// Tables of iptables in which nothing is forwarded.
const HARMLESS: [&str; 4] = ["nat", "raw", "mangle", "security"];

/// Whose table was changed by another socket than ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heard {
    /// Another's.
    Others,
    /// Ours.
    Own,
}

/// The thread that listens.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Calls `mend` whenever a table was changed by another socket than the one at `own_port`.
    pub(crate) fn start(
        table: &str,
        own_port: u32,
        mend: impl Fn(Heard) + Send + 'static,
    ) -> io::Result<Self> {
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
                if let Some(heard) = hear(&mut socket, &table, own_port) {
                    thread::sleep(REST);
                    // What came meanwhile is mended along.
                    let more = hear(&mut socket, &table, own_port);
                    mend(more.map_or(heard, |more| heard.max(more)));
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

/// What the messages that have come tell of.
fn hear(socket: &mut Socket, table: &str, own_port: u32) -> Option<Heard> {
    let mut heard = None;
    loop {
        match socket.receive(false) {
            Ok(Some(datagram)) => {
                let others = messages(datagram).filter(|message| message.port != own_port);
                heard = heard.max(others.filter_map(|message| whose(table_of(&message)?, table)).max());
            }
            // More came than the buffer holds: anything may have happened.
            Err(Errno::ENOBUFS) => heard = Some(Heard::Own),
            Ok(None) | Err(_) => return heard,
        }
    }
}

fn whose(table: &[u8], own: &str) -> Option<Heard> {
    if table == own.as_bytes() {
        return Some(Heard::Own);
    }
    let harmless =
        table.starts_with(INSTANCES.as_bytes()) || HARMLESS.iter().any(|name| name.as_bytes() == table);
    (!harmless).then_some(Heard::Others)
}

/// The table that a message is about: all of them begin with its name.
fn table_of<'a>(message: &Received<'a>) -> Option<&'a [u8]> {
    if message.kind >> 8 != libc::NFNL_SUBSYS_NFTABLES as u16 {
        return None;
    }
    let attribute = message.payload.get(4..).filter(|rest| rest.len() > 4)?;
    let length = usize::from(u16::from_ne_bytes([attribute[0], attribute[1]]));
    let kind = u16::from_ne_bytes([attribute[2], attribute[3]]);
    let name = attribute.get(4..length)?;
    (kind == TABLE_NAME).then(|| name.strip_suffix(&[0]).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_table_it_is() {
        assert_eq!(whose(b"berth-a", "berth-a"), Some(Heard::Own));
        assert_eq!(whose(b"filter", "berth-a"), Some(Heard::Others));
        for table in [&b"berth-b"[..], b"nat"] {
            assert_eq!(whose(table, "berth-a"), None);
        }
    }
}
