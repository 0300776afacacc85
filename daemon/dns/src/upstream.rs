//! Asking name servers outside.
//!
//! ```text
//!   server 1 ──▶ …800 ms… ──▶ server 2 ──▶ …800 ms… ──▶ server 1 again ──▶ …
//!      └─ the first good answer of any of them wins; a server that fails is followed at once
//! ```
//!
//! A stub resolver gives up after five seconds, so all has to be over before.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::message::{Query, Verdict, judge, with_id};
use crate::protocol::Upstream;

const HEDGE: Duration = Duration::from_millis(800);
const DEADLINE: Duration = Duration::from_millis(4500);
/// Servers asked for one query, repetitions included.
const ATTEMPTS: usize = 6;
/// How long a server that answered in place of an earlier one is asked first.
const PREFERENCE: Duration = Duration::from_secs(30);

/// How a query came, and so how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The network namespaces that sockets are made in. One thread only: it moves from one to the other.
#[derive(Debug)]
pub(crate) struct Namespaces {
    own: OwnedFd,
}

impl Namespaces {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { own: File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// Makes a socket in another namespace: it stays there.
    fn within<T>(&self, netns: &OwnedFd, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let made = make();
        if setns(&self.own, CloneFlags::CLONE_NEWNET).is_err() {
            // Everything after this would happen in a container's namespace.
            std::process::abort();
        }
        made
    }
}

/// The servers of the host's resolv.conf, read again when it has changed.
#[derive(Debug, Default)]
pub(crate) struct HostServers {
    read: Cell<(Option<SystemTime>, Option<Instant>)>,
    servers: std::cell::RefCell<Vec<SocketAddr>>,
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl HostServers {
    fn now(&self) -> Vec<SocketAddr> {
        let (version, looked) = self.read.get();
        if looked.is_none_or(|at| at.elapsed() > LOOK_AGAIN) {
            let changed = std::fs::metadata(RESOLV_CONF).and_then(|m| m.modified()).ok();
            if looked.is_none() || changed != version {
                let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
                *self.servers.borrow_mut() = name_servers(&text);
            }
            self.read.set((changed, Some(Instant::now())));
        }
        self.servers.borrow().clone()
    }
}

fn name_servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A scope names a link of the host; servers there are not reachable by address alone.
        address.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53))
    };
    let mut servers: Vec<SocketAddr> = text.lines().filter_map(server).collect();
    if servers.is_empty() {
        servers.extend(PUBLIC_SERVERS.map(|ip| SocketAddr::from((ip, 53))));
    }
    servers
}

/// What docker falls back on when the host names no server.
const PUBLIC_SERVERS: [[u8; 4]; 2] = [[8, 8, 8, 8], [8, 8, 4, 4]];

/// A server and where it is asked from.
#[derive(Debug, Clone, Copy)]
struct Server {
    address: SocketAddr,
    from_host: bool,
}

/// The way out of one container.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) upstream: &'a [Upstream],
    pub(crate) netns: &'a OwnedFd,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) host: &'a HostServers,
    pub(crate) preferred: &'a Cell<Option<(SocketAddr, Instant)>>,
}

