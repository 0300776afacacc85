//! Network namespaces for containers, made ahead of need.
//!
//! Making one costs milliseconds (every network protocol of the kernel sets itself up in it), handing out a
//! finished one costs a channel receive. A namespace is nothing but a descriptor here: no mount, no name.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::lock::lock;
use crate::netlink::{NetlinkError, RouteSocket};
use crate::nft::{self, RESOLVER_ADDRESS};

/// A network namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// unshare(2) failed.
    #[error("cannot create a network namespace: {0}")]
    Unshare(Errno),
    /// setns(2) failed.
    #[error("cannot enter the container's network namespace: {0}")]
    Enter(Errno),
    /// The namespace's own descriptor could not be opened.
    #[error("cannot open /proc/thread-self/ns/net: {0}")]
    Open(io::Error),
    /// A setting inside failed.
    #[error("cannot set {path} in the container's network namespace: {source}")]
    Setting {
        /// File below /proc/sys.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Loopback, or the rules that lead to the resolver.
    #[error("in the container's network namespace: {0}")]
    Netlink(#[from] NetlinkError),
    /// The resolver's sockets could not be made.
    #[error("cannot listen on 127.0.0.11 in the container's network namespace: {0}")]
    Resolver(io::Error),
    /// No thread could be started.
    #[error("cannot start the thread that makes network namespaces: {0}")]
    Thread(io::Error),
    /// The thread panicked.
    #[error("the thread working in a network namespace panicked")]
    Panicked,
}

/// Settings of a fresh namespace that Docker's containers have too.
const SETTINGS: [(&str, &str); 3] = [
    // Interfaces added later have no IPv6 unless their network has: no address detection, no router solicitation.
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
    // Every port and ping for everybody: the namespace is the container's own.
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
];

/// Finished namespaces and the thread that keeps them coming.
#[derive(Debug)]
pub(crate) struct SandboxPool {
    spare: Mutex<Option<Spare>>,
}

#[derive(Debug)]
struct Spare {
    ready: Receiver<Result<OwnedFd, SandboxError>>,
    maker: JoinHandle<()>,
}

impl SandboxPool {
    /// Keeps `count` namespaces ready; `0` keeps none.
    pub(crate) fn new(count: usize) -> Result<Self, SandboxError> {
        if count == 0 {
            return Ok(Self { spare: Mutex::new(None) });
        }
        // The maker holds one more in its hands while the channel is full.
        let (sender, ready) = sync_channel(count - 1);
        let maker = thread::Builder::new()
            .name("berth-netns".into())
            .spawn(move || keep_making(&sender))
            .map_err(SandboxError::Thread)?;
        Ok(Self { spare: Mutex::new(Some(Spare { ready, maker })) })
    }

    /// A namespace: a finished one, else one made now.
    pub(crate) fn take(&self) -> Result<OwnedFd, SandboxError> {
        let ready = {
            let spare = lock(&self.spare);
            spare.as_ref().and_then(|spare| spare.ready.try_recv().ok())
        };
        // A failure in the background may have passed: the attempt in the foreground tells.
        match ready {
            Some(Ok(netns)) => Ok(netns),
            Some(Err(_)) | None => on_own_thread(make),
        }
    }

    /// Lets the spare ones go and ends the thread.
    pub(crate) fn stop(&self) {
        let spare = lock(&self.spare).take();
        if let Some(Spare { ready, maker }) = spare {
            drop(ready);
            if maker.join().is_err() {
                tracing::warn!("the thread that makes network namespaces panicked");
            }
        }
    }
}

impl Drop for SandboxPool {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep_making(sender: &SyncSender<Result<OwnedFd, SandboxError>>) {
    loop {
        let made = make();
        let failed = made.is_err();
        if sender.send(made).is_err() {
            return;
        }
        if failed {
            // take() reports the reason; trying on in a loop would not help.
            return;
        }
    }
}

/// Moves the calling thread into a new namespace and hands back its descriptor.
fn make() -> Result<OwnedFd, SandboxError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(SandboxError::Unshare)?;
    settle()?;
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from).map_err(SandboxError::Open)
}

/// Settles a namespace that was made elsewhere.
pub(crate) fn prepare(netns: BorrowedFd<'_>) -> Result<(), SandboxError> {
    on_own_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(SandboxError::Enter)?;
        settle()
    })
}

