//! The standard streams of one process, joined to its log and its attached clients.
//!
//! ```text
//!   process' stdout/stderr ──▶ log (written at once)
//!                         └──▶ every session's queue ──▶ client     a full queue pauses the reading
//!   process' stdin ◀── queue ◀── sessions with stdin                a full queue pauses the clients
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io::{PipeReader, PipeWriter},
    os::fd::OwnedFd,
    time::Instant,
};

use berth_shim_protocol::{Attach, WindowSize};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::epoll::EpollFlags,
    unistd::read,
};

use super::{
    Scratch, Stream,
    session::{Input, Session},
    set_nonblocking,
    stdin::Stdin,
};
use crate::{
    log::Log,
    poll::{Poller, Token, Watched},
};

/// Bytes; the most that the kernel gives everybody.
const WIDE: i32 = 1 << 20;

/// Whose streams they are; decides what the end of a client's input means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HubKind {
    /// Init's: stdin is closed behind the first client only in OpenOnce mode.
    Init,
    /// An exec's: its one client's half-close is the end of its stdin.
    Exec,
}

/// The process' ends of its streams are elsewhere; these are ours.
#[derive(Debug)]
pub(crate) enum Console {
    /// Nothing is read or written.
    None,
    /// A pty's master.
    Terminal(OwnedFd),
    /// Pipes.
    Pipes {
        /// None: it reads /dev/null.
        stdin: Option<PipeWriter>,
        stdout: PipeReader,
        stderr: PipeReader,
    },
}

/// The standard streams of one process, its log and its attached clients.
#[derive(Debug)]
pub(crate) struct Hub {
    poller: Poller,
    id: u32,
    stdin: Stdin,
    close_stdin_with_client: bool,
    /// A client with stdin has half-closed its stream or gone.
    client_left: bool,
    sources: [Option<Watched<OwnedFd>>; 2],
    /// Pipes that were made larger for a process that writes much.
    widened: [bool; 2],
    terminal: Option<File>,
    sessions: BTreeMap<u32, Session>,
    next_session: u32,
    log: Option<Log>,
}

impl Hub {
    pub(crate) fn new(poller: &Poller, id: u32, kind: HubKind) -> Self {
        Self {
            poller: poller.clone(),
            id,
            stdin: Stdin::new(),
            close_stdin_with_client: kind == HubKind::Exec,
            client_left: false,
            sources: [None, None],
            widened: [false; 2],
            terminal: None,
            sessions: BTreeMap::new(),
            next_session: 1,
            log: None,
        }
    }

    /// Init's stdin is closed behind the first client that leaves it.
    pub(crate) fn close_stdin_with_client(&mut self) {
        self.close_stdin_with_client = true;
    }

    pub(crate) fn set_log(&mut self, log: Option<Log>) {
        self.log = log;
    }

    /// A process that works for the log.
    pub(crate) fn helper(&self) -> Option<u32> {
        self.log.as_ref().and_then(Log::helper)
    }

