//! What can go wrong, in Docker's words where Docker has them.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use crate::netlink::NetlinkError;
use crate::sandbox::SandboxError;
use crate::state::StateError;
use crate::subnet::Subnet;
use crate::types::Protocol;

/// What kind of answer an error is; the API's edge maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The state of things forbids it now.
    Conflict,
    /// It is never allowed.
    Forbidden,
    /// The request makes no sense.
    InvalidParameter,
    /// The host failed.
    Internal,
}

/// Errors of the network controller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No such network.
    #[error("network {0} not found")]
    NotFound(String),
    /// An id prefix names several networks.
    #[error("network {0} is ambiguous (more than one network id starts so): give more digits")]
    Ambiguous(String),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// `bridge`, `host` and `none` cannot be made.
    #[error("operation is not permitted on predefined {0} network ")]
    Predefined(String),
    /// `bridge`, `host` and `none` cannot be removed.
    #[error("{0} is a pre-defined network and cannot be removed")]
    PredefinedRemoval(String),
    /// Containers are attached.
    #[error("error while removing network: network {network} has active endpoints ({endpoints})")]
    ActiveEndpoints {
        /// Name of the network.
        network: String,
        /// `name:"…" id:"…"` of each.
        endpoints: String,
    },
    /// A template is no network to join.
    #[error(
        "cannot join network {0}: it is config-only, a template for others (network create --config-from {0})"
    )]
    Template(String),
    /// A network is to be a template's and say something itself, or a template is to be more than one.
    #[error(
        "user specified configurations are not supported if the network depends on a configuration network"
    )]
    TemplateConflict,
    /// The network named is none to take a configuration from.
    #[error("{0} is not a configuration network: make it with --config-only")]
    NoTemplate(String),
    /// Other networks were made from the template.
    #[error("configuration network {template:?} is in use by network {user}")]
    TemplateInUse {
        /// Name of the template.
        template: String,
        /// Name of a network made from it.
        user: String,
    },
    /// The name breaks the rules.
    #[error("invalid name: {0}")]
    InvalidName(String),
    /// No such driver here.
    #[error(
        "could not find plugin {0} in v1 plugin registry: plugin not found (drivers here: bridge, macvlan, ipvlan, host, null)"
    )]
    UnknownDriver(String),
    /// `host` and `null` networks exist once.
    #[error("only one instance of \"{0}\" network is allowed")]
    SingleInstance(String),
    /// An option's value makes no sense.
    #[error("invalid value {value:?} for network option {option}: {reason}")]
    InvalidOption {
        /// Name of the option.
        option: String,
        /// The value given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pool asked for is unusable.
    #[error("invalid network config: {0}")]
    InvalidPool(String),
    /// The pool asked for is in use.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps {with}"
    )]
    PoolOverlaps {
        /// What was asked for.
        subnet: Subnet,
        /// Network or route that has it.
        with: String,
    },
    /// Every pool to choose from is taken.
    #[error(
        "all predefined address pools have been fully subnetted: remove unused networks (network prune) or \
         give a subnet; in the way: {0}"
    )]
    PoolsExhausted(String),
    /// Every address of the pool is given out.
    #[error(
        "no available {family} addresses on this network's address pools: {network} ({pool}, {leases} in use)", family = if pool.is_ipv6() { "IPv6" } else { "IPv4" }
    )]
    AddressesExhausted {
        /// Name of the network.
        network: String,
        /// Where addresses come from.
        pool: Subnet,
        /// How many are given out.
        leases: usize,
    },
    /// The fixed address is given out.
    #[error("Address already in use: {address} on network {network} belongs to {owner}")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Name of the network.
        network: String,
        /// Container or role that has it.
        owner: String,
    },
    /// A fixed address where the engine chose the subnet, which may be another one after the network is made anew.
    #[error(
        "invalid config for network {network}: invalid endpoint settings:\nuser specified IP address is supported only when \
         connecting to networks with user configured subnets"
    )]
    AddressUnplanned {
        /// Name of the network.
        network: String,
    },
    /// The fixed address lies outside.
    #[error("no configured subnet contains IP address {address} (network {network}: {pool})")]
    AddressOutside {
        /// The address.
        address: IpAddr,
        /// Name of the network.
        network: String,
        /// The subnet.
        pool: Subnet,
    },
    /// The network has no addresses of that family.
    #[error(
        "network {network} has no {family}: cannot give the address {address} ({hint})",
        family = if address.is_ipv6() { "IPv6" } else { "IPv4" },
        hint = if address.is_ipv6() { "make the network with --ipv6" } else { "make the network without --ipv4=false" }
    )]
    NoFamily {
        /// Name of the network.
        network: String,
        /// The address asked for.
        address: IpAddr,
    },
    /// A further address that is not link-local.
    #[error("invalid link-local address {0}: an address in 169.254.0.0/16 or fe80::/10 is expected")]
    NotLinkLocal(IpAddr),
    /// The kernel has no such links.
    #[error(
        "the {driver} driver is not available: this kernel has no {driver} links (CONFIG_{config}, module {driver}); \
         load the module or use another driver", config = driver.as_str().to_ascii_uppercase()
    )]
    NoSuchLinks {
        /// The driver.
        driver: crate::types::Driver,
    },
    /// A macvlan or ipvlan network without the link it is to lie on.
    #[error("the {driver} driver needs a parent link: give -o parent=LINK")]
    ParentNeeded {
        /// The driver.
        driver: crate::types::Driver,
    },
    /// The parent link does not exist.
    #[error("cannot use {parent} as parent of network {network}: the host has no such link")]
    ParentMissing {
        /// Link name.
        parent: String,
        /// Name of the network.
        network: String,
    },
    /// The hardware address is a group's.
    #[error("invalid MAC address {0}: a unicast address is needed")]
    InvalidMac(crate::mac::MacAddress),
    /// The container is in this network already.
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyAttached {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// host and none have no endpoints.
    #[error("network {0} has no endpoints of its own: the container uses the {1} driver's stack as it is")]
    NoEndpoints(String, crate::types::Driver),
    /// The container is not in this network.
    #[error("container {container} is not connected to network {network}")]
    NotAttached {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// Publishing a port failed; the cause says which.
    #[error("driver failed programming external connectivity on endpoint {container} ({endpoint}): {source}")]
    Publish {
        /// Name of the container.
        container: String,
        /// Id of the endpoint.
        endpoint: String,
        /// Why.
        source: Box<NetworkError>,
    },
    /// Another container has the port.
    #[error("Bind for {0} failed: port is already allocated")]
    PortAllocated(SocketAddr),
    /// Some other program has the port.
    #[error(
        "failed to bind host port {address}/{protocol}: address already in use{}",
        holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    PortInUse {
        /// The program, if it can be found.
        holder: Option<String>,
        /// The address.
        address: SocketAddr,
        /// The protocol.
        protocol: Protocol,
    },
    /// The host has no such address.
    #[error("failed to bind host port {address}/{protocol}: cannot assign requested address: no interface has {ip}", ip = address.ip())]
    AddressNotLocal {
        /// The address.
        address: SocketAddr,
        /// The protocol.
        protocol: Protocol,
    },
    /// Binding failed otherwise.
    #[error("failed to bind host port {address}/{protocol}: {source}")]
    PortBind {
        /// The address.
        address: SocketAddr,
        /// The protocol.
        protocol: Protocol,
        /// The system's word.
        source: Errno,
    },
    /// No ephemeral port or no port of the range is free.
    #[error("all ports of {range} on {address} are allocated ({protocol})")]
    PortsExhausted {
        /// The address.
        address: IpAddr,
        /// The range.
        range: String,
        /// The protocol.
        protocol: Protocol,
    },
    /// A link of that name exists and is not ours to use.
    #[error(
        "cannot use {name} as bridge: a link of that name exists and is no bridge; remove it or name another bridge"
    )]
    LinkTaken {
        /// Link name.
        name: String,
    },
    /// rtnetlink refused.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// nftables refused.
    #[error("cannot set firewall rules (nftables table {table}): {source}")]
    Firewall {
        /// Name of the table.
        table: String,
        /// Why.
        source: NetlinkError,
    },
    /// A kernel setting could not be written.
    #[error("cannot set {path} to {value}: {source}")]
    Sysctl {
        /// File below /proc/sys.
        path: String,
        /// The value.
        value: String,
        /// Why.
        source: std::io::Error,
    },
    /// The relay of published ports could not be set up.
    #[error("cannot set up the relay of published ports: {0}")]
    Relay(#[source] std::io::Error),
    /// A namespace could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The record on disk could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

impl NetworkError {
    /// The host port that another container has, if that is why.
    #[must_use]
    pub fn taken_port(&self) -> Option<SocketAddr> {
        match self {
            Self::PortAllocated(address) => Some(*address),
            Self::Publish { source, .. } => source.taken_port(),
            _ => None,
        }
    }

    /// What kind of answer this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NameTaken(_) => ErrorKind::Conflict,
            Self::Predefined(_)
            | Self::SingleInstance(_)
            | Self::PredefinedRemoval(_)
            | Self::ActiveEndpoints { .. }
            | Self::PoolOverlaps { .. }
            | Self::AlreadyAttached { .. }
            | Self::NoEndpoints(..)
            | Self::Template(_)
            | Self::TemplateInUse { .. } => ErrorKind::Forbidden,
            Self::UnknownDriver(_) | Self::NotAttached { .. } => ErrorKind::NotFound,
            Self::Ambiguous(_)
            | Self::InvalidName(_)
            | Self::TemplateConflict
            | Self::NoTemplate(_)
            | Self::InvalidOption { .. }
            | Self::InvalidPool(_)
            | Self::AddressUnplanned { .. }
            | Self::AddressOutside { .. }
            | Self::InvalidMac(_)
            | Self::NoFamily { .. }
            | Self::NotLinkLocal(_)
            | Self::ParentNeeded { .. }
            | Self::ParentMissing { .. }
            | Self::NoSuchLinks { .. } => ErrorKind::InvalidParameter,
            Self::Publish { source, .. } => source.kind(),
            Self::AddressInUse { .. } => ErrorKind::Forbidden,
            // Docker answers 500 to port conflicts and exhausted pools.
            Self::PoolsExhausted(_)
            | Self::AddressesExhausted { .. }
            | Self::PortAllocated(_)
            | Self::PortInUse { .. }
            | Self::AddressNotLocal { .. }
            | Self::PortBind { .. }
            | Self::PortsExhausted { .. }
            | Self::LinkTaken { .. }
            | Self::Link(_)
            | Self::Firewall { .. }
            | Self::Sysctl { .. }
            | Self::Relay(_)
            | Self::Sandbox(_)
            | Self::State(_) => ErrorKind::Internal,
        }
    }
}
