//! The standard streams of one process and the clients that are attached to them.

mod buffer;
mod detach;
mod hub;
mod session;
mod stdin;

pub(crate) use buffer::Scratch;
use buffer::write_some;
pub(crate) use hub::{Console, Hub, HubKind};

use std::os::fd::AsFd;

use berth_shim_protocol::oci;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

/// An output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output; all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(crate) const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its number as a descriptor, and in stdcopy's header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.number()) - 1
    }
}

/// Whether config.json gives this process a terminal.
pub(crate) fn has_terminal(process: &oci::Process) -> bool {
    process.terminal().unwrap_or(false)
}

/// Make reads and writes answer EAGAIN instead of waiting.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