/// The settings, and loopback, of the calling thread's namespace.
fn settle() -> Result<(), SandboxError> {
    for (path, value) in SETTINGS {
        match std::fs::write(path, value) {
            Ok(()) => {}
            // Kernels without IPv6, or hosts with a read-only /proc/sys: the default has to do.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EROFS)) => {}
            Err(source) => return Err(SandboxError::Setting { path: path.to_owned(), source }),
        }
    }
    Ok(RouteSocket::open()?.loopback_up()?)
}

/// A route socket inside `netns`; a socket stays in the namespace that it was opened in.
pub(crate) fn route_socket(netns: BorrowedFd<'_>) -> Result<RouteSocket, SandboxError> {
    on_own_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(SandboxError::Enter)?;
        Ok(RouteSocket::open()?)
    })
}

/// A route socket inside `netns`, after these settings (file below /proc/sys/net, value) were made there.
pub(crate) fn configured_socket(
    netns: BorrowedFd<'_>,
    settings: &[(String, String)],
) -> Result<RouteSocket, SandboxError> {
    on_own_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(SandboxError::Enter)?;
        for (name, value) in settings {
            let path = format!("/proc/sys/net/{name}");
            match std::fs::write(&path, value) {
                Err(e) if !matches!(e.raw_os_error(), Some(libc::EROFS)) => {
                    return Err(SandboxError::Setting { path, source: e });
                }
                _ => {}
            }
        }
        Ok(RouteSocket::open()?)
    })
}

/// The addresses of the calling thread's namespace.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter_map(|one| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    })
    .collect()
}

/// The sockets behind 127.0.0.11 inside a container's namespace.
#[derive(Debug)]
pub struct ResolverSockets {
    /// For queries over UDP.
    pub udp: OwnedFd,
    /// For queries over TCP, listening.
    pub tcp: OwnedFd,
}

/// Makes the resolver's sockets inside `netns` and leads port 53 to them; whoever was there before is cut off.
pub(crate) fn resolver_sockets(netns: BorrowedFd<'_>) -> Result<ResolverSockets, SandboxError> {
    let address = Ipv4Addr::from(RESOLVER_ADDRESS);
    on_own_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(SandboxError::Enter)?;
        let udp = UdpSocket::bind((address, 0)).map_err(SandboxError::Resolver)?;
        let tcp = TcpListener::bind((address, 0)).map_err(SandboxError::Resolver)?;
        let port =
            |address: io::Result<SocketAddr>| address.map(|a| a.port()).map_err(SandboxError::Resolver);
        nft::lead_to_resolver(port(udp.local_addr())?, port(tcp.local_addr())?)?;
        Ok(ResolverSockets { udp: udp.into(), tcp: tcp.into() })
    })
}

/// Runs `work` on a thread of its own, which may change its namespace: it ends afterwards.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, SandboxError> + Send) -> Result<T, SandboxError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("berth-netns-in".into())
            .spawn_scoped(scope, work)
            .map_err(SandboxError::Thread)?;
        worker.join().unwrap_or(Err(SandboxError::Panicked))
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;

    fn inode(netns: &OwnedFd) -> u64 {
        nix::sys::stat::fstat(netns).unwrap().st_ino
    }

    #[test]
    fn every_sandbox_is_new_and_has_loopback_up() {
        let host = nix::sys::stat::stat("/proc/thread-self/ns/net").unwrap().st_ino;
        let pool = SandboxPool::new(2).unwrap();
        let made: Vec<_> = (0..5).map(|_| pool.take().unwrap()).collect();
        let mut inodes: Vec<_> = made.iter().map(inode).collect();
        inodes.push(host);
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), 6);
        for netns in &made {
            let link = route_socket(netns.as_fd()).unwrap().link("lo").unwrap().unwrap();
            assert_eq!(link.index, 1);
            let listening = on_own_thread(|| {
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(SandboxError::Enter)?;
                let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(SandboxError::Open)?;
                let address = listener.local_addr().map_err(SandboxError::Open)?;
                Ok(std::net::TcpStream::connect(address).is_ok())
            });
            assert!(listening.unwrap());
        }
        assert_eq!(nix::sys::stat::stat("/proc/thread-self/ns/net").unwrap().st_ino, host);
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(route_socket(file.as_fd()), Err(SandboxError::Enter(Errno::EINVAL))));
    }

    #[test]
    #[ignore = "a measurement: run with --ignored --nocapture"]
    fn measure_creation() {
        for count in [0, 4] {
            let pool = SandboxPool::new(count).unwrap();
            thread::sleep(std::time::Duration::from_millis(500));
            for n in 0..8 {
                let start = Instant::now();
                let netns = pool.take().unwrap();
                eprintln!("spare {count}: take {n}: {:?}", start.elapsed());
                drop(netns);
            }
        }
    }
}
