//! The standard streams of a container process.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_sys::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

use crate::error::Error;

/// Where the process reads and writes.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own streams.
    Inherit,
    /// These descriptors; the parent's copies are closed once the child has them.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A pseudo-terminal in the container's devpts; `process.terminal` must be true.
    Terminal(ConsoleSink),
}

/// Who gets the master side of the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleSink {
    /// The caller, as `console` of the result.
    Return,
    /// The same, for a caller that copies the output to a terminal of its own, which turns newlines into new lines.
    Foreground,
    /// Whoever listens on this unix socket (`--console-socket`).
    Socket(PathBuf),
}

impl Stdio {
    /// True if the caller copies a terminal's output to its own.
    pub(crate) fn is_foreground(&self) -> bool {
        matches!(self, Self::Terminal(ConsoleSink::Foreground))
    }
}

impl ConsoleSink {
    /// Delivers the master; hands it back if the caller is to have it.
    ///
    /// # Errors
    /// Nobody listens at the socket.
    pub fn deliver(&self, master: OwnedFd) -> Result<Option<OwnedFd>, Error> {
        match self {
            Self::Return | Self::Foreground => Ok(Some(master)),
            Self::Socket(path) => {
                let context = |errno: Errno| {
                    Error::os(format!("send the terminal to console socket {}", path.display()), errno)
                };
                let address = UnixAddr::new(path).map_err(context)?;
                let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                    .map_err(context)?;
                connect(stream.as_raw_fd(), &address).map_err(context)?;
                // The receivers of containerd and podman read the terminal's name as the message.
                let sent = [master.as_fd()];
                berth_sys::socket::send_with_fds(&stream, b"/dev/ptmx", &sent, MsgFlags::empty())
                    .map_err(context)?;
                Ok(None)
            }
        }
    }
}
