//! Connection tracking entries that outlived what they were made for (linux/netfilter/nfnetlink_conntrack.h).
//!
//! The translation of a flow is decided by its first packet. A UDP client that keeps sending keeps its entry alive, so
//! that it would go on talking to a container that is gone, or to nobody though the port is published now.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::wire::Attributes;
use crate::netlink::{NetlinkError, Socket, messages};
use crate::types::Protocol;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const FLAG_IP_SRC: u32 = 1 << 0;
const FLAG_IP_DST: u32 = 1 << 1;
const FLAG_PROTO_NUM: u32 = 1 << 3;
const FLAG_SRC_PORT: u32 = 1 << 4;
const FLAG_DST_PORT: u32 = 1 << 5;

/// Which flows are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flows {
    /// Those that a container answers from this address and port.
    AnsweredBy(IpAddr, u16),
    /// Those that were sent to this address of the host and port.
    SentTo(IpAddr, u16),
}

/// Makes the kernel forget these UDP flows; that there are none is fine. Needs Linux 5.8.
pub(crate) fn forget(flows: &[Flows]) -> Result<(), NetlinkError> {
    let fail = |errno| NetlinkError::new("forget dead UDP flows", errno);
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(fail)?;
    for flow in flows {
        let sequence = socket.next_sequence();
        socket.send(&request(*flow, sequence)).map_err(fail)?;
        let datagram = socket.receive(true).map_err(fail)?.unwrap_or_default();
        match messages(datagram).find_map(|message| message.error()) {
            Some(Err(errno)) if errno != Errno::ENOENT => return Err(fail(errno)),
            _ => {}
        }
    }
    Ok(())
}

fn request(flow: Flows, sequence: u32) -> Vec<u8> {
    let (tuple, ip, ip_attribute, port, port_attribute, flags) = match flow {
        Flows::AnsweredBy(ip, port) => {
            (TUPLE_REPLY, ip, source_attribute(ip), port, PROTO_SRC_PORT, FLAG_IP_SRC | FLAG_SRC_PORT)
        }
        Flows::SentTo(ip, port) => {
            (TUPLE_ORIG, ip, source_attribute(ip) + 1, port, PROTO_DST_PORT, FLAG_IP_DST | FLAG_DST_PORT)
        }
    };
    let mut attributes = Attributes::default();
    attributes.nested(tuple, |tuple| {
        tuple.nested(TUPLE_IP, |addresses| {
            match ip {
                IpAddr::V4(ip) => addresses.bytes(ip_attribute, &ip.octets()),
                IpAddr::V6(ip) => addresses.bytes(ip_attribute, &ip.octets()),
            };
        });
        tuple.nested(TUPLE_PROTO, |protocol| {
            protocol.bytes(PROTO_NUM, &[Protocol::Udp.number()]).bytes(port_attribute, &port.to_be_bytes());
        });
    });
    attributes.nested(FILTER, |filter| {
        let flags = flags | FLAG_PROTO_NUM;
        let (orig, reply) = if tuple == TUPLE_ORIG { (flags, 0) } else { (0, flags) };
        // In the host's byte order, unlike everything else here.
        filter.bytes(FILTER_ORIG_FLAGS, &orig.to_ne_bytes()).bytes(FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    });
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    attributes.single_message(DELETE, family as u8, sequence)
}

/// `IPCTNL_MSG_CT_DELETE` of the subsystem `NFNL_SUBSYS_CTNETLINK`.
const DELETE: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8 | 2;

/// `CTA_IP_V4_SRC` or `CTA_IP_V6_SRC`; the destination's is the next number.
fn source_attribute(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { 1 } else { 3 }
}
