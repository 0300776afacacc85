//! UDP: a client has a socket towards the container, by which answers find back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// Clients at once; the longest silent one makes room for the next.
const MAX_CLIENTS: usize = 1024;
/// How long a silent client keeps its socket, as long as the kernel keeps a UDP flow that was answered.
const SILENCE: Duration = Duration::from_secs(120);
/// Datagrams taken from one socket before the others have their turn.
const TURN: usize = 64;

/// The relay's sockets, by their tokens in the epoll set.
#[derive(Debug, Default)]
pub(super) struct UdpRelay {
    published: HashMap<u64, (UdpSocket, SocketAddr)>,
    clients: HashMap<u64, Client>,
    by_client: HashMap<(u64, SocketAddr), u64>,
}

#[derive(Debug)]
struct Client {
    published: u64,
    address: SocketAddr,
    /// Connected to the container.
    socket: UdpSocket,
    last: Instant,
}

impl UdpRelay {
    pub(super) fn serve(&mut self, token: u64, socket: UdpSocket, target: SocketAddr) {
        self.published.insert(token, (socket, target));
    }

    /// Closes a published socket and those of its clients.
    pub(super) fn forget(&mut self, token: u64) {
        self.published.remove(&token);
        self.clients.retain(|_, client| client.published != token);
        self.by_client.retain(|(published, _), _| *published != token);
    }

    /// Carries what has come to the socket of this token.
    pub(super) fn ready(&mut self, token: u64, epoll: &Epoll, next_token: &mut u64) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        for _ in 0..TURN {
            let more = if self.published.contains_key(&token) {
                self.inward(token, &mut buffer, epoll, next_token)
            } else {
                self.outward(token, &mut buffer)
            };
            match more {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // A datagram is lost, as datagrams are; ECONNREFUSED of the container among them.
                    tracing::debug!(%error, "relaying a datagram");
                    if error.kind() == io::ErrorKind::WouldBlock {
                        return;
                    }
                }
            }
        }
    }

    /// From a client to the container.
    fn inward(
        &mut self,
        token: u64,
        buffer: &mut [u8],
        epoll: &Epoll,
        next_token: &mut u64,
    ) -> io::Result<bool> {
        let Some((published, target)) = self.published.get(&token) else { return Ok(false) };
        let target = *target;
        let (length, address) = published.recv_from(buffer)?;
        let client = match self.by_client.get(&(token, address)) {
            Some(client) => *client,
            None => {
                self.make_room();
                let any: IpAddr = if target.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_nonblocking(true)?;
                socket.connect(target)?;
                let own = *next_token;
                *next_token += 1;
                epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, own))?;
                self.clients.insert(own, Client { published: token, address, socket, last: Instant::now() });
                self.by_client.insert((token, address), own);
                own
            }
        };
        if let Some(client) = self.clients.get_mut(&client) {
            client.last = Instant::now();
            client.socket.send(&buffer[..length])?;
        }
        Ok(true)
    }

    /// From the container to its client.
    fn outward(&mut self, token: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(client) = self.clients.get_mut(&token) else { return Ok(false) };
        let length = client.socket.recv(buffer)?;
        client.last = Instant::now();
        if let Some((published, _)) = self.published.get(&client.published) {
            published.send_to(&buffer[..length], client.address)?;
        }
        Ok(true)
    }

    /// Drops silent clients, and the most silent one when there are still too many.
    fn make_room(&mut self) {
        let mut gone: Vec<u64> = Vec::new();
        gone.extend(self.clients.iter().filter(|(_, c)| c.last.elapsed() > SILENCE).map(|(token, _)| *token));
        if gone.is_empty() && self.clients.len() >= MAX_CLIENTS {
            gone.extend(self.clients.iter().min_by_key(|(_, client)| client.last).map(|(token, _)| *token));
        }
        for token in gone {
            if let Some(client) = self.clients.remove(&token) {
                self.by_client.remove(&(client.published, client.address));
            }
        }
    }
}
