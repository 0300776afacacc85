//! Container networks: bridges, veth pairs, nftables, address management.
//!
//! ```text
//!   NetworkController            the only door: networks, sandboxes, attach/detach, recover, shutdown
//!     ├─ state      what is promised, on disk: networks (durable), endpoints (one file each)
//!     ├─ ipam       pure: which subnet, which address
//!     ├─ sandbox    network namespaces, made ahead of need by one thread
//!     ├─ ports      host ports, held by bound sockets; proxy: what the kernel's NAT cannot carry
//!     ├─ reaper     deletes links of ended containers
//!     ├─ netlink    rtnetlink: links, addresses, routes
//!     └─ nft        one nftables table per instance: pure rule set -> one netlink transaction
//! ```
//!
//! Invariants:
//! - No external program is run, and nothing is mounted: a namespace lives as long as somebody holds its
//!   descriptor, and takes its veth pair along when it dies.
//! - Intent before effect: a network or endpoint is on disk before its first link exists and is struck off
//!   after the last one is gone, so [`NetworkController::recover`] can tell what to keep from what to undo.
//! - The data path needs no daemon: bridges, veths and rules live in the kernel and go on when `berthd` dies.
//! - Two controllers with different instance names never touch each other's bridges or rules.

mod controller;
mod error;
mod holders;
mod ipam;
mod lock;
mod mac;
mod netlink;
mod nft;
mod ports;
mod proxy;
mod reaper;
mod sandbox;
mod state;
mod subnet;
mod sysctl;
mod types;

pub use controller::{NetworkController, Recovered};
pub use error::{ErrorKind, NetworkError};
pub use mac::{InvalidMac, MacAddress};
pub use netlink::NetlinkError;
pub use sandbox::{ResolverSockets, SandboxError};
pub use state::StateError;
pub use subnet::{InvalidSubnet, Subnet};
pub use types::{
    Driver, Endpoint, EndpointRequest, IFNAME_PLACEHOLDER, IpamConfig, IpamPool, Network, NetworkConfig,
    NetworkId, NetworkSpec, PortRequest, Protocol, PublishedPort,
};
