//! Host ports, held by bound sockets.
//!
//! A published port is translated in the kernel before any socket sees it. The socket is held for three reasons:
//! nobody else can bind the port while it is published, we notice when somebody else has it, and what the
//! translation does not reach (IPv6 clients of an IPv4 container) arrives here and is relayed by [`crate::proxy`].

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::error::NetworkError;
use crate::holders;
use crate::types::{PortRequest, Protocol, PublishedPort};

/// Docker's range where the kernel does not tell its own.
const FALLBACK_RANGE: (u16, u16) = (49153, 65535);
/// The host port of what is published without translation, as in Docker.
pub(crate) const ROUTED: u16 = 0;
/// The kernel's backlog for connections that wait for the relay.
const BACKLOG: i32 = 128;

/// A published port and the socket that holds it.
#[derive(Debug)]
pub(crate) struct HeldPort {
    pub(crate) port: PublishedPort,
    pub(crate) socket: HeldSocket,
}

/// TCP sockets listen for the relay; UDP sockets are in the way of others, and over IPv6 relayed as well.
#[derive(Debug)]
pub(crate) enum HeldSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// SCTP: few kernels have its sockets, so only the books and the rules know of the port.
    None,
}

/// Chooses and holds ports.
#[derive(Debug, Default)]
pub(crate) struct PortAllocator {
    /// Where the next ephemeral port is looked for: ports just freed rest for a while.
    cursor: Option<u16>,
}

impl PortAllocator {
    /// Holds what is asked for, all or nothing. `taken` are the ports that this instance holds already; `routed` says
    /// of a family (whether it is IPv6) that its ports are published without translation.
    pub(crate) fn reserve(
        &mut self,
        requests: &[PortRequest],
        default_ip: Option<IpAddr>,
        taken: &[PublishedPort],
        routed: impl Fn(bool) -> bool,
    ) -> Result<Vec<HeldPort>, NetworkError> {
        let mut held: Vec<HeldPort> = Vec::new();
        for request in requests {
            let mut busy = taken.to_vec();
            busy.extend(held.iter().map(|h| h.port));
            let addresses = addresses(request.host_ip.or(default_ip));
            let (open, bound): (Vec<IpAddr>, Vec<IpAddr>) =
                addresses.into_iter().partition(|address| routed(address.is_ipv6()));
            // Reached under the container's own address: no port of the host has a part in it.
            held.extend(open.into_iter().map(|ip| HeldPort {
                port: PublishedPort {
                    container_port: request.container_port,
                    protocol: request.protocol,
                    host_ip: unspecified(ip),
                    host_port: ROUTED,
                },
                socket: HeldSocket::None,
            }));
            if !bound.is_empty() {
                held.extend(self.reserve_one(request, &bound, &busy)?);
            }
        }
        Ok(held)
    }

    fn reserve_one(
        &mut self,
        request: &PortRequest,
        addresses: &[IpAddr],
        busy: &[PublishedPort],
    ) -> Result<Vec<HeldPort>, NetworkError> {
        let exhausted = |range: (u16, u16)| NetworkError::PortsExhausted {
            address: addresses[0],
            range: format!("{}-{}", range.0, range.1),
            protocol: request.protocol,
        };
        match request.host_port.clone().map(|range| (*range.start(), *range.end())) {
            Some((port, end)) if port != 0 && port == end => hold_all(request, addresses, port, busy, true),
            Some((start, end)) if start != 0 => (start..=end)
                .find_map(|port| try_port(request, addresses, port, busy))
                .unwrap_or_else(|| Err(exhausted((start, end)))),
            _ => {
                let range = ephemeral_range();
                let found = rotation(range, self.cursor).find_map(|port| {
                    self.cursor = Some(port);
                    try_port(request, addresses, port, busy)
                });
                found.unwrap_or_else(|| Err(exhausted(range)))
            }
        }
    }
}

/// A port of several candidates: `None` when it is taken, an error when no other port would do better.
fn try_port(
    request: &PortRequest,
    addresses: &[IpAddr],
    port: u16,
    busy: &[PublishedPort],
) -> Option<Result<Vec<HeldPort>, NetworkError>> {
    match hold_all(request, addresses, port, busy, false) {
        Err(NetworkError::PortAllocated(_) | NetworkError::PortInUse { .. }) => None,
        other => Some(other),
    }
}

