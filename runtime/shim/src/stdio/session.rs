//! One attached client.
//!
//! ```text
//!              finish (the process ended, or detach keys)       all sent
//!   Flowing ─────────────────────────────────────▶ Finishing ───────────▶ Lingering ──▶ closed
//!      │ gone both ways                                │ nothing taken for 10 min   │ client's end of input,
//!      ▼                                               ▼                            │ at the latest after 1 s
//!    closed                                          closed                         ▼
//! ```
//!
//! Lingering: the stream has been shut down for writing. If it were closed at once while input that nobody reads
//! waits in it, the kernel would answer the client with a connection reset instead of the end of the output.

use std::{
    collections::VecDeque,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use berth_shim_protocol::{Attach, Framing};
use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        socket::{Shutdown, shutdown},
    },
    unistd::read,
};

use super::{Stream, detach::DetachKeys, write_some};
use crate::poll::{Poller, Token, Watched};

/// While so much output waits for a client, its process' output is not read: back-pressure, nothing is lost.
const HIGH: usize = 64 * 1024;
/// After the process' end, a client that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(600);
/// How long a client may take to notice the end of the output.
const LINGER: Duration = Duration::from_secs(1);

/// The stream whose one piece is the exit code.
const EXIT_CODE: u8 = 4;

/// One attached client.
#[derive(Debug)]
pub(crate) struct Session {
    fd: Watched<OwnedFd>,
    stage: Stage,
    stdin: bool,
    wants: [bool; 2],
    framing: Framing,
    /// It is told how the process ended.
    wants_exit_code: bool,
    keys: DetachKeys,
    /// Output is kept back until the engine has replayed the log.
    held: bool,
    /// There is no more input from it.
    input_ended: bool,
    /// It takes no more output.
    broken: bool,
    /// The other end is gone, though there may still be input from it.
    hung_up: bool,
    /// The client has typed its keys, and nobody was told yet.
    detached: bool,
    queue: VecDeque<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Flowing,
    Finishing { progress: Instant },
    Lingering { since: Instant },
}

/// What came of reading from a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Something to pass on, or nothing.
    Data(Vec<u8>),
    /// This, and then the end: the client half-closed its stream.
    Ended(Vec<u8>),
}

impl Session {
    /// A session on this stream, which is made non-blocking. EPERM: it cannot be polled (a regular file).
    pub(crate) fn new(poller: &Poller, token: Token, attach: &Attach, fd: OwnedFd) -> Result<Self, Errno> {
        super::set_nonblocking(&fd)?;
        let mut fd = Watched::new(poller, token, fd);
        fd.want(Some(EpollFlags::empty()))?;
        Ok(Self {
            fd,
            stage: Stage::Flowing,
            stdin: attach.stdin,
            wants: [attach.stdout, attach.stderr],
            framing: attach.framing,
            wants_exit_code: attach.exit_code && attach.framing == Framing::Stdcopy,
            keys: DetachKeys::new(attach.detach_keys.clone()),
            held: attach.hold,
            input_ended: !attach.stdin,
            broken: false,
            hung_up: false,
            detached: false,
            queue: VecDeque::new(),
        })
    }

    /// Whether it feeds the process' stdin.
    pub(crate) fn feeds_stdin(&self) -> bool {
        self.stdin
    }

    fn takes(&self, stream: Stream) -> bool {
        self.wants[stream.index()] && !self.broken && matches!(self.stage, Stage::Flowing)
    }

    /// Whether the process' output must not be read on this stream's account.
    pub(crate) fn is_full(&self, stream: Stream) -> bool {
        self.takes(stream) && self.queue.len() >= HIGH
    }

    /// Send output.
    pub(crate) fn send(&mut self, stream: Stream, data: &[u8]) {
        if data.is_empty() || !self.takes(stream) {
            return;
        }
        if self.framing == Framing::Stdcopy {
            self.header(stream.number(), data.len());
        }
        self.queue.extend(data);
        self.flush();
    }

    fn header(&mut self, number: u8, length: usize) {
        let length = u32::try_from(length).expect("output is read in pieces of some KiB");
        self.queue.extend([number, 0, 0, 0]);
        self.queue.extend(length.to_be_bytes());
    }

