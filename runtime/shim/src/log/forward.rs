//! Lines on their way to a log service.
//!
//! The socket never blocks, for a shim that waits serves nobody. What the service does not take yet waits in a queue;
//! beyond its bound the container waits or, if it was asked for so, lines are dropped. A service that is not there is
//! tried again each second.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use berth_shim_protocol::{Forward, SyslogAddress, Target};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, connect, send, socket,
        socketpair,
    },
};

use super::message::{self, Syslog};
use crate::stdio::{Stream, set_nonblocking};

/// So much may wait before the container has to.
const MOST: u64 = 1024 * 1024;
/// How long until a service is tried again that takes nothing now.
const PAUSE: Duration = Duration::from_millis(20);
/// How long until one is tried again that is not there.
const RECONNECT: Duration = Duration::from_secs(1);

/// Sends a container's lines to a log service.
#[derive(Debug)]
pub(super) struct Forwarder {
    target: Target,
    socket: Option<OwnedFd>,
    /// Not before this is the service tried again.
    not_before: Option<Instant>,
    queue: VecDeque<Vec<u8>>,
    queued: u64,
    /// How much of the first message was sent already, on a stream.
    sent: usize,
    drop_beyond: Option<u64>,
    dropped: u64,
    complained: bool,
}

impl Forwarder {
    pub(super) fn new(wanted: &Forward) -> Self {
        Self {
            target: wanted.to.clone(),
            socket: None,
            not_before: None,
            queue: VecDeque::new(),
            queued: 0,
            sent: 0,
            drop_beyond: wanted.drop_beyond,
            dropped: 0,
            complained: false,
        }
    }

    /// Takes a line, or a part of one.
    pub(super) fn entry(&mut self, stream: Stream, text: &[u8], ends: bool, time: Timestamp) {
        let message = match &self.target {
            // As docker: an empty line is none.
            Target::Syslog { .. } if text.is_empty() => return,
            Target::Syslog { facility, format, hostname, tag, .. } => {
                let syslog = Syslog {
                    facility: *facility,
                    format: *format,
                    hostname: hostname.clone(),
                    tag: tag.clone(),
                };
                syslog.message(stream, text, time)
            }
            Target::Journald { fields, .. } => message::journal(fields, stream, text, ends, time),
        };
        let length = message.len() as u64;
        if let Some(bound) = self.drop_beyond
            && self.queued + length > bound
            && !self.queue.is_empty()
        {
            self.dropped += 1;
            return;
        }
        self.queued += length;
        self.queue.push_back(message);
    }

    /// Whether so much waits that the container has to.
    pub(super) fn is_full(&self) -> bool {
        self.drop_beyond.is_none() && self.queued >= MOST
    }

    /// When to try again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.not_before.unwrap_or_else(|| Instant::now() + PAUSE))
    }

    /// Sends what waits, as far as the service takes it.
    pub(super) fn flush(&mut self) {
        while !self.queue.is_empty() {
            if self.not_before.is_some_and(|moment| moment > Instant::now()) {
                return;
            }
            self.not_before = None;
            match self.send_one() {
                Ok(()) => {}
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::EINPROGRESS | Errno::ENOTCONN) => {
                    self.not_before = Some(Instant::now() + PAUSE);
                    return;
                }
                Err(error) => {
                    self.complain(error);
                    self.socket = None;
                    self.sent = 0;
                    self.not_before = Some(Instant::now() + RECONNECT);
                    return;
                }
            }
        }
    }

    fn send_one(&mut self) -> Result<(), Errno> {
        if self.socket.is_none() {
            self.socket = Some(open(&self.target)?);
        }
        let (Some(socket), Some(message)) = (&self.socket, self.queue.front()) else { return Ok(()) };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let written = match send(socket.as_raw_fd(), &message[self.sent..], flags) {
            // Longer than the service takes at once: it cannot be helped, and must not stop the others.
            Err(Errno::EMSGSIZE) => message.len() - self.sent,
            written => written?,
        };
        self.sent += written;
        if self.sent >= message.len() {
            self.queued -= message.len() as u64;
            self.queue.pop_front();
            self.sent = 0;
        }
        Ok(())
    }

    fn complain(&mut self, error: Errno) {
        if !self.complained {
            eprintln!("sending the log to {}: {}", name(&self.target), io::Error::from(error));
            self.complained = true;
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let left = self.dropped + self.queue.len() as u64;
        if left > 0 {
            eprintln!("{left} lines of the log were not taken by {}", name(&self.target));
        }
    }
}