impl Way<'_> {
    fn servers(&self) -> Vec<Server> {
        let mut servers = Vec::new();
        for upstream in self.upstream {
            match upstream {
                Upstream::Server(address) => servers.push(Server { address: *address, from_host: false }),
                // What the host's loopback answers, only the host can ask.
                Upstream::Host => servers.extend(
                    self.host
                        .now()
                        .into_iter()
                        .map(|address| Server { address, from_host: address.ip().is_loopback() }),
                ),
            }
        }
        servers
    }

    fn udp(&self, server: Server) -> io::Result<UdpSocket> {
        let make = || {
            let any: SocketAddr =
                if server.address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = std::net::UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(server.address)?;
            Ok(socket)
        };
        UdpSocket::from_std(if server.from_host {
            make()?
        } else {
            self.namespaces.within(self.netns, make)?
        })
    }

    fn tcp(&self, server: Server) -> io::Result<TcpSocket> {
        let make = || if server.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        if server.from_host { make() } else { self.namespaces.within(self.netns, make) }
    }

    /// Asks until somebody can tell. Without a good answer, the best of the others.
    pub(crate) async fn ask(
        &self,
        query: &Query<'_>,
        packet: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut servers = self.servers();
        let primary = servers.first()?.address;
        if let Some((preferred, since)) = self.preferred.get()
            && since.elapsed() < PREFERENCE
        {
            servers.sort_by_key(|server| server.address != preferred);
        }
        let attempts: Vec<Server> = servers.repeat(2).into_iter().take(ATTEMPTS).collect();
        let mut next = attempts.iter();
        let mut running = JoinSet::new();
        let mut second_best = None;
        let ends = Instant::now() + DEADLINE;
        loop {
            if let Some(server) = next.next() {
                self.start(*server, packet, transport, &mut running);
            } else if running.is_empty() {
                return second_best;
            }
            let patience = HEDGE.min(ends.saturating_duration_since(Instant::now()));
            let last = next.len() == 0;
            let wait = if last { ends.saturating_duration_since(Instant::now()) } else { patience };
            let answered = tokio::select! {
                biased;
                answered = running.join_next(), if !running.is_empty() => answered,
                () = sleep(wait) => None,
            };
            if Instant::now() >= ends {
                return second_best;
            }
            let Some(Ok(Some((server, id, mut answer)))) = answered else { continue };
            if !query.is_answered_by(&answer, id) {
                continue;
            }
            query.adopt(&mut answer);
            if judge(&answer) == Verdict::Useless {
                second_best = Some(answer);
                continue;
            }
            self.preferred.set((server != primary).then(|| (server, Instant::now())));
            return Some(answer);
        }
    }

    fn start(
        &self,
        server: Server,
        packet: &[u8],
        transport: Transport,
        running: &mut JoinSet<Option<(SocketAddr, u16, Vec<u8>)>>,
    ) {
        let id: u16 = rand::random();
        let packet = with_id(packet, id);
        let address = server.address;
        match transport {
            Transport::Udp => {
                let socket = self.udp(server);
                running.spawn(async move {
                    let answer = over_udp(socket, &packet).await;
                    told(address, id, answer)
                });
            }
            Transport::Tcp => {
                let socket = self.tcp(server);
                running.spawn(async move {
                    let answer = over_tcp(socket, address, &packet).await;
                    told(address, id, answer)
                });
            }
        }
    }
}

fn told(server: SocketAddr, id: u16, answer: io::Result<Vec<u8>>) -> Option<(SocketAddr, u16, Vec<u8>)> {
    match answer {
        Ok(answer) => Some((server, id, answer)),
        Err(error) => {
            tracing::debug!(%server, %error, "a name server did not answer");
            None
        }
    }
}

async fn over_udp(socket: io::Result<UdpSocket>, packet: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket?;
    socket.send(packet).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let id = packet.get(..2);
    loop {
        let length = timeout(DEADLINE, socket.recv(&mut buffer)).await??;
        // Something else than our answer is somebody's guess: go on waiting for the real one.
        if buffer.get(..2) == id {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(socket: io::Result<TcpSocket>, server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = timeout(DEADLINE, socket?.connect(server)).await??;
    write_framed(&mut stream, packet).await?;
    timeout(DEADLINE, read_framed(&mut stream)).await?
}

/// One message after its length (RFC 1035 4.2.2).
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

pub(crate) async fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], packet].concat();
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_resolv_conf() {
        let text =
            "# nameserver 1.1.1.1\nnameserver 10.0.0.53\nsearch x\nnameserver fe80::1%eth0\nnameserver ::1\n";
        assert_eq!(name_servers(text), ["10.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
