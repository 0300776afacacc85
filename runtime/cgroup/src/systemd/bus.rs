//! A connection to systemd: by the message bus, or directly. It is closed before any fork.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_dbus::{CallError, Connection, Target, Value, address_path};
use serde::{Deserialize, Serialize};

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

impl From<CallError> for BusError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { name, message } => Self::Refused { name, message },
            CallError::Exchange(error) => Self::Exchange(error),
            other => Self::Exchange(Error::other(other)),
        }
    }
}

impl BusError {
    /// True for the error of this name, `NoSuchUnit` say.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name.rsplit('.').next() == Some(wanted))
    }
}

/// An open connection.
pub(crate) struct Bus(Connection);

impl Bus {
    /// Connects to a systemd: by the bus if there is one, else directly.
    pub(crate) fn connect(instance: Instance) -> Result<Self, BusError> {
        let (bus, private) = sockets(instance);
        match Connection::open(&bus, PATIENCE) {
            Ok(connection) => Ok(Self(connection)),
            Err(source) => Connection::open_direct(&private, PATIENCE)
                .map(Self)
                .map_err(|_| BusError::Connect { socket: bus, source }),
        }
    }

    /// Asks for the signals that [`Self::wait_for_job`] needs.
    pub(crate) fn watch_jobs(&mut self) -> Result<(), BusError> {
        self.0.subscribe(
            "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved',\
             path='/org/freedesktop/systemd1'",
        )?;
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
        let target = Target { destination: SYSTEMD, path: OBJECT, interface };
        Ok(self.0.call(target, member, arguments)?)
    }

    /// Waits for the end of a job and gives its result (`done` is success).
    pub(crate) fn wait_for_job(&mut self, job: &str) -> Result<String, BusError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (member, body) = self.0.next_signal(deadline)?;
            // JobRemoved: number, job, unit, result
            let texts: Vec<_> = body.iter().map(|value| value.as_text().unwrap_or_default()).collect();
            if member == "JobRemoved" && texts.len() == 4 && texts[1] == job {
                return Ok(texts[3].to_owned());
            }
        }
    }
}

/// The bus, and systemd's own socket.
fn sockets(instance: Instance) -> (PathBuf, PathBuf) {
    match instance {
        Instance::System => (berth_dbus::system_bus(), SYSTEMD_PRIVATE.into()),
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
