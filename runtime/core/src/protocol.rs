//! What parent and child say to each other, over one `SOCK_SEQPACKET` pair that closes at exec.
//!
//! ```text
//!  parent                                    child
//!    │ clone3 ─────────────────────────────────▶│ joins cgroup and namespaces
//!    │◀──────────────── Forked(pid) + pidfd ────│ only from a process in between (exec, joined pid namespace)
//!    │ Go ─────────────────────────────────────▶│ to the one that goes on
//!    │◀──────────────── NamespacesReady ────────│ only if the parent has steps to do (id maps, …)
//!    │ Go ─────────────────────────────────────▶│
//!    │◀──────────────── MapIds(index) + fd ─────│ for each id-mapped mount of what the container's mounts show
//!    │ Go ─────────────────────────────────────▶│
//!    │◀──────────────── RunHooks ───────────────│ only with prestart or createRuntime hooks
//!    │ Go ─────────────────────────────────────▶│
//!    │◀──────────────── Console + fd ───────────│ only with a terminal
//!    │◀──────────────── Listener + fd ──────────│ only with SCMP_ACT_NOTIFY
//!    │◀──────────────── Warning … Trace … ──────│ any time
//!    │◀──────────────── Ready ──────────────────│ create() returns; not sent by an exec
//!    │ Start ──────────────────────────────────▶│ without a FIFO, at any time before or after Ready; with one, `start`
//!    │                                          │ opens that for reading, and gets one byte, then a Failure or the
//!    │                                          │ end of file
//!    │◀──────────────── end of file ────────────│ execve succeeded
//!    │◀──────────────── Failure ────────────────│ any time, and then the end
//! ```
//!
//! A message out of its phase is an error ([`Error::Protocol`]).

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::{Errno, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::MsgFlags;
use serde::{Deserialize, Serialize};

use crate::error::{ChildFailure, Error};
use crate::watch::SeccompWatch;

/// Messages of the child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// An intermediate process has forked the one that goes on; its pidfd comes along.
    Forked(i32),
    NamespacesReady,
    /// The ids of this detached mount, made for the mount of that index in config.json, are to be mapped.
    MapIds(usize),
    RunHooks,
    Console,
    Listener,
    Warning(String),
    /// Only if the parent wants to know.
    Trace(String),
    Ready,
    Failure(ChildFailure),
}

/// The longest message: a failure text is cut well below.
const MAX_MESSAGE: usize = 16 * 1024;
const MAX_TEXT: usize = 4096;
/// The parent's messages: to go on where the child waits for what it has asked for, and to run its program when it is ready.
const GO: &[u8] = b"go";
const START: &[u8] = b"start";

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentLink(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub(crate) struct ChildLink {
    socket: OwnedFd,
    /// The start FIFO, from the moment `start` has opened it: by then nobody may listen on the socket any more.
    gate: OnceCell<OwnedFd>,
    /// The parent has said it already.
    started: Cell<bool>,
}

/// A connected pair.
pub(crate) fn link() -> Result<(ParentLink, ChildLink), Error> {
    let (parent, child) = socket::seqpacket_pair().map_err(|e| Error::os("socketpair", e))?;
    let child = ChildLink { socket: child, gate: OnceCell::new(), started: Cell::new(false) };
    Ok((ParentLink(parent), child))
}

impl ParentLink {
    /// The next message and its descriptor; `None` at the end of file.
    pub(crate) fn receive(&self) -> Result<Option<(FromChild, Option<OwnedFd>)>, Error> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, fds) = loop {
            match socket::recv_with_fds(&self.0, &mut buffer, MsgFlags::empty()) {
                // A child that died with unread messages of ours resets the connection, which is told once, and before what
                // the child has said.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                other => break other.map_err(|e| Error::os("receive from the container's init", e))?,
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&buffer[..length])
            .map_err(|e| Error::Protocol { got: e.to_string(), expected: "a message" })?;
        Ok(Some((message, fds.into_iter().next())))
    }

    /// The same, answering for denied system calls meanwhile: the child may make one, and then waits for us.
    pub(crate) fn receive_watching(
        &self,
        watch: Option<&mut SeccompWatch>,
    ) -> Result<Option<(FromChild, Option<OwnedFd>)>, Error> {
        let Some(watch) = watch else { return self.receive() };
        loop {
            let mut fds = [
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(watch.as_fd(), PollFlags::POLLIN),
            ];
            match nix::poll::poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(|e| Error::os("poll", e))?,
            };
            let ready = |at: usize| fds[at].revents().is_some_and(|seen| !seen.is_empty());
            let (link, call) = (ready(0), ready(1));
            if link {
                return self.receive();
            }
            if call {
                watch.answer();
            }
        }
    }

    /// Lets the child go on. If it is gone, the next [`Self::receive`] tells.
    pub(crate) fn go(&self) -> Result<(), Error> {
        self.say(GO)
    }

    /// Lets the child run its program, as soon as it is ready.
    pub(crate) fn start(&self) -> Result<(), Error> {
        self.say(START)
    }

    fn say(&self, word: &[u8]) -> Result<(), Error> {
        match socket::send_with_fds(&self.0, word, &[], MsgFlags::empty()) {
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(Error::os("send to the container's init", errno)),
        }
    }
}

