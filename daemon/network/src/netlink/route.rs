//! Links, addresses and routes (rtnetlink(7)).

use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::link::{BridgeLink, Link, PortFlags, SubLink, VethLink, named, up};
use super::{NetlinkError, Socket, messages};
use crate::subnet::Subnet;
use crate::types::WayOut;

const SETTLE_PATIENCE: Duration = Duration::from_millis(200);
const SETTLE_INTERVAL: Duration = Duration::from_millis(1);
/// The loopback device has this index in every namespace.
const LOOPBACK: u32 = 1;

/// A route of the host that addresses must not collide with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveRoute {
    pub(crate) subnet: Subnet,
    pub(crate) interface: u32,
    /// Whether the network is directly attached, not behind a gateway.
    pub(crate) attached: bool,
}

struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    operation: String,
}

/// An rtnetlink socket of one network namespace.
#[derive(Debug)]
pub(crate) struct RouteSocket(Socket);

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Socket::open(SockProtocol::NetlinkRoute)
            .map(Self)
            .map_err(|errno| NetlinkError::new("open a route netlink socket", errno))
    }

    pub(crate) fn loopback_up(&mut self) -> Result<(), NetlinkError> {
        let mut message = up();
        message.header.index = LOOPBACK;
        self.change(vec![Request {
            message: RouteNetlinkMessage::SetLink(message),
            flags: 0,
            operation: "bring up the loopback device".into(),
        }])
    }

    /// The link of this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = Request {
            message: RouteNetlinkMessage::GetLink(named(name)),
            flags: 0,
            operation: format!("look up link {name}"),
        };
        let mut found = None;
        match self.exchange(vec![request], |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found = Some(Link::of(&link));
            }
        }) {
            Err(error) if error.errno() == Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Waits until packets pass through the links, named from the port to the bridge.
    ///
    /// When a carrier comes up, the kernel gives the device its queue in a work item later; packets before that are
    /// dropped, and a lost ARP request costs a second. Asking for the link does the work at once (Linux 6.7,
    /// `linkwatch_sync_dev()` in `rtnl_getlink()`), so the loop is for older kernels.
    pub(crate) fn settle(&mut self, names: &[&str]) -> Result<(), NetlinkError> {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        for name in names {
            while !self.link(name)?.is_none_or(|link| link.operational) {
                if Instant::now() > deadline {
                    tracing::debug!(link = name, "the link is slow to become operational");
                    break;
                }
                thread::sleep(SETTLE_INTERVAL);
            }
        }
        Ok(())
    }

    /// Makes a bridge; the caller knows that the name is free.
    pub(crate) fn create_bridge(&mut self, bridge: &BridgeLink<'_>) -> Result<(), NetlinkError> {
        self.change(vec![Request {
            message: RouteNetlinkMessage::NewLink(bridge.message()),
            flags: NLM_F_CREATE | NLM_F_EXCL,
            operation: format!("create bridge {}", bridge.name),
        }])
    }

    /// Makes a veth pair, both ends in place, the host's end up.
    pub(crate) fn create_veth(&mut self, veth: &VethLink<'_>, flags: PortFlags) -> Result<(), NetlinkError> {
        let operation = format!("create veth pair {} – {}", veth.host_name, veth.inner_name);
        let create = Request {
            message: RouteNetlinkMessage::NewLink(veth.message()),
            flags: NLM_F_CREATE | NLM_F_EXCL,
            operation,
        };
        let set_flags = flags.message(veth.host_name).map(|message| Request {
            message: RouteNetlinkMessage::NewLink(message),
            flags: 0,
            operation: format!("set flags of bridge port {}", veth.host_name),
        });
        self.change([create].into_iter().chain(set_flags).collect())
    }

    /// Deletes a link; that it is gone already is fine.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let request = Request {
            message: RouteNetlinkMessage::DelLink(named(name)),
            flags: 0,
            operation: format!("delete link {name}"),
        };
        match self.change(vec![request]) {
            Err(error) if error.errno() == Errno::ENODEV => Ok(()),
            other => other,
        }
    }

    /// Makes a link on top of another one of the host, born inside a namespace.
    pub(crate) fn create_sub_link(&mut self, link: &SubLink<'_>) -> Result<(), NetlinkError> {
        self.change(vec![Request {
            message: RouteNetlinkMessage::NewLink(link.message()),
            flags: NLM_F_CREATE | NLM_F_EXCL,
            operation: format!("create {} link {}", link.kind.as_str(), link.name),
        }])
    }

    /// Raises a link with its addresses and, where asked for, the namespace's default routes: one datagram.
    pub(crate) fn configure(
        &mut self,
        link: &Link,
        addresses: &[(IpAddr, Subnet)],
        ways_out: &[WayOut],
    ) -> Result<(), NetlinkError> {
        let mut raise = up();
        raise.header.index = link.index;
        let mut requests: Vec<Request> = addresses
            .iter()
            .map(|(address, subnet)| Request {
                message: RouteNetlinkMessage::NewAddress(address_message(link.index, *address, *subnet)),
                flags: NLM_F_CREATE | NLM_F_REPLACE,
                operation: format!("give {} the address {address}/{}", link.name, subnet.prefix_len()),
            })
            .collect();
        requests.push(Request {
            message: RouteNetlinkMessage::SetLink(raise),
            flags: 0,
            operation: format!("bring up {}", link.name),
        });
        requests.extend(ways_out.iter().map(|way| lead_out(link, *way, NLM_F_EXCL)));
        self.change(requests)
    }

    /// Leads the namespace's default route this way, wherever it led before.
    pub(crate) fn reroute(&mut self, link: &Link, way: WayOut) -> Result<(), NetlinkError> {
        let family = family_of(way);
        let mut old = RouteMessage::default();
        old.header.address_family = family;
        old.header.table = RouteHeader::RT_TABLE_MAIN;
        old.header.scope = RouteScope::NoWhere;
        let remove = Request {
            message: RouteNetlinkMessage::DelRoute(old),
            flags: 0,
            operation: "remove the default route".into(),
        };
        match self.change(vec![remove]) {
            // It went with its link, or there was none.
            Err(error) if matches!(error.errno(), Errno::ESRCH | Errno::ENOENT) => {}
            other => other?,
        }
        self.change(vec![lead_out(link, way, NLM_F_REPLACE)])
    }

    /// Routes of the host, default routes and those of single links left out.
    pub(crate) fn routes(&mut self) -> Result<Vec<LiveRoute>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let request = Request {
                message: RouteNetlinkMessage::GetRoute(query),
                flags: NLM_F_DUMP,
                operation: "list routes".into(),
            };
            self.exchange(vec![request], |message| {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    routes.extend(live_route(&route));
                }
            })?;
        }
        Ok(routes)
    }

    fn change(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        self.exchange(requests, |_| {})
    }

    /// Sends the requests as one datagram and reads until each is answered; the first error wins.
    fn exchange(
        &mut self,
        requests: Vec<Request>,
        mut answer: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetlinkError> {
        let mut bytes = Vec::with_capacity(512);
        let mut open = Vec::with_capacity(requests.len());
        for request in requests {
            let sequence = self.0.next_sequence();
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
            header.sequence_number = sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
            open.push((sequence, request.operation));
        }
        self.0.drain();
        if let Err(errno) = self.0.send(&bytes) {
            let (_, operation) = open.swap_remove(0);
            return Err(NetlinkError::new(operation, errno));
        }
        let mut failure = None;
        while let Some((_, waiting_for)) = open.last() {
            let waiting_for = waiting_for.clone();
            let datagram = self.0.receive(true).map_err(|errno| NetlinkError::new(waiting_for, errno))?;
            for message in messages(datagram.unwrap_or_default()) {
                let done = i32::from(message.kind) == libc::NLMSG_DONE;
                let outcome = if done { Some(Ok(())) } else { message.error() };
                let Some(outcome) = outcome else {
                    // An unknown attribute of a newer kernel must not hide the rest of a dump.
                    if let Ok(message) = RouteNetlinkMessage::parse_with_param(message.payload, message.kind)
                    {
                        answer(message);
                    }
                    continue;
                };
                let Some(place) = open.iter().position(|(sequence, _)| *sequence == message.sequence) else {
                    continue;
                };
                let (_, operation) = open.remove(place);
                if let Err(errno) = outcome {
                    failure.get_or_insert(NetlinkError::new(operation, errno));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn lead_out(link: &Link, way: WayOut, flag: u16) -> Request {
    let via = match way {
        WayOut::Gateway(gateway) => format!("via {gateway} "),
        WayOut::Link { .. } => String::new(),
    };
    Request {
        message: RouteNetlinkMessage::NewRoute(default_route(link.index, way)),
        flags: NLM_F_CREATE | flag,
        operation: format!("add the default route {via}on {}", link.name),
    }
}

fn family_of(way: WayOut) -> AddressFamily {
    match way {
        WayOut::Gateway(IpAddr::V4(_)) | WayOut::Link { ipv6: false } => AddressFamily::Inet,
        WayOut::Gateway(IpAddr::V6(_)) | WayOut::Link { ipv6: true } => AddressFamily::Inet6,
    }
}

fn address_message(link: u32, address: IpAddr, subnet: Subnet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.prefix_len = subnet.prefix_len();
    message.header.index = link;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    match subnet.last() {
        IpAddr::V4(broadcast) => {
            message.header.family = AddressFamily::Inet;
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // We gave it out: nobody else has it, and detection would take a second.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn default_route(link: u32, way: WayOut) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(way);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = match way {
        WayOut::Link { ipv6: false } => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message.header.kind = RouteType::Unicast;
    let gateway = match way {
        WayOut::Gateway(IpAddr::V4(ip)) => Some(RouteAddress::Inet(ip)),
        WayOut::Gateway(IpAddr::V6(ip)) => Some(RouteAddress::Inet6(ip)),
        WayOut::Link { .. } => None,
    };
    message.attributes = gateway.map(RouteAttribute::Gateway).into_iter().collect();
    message.attributes.push(RouteAttribute::Oif(link));
    message
}

fn live_route(message: &RouteMessage) -> Option<LiveRoute> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.destination_prefix_length == 0 {
        return None;
    }
    let mut destination = None;
    let mut interface = 0;
    let mut behind_gateway = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address))
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) if !is_link_only(*address) => {
                destination = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Gateway(_) => behind_gateway = true,
            RouteAttribute::Oif(index) => interface = *index,
            _ => {}
        }
    }
    let destination = destination?;
    let most = if destination.is_ipv4() { 32 } else { 128 };
    let subnet = Subnet::containing(destination, header.destination_prefix_length.min(most));
    // IPv6 routes have no scope.
    let attached = !behind_gateway && (destination.is_ipv6() || header.scope == RouteScope::Link);
    Some(LiveRoute { subnet, interface, attached })
}

/// Every link has these; they are no places to collide.
fn is_link_only(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local() || address.is_multicast()
}
