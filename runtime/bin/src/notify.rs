//! Readiness (sd_notify(3)): what a container's program tells its service manager goes on to ours.
//!
//! ```text
//!  create, run  the state directory's notify/ is bound at /run/notify, and the program told of the socket to come
//!  start, run   bind notify/notify.sock ─▶ the program says READY=1 ─▶ READY=1, MAINPID=… ─▶ $NOTIFY_SOCKET
//! ```
//!
//! Nothing but the line with `READY=` is passed on: the rest could name processes that are not the container's.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context;
use berth_spec::oci;
use berth_sys::socket::send_with_fds;
use berth_sys::{Errno, Pid, path};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::state::Container;

const DIRECTORY: &str = "notify";
const NAME: &str = "notify.sock";
/// Where the container finds the directory, as with runc.
const INSIDE: &str = "/run/notify";
/// No message of sd_notify(3) that says READY= is longer.
const MAX_MESSAGE: usize = 4096;
/// How long a service manager may take to have seen all messages, in milliseconds. One too old to know the question
/// never answers.
const BARRIER: u16 = 30_000;

/// The container's socket, and whom to tell.
pub(crate) struct Notify {
    socket: UnixDatagram,
    manager: SocketAddr,
}

/// Gives a container that is being made the place of its socket, if we have a service manager to tell.
pub(crate) fn prepare(container: &Container, spec: &mut oci::Spec) -> anyhow::Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() || spec.process().is_none() {
        return Ok(());
    }
    let directory = container.beside(DIRECTORY);
    DirBuilder::new()
        .mode(0o755)
        .create(&directory)
        .with_context(|| format!("mkdir {}", directory.display()))?;
    let mut mount = oci::Mount::default();
    mount.set_destination(INSIDE.into()).set_source(Some(directory)).set_typ(Some("bind".into()));
    mount.set_options(Some(["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec()));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
        process.set_env(Some(env));
    }
    Ok(())
}

impl Notify {
    /// Listens for the container; none if nobody is to be told, or if it was made when nobody was.
    pub(crate) fn listen(container: &Container) -> anyhow::Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let directory = container.beside(DIRECTORY);
        let opened = match File::open(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("open {}", directory.display()))?,
        };
        let manager = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let manager = manager.with_context(|| format!("NOTIFY_SOCKET {}", name.display()))?;
        // The address of a socket has room for 108 bytes; the path of a state directory may be longer.
        let path = path::magic_link(&opened).join(NAME);
        let place = || directory.join(NAME).display().to_string();
        let socket = UnixDatagram::bind(&path).with_context(|| format!("bind {}", place()))?;
        // Whatever user the program becomes.
        fs::set_permissions(&path, Permissions::from_mode(0o777))
            .with_context(|| format!("chmod {}", place()))?;
        socket.set_nonblocking(true).with_context(|| format!("prepare {}", place()))?;
        Ok(Some(Self { socket, manager }))
    }

    /// Waits until the container is ready, or has ended, and tells.
    pub(crate) fn wait(&self, process: &OwnedFd, pid: Pid) -> anyhow::Result<()> {
        loop {
            let mut fds =
                [&self.socket.as_fd(), &process.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.context("poll")?,
            };
            let ended = fds[1].any() == Some(true);
            if let Some(line) = self.ready()? {
                let manager = self.tell(&line, pid)?;
                return barrier(&manager);
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Passes the container's word on, if it has come, for a caller that is the main process of the service.
    pub(crate) fn pass_on(&self) -> anyhow::Result<bool> {
        self.ready()?.map_or(Ok(false), |line| self.tell(&line, Pid::this()).map(|_| true))
    }

    /// The line that says so, of what has come.
    fn ready(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.context("read the container's notify socket")?,
            };
            let mut lines = buffer[..length].split(|byte| *byte == b'\n');
            if let Some(line) = lines.find(|line| line.starts_with(b"READY=")) {
                return Ok(Some(line.to_vec()));
            }
        }
    }

    fn tell(&self, ready: &[u8], pid: Pid) -> anyhow::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound().context("socket")?;
        let told = socket.connect_addr(&self.manager).and_then(|()| {
            socket.send(&[ready, b"\n"].concat())?;
            // From now on this is the process to watch.
            socket.send(format!("MAINPID={pid}\n").as_bytes())
        });
        told.with_context(|| format!("tell {:?} that the container is ready", self.manager))?;
        Ok(socket)
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until the service manager has seen what it was told (sd_notify_barrier(3)): once we have ended it could no
/// longer tell whose words they were.
fn barrier(manager: &UnixDatagram) -> anyhow::Result<()> {
    let (seen, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("pipe")?;
    send_with_fds(manager, b"BARRIER=1", &[theirs.as_fd()], MsgFlags::empty())
        .context("send the barrier to the service manager")?;
    drop(theirs);
    let mut fds = [PollFd::new(seen.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, BARRIER) == Err(Errno::EINTR) {}
    Ok(())
}
