//! A connection to systemd: by the message bus, or directly.
//!
//! ```text
//!   connect ─▶ authenticate ─▶ Hello ─▶ call … reply
//!                                       └── signals that come in between are kept for wait_for_job
//! ```
//!
//! Blocking, one thread, every wait with a deadline; the descriptor is closed on exec and before any fork.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::wire::{Call, Incoming, PREFIX, Value, decode, message_length};

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Where systemd itself listens, for root, with no bus in between.
const SYSTEMD_PRIVATE: &str = "/run/systemd/private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
/// The time systemd has for an answer, and for a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Instance {
    /// Process 1.
    System,
    /// The user's own.
    User,
}

/// What an exchange came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("cannot reach systemd at {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: Error },
    #[error("the connection to systemd failed: {0}")]
    Exchange(#[from] Error),
    #[error("{message} ({name})")]
    Refused { name: String, message: String },
}

impl BusError {
    /// True for the error of this name, `NoSuchUnit` say.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name.rsplit('.').next() == Some(wanted))
    }
}

/// An open connection.
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    direct: bool,
    signals: VecDeque<(String, Vec<Value>)>,
}

impl Bus {
    /// Connects to a systemd: by the bus if there is one, else directly.
    pub(crate) fn connect(instance: Instance) -> Result<Self, BusError> {
        let (bus, private) = sockets(instance);
        let mut failure = None;
        for (socket, direct) in [(bus, false), (private, true)] {
            match Self::open(&socket, direct) {
                Ok(bus) => return Ok(bus),
                Err(source) => failure = failure.or(Some(BusError::Connect { socket, source })),
            }
        }
        Err(failure.expect("two sockets were tried"))
    }

    fn open(socket: &Path, direct: bool) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket)?;
        let mut bus = Self { stream, serial: 0, direct, signals: VecDeque::new() };
        let deadline = Instant::now() + PATIENCE;
        // Who we are the peer knows from the socket: no user id is named, for it may be another one in a user namespace.
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let hello = if direct { None } else { Some(bus.send_to_bus("Hello", &[])?) };
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

    /// Asks for the signals that [`Self::wait_for_job`] needs.
    pub(crate) fn watch_jobs(&mut self) -> Result<(), BusError> {
        let deadline = Instant::now() + PATIENCE;
        if !self.direct {
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved',\
                        path='/org/freedesktop/systemd1'";
            let matching = self.send_to_bus("AddMatch", &[Value::text(rule)])?;
            self.reply(matching, deadline)?;
        }
        self.call("Subscribe", &[]).map(drop)
    }

    /// Calls a method of systemd's manager.
    pub(crate) fn call(&mut self, member: &str, arguments: &[Value]) -> Result<Vec<Value>, BusError> {
        self.call_interface(MANAGER, member, arguments)
    }

    /// A property of systemd's manager that is a text.
    pub(crate) fn manager_property(&mut self, name: &str) -> Result<String, BusError> {
        let arguments = [Value::text(MANAGER), Value::text(name)];
        let reply = self.call_interface("org.freedesktop.DBus.Properties", "Get", &arguments)?;
        let text = reply.first().and_then(Value::as_text);
        Ok(text.ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("{name} is no text")))?.to_owned())
    }

    fn call_interface(
        &mut self,
        interface: &str,
        member: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>, BusError> {
        let destination = (!self.direct).then_some(SYSTEMD);
        let serial = self.send(&Call { destination, path: OBJECT, interface, member, arguments })?;
        self.reply(serial, Instant::now() + PATIENCE)
    }

    /// Waits for the end of a job and gives its result (`done` is success).
    pub(crate) fn wait_for_job(&mut self, job: &str) -> Result<String, BusError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some((member, body)) = self.signals.pop_front() {
                // JobRemoved: number, job, unit, result
                let texts: Vec<_> = body.iter().map(|value| value.as_text().unwrap_or_default()).collect();
                if member == "JobRemoved" && texts.len() == 4 && texts[1] == job {
                    return Ok(texts[3].to_owned());
                }
            }
            self.receive(deadline)?;
        }
    }

    fn send_to_bus(&mut self, member: &str, arguments: &[Value]) -> Result<u32, Error> {
        let name = "org.freedesktop.DBus";
        let path = "/org/freedesktop/DBus";
        self.send(&Call { destination: Some(name), path, interface: name, member, arguments })
    }

    fn send(&mut self, call: &Call<'_>) -> Result<u32, Error> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial))?;
        Ok(self.serial)
    }

    fn reply(&mut self, wanted: u32, deadline: Instant) -> Result<Vec<Value>, BusError> {
        loop {
            match self.receive(deadline)? {
                Incoming::Reply { serial, body } if serial == wanted => return Ok(body),
                Incoming::Error { serial, name, message } if serial == wanted => {
                    return Err(BusError::Refused { name, message });
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
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("systemd did not answer within {PATIENCE:?}"),
                ));
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

/// The bus, and systemd's own socket.
fn sockets(instance: Instance) -> (PathBuf, PathBuf) {
    match instance {
        Instance::System => (SYSTEM_BUS.into(), SYSTEMD_PRIVATE.into()),
        Instance::User => {
            let run = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
                || Path::new("/run/user").join(nix::unistd::geteuid().to_string()),
                PathBuf::from,
            );
            let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
            (address_path(&address).unwrap_or_else(|| run.join("bus")), run.join("systemd/private"))
        }
    }
}

/// The path in `unix:path=/run/user/1000/bus,guid=…`; other transports are for other programs.
fn address_path(address: &str) -> Option<PathBuf> {
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
        let error = Bus::open(&socket, false).err().unwrap();
        peer.join().unwrap();
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}