    /// Goes on in a new file of the log's name; nothing to do without a log.
    pub(crate) fn reopen_log(&mut self) -> std::io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Log::reopen)
    }

    /// The process has come.
    pub(crate) fn connect(&mut self, console: Console, stdin_open: bool) -> Result<(), Errno> {
        match console {
            Console::None => self.stdin.connect(None),
            Console::Terminal(master) => {
                let master = File::from(master);
                set_nonblocking(&master)?;
                // Of its own number each, for epoll knows a file only once under one number.
                let copy = |file: &File| file.try_clone().map_err(|error| errno(&error));
                self.sources[0] = Some(self.source(Stream::Stdout, copy(&master)?.into()));
                let input = if stdin_open { Some(self.sink(copy(&master)?.into())) } else { None };
                self.stdin.connect(input);
                self.terminal = Some(master);
            }
            Console::Pipes { stdin, stdout, stderr } => {
                set_nonblocking(&stdout)?;
                set_nonblocking(&stderr)?;
                if let Some(stdin) = &stdin {
                    set_nonblocking(stdin)?;
                }
                self.sources = [
                    Some(self.source(Stream::Stdout, stdout.into())),
                    Some(self.source(Stream::Stderr, stderr.into())),
                ];
                let input = stdin.filter(|_| stdin_open).map(|stdin| self.sink(stdin.into()));
                self.stdin.connect(input);
            }
        }
        // It may have left before the process came, when it was not known yet what that means.
        if self.client_left {
            self.client_stdin_ended();
        }
        Ok(())
    }

    fn source(&self, stream: Stream, fd: OwnedFd) -> Watched<OwnedFd> {
        Watched::new(&self.poller, Token::Source(self.id, stream), fd)
    }

    fn sink(&self, fd: OwnedFd) -> Watched<OwnedFd> {
        Watched::new(&self.poller, Token::Stdin(self.id), fd)
    }

    /// Join a client; the number of its session and how long the log is.
    pub(crate) fn attach(&mut self, attach: &Attach, fd: OwnedFd) -> Result<(u32, Option<u64>), Errno> {
        let id = self.next_session;
        let mut session = Session::new(&self.poller, Token::Session(self.id, id), attach, fd)?;
        if attach.hold
            && let Some(log) = &self.log
        {
            // The beginning of a line is not in the log yet, so a replay of it would miss these.
            for stream in Stream::ALL {
                session.send(stream, log.partial(stream));
            }
        }
        let initial = session.initial_input(&attach.initial_stdin);
        self.next_session += 1;
        self.sessions.insert(id, session);
        self.take_input(initial);
        Ok((id, self.log.as_ref().and_then(Log::position)))
    }

    /// Let a held session flow; false if there is none of this number.
    pub(crate) fn release(&mut self, id: u32) -> bool {
        self.sessions.get_mut(&id).map(Session::release).is_some()
    }

    /// Let every held session flow: the engine that was to release them has gone.
    pub(crate) fn release_all(&mut self) {
        self.sessions.values_mut().for_each(Session::release);
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin.close();
    }

    /// Set the terminal's size; false if there is no terminal.
    pub(crate) fn resize(&self, size: WindowSize) -> Result<bool, Errno> {
        let Some(terminal) = &self.terminal else { return Ok(false) };
        berth_sys::tty::set_size(terminal, size.rows, size.cols)?;
        Ok(true)
    }

    /// The process' output is readable or has ended.
    pub(crate) fn source_ready(&mut self, stream: Stream, scratch: &mut Scratch) {
        let Some(source) = &self.sources[stream.index()] else { return };
        match read(source.get(), scratch) {
            Ok(0) | Err(Errno::EIO) => self.end_source(stream),
            Ok(length) => {
                if length == scratch.len() && !std::mem::replace(&mut self.widened[stream.index()], true) {
                    widen(source.get());
                }
                self.output(stream, &scratch[..length]);
                scratch.was_used(length);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => {
                eprintln!("reading a container's {stream:?}: {error}");
                self.end_source(stream);
            }
        }
    }

    fn output(&mut self, stream: Stream, data: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(stream, data);
        }
        for session in self.sessions.values_mut() {
            session.send(stream, data);
        }
    }

    fn end_source(&mut self, stream: Stream) {
        self.sources[stream.index()] = None;
        if let Some(log) = &mut self.log {
            log.end(stream);
        }
    }

    /// The process' stdin takes more.
    pub(crate) fn stdin_ready(&mut self) {
        self.stdin.flush();
    }

    /// Something happened on a client's stream; what it takes is written by [`Hub::settle`]. Whether the client has detached
    /// by its keys.
    pub(crate) fn session_ready(&mut self, id: u32, events: EpollFlags, scratch: &mut [u8]) -> bool {
        let room = self.stdin.room();
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            session.hang_up();
        }
        if events.contains(EpollFlags::EPOLLIN) {
            let input = session.read(scratch, room);
            let detached = session.take_detached();
            self.take_input(input);
            return detached;
        }
        false
    }

    fn take_input(&mut self, input: Input) {
        match input {
            Input::Data(data) => self.stdin.push(&data),
            Input::Ended(data) => {
                self.stdin.push(&data);
                self.client_stdin_ended();
            }
        }
    }

    /// A terminal has no end of input but the one the program reads from a typed ctrl-d.
    fn client_stdin_ended(&mut self) {
        self.client_left = true;
        if self.stdin.is_connected() && self.close_stdin_with_client && self.terminal.is_none() {
            self.stdin.close();
        }
    }

    /// Close a session. On the stream itself nothing happens: the engine may have its own copy.
    pub(crate) fn close(&mut self, id: u32) {
        if self.sessions.remove(&id).is_some_and(|session| session.feeds_stdin()) {
            self.client_stdin_ended();
        }
    }

    /// The process is dead: take what it left in its pipes now, without regard to slow clients, so that its end
    /// does not wait for them. It is no more than a pipe holds (1 MiB at most); if somebody else still has the
    /// other end there may come more.
    pub(crate) fn drain(&mut self, scratch: &mut [u8]) {
        const MOST: usize = 1024 * 1024;
        for stream in Stream::ALL {
            let mut taken = 0;
            while taken < MOST
                && let Some(source) = &self.sources[stream.index()]
            {
                match read(source.get(), scratch) {
                    Ok(length @ 1..) => {
                        taken += length;
                        self.output(stream, &scratch[..length]);
                    }
                    Err(Errno::EAGAIN) => break,
                    Ok(0) | Err(_) => self.end_source(stream),
                }
            }
        }
    }

    /// Whether all output has been read.
    pub(crate) fn is_drained(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    /// No more output is waited for: take what is there, and complete the log.
    pub(crate) fn take_rest(&mut self, scratch: &mut [u8]) {
        self.drain(scratch);
        for stream in Stream::ALL {
            self.end_source(stream);
        }
        self.stdin.connect(None);
        self.terminal = None;
        if let Some(log) = self.log.take() {
            log.finish();
        }
    }

    /// Tell the sessions that want to know how the process ended.
    pub(crate) fn tell_exit(&mut self, code: i32) {
        self.sessions.values_mut().for_each(|session| session.tell_exit(code));
    }

    /// Let the sessions end behind what they have not sent yet.
    pub(crate) fn finish(&mut self) {
        self.sessions.values_mut().for_each(Session::finish);
    }

    /// Whether every session has ended.
    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    /// When the first session is to be given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let log = self.log.as_ref().and_then(Log::deadline);
        self.sessions.values().filter_map(Session::deadline).chain(log).min()
    }

    /// After anything happened: close what is done, and let epoll know what is wanted now.
    pub(crate) fn settle(&mut self) {
        let now = Instant::now();
        let room = self.stdin.room();
        let over: Vec<u32> = self
            .sessions
            .iter_mut()
            .filter_map(|(id, session)| (session.advance(now) || session.watch(room).is_err()).then_some(*id))
            .collect();
        for id in over {
            self.close(id);
        }
        if let Some(log) = &mut self.log {
            log.advance();
        }
        let behind = self.log.as_ref().is_some_and(Log::is_full);
        let full = |stream| self.sessions.values().any(|session| session.is_full(stream));
        let paused = Stream::ALL.map(|stream| behind || full(stream));
        for (source, paused) in self.sources.iter_mut().zip(paused) {
            if let Some(source) = source
                && let Err(error) = source.want((!paused).then_some(EpollFlags::EPOLLIN))
            {
                eprintln!("watching a container's output: {error}");
            }
        }
        if let Err(error) = self.stdin.watch() {
            eprintln!("watching a container's input: {error}");
        }
    }
}