fn name(target: &Target) -> String {
    match target {
        Target::Syslog { address: SyslogAddress::Unix(path), .. } => path.display().to_string(),
        Target::Syslog { address: SyslogAddress::Udp(address), .. } => format!("udp://{address}"),
        Target::Syslog { address: SyslogAddress::Tcp(address), .. } => format!("tcp://{address}"),
        Target::Syslog { address: SyslogAddress::Relay { arguments, .. }, .. } => arguments.join(" "),
        Target::Journald { socket, .. } => socket.display().to_string(),
    }
}

/// A socket that is connected, or (TCP) about to be.
fn open(target: &Target) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let make = |family, kind| socket(family, kind, flags, None);
    let path = match target {
        Target::Journald { socket, .. } => socket,
        Target::Syslog { address: SyslogAddress::Unix(path), .. } => path,
        Target::Syslog { address: SyslogAddress::Relay { program, arguments }, .. } => {
            return relay(program, arguments);
        }
        Target::Syslog { address: SyslogAddress::Udp(address) | SyslogAddress::Tcp(address), .. } => {
            let stream = matches!(target, Target::Syslog { address: SyslogAddress::Tcp(_), .. });
            let kind = if stream { SockType::Stream } else { SockType::Datagram };
            let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let socket = make(family, kind)?;
            return match connect(socket.as_raw_fd(), &SockaddrStorage::from(*address)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
                Err(error) => Err(error),
            };
        }
    };
    let socket = make(AddressFamily::Unix, SockType::Datagram)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Runs the program; who it was, and how it ended, the loop that reaps need not know: its end closes the connection.
fn relay(program: &Path, arguments: &[String]) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    set_nonblocking(&ours)?;
    let mut command = Command::new(program);
    let spawned = command.args(arguments).stdin(theirs).stdout(Stdio::null()).spawn();
    spawned.map(|_| ours).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use berth_shim_protocol::SyslogFormat;

    use super::*;

    fn forwarder(path: &std::path::Path, drop_beyond: Option<u64>) -> Forwarder {
        let to = Target::Syslog {
            address: SyslogAddress::Unix(path.to_owned()),
            facility: 3,
            format: SyslogFormat::Local,
            hostname: "h".into(),
            tag: "t".into(),
        };
        Forwarder::new(&Forward { to, drop_beyond })
    }

    fn receive(service: &UnixDatagram) -> String {
        let mut buffer = [0; 65536];
        let length = service.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn lines_wait_for_a_service_that_comes_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut forward = forwarder(&path, None);
        forward.entry(Stream::Stdout, b"one", true, Timestamp::now());
        forward.flush();
        assert!(forward.deadline().is_some(), "nobody listens yet");
        let service = UnixDatagram::bind(&path).unwrap();
        forward.not_before = None;
        forward.entry(Stream::Stdout, b"two", true, Timestamp::now());
        forward.flush();
        assert!(receive(&service).ends_with(": one\n"));
        assert!(receive(&service).ends_with(": two\n"));
        assert_eq!(forward.deadline(), None);
    }

    #[test]
    fn a_service_that_does_not_read_makes_the_container_wait_or_lose() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let service = UnixDatagram::bind(&path).unwrap();
        let fill = |forward: &mut Forwarder| {
            for _ in 0..2000 {
                forward.entry(Stream::Stdout, &[b'x'; 4000], true, Timestamp::now());
                forward.not_before = None;
                forward.flush();
                if forward.is_full() {
                    return;
                }
            }
        };
        let mut patient = forwarder(&path, None);
        fill(&mut patient);
        assert!(patient.is_full());
        let mut hasty = forwarder(&path, Some(100_000));
        fill(&mut hasty);
        assert!(!hasty.is_full() && hasty.dropped > 0 && hasty.queued <= 100_000);
        drop(service);
    }
}
