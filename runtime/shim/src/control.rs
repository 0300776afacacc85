//! Control connections: requests in, replies and events out.

use std::{
    collections::VecDeque,
    fs::File,
    io::Read as _,
    os::fd::{AsRawFd, OwnedFd},
};

use berth_shim_protocol::{
    Failure, FailureKind, MAX_FDS, MAX_PACKET, MAX_SPILL, Message, Reply, Request, SPILL_MARK, decode, encode,
};
use berth_sys::socket::{recv_with_fds, send_with_fds};
use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        socket::{MsgFlags, recv},
    },
};

use crate::poll::{Poller, Token, Watched};

/// An engine that leaves so many messages lying is not there any more; it finds the records when it comes back.
const MAX_WAITING: usize = 4096;

/// One control connection.
#[derive(Debug)]
pub(crate) struct Control {
    fd: Watched<OwnedFd>,
    waiting: VecDeque<Vec<u8>>,
}

/// A message and what came with it.
type Packet = (Vec<u8>, Vec<OwnedFd>);

/// What was read from a control connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    Request(Request, Vec<OwnedFd>),
    /// Nothing, for now.
    Nothing,
    /// The other end has gone, or speaks another language.
    Closed,
}

impl Control {
    pub(crate) fn new(poller: &Poller, id: u32, fd: OwnedFd) -> Result<Self, Errno> {
        crate::stdio::set_nonblocking(&fd)?;
        Ok(Self { fd: Watched::new(poller, Token::Control(id), fd), waiting: VecDeque::new() })
    }

    /// The next request.
    pub(crate) fn receive(&mut self) -> Incoming {
        match self.receive_packet() {
            Ok(Some((packet, fds))) => match decode(&packet) {
                Ok(request) => Incoming::Request(request, fds),
                Err(error) => {
                    eprintln!("closing a control connection: {error}");
                    Incoming::Closed
                }
            },
            Ok(None) => Incoming::Closed,
            Err(Errno::EAGAIN | Errno::EINTR) => Incoming::Nothing,
            Err(error) => {
                eprintln!("closing a control connection: {error}");
                Incoming::Closed
            }
        }
    }

    /// None at the end. The length is asked first, so that an idle shim needs no buffer.
    fn receive_packet(&self) -> Result<Option<Packet>, Errno> {
        let length = match recv(self.fd.get().as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)
        {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(None),
            length => length?,
        };
        if length > MAX_PACKET {
            return Err(Errno::EMSGSIZE);
        }
        let mut packet = vec![0; length];
        let (_, mut fds) = recv_with_fds(self.fd.get(), &mut packet, MsgFlags::empty())?;
        if fds.len() > MAX_FDS {
            return Err(Errno::EMSGSIZE);
        }
        if packet == SPILL_MARK && !fds.is_empty() {
            packet = read_spill(fds.remove(0))?;
        }
        Ok(Some((packet, fds)))
    }

    /// Answer a request.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        let packet = encode(&Message::Reply(reply.clone()));
        if packet.len() <= MAX_PACKET {
            return self.send_packet(packet);
        }
        let failure = Failure::new(FailureKind::TooLarge, "the answer is too long for the shim protocol");
        self.send_packet(encode(&Message::Reply(Reply { seq: reply.seq, result: Err(failure) })));
    }

    /// Send a message that is short by its nature.
    pub(crate) fn send(&mut self, message: &Message) {
        self.send_packet(encode(message));
    }

    fn send_packet(&mut self, packet: Vec<u8>) {
        self.waiting.push_back(packet);
        self.flush();
    }

    /// The connection takes more.
    pub(crate) fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            match send_with_fds(self.fd.get(), packet, &[], MsgFlags::MSG_DONTWAIT) {
                Ok(_) => drop(self.waiting.pop_front()),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return,
                // It has gone; reading will tell.
                Err(_) => self.waiting.clear(),
            }
        }
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nobody reads at the other end.
    pub(crate) fn is_stuck(&self) -> bool {
        self.waiting.len() > MAX_WAITING
    }

    /// Let epoll know what is wanted.
    pub(crate) fn watch(&mut self) -> Result<(), Errno> {
        let mut wanted = EpollFlags::EPOLLIN;
        wanted.set(EpollFlags::EPOLLOUT, self.is_behind());
        self.fd.want(Some(wanted))
    }
}

/// Read from offset 0 on, wherever the writer left the file's position.
fn read_spill(fd: OwnedFd) -> Result<Vec<u8>, Errno> {
    let file = File::from(fd);
    let io = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
    let length = usize::try_from(file.metadata().map_err(io)?.len()).map_err(|_| Errno::EMSGSIZE)?;
    if length > MAX_SPILL {
        return Err(Errno::EMSGSIZE);
    }
    let mut message = Vec::with_capacity(length);
    let mut file = file;
    std::io::Seek::rewind(&mut file).map_err(io)?;
    file.take(length as u64).read_to_end(&mut message).map_err(io)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_shim_protocol::{Op, Phase, State};
    use berth_sys::socket::seqpacket_pair;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::{io::Write as _, os::fd::AsFd as _};

    fn pair() -> (Control, OwnedFd) {
        let (ours, theirs) = seqpacket_pair().unwrap();
        (Control::new(&Poller::new().unwrap(), 0, ours).unwrap(), theirs)
    }

    #[test]
    fn a_spilled_request_arrives_with_its_descriptors() {
        let (mut control, engine) = pair();
        let request = Request { seq: 7, op: Op::CloseStdin };
        let mut spill = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
        spill.write_all(&encode(&request)).unwrap();
        let null = File::open("/dev/null").unwrap();
        send_with_fds(&engine, SPILL_MARK, &[spill.as_fd(), null.as_fd()], MsgFlags::empty()).unwrap();
        let Incoming::Request(received, fds) = control.receive() else { panic!("a request was sent") };
        assert_eq!((received, fds.len()), (request, 1));
        assert!(matches!(control.receive(), Incoming::Nothing));
        drop(engine);
        assert!(matches!(control.receive(), Incoming::Closed));
    }

    #[test]
    fn nonsense_closes_the_connection() {
        let (mut control, engine) = pair();
        send_with_fds(&engine, b"hello?", &[], MsgFlags::empty()).unwrap();
        assert!(matches!(control.receive(), Incoming::Closed));
    }

    #[test]
    fn an_engine_that_does_not_read_loses_nothing_until_it_is_stuck() {
        let (mut control, engine) = pair();
        let exit = None;
        let (phase, execs) = (Phase::Empty, Vec::new());
        let state = State { shim_pid: 1, phase, pid: None, started_at: None, oom_killed: false, execs, exit };
        let hello = Message::Hello(state);
        let mut sent = 0;
        while !control.is_stuck() {
            control.send(&hello);
            sent += 1;
        }
        let mut received = 0;
        let mut buffer = [0; 512];
        while received < sent {
            let (length, _) = recv_with_fds(&engine, &mut buffer, MsgFlags::MSG_DONTWAIT).unwrap();
            assert_eq!(decode::<Message>(&buffer[..length]).unwrap(), hello);
            received += 1;
            control.flush();
        }
        assert!(!control.is_behind());
    }
}