    /// The process has ended, and this was all of its output.
    pub(crate) fn tell_exit(&mut self, code: i32) {
        if self.wants_exit_code && !self.broken && matches!(self.stage, Stage::Flowing) {
            let code = code.to_be_bytes();
            self.header(EXIT_CODE, code.len());
            self.queue.extend(code);
        }
    }

    /// Write what the client takes now.
    pub(crate) fn flush(&mut self) {
        if self.held || self.queue.is_empty() {
            return;
        }
        let before = self.queue.len();
        if write_some(self.fd.get(), &mut self.queue).is_err() {
            self.broken = true;
            self.queue = VecDeque::new();
        }
        if let Stage::Finishing { progress } = &mut self.stage
            && self.queue.len() != before
        {
            *progress = Instant::now();
        }
    }

    /// The engine has replayed the log.
    pub(crate) fn release(&mut self) {
        self.held = false;
        self.flush();
    }

    /// Scan input that the engine had read before.
    pub(crate) fn initial_input(&mut self, input: &[u8]) -> Input {
        let mut passed = Vec::new();
        if self.stdin {
            self.scan(input, &mut passed);
        }
        Input::Data(passed)
    }

    /// Read at most `room` bytes; when it is finishing, read and forget.
    pub(crate) fn read(&mut self, scratch: &mut [u8], room: usize) -> Input {
        let flowing = matches!(self.stage, Stage::Flowing);
        let room = if flowing { room.min(scratch.len()) } else { scratch.len() };
        let mut passed = Vec::new();
        if self.input_ended || room == 0 {
            return Input::Data(passed);
        }
        match read(self.fd.get(), &mut scratch[..room]) {
            Ok(length @ 1..) => {
                if flowing {
                    self.scan(&scratch[..length], &mut passed);
                }
                Input::Data(passed)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Input::Data(passed),
            // The end, or a connection that was reset, which has none but this.
            Ok(0) | Err(_) => {
                self.input_ended = true;
                if flowing {
                    passed.extend_from_slice(self.keys.rest());
                }
                Input::Ended(passed)
            }
        }
    }

    fn scan(&mut self, input: &[u8], passed: &mut Vec<u8>) {
        if self.keys.feed(input, passed) {
            self.detached = true;
            self.finish();
        }
    }

    /// Whether it was ended by its keys since this was asked last.
    pub(crate) fn take_detached(&mut self) -> bool {
        std::mem::take(&mut self.detached)
    }

    /// The other end is gone; there may be input left.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// There will be no more output.
    pub(crate) fn finish(&mut self) {
        if matches!(self.stage, Stage::Flowing) {
            self.stage = Stage::Finishing { progress: Instant::now() };
            self.held = false;
        }
    }

    /// Go on to the next stage if it is time. True: it can be closed.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        self.flush();
        if self.input_ended && (self.broken || self.hung_up) {
            return true;
        }
        if matches!(self.stage, Stage::Finishing { .. }) && self.queue.is_empty() {
            // ENOTSOCK for a pipe, ENOTCONN when the client was faster: closing is all there is left to do.
            shutdown(self.fd.get().as_raw_fd(), Shutdown::Write).ok();
            self.stage = Stage::Lingering { since: now };
        }
        match self.stage {
            Stage::Flowing => false,
            Stage::Finishing { .. } => self.deadline().is_some_and(|deadline| deadline <= now),
            Stage::Lingering { .. } => {
                self.input_ended || self.deadline().is_some_and(|deadline| deadline <= now)
            }
        }
    }