/// Docker's meaning of a host address: none is every IPv4 and every IPv6 address.
fn addresses(host_ip: Option<IpAddr>) -> Vec<IpAddr> {
    match host_ip {
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn unspecified(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Holds the port on all addresses. Whoever has it is looked for if it is to be `named`.
fn hold_all(
    request: &PortRequest,
    addresses: &[IpAddr],
    port: u16,
    busy: &[PublishedPort],
    named: bool,
) -> Result<Vec<HeldPort>, NetworkError> {
    let mut held = Vec::with_capacity(addresses.len());
    for &ip in addresses {
        let published = PublishedPort {
            container_port: request.container_port,
            protocol: request.protocol,
            host_ip: ip,
            host_port: port,
        };
        if busy.iter().any(|other| clash(other, &published)) {
            return Err(NetworkError::PortAllocated(SocketAddr::new(ip, port)));
        }
        match hold(published) {
            Ok(port) => held.push(port),
            Err(NetworkError::PortInUse { address, protocol, .. }) if named => {
                let holder = holders::of(address, protocol);
                return Err(NetworkError::PortInUse { holder, address, protocol });
            }
            // A host without IPv6 publishes on IPv4 alone.
            Err(
                NetworkError::PortBind { source: Errno::EAFNOSUPPORT, .. }
                | NetworkError::AddressNotLocal { .. },
            ) if ip.is_ipv6() && addresses.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

/// Whether the two cannot be bound at once.
fn clash(a: &PublishedPort, b: &PublishedPort) -> bool {
    a.protocol == b.protocol
        && a.host_port == b.host_port
        && a.host_ip.is_ipv4() == b.host_ip.is_ipv4()
        && (a.host_ip == b.host_ip || a.host_ip.is_unspecified() || b.host_ip.is_unspecified())
}

/// Binds the socket of a published port.
///
/// `SO_REUSEADDR` lets us pass sockets in `TIME_WAIT`; listening then keeps others out and finds those who bound
/// without listening. UDP has no such state, and the option would let others share the port.
pub(crate) fn hold(port: PublishedPort) -> Result<HeldPort, NetworkError> {
    let address = SocketAddr::new(port.host_ip, port.host_port);
    let protocol = port.protocol;
    if protocol == Protocol::Sctp {
        return Ok(HeldPort { port, socket: HeldSocket::None });
    }
    let bound = (|| {
        let family = if port.host_ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let kind = if protocol == Protocol::Tcp { SockType::Stream } else { SockType::Datagram };
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        if port.host_ip.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        if protocol == Protocol::Tcp {
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        if protocol == Protocol::Tcp {
            let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
            listen(&fd, backlog)?;
        }
        Ok(fd)
    })();
    match bound {
        Ok(fd) if protocol == Protocol::Tcp => {
            Ok(HeldPort { port, socket: HeldSocket::Tcp(TcpListener::from(fd)) })
        }
        Ok(fd) => Ok(HeldPort { port, socket: HeldSocket::Udp(UdpSocket::from(fd)) }),
        Err(Errno::EADDRINUSE) => Err(NetworkError::PortInUse { holder: None, address, protocol }),
        Err(Errno::EADDRNOTAVAIL) => Err(NetworkError::AddressNotLocal { address, protocol }),
        Err(source) => Err(NetworkError::PortBind { address, protocol, source }),
    }
}

fn ephemeral_range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(start)), Some(Ok(end))) if 0 < start && start <= end => (start, end),
        _ => FALLBACK_RANGE,
    }
}

/// All ports of the range, beginning after the last one used.
fn rotation((start, end): (u16, u16), last: Option<u16>) -> impl Iterator<Item = u16> {
    let next = last.filter(|last| (start..end).contains(last)).map_or(start, |last| last + 1);
    (next..=end).chain(start..next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(ip: &str, port: u16) -> PublishedPort {
        PublishedPort {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: ip.parse().unwrap(),
            host_port: port,
        }
    }

    #[test]
    fn every_address_clashes_with_one_of_its_family() {
        assert!(clash(&published("0.0.0.0", 80), &published("127.0.0.1", 80)));
        assert!(clash(&published("127.0.0.1", 80), &published("127.0.0.1", 80)));
        assert!(!clash(&published("127.0.0.1", 80), &published("127.0.0.2", 80)));
        assert!(!clash(&published("0.0.0.0", 80), &published("::", 80)));
        assert!(!clash(&published("0.0.0.0", 80), &published("0.0.0.0", 81)));
    }

    #[test]
    fn the_rotation_visits_every_port_once() {
        assert_eq!(rotation((10, 13), None).collect::<Vec<_>>(), [10, 11, 12, 13]);
        assert_eq!(rotation((10, 13), Some(11)).collect::<Vec<_>>(), [12, 13, 10, 11]);
        assert_eq!(rotation((10, 13), Some(13)).collect::<Vec<_>>(), [10, 11, 12, 13]);
        assert_eq!(rotation((10, 13), Some(99)).collect::<Vec<_>>(), [10, 11, 12, 13]);
    }
}
