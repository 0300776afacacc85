//! A process' standard input: what attached clients type, on its way into the pipe or terminal.

use std::{collections::VecDeque, os::fd::OwnedFd};

use nix::sys::epoll::EpollFlags;

use super::write_some;
use crate::poll::Watched;

/// Clients are not read from while so much waits for the process.
const LIMIT: usize = 64 * 1024;

/// A process' standard input.
#[derive(Debug)]
pub(crate) struct Stdin {
    state: State,
    queue: VecDeque<u8>,
    /// Close it when the queue is empty.
    closing: bool,
}

#[derive(Debug)]
enum State {
    /// The process does not exist yet; input is kept for it.
    Awaited,
    Open(Watched<OwnedFd>),
    /// Input is read from clients and thrown away.
    Closed,
}

impl Stdin {
    pub(crate) fn new() -> Self {
        Self { state: State::Awaited, queue: VecDeque::new(), closing: false }
    }

    /// The process has come; without a descriptor it reads nothing.
    pub(crate) fn connect(&mut self, fd: Option<Watched<OwnedFd>>) {
        match fd {
            Some(fd) => self.state = State::Open(fd),
            None => self.shut(),
        }
        self.flush();
    }

    /// Whether the process has come.
    pub(crate) fn is_connected(&self) -> bool {
        !matches!(self.state, State::Awaited)
    }

    /// How much input may be read from clients now.
    pub(crate) fn room(&self) -> usize {
        match self.state {
            State::Closed => LIMIT,
            _ => LIMIT.saturating_sub(self.queue.len()),
        }
    }

    /// Pass input on. What comes after a close is thrown away.
    pub(crate) fn push(&mut self, input: &[u8]) {
        if !self.closing && !matches!(self.state, State::Closed) {
            self.queue.extend(input);
            self.flush();
        }
    }

    /// Close it behind what was pushed.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.flush();
    }

    /// The descriptor takes more.
    pub(crate) fn flush(&mut self) {
        let State::Open(fd) = &self.state else { return };
        match write_some(fd.get(), &mut self.queue) {
            Ok(true) if self.closing => self.shut(),
            Ok(_) => {}
            // The process has closed its end.
            Err(_) => self.shut(),
        }
    }

    fn shut(&mut self) {
        self.state = State::Closed;
        self.queue = VecDeque::new();
    }

    /// Let epoll know what is wanted.
    pub(crate) fn watch(&mut self) -> Result<(), nix::errno::Errno> {
        let State::Open(fd) = &mut self.state else { return Ok(()) };
        fd.want((!self.queue.is_empty()).then_some(EpollFlags::EPOLLOUT))
    }
}
