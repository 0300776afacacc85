//! Addresses to listen on, bound before the runtime starts.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    os::unix::{
        fs::{FileTypeExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use berth_http::Listener;
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use tokio_rustls::TlsAcceptor;

/// Members of this group may use the socket when no other is named.
const DEFAULT_GROUP: &str = "docker";

/// How TCP listeners know their clients.
#[derive(Default)]
pub(crate) struct Tls {
    pub(crate) acceptor: Option<TlsAcceptor>,
    /// Clients must have a certificate.
    pub(crate) verifies: bool,
}

/// An address that is ours.
pub(crate) struct Bound {
    pub(crate) host: String,
    socket: Socket,
}

enum Socket {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, Option<TlsAcceptor>),
}

/// A unix socket's file; gone when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "removing a socket");
        }
    }
}

/// Binds an address; a socket's file left behind by a daemon that died is replaced.
pub(crate) fn bind(host: &str, group: Option<&str>, tls: &Tls) -> anyhow::Result<Bound> {
    let socket = if let Some(path) = host.strip_prefix("unix://") {
        let (listener, file) =
            bind_unix(Path::new(path), group).with_context(|| format!("listening on {host}"))?;
        Socket::Unix(listener, file)
    } else if let Some(address) = host.strip_prefix("tcp://") {
        let listener = bind_tcp(address, tls).with_context(|| format!("listening on {host}"))?;
        Socket::Tcp(listener, tls.acceptor.clone())
    } else {
        bail!("cannot listen on {host:?}: an address begins with unix:// or tcp://");
    };
    Ok(Bound { host: host.to_owned(), socket })
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Bound {
    /// Hands the listener to the runtime; what comes with it removes the socket's file in the end.
    pub(crate) fn into_listener(self) -> io::Result<(Listener, Option<SocketFile>)> {
        Ok(match self.socket {
            Socket::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                (Listener::Unix(tokio::net::UnixListener::from_std(listener)?), Some(file))
            }
            Socket::Tcp(listener, acceptor) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                match acceptor {
                    Some(acceptor) => (Listener::Tls(listener, acceptor), None),
                    None => (Listener::Tcp(listener), None),
                }
            }
        })
    }
}

/// Binds a socket for root alone: of the CRI, of the NRI.
pub(crate) fn bind_private(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    bind_file(path).with_context(|| format!("listening on unix://{}", path.display()))
}

fn bind_unix(path: &Path, group: Option<&str>) -> anyhow::Result<(UnixListener, SocketFile)> {
    let (listener, file) = bind_file(path)?;
    if let Some(gid) = group_id(group)? {
        chown(path, None, Some(gid)).context("giving the socket to its group")?;
    }
    Ok((listener, file))
}

/// unix(7): `sun_path` has 108 bytes, of which one ends it.
const LONGEST_PATH: usize = 107;

fn bind_file(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    if !path.is_absolute() {
        bail!("the path of a unix socket must be absolute");
    }
    if path.as_os_str().len() > LONGEST_PATH {
        bail!(
            "the path of a unix socket may have {LONGEST_PATH} bytes: choose a shorter --run-root or --host"
        );
    }
    remove_stale(path)?;
    // The socket is born with its final mode: nobody slips in before a chmod.
    let before = umask(Mode::from_bits_truncate(0o117));
    let listener = UnixListener::bind(path);
    umask(before);
    Ok((listener?, SocketFile(path.to_owned())))
}

/// Removes a socket at which nobody listens; anything else in its place is somebody's and stays.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?.file_type(),
    };
    if !kind.is_socket() {
        bail!("there is something in its place that is no socket");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another process listens there"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}

fn group_id(group: Option<&str>) -> anyhow::Result<Option<u32>> {
    let name = group.unwrap_or(DEFAULT_GROUP);
    let found = match nix::unistd::Group::from_name(name) {
        // What a C library says of a name that is not there, or of a system without a group file (getgrnam(3)).
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => None,
        found => found.context("looking up the socket's group")?,
    };
    match (found, group) {
        (Some(found), _) => Ok(Some(found.gid.as_raw())),
        (None, None) => Ok(None),
        (None, Some(name)) => match name.parse() {
            Ok(gid) => Ok(Some(gid)),
            Err(_) => bail!("there is no group {name:?}: make it, or name another with --group"),
        },
    }
}

/// Whoever reaches the API is root on this host: other addresses than this host's own are only for clients that prove
/// who they are.
fn bind_tcp(address: &str, tls: &Tls) -> anyhow::Result<TcpListener> {
    let resolved: Vec<SocketAddr> = address.to_socket_addrs().context("host:port is expected")?.collect();
    if tls.verifies {
        return Ok(TcpListener::bind(&resolved[..])?);
    }
    if !resolved.iter().all(|address| address.ip().is_loopback()) {
        bail!(
            "whoever reaches it would be root here: give --tlsverify with --tlscacert, --tlscert and --tlskey, or use \
             a unix socket or a loopback address"
        );
    }
    tracing::warn!(address, "every user of this host can become root through a TCP port without --tlsverify");
    Ok(TcpListener::bind(&resolved[..])?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let host = format!("unix://{}", path.display());
        drop(UnixListener::bind(&path).unwrap());
        let bound = bind(&host, None, &Tls::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = format!("{:#}", bind(&host, None, &Tls::default()).unwrap_err());
        assert!(error.contains("another process listens there"), "{error}");
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "mine").unwrap();
        assert!(bind(&host, None, &Tls::default()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_path_that_is_too_long_is_told_with_what_to_do() {
        let host = format!("unix:///{}", "x".repeat(LONGEST_PATH));
        let error = format!("{:#}", bind(&host, None, &Tls::default()).unwrap_err());
        assert!(error.ends_with("may have 107 bytes: choose a shorter --run-root or --host"), "{error}");
    }

    #[test]
    fn tcp_stays_on_this_host() {
        assert!(bind("tcp://127.0.0.1:0", None, &Tls::default()).is_ok());
        assert!(bind("tcp://0.0.0.0:0", None, &Tls::default()).is_err());
        assert!(bind("ftp://x", None, &Tls::default()).is_err());
    }
}