/// A process that fills its pipe gets a larger one, so that it need not wait while what it wrote is put away. Where the
/// kernel's bounds for its user are reached (pipe(7)) it stays as it is, and so does what is no pipe.
fn widen(source: &OwnedFd) {
    fcntl(source, FcntlArg::F_SETPIPE_SZ(WIDE)).ok();
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_shim_protocol::Framing;
    use std::{
        io::{Read as _, Write as _, pipe},
        os::unix::net::UnixStream,
    };

    struct Process {
        hub: Hub,
        poller: Poller,
        stdin: PipeReader,
        stdout: Option<PipeWriter>,
        stderr: Option<PipeWriter>,
    }

    impl Process {
        fn new(kind: HubKind) -> Self {
            let ((stdin, feed), (read_out, stdout), (read_err, stderr)) =
                (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
            let poller = Poller::new().unwrap();
            let mut hub = Hub::new(&poller, 0, kind);
            hub.connect(Console::Pipes { stdin: Some(feed), stdout: read_out, stderr: read_err }, true)
                .unwrap();
            set_nonblocking(&stdin).unwrap();
            Self { hub, poller, stdin, stdout: Some(stdout), stderr: Some(stderr) }
        }

        fn attach(&mut self, stdin: bool) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let attach = Attach { stdin, ..Attach::output(Framing::Raw) };
            self.hub.attach(&attach, theirs.into()).unwrap();
            ours.set_nonblocking(true).unwrap();
            ours
        }

        /// Handle what has happened until nothing happens any more.
        fn turn(&mut self) {
            let mut scratch = Scratch::new();
            loop {
                self.hub.settle();
                let events = self.poller.wait(Some(Instant::now())).unwrap();
                if events.is_empty() {
                    return;
                }
                for (token, events) in events {
                    match token {
                        Token::Source(_, stream) => self.hub.source_ready(stream, &mut scratch),
                        Token::Stdin(_) => self.hub.stdin_ready(),
                        Token::Session(_, id) => drop(self.hub.session_ready(id, events, &mut scratch)),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }

        fn read_stdin(&mut self) -> std::io::Result<Vec<u8>> {
            let mut buffer = [0; 64];
            let length = self.stdin.read(&mut buffer)?;
            Ok(buffer[..length].to_vec())
        }
    }

    fn read_some(stream: &mut UnixStream) -> Vec<u8> {
        let mut buffer = [0; 256];
        let length = stream.read(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn everybody_gets_the_output_and_everybody_can_type() {
        let mut process = Process::new(HubKind::Init);
        let (mut one, mut two) = (process.attach(true), process.attach(true));
        process.stdout.as_mut().unwrap().write_all(b"hello").unwrap();
        one.write_all(b"a").unwrap();
        process.turn();
        two.write_all(b"b").unwrap();
        process.turn();
        assert_eq!((read_some(&mut one), read_some(&mut two)), (b"hello".to_vec(), b"hello".to_vec()));
        assert_eq!(process.read_stdin().unwrap(), b"ab");
    }

    #[test]
    fn one_stuck_client_pauses_the_process_and_loses_nothing() {
        let mut process = Process::new(HubKind::Init);
        let mut stuck = process.attach(false);
        let mut out = process.stdout.take().unwrap();
        set_nonblocking(&out).unwrap();
        let mut written = 0;
        for _ in 0..1000 {
            written += out.write(&[b'x'; 4096]).unwrap_or(0);
            process.turn();
        }
        assert!(written < 1_000_000, "a bounded amount is taken: {written}");
        drop(out);
        let mut received = 0;
        while received < written {
            let mut buffer = [0; 65536];
            received += stuck.read(&mut buffer).unwrap();
            process.turn();
        }
        assert_eq!(received, written);
    }

    #[test]
    fn the_end_of_a_clients_input() {
        for (kind, once, closes) in
            [(HubKind::Exec, false, true), (HubKind::Init, false, false), (HubKind::Init, true, true)]
        {
            let mut process = Process::new(kind);
            if once {
                process.hub.close_stdin_with_client();
            }
            let mut client = process.attach(true);
            client.write_all(b"last").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            process.turn();
            assert_eq!(process.read_stdin().unwrap(), b"last");
            assert_eq!(process.read_stdin().is_ok_and(|rest| rest.is_empty()), closes, "{kind:?} {once}");
            process.stdout.as_mut().unwrap().write_all(b"on").unwrap();
            process.turn();
            assert_eq!(read_some(&mut client), b"on", "output flows on");
        }
    }

    #[test]
    fn at_the_end_clients_get_the_rest_and_then_the_end() {
        let mut process = Process::new(HubKind::Init);
        let mut client = process.attach(true);
        process.stdout.as_mut().unwrap().write_all(b"rest").unwrap();
        client.write_all(b"typed into the void").unwrap();
        process.hub.take_rest(&mut [0; 64]);
        assert!(process.hub.is_drained(), "though the writers still live");
        process.hub.finish();
        process.turn();
        assert_eq!(read_some(&mut client), b"rest");
        assert_eq!(read_some(&mut client), b"", "an end, no reset");
        assert!(!process.hub.is_idle());
        drop(client);
        process.turn();
        assert!(process.hub.is_idle());
        assert!(process.stderr.is_some());
    }
}