    /// When it is to be given up, if nothing happens until then.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Flowing => None,
            Stage::Finishing { progress } => Some(progress + STALL),
            Stage::Lingering { since } => Some(since + LINGER),
        }
    }

    /// Let epoll know what is wanted; `room` is what the process' stdin would take.
    pub(crate) fn watch(&mut self, room: usize) -> Result<(), Errno> {
        let room = room > 0 || !matches!(self.stage, Stage::Flowing);
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, !self.input_ended && room);
        wanted.set(EpollFlags::EPOLLOUT, !self.held && !self.queue.is_empty());
        // That it is gone would be reported again and again; it is known, and its input must wait for room.
        let wanted = (!self.hung_up || !wanted.is_empty()).then_some(wanted);
        self.fd.want(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    fn session(attach: &Attach) -> (Session, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let poller = Poller::new().unwrap();
        (Session::new(&poller, Token::Session(0, 1), attach, ours.into()).unwrap(), theirs)
    }

    fn with_stdin(keys: &[u8]) -> Attach {
        Attach { stdin: true, detach_keys: keys.to_vec(), ..Attach::output(Framing::Stdcopy) }
    }

    #[test]
    fn frames_are_stdcopys() {
        let (mut session, mut client) = session(&Attach::output(Framing::Stdcopy));
        session.send(Stream::Stdout, b"out");
        session.send(Stream::Stderr, b"e");
        let mut read = [0; 20];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x01e");
    }

    #[test]
    fn who_asks_for_it_is_told_the_exit_code_behind_the_output() {
        for (framing, expected) in [
            (Framing::Stdcopy, &b"\x01\0\0\0\0\0\0\x03out\x04\0\0\0\0\0\0\x04\0\0\0\x89"[..]),
            (Framing::Raw, b"out"),
        ] {
            let (mut session, mut client) = session(&Attach { exit_code: true, ..Attach::output(framing) });
            session.send(Stream::Stdout, b"out");
            session.tell_exit(137);
            session.finish();
            session.advance(Instant::now());
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            assert_eq!(all, expected, "{framing:?}");
        }
    }

    #[test]
    fn a_slow_client_fills_up_and_then_gets_everything() {
        let (mut session, mut client) = session(&Attach::output(Framing::Raw));
        let mut sent = 0;
        while !session.is_full(Stream::Stdout) {
            session.send(Stream::Stdout, &[b'x'; 10_000]);
            sent += 10_000;
        }
        session.finish();
        client.set_nonblocking(true).unwrap();
        let mut received = 0;
        let mut buffer = [0; 4096];
        while !matches!(session.stage, Stage::Lingering { .. }) || received < sent {
            assert!(!session.advance(Instant::now()) || session.queue.is_empty());
            received += client.read(&mut buffer).unwrap_or(0);
        }
        assert_eq!(received, sent);
        assert_eq!(client.read(&mut buffer).unwrap(), 0, "the stream is shut down behind the last byte");
    }

    #[test]
    fn a_held_session_keeps_its_order() {
        let attach = Attach { hold: true, ..Attach::output(Framing::Raw) };
        let (mut session, mut client) = session(&attach);
        session.send(Stream::Stdout, b"after");
        client.write_all(b"-").unwrap();
        client.set_nonblocking(true).unwrap();
        assert!(client.read(&mut [0; 8]).is_err(), "nothing may be sent before the release");
        session.release();
        let mut buffer = [0; 8];
        assert_eq!(client.read(&mut buffer).unwrap(), 5);
    }

    #[test]
    fn detach_keys_end_this_session_only_after_its_input() {
        let (mut session, mut client) = session(&with_stdin(b"\x10\x11"));
        client.write_all(b"ls\x10\x11more").unwrap();
        assert_eq!(session.read(&mut [0; 64], 64), Input::Data(b"ls".to_vec()));
        assert!(!session.takes(Stream::Stdout));
    }

    #[test]
    fn input_of_a_client_that_has_gone_is_not_lost() {
        let (mut session, mut client) = session(&with_stdin(b""));
        client.write_all(b"abcdef").unwrap();
        drop(client);
        session.hang_up();
        session.send(Stream::Stdout, b"nobody reads this");
        assert!(!session.advance(Instant::now()));
        assert_eq!(session.read(&mut [0; 64], 4), Input::Data(b"abcd".to_vec()));
        assert_eq!(session.read(&mut [0; 64], 64), Input::Data(b"ef".to_vec()));
        assert_eq!(session.read(&mut [0; 64], 64), Input::Ended(Vec::new()));
        assert!(session.advance(Instant::now()));
    }
}
