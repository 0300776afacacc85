//! What callers ask for and what they get: networks, endpoints, ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::ipam;
use crate::mac::MacAddress;
use crate::subnet::Subnet;

/// Where a controller keeps its state and how it names what it makes.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Directory of the controller's own files; made when missing.
    pub state_dir: PathBuf,
    /// A short name that no other daemon on this host has (a hash of `--root`): lower-case letters and digits.
    pub instance: String,
    /// Link name of the default bridge; `None` derives `bth<instance>` (its first six characters).
    pub default_bridge: Option<String>,
    /// How many network namespaces are kept ready; `0` makes each one when it is asked for.
    pub spare_sandboxes: usize,
}

/// Identity of a network: 64 hex digits, random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkId(pub(crate) String);

impl NetworkId {
    /// A fresh random id.
    pub(crate) fn random() -> Self {
        Self(random_id())
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 64 random hex digits, the shape of every id in Docker's world.
pub(crate) fn random_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a network moves packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge with NAT.
    Bridge,
    /// Links with addresses of their own on one of the host's links.
    Macvlan,
    /// Links that share the address of one of the host's links.
    Ipvlan,
    /// The host's own stack: a record only.
    Host,
    /// Loopback only: a record only.
    Null,
}

impl Driver {
    /// Docker's name of the driver.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The address pools asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// Pools in the caller's order; empty: one is chosen.
    pub pools: Vec<IpamPool>,
    /// Options for the address manager, echoed.
    pub options: Option<BTreeMap<String, String>>,
}

/// One pool of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPool {
    /// The network's prefix.
    pub subnet: Subnet,
    /// Dynamic addresses come from this part of the subnet only.
    pub ip_range: Option<Subnet>,
    /// The bridge's own address; `None` takes the first of the subnet.
    pub gateway: Option<IpAddr>,
    /// Addresses never given out, by name.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// Somebody asked for this subnet: only there a container can ask for its address. Records of before the question have
    /// no answer, and stay as they were.
    #[serde(default = "yes")]
    pub asked_for: bool,
}

/// A network to be made.
#[derive(Debug, Clone)]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// `bridge`, `macvlan` or `ipvlan`; other drivers are refused with an error naming them.
    pub driver: String,
    /// Address pools; at most one of each family.
    pub ipam: IpamConfig,
    /// No way out of the network and none in.
    pub internal: bool,
    /// Recorded for Docker's inspect.
    pub attachable: bool,
    /// Whether containers get IPv4 addresses.
    pub enable_ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub enable_ipv6: bool,
    /// `com.docker.network.bridge.*` and others, echoed; see [`crate::NetworkController::create_network`].
    pub options: BTreeMap<String, String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// A template for other networks: nothing is made, and nobody can join it.
    pub config_only: bool,
    /// The template to take pools, options, labels and the rest from; empty: none.
    pub config_from: String,
}

impl NetworkSpec {
    /// A bridge network of this name with nothing else set.
    pub fn bridge(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            driver: "bridge".into(),
            ipam: IpamConfig::default(),
            internal: false,
            attachable: false,
            enable_ipv4: true,
            enable_ipv6: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            config_only: false,
            config_from: String::new(),
        }
    }
}

/// A network as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identity.
    pub id: NetworkId,
    /// Name, unique in this controller.
    pub name: String,
    /// How packets move.
    pub driver: Driver,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Whether it has no way out.
    pub internal: bool,
    /// Recorded for Docker's inspect.
    pub attachable: bool,
    /// Whether containers have IPv4 addresses; records of before the question have no answer, and do.
    #[serde(default = "yes")]
    pub enable_ipv4: bool,
    /// Whether containers have IPv6 addresses.
    pub enable_ipv6: bool,
    /// Pools as in Docker's inspect: the chosen subnet and gateway are filled in.
    pub ipam: IpamConfig,
    /// Options as in Docker's inspect.
    pub options: BTreeMap<String, String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Link name of the bridge, or of the parent of macvlan and ipvlan links; empty for host and none.
    pub bridge: String,
    /// A template for other networks.
    #[serde(default)]
    pub config_only: bool,
    /// The template it was made from; empty: none.
    #[serde(default)]
    pub config_from: String,
}

impl Network {
    /// Whether it is one of `bridge`, `host`, `none`.
    pub fn is_predefined(&self) -> bool {
        PREDEFINED.contains(&self.name.as_str())
    }

    /// The pool that IPv4 addresses come from.
    pub fn pool(&self) -> Option<&IpamPool> {
        self.ipam.pools.iter().find(|pool| !pool.subnet.is_ipv6())
    }

    /// Whether a container can ask for this address here, if nobody has it.
    ///
    /// # Errors
    /// The network lacks the family, or its pool the address.
    pub fn check_address(&self, address: IpAddr) -> Result<(), NetworkError> {
        let pool = if address.is_ipv6() { self.ipv6_pool() } else { self.pool() };
        let network = self.name.clone();
        match pool {
            None => Err(NetworkError::NoFamily { network, address }),
            Some(pool) if !pool.asked_for => Err(NetworkError::AddressUnplanned { network }),
            Some(pool) if !ipam::is_host(pool.subnet, address) => {
                Err(NetworkError::AddressOutside { address, network, pool: pool.subnet })
            }
            Some(_) => Ok(()),
        }
    }

    /// The pool that IPv6 addresses come from.
    pub fn ipv6_pool(&self) -> Option<&IpamPool> {
        self.ipam.pools.iter().find(|pool| pool.subnet.is_ipv6())
    }
}

