//! The one place where the shim waits: epoll(7), level-triggered.

use std::{
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::stdio::Stream;

/// What a descriptor is, as far as the loop is concerned. `hub` says whose stdio: 0 is init's, others are execs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The signal descriptor.
    Signals,
    /// shim.sock.
    Listener,
    /// The memory controller's out-of-memory notification.
    Oom,
    /// A control connection.
    Control(u32),
    /// A process' output.
    Source(u32, Stream),
    /// A process' input.
    Stdin(u32),
    /// An attached stream.
    Session(u32, u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, hub, item) = match self {
            Self::Signals => (0, 0, 0),
            Self::Listener => (1, 0, 0),
            Self::Oom => (2, 0, 0),
            Self::Control(connection) => (3, 0, connection),
            Self::Source(hub, Stream::Stdout) => (4, hub, 0),
            Self::Source(hub, Stream::Stderr) => (5, hub, 0),
            Self::Stdin(hub) => (6, hub, 0),
            Self::Session(hub, session) => (7, hub, session),
        };
        (kind << 56) | (u64::from(hub) << 32) | u64::from(item)
    }

    fn decode(data: u64) -> Self {
        let hub = (data >> 32) as u32 & 0x00ff_ffff;
        let item = data as u32;
        match data >> 56 {
            0 => Self::Signals,
            1 => Self::Listener,
            2 => Self::Oom,
            3 => Self::Control(item),
            4 => Self::Source(hub, Stream::Stdout),
            5 => Self::Source(hub, Stream::Stderr),
            6 => Self::Stdin(hub),
            _ => Self::Session(hub, item),
        }
    }
}

/// The highest hub number that a token can carry.
pub(crate) const MAX_HUB: u32 = 0x00ff_ffff;

/// What is wanted to know of a descriptor. `Some(empty)` still reports that the other end has gone; `None` nothing.
pub(crate) type Interest = Option<EpollFlags>;

/// epoll(7). Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Poller {
    epoll: Rc<Epoll>,
}

/// A descriptor that epoll may watch, and forgets before it is closed. That would not come by itself: epoll watches
/// the open file, not the number, and copies of it live on in the engine, and in an init that waits for its start.
#[derive(Debug)]
pub(crate) struct Watched<F: AsFd> {
    fd: F,
    token: Token,
    current: Interest,
    poller: Poller,
}

impl<F: AsFd> Watched<F> {
    pub(crate) fn new(poller: &Poller, token: Token, fd: F) -> Self {
        Self { fd, token, current: None, poller: poller.clone() }
    }

    pub(crate) fn get(&self) -> &F {
        &self.fd
    }

    /// Make epoll want this; a system call only when that is new.
    pub(crate) fn want(&mut self, wanted: Interest) -> Result<(), Errno> {
        let (epoll, data) = (&self.poller.epoll, self.token.encode());
        match (self.current, wanted) {
            (current, wanted) if current == wanted => return Ok(()),
            (None, Some(flags)) => epoll.add(&self.fd, EpollEvent::new(flags, data))?,
            (Some(_), Some(flags)) => epoll.modify(&self.fd, &mut EpollEvent::new(flags, data))?,
            (Some(_), None) => epoll.delete(&self.fd)?,
            (None, None) => {}
        }
        self.current = wanted;
        Ok(())
    }
}

impl<F: AsFd> Drop for Watched<F> {
    fn drop(&mut self) {
        // The descriptor is open and watched, so this cannot fail.
        self.want(None).ok();
    }
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?) })
    }

    /// What has happened, waiting until something does or the moment comes.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Result<Vec<(Token, EpollFlags)>, Errno> {
        let timeout = match until {
            None => EpollTimeout::NONE,
            Some(until) => {
                // Rounded up, or the loop would spin through the last millisecond.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); 32];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        Ok(events[..count].iter().map(|event| (Token::decode(event.data()), event.events())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Signals,
            Token::Listener,
            Token::Oom,
            Token::Control(u32::MAX),
            Token::Source(MAX_HUB, Stream::Stdout),
            Token::Source(3, Stream::Stderr),
            Token::Stdin(1),
            Token::Session(MAX_HUB, u32::MAX),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }

    #[test]
    fn a_dropped_descriptor_reports_nothing_though_a_copy_lives() {
        let poller = Poller::new().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let copy = reader.try_clone().unwrap();
        let mut watched = Watched::new(&poller, Token::Stdin(7), reader);
        watched.want(Some(EpollFlags::EPOLLIN)).unwrap();
        drop(writer);
        assert_eq!(poller.wait(None).unwrap()[0].0, Token::Stdin(7));
        watched.want(None).unwrap();
        assert!(poller.wait(Some(Instant::now())).unwrap().is_empty());
        watched.want(Some(EpollFlags::EPOLLIN)).unwrap();
        drop(watched);
        assert!(poller.wait(Some(Instant::now())).unwrap().is_empty());
        drop(copy);
    }
}
