//! A connection to a message bus, or directly to one program that speaks D-Bus.
//!
//! ```text
//!   open ─▶ authenticate ─▶ Hello ─▶ call … reply
//!                                    └── signals that come in between are kept for next_signal
//! ```
//!
//! Blocking, one thread, every wait with a deadline; the descriptor is closed on exec. Programs that are not running are
//! not started by a call.

mod wire;

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use wire::Value;
use wire::{Call, Incoming, PREFIX, decode, message_length};

/// Where the system's bus listens, unless `DBUS_SYSTEM_BUS_ADDRESS` says otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// What a call came to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection failed, or the answer did not come in time.
    #[error(transparent)]
    Exchange(#[from] Error),
    /// The peer, or the bus in its place, said no.
    #[error("{message} ({name})")]
    Refused {
        /// Name of the error, `org.freedesktop.DBus.Error.AccessDenied` say.
        name: String,
        /// What it says.
        message: String,
    },
}

/// The object and the interface that a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Name on the bus; of no meaning on a direct connection.
    pub destination: &'a str,
    /// The object's path.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    direct: bool,
    patience: Duration,
    signals: VecDeque<(String, Vec<Value>)>,
}

impl Connection {
    /// Connects to a bus. `patience` is the time that the peer has for each answer.
    ///
    /// # Errors
    /// Nobody listens, or we are not let in.
    pub fn open(socket: &Path, patience: Duration) -> Result<Self, Error> {
        Self::connect(socket, false, patience)
    }

    /// Connects to a program itself, with no bus in between.
    ///
    /// # Errors
    /// Nobody listens, or we are not let in.
    pub fn open_direct(socket: &Path, patience: Duration) -> Result<Self, Error> {
        Self::connect(socket, true, patience)
    }

    fn connect(socket: &Path, direct: bool, patience: Duration) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket)?;
        let mut bus = Self { stream, serial: 0, direct, patience, signals: VecDeque::new() };
        let deadline = Instant::now() + patience;
        // Who we are the peer knows from the socket: no user id is named, for it may be another one in a user namespace.
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let hello = if direct { None } else { Some(bus.send(BUS, "Hello", &[])?) };
        for expected in ["DATA", "OK"] {
            let line = bus.line(deadline)?;
            if !line.starts_with(expected) {
                let problem = format!("authentication was refused: {line}");
                return Err(Error::new(ErrorKind::PermissionDenied, problem));
            }
        }
        if let Some(serial) = hello {
            bus.reply(serial, deadline).map_err(Error::other)?;
        }
        Ok(bus)
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// The peer refuses, is not there, or does not answer in time.
    pub fn call(
        &mut self,
        target: Target<'_>,
        member: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>, CallError> {
        let serial = self.send(target, member, arguments)?;
        self.reply(serial, Instant::now() + self.patience)
    }

    /// Asks the bus for the signals that match a rule; a direct peer sends its signals unasked.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn subscribe(&mut self, rule: &str) -> Result<(), CallError> {
        if self.direct {
            return Ok(());
        }
        self.call(BUS, "AddMatch", &[Value::text(rule)]).map(drop)
    }

    /// The next signal: its name and what it says.
    ///
    /// # Errors
    /// None comes in time, or the connection fails.
    pub fn next_signal(&mut self, deadline: Instant) -> Result<(String, Vec<Value>), Error> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            self.receive(deadline)?;
        }
    }

    fn send(&mut self, target: Target<'_>, member: &str, arguments: &[Value]) -> Result<u32, Error> {
        self.serial += 1;
        let destination = (!self.direct).then_some(target.destination);
        let call = Call { destination, path: target.path, interface: target.interface, member, arguments };
        self.stream.write_all(&call.encode(self.serial))?;
        Ok(self.serial)
    }

    fn reply(&mut self, wanted: u32, deadline: Instant) -> Result<Vec<Value>, CallError> {
        loop {
            match self.receive(deadline)? {
                Incoming::Reply { serial, body } if serial == wanted => return Ok(body),
                Incoming::Error { serial, name, message } if serial == wanted => {
                    return Err(CallError::Refused { name, message });
                }
                _ => {}
            }
        }
    }

    /// The next message; a signal is kept as well.
    fn receive(&mut self, deadline: Instant) -> Result<Incoming, Error> {
        let invalid = |error| Error::new(ErrorKind::InvalidData, error);
        let mut message = vec![0; PREFIX];
        self.fill(&mut message, deadline)?;
        let prefix = message.as_slice().try_into().expect("made with this length");
        let length = message_length(prefix).map_err(invalid)?;
        message.resize(length, 0);
        self.fill(&mut message[PREFIX..], deadline)?;
        let incoming = decode(&message).map_err(invalid)?;
        if let Incoming::Signal { member, body } = &incoming {
            self.signals.push_back((member.clone(), body.clone()));
        }
        Ok(incoming)
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte, deadline)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn fill(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<(), Error> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let problem = format!("no answer came within {:?}", self.patience);
                return Err(Error::new(ErrorKind::TimedOut, problem));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The bus itself.
const BUS: Target<'static> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// Where the system's bus listens.
#[must_use]
pub fn system_bus() -> PathBuf {
    let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
    address_path(&address).unwrap_or_else(|| SYSTEM_BUS.into())
}

/// The path in `unix:path=/run/user/1000/bus,guid=…`; other transports are for other programs.
#[must_use]
pub fn address_path(address: &str) -> Option<PathBuf> {
    let pairs = address.split(';').find_map(|one| one.strip_prefix("unix:"))?;
    pairs.split(',').find_map(|pair| pair.strip_prefix("path=")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_of_the_session_bus() {
        let path = address_path("unix:path=/run/user/7/bus,guid=ab");
        assert_eq!(path, Some("/run/user/7/bus".into()));
        assert_eq!(address_path("unix:abstract=/tmp/x"), None);
        assert_eq!(address_path(""), None);
    }

    #[test]
    fn a_peer_that_hangs_up_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let peer = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let error = Connection::open(&socket, Duration::from_secs(30)).err().unwrap();
        peer.join().unwrap();
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}