const fn yes() -> bool {
    true
}

/// Names that users can neither create nor remove.
pub(crate) const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in IP's header.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
            Self::Sctp => libc::IPPROTO_SCTP as u8,
        }
    }

    /// `tcp`, `udp` or `sctp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// Docker's words for an unknown protocol.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("invalid proto: {text}")),
        }
    }
}

/// A port of the container to publish on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Port inside the container.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address to bind; `None` means every IPv4 and IPv6 address, like Docker.
    pub host_ip: Option<IpAddr>,
    /// Host port or the range to choose from; `None` or `0..=0` draws an ephemeral one.
    pub host_port: Option<RangeInclusive<u16>>,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Port inside the container.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address that is bound.
    pub host_ip: IpAddr,
    /// Host port that is bound.
    pub host_port: u16,
}

/// Stands for the interface's name in [`EndpointRequest::sysctls`].
pub const IFNAME_PLACEHOLDER: &str = "IFNAME";

/// A container's wish to join a network.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// Full id of the container: the key for [`crate::NetworkController::detach`].
    pub container_id: String,
    /// Its name, for errors and records.
    pub container_name: String,
    /// Interface name inside; `None` takes the first free of `eth0`, `eth1` ….
    pub ifname: Option<String>,
    /// A fixed address.
    pub ipv4: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses of the link, in 169.254.0.0/16 or fe80::/10.
    pub link_local: Vec<IpAddr>,
    /// Kernel settings of the interface: file below /proc/sys/net with [`IFNAME_PLACEHOLDER`] for its name, value.
    pub sysctls: Vec<(String, String)>,
    /// A fixed hardware address.
    pub mac: Option<MacAddress>,
    /// Further names on this network, recorded for the resolver.
    pub aliases: Vec<String>,
    /// Leave the default route alone: another network is the way out.
    pub no_default_route: bool,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// Others may lead what it sends back to it, under another address (the services of an orchestrator). With published
    /// ports it is always so.
    pub hairpin: bool,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity: 64 hex digits.
    pub id: String,
    /// The network.
    pub network: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// The container.
    pub container_id: String,
    /// The container's name when it joined.
    pub container_name: String,
    /// Interface name inside the container.
    pub ifname: String,
    /// Link name of the host's end, which disappears with the container's namespace; empty for links without one.
    pub host_ifname: String,
    /// IPv4 address inside; none on a network without IPv4.
    #[serde(default)]
    pub ipv4: Option<Ipv4Addr>,
    /// Prefix length of the IPv4 address.
    pub prefix_len: u8,
    /// The network's gateway; none on an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// There are no gateways, and the way out is the link itself (ipvlan in its modes l3 and l3s).
    #[serde(default)]
    pub direct: bool,
    /// Whether the container's default route leads through this network.
    pub default_route: bool,
    /// Whether the container's default IPv6 route leads through this network.
    #[serde(default)]
    pub default_ipv6_route: bool,
    /// Hardware address.
    pub mac: MacAddress,
    /// IPv6 address and prefix length.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// The network's IPv6 gateway; none on an internal network.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// Further addresses of the link.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// What it sends may come back to it.
    #[serde(default)]
    pub hairpin: bool,
    /// Further names on this network.
    pub aliases: Vec<String>,
    /// What is published where, in the order asked for (IPv4 before IPv6).
    pub ports: Vec<PublishedPort>,
}

/// Where a default route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WayOut {
    /// To a router.
    Gateway(IpAddr),
    /// Right onto the link, for IPv6 or else for IPv4.
    Link {
        /// The family.
        ipv6: bool,
    },
}

impl Endpoint {
    /// Its addresses, IPv4 before IPv6.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.ipv6.map(|(address, _)| IpAddr::V6(address));
        self.ipv4.map(IpAddr::V4).into_iter().chain(v6)
    }

    /// The way out that it has for a family, whether the container takes it or not.
    pub(crate) fn way_out(&self, ipv6: bool) -> Option<WayOut> {
        let gateway = if ipv6 { self.ipv6_gateway.map(IpAddr::V6) } else { self.gateway.map(IpAddr::V4) };
        let speaks = self.addresses().any(|address| address.is_ipv6() == ipv6);
        gateway.map(WayOut::Gateway).or((self.direct && speaks).then_some(WayOut::Link { ipv6 }))
    }

    /// The ways out that the container takes.
    pub(crate) fn ways_out(&self) -> Vec<WayOut> {
        let taken = [(false, self.default_route), (true, self.default_ipv6_route)];
        taken.into_iter().filter(|(_, taken)| *taken).filter_map(|(ipv6, _)| self.way_out(ipv6)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_address_needs_a_subnet_that_was_asked_for() {
        let record = r#"{"id":"i","name":"n","driver":"bridge","created":"2026-01-01T00:00:00Z","internal":false,"attachable":false,
            "enable_ipv6":false,"options":{},"labels":{},"bridge":"br","ipam":{"pools":[{"subnet":"10.0.0.0/24","ip_range":null,
            "gateway":null}],"options":null}}"#;
        let mut network: Network = serde_json::from_str(record).unwrap();
        let address = "10.0.0.9".parse().unwrap();
        assert!(network.check_address(address).is_ok(), "a record of before the question");
        network.ipam.pools[0].asked_for = false;
        let error = network.check_address(address).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidParameter);
        assert!(error.to_string().ends_with("user configured subnets"), "{error}");
        let kept: Network = serde_json::from_str(&serde_json::to_string(&network).unwrap()).unwrap();
        assert!(!kept.ipam.pools[0].asked_for);
    }
}
