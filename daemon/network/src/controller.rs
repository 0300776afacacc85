//! The controller: the books of what is promised, and the hands that make it so.
//!
//! ```text
//!   attach:  promise (lease, ports held, record on disk) ─▶ bridge ─▶ veth ─▶ address, route ─▶ rules ─▶ relay
//!               ▲                                            any failure: withdraw, in reverse ◀────────┘
//!   detach:  relay, rules, link, record, lease: each is undone whatever became of the others
//!   bury:    the same for an ended container, without waiting for the link
//! ```
//!
//! Locks are taken in the order books, links, firewall, and never across a wait for anything but the kernel.

mod books;
mod endpoints;
mod networks;
mod options;
mod recover;
mod sub_links;

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use crate::error::NetworkError;
use crate::lock::lock;
use crate::netlink::RouteSocket;
use crate::nft::{Firewall, Watch};
use crate::proxy::Proxy;
use crate::reaper::Reaper;
use crate::sandbox::{self, ResolverSockets, SandboxPool};
use crate::state::StateDir;
use crate::types::{Endpoint, Network, NetworkConfig, NetworkId};

use books::Books;
pub use recover::Recovered;

/// Networks, sandboxes and endpoints of one daemon.
///
/// All methods may be called from any thread of the host's network namespace; they block for milliseconds.
#[derive(Debug)]
pub struct NetworkController {
    instance: String,
    state: StateDir,
    books: Mutex<Books>,
    links: Mutex<Links>,
    firewall: Arc<Mutex<Firewall>>,
    /// Rebuilds the firewall's table when others change it; ends before what it watches.
    watch: Mutex<Option<Watch>>,
    proxy: Proxy,
    reaper: Reaper,
    sandboxes: SandboxPool,
}

/// The host's side of the links.
#[derive(Debug)]
struct Links {
    socket: RouteSocket,
    /// Bridges known to be up and ruled, with their link index.
    ready: HashMap<NetworkId, u32>,
}

impl NetworkController {
    /// Opens the state and starts making spare sandboxes; touches neither links nor rules.
    ///
    /// # Errors
    /// When the state cannot be read or written, or the kernel gives no netlink sockets.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let state = StateDir::open(&config.state_dir)?;
        let mut socket = RouteSocket::open()?;
        let firewall = Arc::new(Mutex::new(Firewall::open(&config.instance)?));
        let watch = Firewall::watch(&firewall)?;
        let proxy = Proxy::new().map_err(|errno| NetworkError::Relay(io::Error::from(errno)))?;
        let default_bridge = config.default_bridge.unwrap_or_else(|| {
            let short: String = config.instance.chars().take(6).collect();
            format!("bth{short}")
        });
        let mut books = Books::new(state.read_networks()?, state.read_endpoints()?);
        if books.add_predefined(&default_bridge, &mut socket)? {
            state.write_networks(books.networks())?;
        }
        Ok(Self {
            instance: config.instance,
            state,
            books: Mutex::new(books),
            links: Mutex::new(Links { socket, ready: HashMap::new() }),
            firewall,
            watch: Mutex::new(Some(watch)),
            proxy,
            reaper: Reaper::default(),
            sandboxes: SandboxPool::new(config.spare_sandboxes)?,
        })
    }

    /// A network namespace with loopback up and IPv6 off for interfaces added later. It lives as long as a
    /// descriptor of it is open or a process is in it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new_sandbox(&self) -> Result<OwnedFd, NetworkError> {
        Ok(self.sandboxes.take()?)
    }

    /// Makes a namespace that somebody else made what [`Self::new_sandbox`] gives.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prepare_sandbox(&self, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        Ok(sandbox::prepare(netns)?)
    }

    /// Sockets for the name server 127.0.0.11 inside a container's namespace, to which port 53 leads from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resolver_sockets(&self, netns: BorrowedFd<'_>) -> Result<ResolverSockets, NetworkError> {
        Ok(sandbox::resolver_sockets(netns)?)
    }

    /// All networks, predefined ones included.
    pub fn networks(&self) -> Vec<Network> {
        lock(&self.books).networks().cloned().collect()
    }

    /// What the user has to do about other firewalls on the host, which drop what containers send and receive.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.firewall).warnings().to_vec()
    }

    /// A network by full id, name or unique id prefix, in this order.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`] and [`NetworkError::Ambiguous`].
    pub fn network(&self, name: &str) -> Result<Network, NetworkError> {
        lock(&self.books).find(name).cloned()
    }

    /// Endpoints of a network.
    pub fn endpoints(&self, network: &NetworkId) -> Vec<Endpoint> {
        lock(&self.books).endpoints().filter(|endpoint| endpoint.network == *network).cloned().collect()
    }

    /// Endpoints of a container, by interface name.
    pub fn container_endpoints(&self, container_id: &str) -> Vec<Endpoint> {
        let books = lock(&self.books);
        let mut found: Vec<_> =
            books.endpoints().filter(|endpoint| endpoint.container_id == container_id).cloned().collect();
        found.sort_by(|a, b| a.ifname.cmp(&b.ifname));
        found
    }

    /// Stops the helpers. With `remove_all`, also undoes every endpoint, bridge and rule, so that nothing is left
    /// on the host; the records of networks stay, and their bridges come back with the first container.
    ///
    /// # Errors
    /// Everything that could not be undone.
    pub fn shutdown(&self, remove_all: bool) -> Result<(), Vec<NetworkError>> {
        self.sandboxes.stop();
        drop(lock(&self.watch).take());
        let errors = if remove_all { self.remove_all() } else { Vec::new() };
        self.reaper.finish();
        self.proxy.stop();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
