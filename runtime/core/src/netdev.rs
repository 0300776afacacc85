//! Host network devices that move into the container (config-linux.md, "Network Devices").

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use berth_spec::NetDevicePlan;
use berth_sys::clone::CloneFlags;
use berth_sys::{Errno, Pid, ns};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Route;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::error::Error;

/// Larger than any message of the kernel's, which are made for 32 KiB.
const BUFFER: usize = 64 * 1024;

/// Moves the devices into the network namespace of a process, renames them, and gives them their addresses again.
///
/// # Errors
/// A device that does not exist, cannot be moved, or whose name is taken inside.
pub(crate) fn take(devices: &[NetDevicePlan], pid: Pid) -> Result<(), Error> {
    let path = Path::new("/proc").join(pid.to_string()).join("ns/net");
    let namespace = File::open(&path).map_err(|e| Error::io("open namespace", &path, e))?;
    let host = Netlink::open().map_err(|e| Error::os("open a netlink socket", e))?;
    let inside =
        open_inside(&namespace).map_err(|e| Error::os("open a netlink socket in the container", e))?;
    devices.iter().try_for_each(|device| take_one(device, &namespace, &host, &inside))
}

/// A socket speaks to the namespace it was made in. One thread: nobody else sees us elsewhere meanwhile.
fn open_inside(namespace: &File) -> Result<Netlink, Errno> {
    let raw = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let home = File::open("/proc/thread-self/ns/net").map_err(raw)?;
    ns::setns(namespace, CloneFlags::NEWNET)?;
    let inside = Netlink::open();
    ns::setns(&home, CloneFlags::NEWNET)?;
    inside
}

fn take_one(device: &NetDevicePlan, namespace: &File, host: &Netlink, inside: &Netlink) -> Result<(), Error> {
    let NetDevicePlan { host_name, container_name } = device;
    let failed = |what: &str| {
        let text = format!("linux.netDevices.{host_name}: {what}");
        move |errno| Error::os(text, errno)
    };
    let known = inside.links().map_err(failed("list the devices of the container"))?;
    let links = host.links().map_err(failed("list the devices of the host"))?;
    let Some(index) = named(&links, host_name) else {
        return Err(Error::Invalid(format!(
            "linux.netDevices.{host_name}: the host has no such network device"
        )));
    };
    if named(&known, container_name).is_some() {
        return Err(Error::Invalid(format!(
            "linux.netDevices.{host_name}: the container's network namespace has a device {container_name} already \
             (choose another name, or one that ends in %d)"
        )));
    }
    let addresses = host.addresses(index).map_err(failed("read its addresses"))?;
    let mut change = LinkMessage::default();
    change.header.index = index;
    change.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    if container_name != host_name {
        change.attributes.push(LinkAttribute::IfName(container_name.clone()));
    }
    host.ask(Route::SetLink(change), NLM_F_ACK)
        .map_err(failed("move it into the container (some devices cannot leave their namespace)"))?;
    // Its number may be another one now, and its name the kernel's choice.
    let links = inside.links().map_err(failed("list the devices of the container"))?;
    let new = links
        .iter()
        .map(|link| link.header.index)
        .find(|index| !known.iter().any(|k| k.header.index == *index));
    let index =
        new.ok_or_else(|| Error::Invalid(format!("linux.netDevices.{host_name}: it vanished on the way")))?;
    for mut address in addresses {
        address.header.index = index;
        inside.ask(Route::NewAddress(address), NLM_F_ACK).map_err(failed("give it its address again"))?;
    }
    let mut up = LinkMessage::default();
    up.header.index = index;
    (up.header.flags, up.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    inside.ask(Route::SetLink(up), NLM_F_ACK).map(drop).map_err(failed("bring it up"))
}

fn named(links: &[LinkMessage], name: &str) -> Option<u32> {
    let has = |link: &&LinkMessage| {
        link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(known) if known == name))
    };
    links.iter().find(has).map(|link| link.header.index)
}

/// A route netlink socket (rtnetlink(7)).
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> Result<Self, Errno> {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
        socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map(Self)
    }

    fn links(&self) -> Result<Vec<LinkMessage>, Errno> {
        let answers = self.ask(Route::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|a| if let Route::NewLink(link) = a { Some(link) } else { None })
            .collect())
    }

    /// The permanent global addresses of a device, ready to be given to another.
    fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, Errno> {
        let answers = self.ask(Route::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let addresses = answers.into_iter().filter_map(|a| {
            let Route::NewAddress(address) = a else { return None };
            let kept = address.header.index == index
                && address.header.scope == AddressScope::Universe
                && address.header.flags.contains(AddressHeaderFlags::Permanent);
            kept.then_some(address)
        });
        Ok(addresses.map(portable).collect())
    }

    /// Sends one request and collects the answers.
    fn ask(&self, request: Route, flags: u16) -> Result<Vec<Route>, Errno> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let fd = self.0.as_fd().as_raw_fd();
        sendto(fd, &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(fd, &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Route>::deserialize(rest).map_err(|_| Errno::EPROTO)?;
                let length = usize::try_from(answer.header.length).map_err(|_| Errno::EPROTO)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        let code = error.raw_code();
                        return if code == 0 { Ok(answers) } else { Err(Errno::from_raw(-code)) };
                    }
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}

/// Without what belongs to the old place: the label has the old name in it, the lifetimes are for ever.
fn portable(mut address: AddressMessage) -> AddressMessage {
    address.attributes.retain(|attribute| {
        !matches!(
            attribute,
            AddressAttribute::Label(_) | AddressAttribute::CacheInfo(_) | AddressAttribute::TargetNetNsId(_)
        )
    });
    for attribute in &mut address.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            // What the kernel finds out by itself; duplicates were looked for before.
            *flags &= AddressFlags::Noprefixroute | AddressFlags::Permanent;
            *flags |= AddressFlags::Nodad;
        }
    }
    address
}