impl ChildLink {
    /// Sends a message with at most one descriptor.
    pub(crate) fn send(&self, message: &FromChild, fd: Option<&OwnedFd>) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        socket::send_with_fds(&self.socket, &bytes, &fds, MsgFlags::empty()).map(drop)
    }

    /// Tells the failure. If nobody listens there is nobody to tell.
    pub(crate) fn fail(&self, mut failure: ChildFailure) {
        if failure.message.len() > MAX_TEXT {
            let end = failure.message.floor_char_boundary(MAX_TEXT);
            failure.message.truncate(end);
        }
        if let Some(gate) = self.gate.get()
            && let Ok(bytes) = serde_json::to_vec(&failure)
        {
            nix::unistd::write(gate, &bytes).ok();
        }
        self.send(&FromChild::Failure(failure), None).ok();
    }

    /// For one that says what no child would.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// From now on a failure is told to whoever reads this FIFO, too.
    pub(crate) fn answer_through(&self, gate: OwnedFd) {
        // There is one gate in the life of a child.
        self.gate.set(gate).ok();
    }

    /// What must stay open until the program runs.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd()).chain(self.gate.get().map(AsFd::as_fd)).collect()
    }

    /// Fails with `EPIPE` if the parent's end is closed: it has died.
    pub(crate) fn peer_lives(&self) -> Result<(), Errno> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        nix::poll::poll(&mut fds, PollTimeout::ZERO)?;
        let gone = fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP));
        if gone { Err(Errno::EPIPE) } else { Ok(()) }
    }

    /// Waits for the parent's word to go on.
    pub(crate) fn wait_for_go(&self) -> Result<(), Errno> {
        while self.is_start()? {
            self.started.set(true);
        }
        Ok(())
    }

    /// Waits for the parent's word to start, if it has not come yet.
    pub(crate) fn wait_for_start(&self) -> Result<(), Errno> {
        while !self.started.get() {
            self.started.set(self.is_start()?);
        }
        Ok(())
    }

    /// Whether the parent's next word is to start.
    fn is_start(&self) -> Result<bool, Errno> {
        let mut buffer = [0; 8];
        loop {
            match socket::recv_with_fds(&self.socket, &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Ok((0, _)) => return Err(Errno::EPIPE),
                Ok((length, _)) => return Ok(&buffer[..length] == START),
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureKind;

    #[test]
    fn messages_carry_descriptors_and_end() {
        let (parent, child) = link().unwrap();
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        child.send(&FromChild::Console, Some(&null)).unwrap();
        parent.go().unwrap();
        child.wait_for_go().unwrap();
        assert!(matches!(parent.receive().unwrap(), Some((FromChild::Console, Some(_)))));
        drop(child);
        assert!(parent.receive().unwrap().is_none());
        parent.go().unwrap();
    }

    #[test]
    fn the_word_to_start_may_come_early() {
        let (parent, child) = link().unwrap();
        parent.start().unwrap();
        parent.go().unwrap();
        child.wait_for_go().unwrap();
        child.wait_for_start().unwrap();
        let (parent, child) = link().unwrap();
        parent.go().unwrap();
        parent.start().unwrap();
        child.wait_for_go().unwrap();
        child.wait_for_start().unwrap();
        drop(parent);
        assert_eq!(child.wait_for_go(), Err(Errno::EPIPE));
        // One that fails before it has read that is heard all the same.
        let (parent, child) = link().unwrap();
        parent.start().unwrap();
        child.send(&FromChild::Ready, None).unwrap();
        drop(child);
        assert!(matches!(parent.receive().unwrap(), Some((FromChild::Ready, None))));
        assert!(parent.receive().unwrap().is_none());
    }

    #[test]
    fn an_endless_failure_is_cut() {
        let (parent, child) = link().unwrap();
        child.fail(ChildFailure {
            step: "Mount".into(),
            message: "ä".repeat(100_000),
            errno: None,
            kind: FailureKind::Other,
            hint: None,
        });
        let Some((FromChild::Failure(failure), None)) = parent.receive().unwrap() else {
            panic!("a failure was sent");
        };
        assert_eq!(failure.message.chars().count(), MAX_TEXT / 2);
    }
}
