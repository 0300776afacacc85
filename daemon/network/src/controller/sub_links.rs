//! macvlan and ipvlan: links of containers right on a link of the host.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use netlink_packet_route::link::{IpVlanFlags, IpVlanMode, MacVlanMode};
use nix::errno::Errno;

use crate::error::NetworkError;
use crate::mac::MacAddress;
use crate::netlink::{RouteSocket, SubKind, SubLink};
use crate::types::Driver;

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
const MTU: &str = "com.docker.network.driver.mtu";

/// The options of such a network that mean something to us.
#[derive(Debug)]
pub(super) struct SubOptions {
    pub(super) parent: String,
    driver: Driver,
    kind: SubKind,
    mtu: Option<u32>,
}

impl SubOptions {
    pub(super) fn of(driver: Driver, options: &BTreeMap<String, String>) -> Result<Self, NetworkError> {
        let invalid = |option: &str, reason: &str| NetworkError::InvalidOption {
            option: option.to_owned(),
            value: options.get(option).cloned().unwrap_or_default(),
            reason: reason.to_owned(),
        };
        let parent = options.get(PARENT).filter(|parent| !parent.is_empty());
        let parent = parent.cloned().ok_or(NetworkError::ParentNeeded { driver })?;
        let mode = |option: &str| options.get(option).map_or("", String::as_str);
        let kind = match driver {
            Driver::Ipvlan => {
                let flags = match mode(IPVLAN_FLAG) {
                    "" | "bridge" => IpVlanFlags::empty(),
                    "private" => IpVlanFlags::Private,
                    "vepa" => IpVlanFlags::Vepa,
                    _ => return Err(invalid(IPVLAN_FLAG, "bridge, private or vepa is expected")),
                };
                match mode(IPVLAN_MODE) {
                    "" | "l2" => SubKind::Ipvlan(IpVlanMode::L2, flags),
                    "l3" => SubKind::Ipvlan(IpVlanMode::L3, flags),
                    "l3s" => SubKind::Ipvlan(IpVlanMode::L3S, flags),
                    _ => return Err(invalid(IPVLAN_MODE, "l2, l3 or l3s is expected")),
                }
            }
            _ => SubKind::Macvlan(match mode(MACVLAN_MODE) {
                "" | "bridge" => MacVlanMode::Bridge,
                "private" => MacVlanMode::Private,
                "vepa" => MacVlanMode::Vepa,
                "passthru" => MacVlanMode::Passthrough,
                _ => return Err(invalid(MACVLAN_MODE, "bridge, private, vepa or passthru is expected")),
            }),
        };
        let mtu = match options.get(MTU).map(|text| text.parse::<u32>()) {
            None | Some(Ok(0)) => None,
            Some(Ok(mtu @ 68..=65535)) => Some(mtu),
            Some(_) => return Err(invalid(MTU, "a number from 68 to 65535 is expected")),
        };
        Ok(Self { parent, driver, kind, mtu })
    }

    /// Whether the parent routes for its links: they have no neighbours, and so no gateway.
    pub(super) fn routes(&self) -> bool {
        matches!(self.kind, SubKind::Ipvlan(IpVlanMode::L3 | IpVlanMode::L3S, _))
    }

    /// Makes a container's link.
    pub(super) fn plug(
        &self,
        host: &mut RouteSocket,
        network: &str,
        netns: BorrowedFd<'_>,
        name: &str,
        mac: Option<MacAddress>,
    ) -> Result<(), NetworkError> {
        let missing =
            || NetworkError::ParentMissing { parent: self.parent.clone(), network: network.to_owned() };
        let parent = host.link(&self.parent)?.ok_or_else(missing)?.index;
        let mac = mac.filter(|_| self.driver == Driver::Macvlan);
        match host.create_sub_link(&SubLink { kind: self.kind, parent, netns, name, mac, mtu: self.mtu }) {
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {
                Err(NetworkError::NoSuchLinks { driver: self.driver })
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(driver: Driver, pairs: &[(&str, &str)]) -> Result<SubOptions, NetworkError> {
        SubOptions::of(driver, &pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn modes_are_the_drivers_own() {
        let of = |driver, key, value| options(driver, &[("parent", "eth0"), (key, value)]);
        assert_eq!(
            of(Driver::Macvlan, MACVLAN_MODE, "vepa").unwrap().kind,
            SubKind::Macvlan(MacVlanMode::Vepa)
        );
        assert_eq!(of(Driver::Macvlan, "x", "y").unwrap().kind, SubKind::Macvlan(MacVlanMode::Bridge));
        let plain = SubKind::Ipvlan(IpVlanMode::L2, IpVlanFlags::empty());
        assert_eq!(of(Driver::Ipvlan, "x", "y").unwrap().kind, plain);
        assert!(of(Driver::Ipvlan, IPVLAN_MODE, "l3s").unwrap().routes());
        let private = SubKind::Ipvlan(IpVlanMode::L2, IpVlanFlags::Private);
        assert_eq!(of(Driver::Ipvlan, IPVLAN_FLAG, "private").unwrap().kind, private);
        assert!(of(Driver::Ipvlan, IPVLAN_FLAG, "x").unwrap_err().to_string().contains("vepa"));
        assert!(of(Driver::Macvlan, MACVLAN_MODE, "l2").unwrap_err().to_string().contains("passthru"));
        assert!(of(Driver::Ipvlan, IPVLAN_MODE, "l9").is_err());
        assert!(options(Driver::Macvlan, &[]).unwrap_err().to_string().contains("parent=LINK"));
    }
}
