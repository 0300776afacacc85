//! The links that a container network is made of, as rtnetlink messages.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoPortData,
    InfoPortKind, InfoVeth, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    MacVlanMode, State,
};

use crate::mac::MacAddress;

/// A link as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) is_bridge: bool,
    /// Packets pass: not only raised, but with carrier and a queue.
    pub(crate) operational: bool,
}

impl Link {
    pub(crate) fn of(message: &LinkMessage) -> Self {
        let mut link =
            Self { index: message.header.index, name: String::new(), is_bridge: false, operational: false };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::LinkInfo(infos) => {
                    link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                }
                LinkAttribute::OperState(state) => link.operational = *state == State::Up,
                _ => {}
            }
        }
        link
    }
}

/// A bridge to be made.
pub(crate) struct BridgeLink<'a> {
    pub(crate) name: &'a str,
    /// Set explicitly: a bridge would else take the lowest address of its ports and change it as they come and go.
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
}

impl BridgeLink<'_> {
    /// Up at once, no spanning tree, and no multicast snooping, whose timers cost more than they save here.
    pub(super) fn message(&self) -> LinkMessage {
        let mut message = up();
        message.attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Address(self.mac.octets().to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![
                    InfoBridge::StpState(BridgeStpState::Disabled),
                    InfoBridge::ForwardDelay(0),
                    InfoBridge::MulticastSnooping(false),
                ])),
            ]),
        ];
        message
    }
}

/// A veth pair to be made: one end is a port of a bridge here, the other is born inside a namespace.
pub(crate) struct VethLink<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) inner_name: &'a str,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
}

impl VethLink<'_> {
    /// Both ends in their places in one message: moving an end between namespaces later costs RCU grace periods.
    /// Only the inner end is still down, since the kernel raises it before it knows its partner (ENOTCONN).
    pub(super) fn message(&self) -> LinkMessage {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(self.inner_name.to_owned()),
            LinkAttribute::NetNsFd(self.netns.as_raw_fd()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Address(self.mac.octets().to_vec()),
        ];
        let mut message = up();
        message.attributes = vec![
            LinkAttribute::IfName(self.host_name.to_owned()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Controller(self.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        message
    }
}

/// A link on top of another one of the host.
pub(crate) struct SubLink<'a> {
    pub(crate) kind: SubKind,
    /// Index of the link below.
    pub(crate) parent: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) name: &'a str,
    /// None on ipvlan, whose links share the parent's.
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: Option<u32>,
}

/// What such a link is to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubKind {
    Macvlan(MacVlanMode),
    Ipvlan(IpVlanMode, IpVlanFlags),
}

impl SubKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }
}

impl SubLink<'_> {
    pub(super) fn message(&self) -> LinkMessage {
        let (kind, data) = match self.kind {
            SubKind::Macvlan(mode) => (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
            SubKind::Ipvlan(mode, flags) => {
                let info = vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)];
                (InfoKind::IpVlan, InfoData::IpVlan(info))
            }
        };
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Link(self.parent),
            LinkAttribute::NetNsFd(self.netns.as_raw_fd()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
        ];
        message.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message
    }
}

/// What a bridge port does beyond the ordinary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortFlags {
    /// It exchanges no frames with other isolated ports: inter-container communication is off.
    pub(crate) isolated: bool,
    /// Frames may leave where they came in: a container reaches its own published port through the bridge.
    pub(crate) hairpin: bool,
}

impl PortFlags {
    /// `None` when the kernel's defaults will do.
    pub(super) fn message(self, name: &str) -> Option<LinkMessage> {
        if self == Self::default() {
            return None;
        }
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![
                    InfoBridgePort::Isolated(self.isolated),
                    InfoBridgePort::HairpinMode(self.hairpin),
                ])),
            ]),
        ];
        Some(message)
    }
}

/// A message that names a link.
pub(super) fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    message
}

/// A message whose link is up.
pub(super) fn up() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}
