//! The daemon's side: starts the process, finds it again, tells it things.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt,
    socket, sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::link;
use crate::protocol::{MAX_PACKET, Member, Reply, Request, VERSION, View};

/// The control socket, below the run root.
const SOCKET: &str = "dns.sock";
/// What the process writes on standard error.
const LOG: &str = "dns.log";
/// The process answers at once; a silence this long, in seconds, is its end.
const PATIENCE: i64 = 10;

/// The resolver process could not be started or did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The system refused.
    #[error("cannot {operation} the DNS process ({path}): {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The socket or the program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process refused.
    #[error("the DNS process refused: {0}")]
    Refused(String),
    /// The process is of a version that this daemon does not speak.
    #[error("the DNS process speaks version {found}, not {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
}

/// A connection to the process.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    path: PathBuf,
}

impl Client {
    /// Finds the process of an earlier daemon; `None` when there is none. The second is the containers it serves.
    ///
    /// # Errors
    /// A process that does not answer, or speaks another version: it was told to quit.
    pub fn find(run_root: &Path) -> Result<Option<(Self, Vec<String>)>, DnsError> {
        let path = run_root.join(SOCKET);
        match connected(run_root) {
            Ok(socket) => {
                let mut client = Self { socket, path };
                let resolvers = client.greet()?;
                Ok(Some((client, resolvers)))
            }
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(DnsError::Io { operation: "connect to", path, source: errno.into() }),
        }
    }

    /// Starts a process by a program and its arguments, which ends in [`crate::serve`] on its standard input. The
    /// caller sees to it that there is none.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub fn start(run_root: &Path, program: &Path, arguments: &[&str]) -> Result<Self, DnsError> {
        let path = run_root.join(SOCKET);
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| DnsError::Io { operation, path, source }
        };
        // Listening before it runs, so that connecting cannot come too early.
        let listener = listening(run_root).map_err(|e| failed("listen for", &path)(e.into()))?;
        let log = File::options().create(true).append(true).open(run_root.join(LOG));
        let log = log.map_err(failed("open the log of", &run_root.join(LOG)))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(log)
            // Signals to the daemon's terminal are not for it.
            .process_group(0)
            .spawn();
        let mut child = child.map_err(failed("start", program))?;
        let reaper = std::thread::Builder::new().name("berth-dns-wait".into()).spawn(move || {
            if let Ok(status) = child.wait() {
                tracing::debug!(%status, "the DNS process ended");
            }
        });
        reaper.map_err(failed("wait for", program))?;
        let socket = connected(run_root).map_err(|e| failed("connect to", &path)(e.into()))?;
        let mut client = Self { socket, path };
        client.greet()?;
        Ok(client)
    }

    fn greet(&mut self) -> Result<Vec<String>, DnsError> {
        match self.ask(&Request::Hello { version: VERSION }, &[])? {
            Reply::Hello { version: VERSION, resolvers } => Ok(resolvers),
            Reply::Hello { version, .. } => {
                // It makes room for one that we understand.
                self.ask(&Request::Quit, &[])?;
                Err(DnsError::Version { found: version })
            }
            Reply::Done => Ok(Vec::new()),
            Reply::Failed { message } => Err(DnsError::Refused(message)),
        }
    }

    fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, DnsError> {
        let failed = |operation| {
            let path = self.path.clone();
            move |source| DnsError::Io { operation, path, source }
        };
        link::send(&self.socket, request, fds).map_err(failed("speak to"))?;
        let reply = link::receive::<Reply>(&self.socket, MsgFlags::empty()).map_err(failed("hear from"))?;
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone");
        reply.map(|(reply, _)| reply).ok_or_else(|| failed("hear from")(gone()))
    }

    fn tell(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), DnsError> {
        match self.ask(request, fds)? {
            Reply::Failed { message } => Err(DnsError::Refused(message)),
            Reply::Done | Reply::Hello { .. } => Ok(()),
        }
    }

    /// Begins the whole picture: what follows up to [`Self::commit`] replaces all that the process knows. Containers
    /// that are neither served nor updated in between are dropped.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn begin(&mut self) -> Result<(), DnsError> {
        self.tell(&Request::Begin, &[])
    }

    /// Puts the picture in force.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn commit(&mut self) -> Result<(), DnsError> {
        self.tell(&Request::Commit, &[])
    }

    /// A container is on a network, or has other names there than before.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn join(&mut self, member: Member) -> Result<(), DnsError> {
        self.tell(&Request::Join(member), &[])
    }

    /// A container is not on a network any more.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn leave(&mut self, network: &str, container: &str) -> Result<(), DnsError> {
        self.tell(&Request::Leave { network: network.into(), container: container.into() }, &[])
    }

    /// Serves a container at its sockets, which were made in `netns`.
    ///
    /// # Errors
    /// When the process is gone or out of descriptors.
    pub fn serve(
        &mut self,
        view: View,
        udp: BorrowedFd<'_>,
        tcp: BorrowedFd<'_>,
        netns: BorrowedFd<'_>,
    ) -> Result<(), DnsError> {
        self.tell(&Request::Serve(view), &[udp, tcp, netns])
    }

    /// Changes what a container sees.
    ///
    /// # Errors
    /// When it is not served, or the process is gone.
    pub fn update(&mut self, view: View) -> Result<(), DnsError> {
        self.tell(&Request::Update(view), &[])
    }

    /// Ends the service with the process behind the pidfd, even when no daemon is there.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn watch(&mut self, container: &str, pidfd: BorrowedFd<'_>) -> Result<(), DnsError> {
        self.tell(&Request::Watch { container: container.into() }, &[pidfd])
    }

    /// Serves a container no more.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn forget(&mut self, container: &str) -> Result<(), DnsError> {
        self.tell(&Request::Forget { container: container.into() }, &[])
    }

    /// Ends the process and takes its files away.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn quit(mut self) -> Result<(), DnsError> {
        self.tell(&Request::Quit, &[])?;
        for path in [self.path.clone(), self.path.with_file_name(LOG)] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DnsError::Io { operation: "remove what is left of", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A descriptor that becomes readable (end of file) when the process ends while nobody speaks to it.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn end(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket's address, through a descriptor of the directory: its path may be longer than an address can be.
fn with_address<T>(run_root: &Path, work: impl FnOnce(&UnixAddr) -> Result<T, Errno>) -> Result<T, Errno> {
    let dir = open(run_root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    work(&UnixAddr::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).as_str())?)
}

fn fresh() -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::SndBuf, &(2 * MAX_PACKET))?;
    Ok(socket)
}

fn connected(run_root: &Path) -> Result<OwnedFd, Errno> {
    let socket = fresh()?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    with_address(run_root, |address| connect(socket.as_raw_fd(), address))?;
    Ok(socket)
}

fn listening(run_root: &Path) -> Result<OwnedFd, Errno> {
    let socket = fresh()?;
    match nix::unistd::unlink(&run_root.join(SOCKET)) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    with_address(run_root, |address| bind(socket.as_raw_fd(), address))?;
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        &run_root.join(SOCKET),
        Mode::S_IRUSR | Mode::S_IWUSR,
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    listen(&socket, Backlog::new(4)?)?;
    Ok(socket)
}
