//! Networks: records, bridges, and how a bridge is treated.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use crate::error::NetworkError;
use crate::ipam;
use crate::lock::lock;
use crate::mac::MacAddress;
use crate::netlink::{BridgeLink, RouteSocket};
use crate::nft::{BridgeRule, Change, Doorway};
use crate::sysctl;
use crate::types::{Driver, IpamPool, Network, NetworkId, NetworkSpec, PREDEFINED};

use super::books::Books;
use super::options::{BridgeOptions, Gateway};
use super::sub_links::SubOptions;
use super::{Links, NetworkController};

impl NetworkController {
    /// Makes a network: the record first, then, for the driver `bridge`, the bridge and its rules.
    ///
    /// Options understood: `parent`, `macvlan_mode`, `ipvlan_mode`, `ipvlan_flag`,
    /// `com.docker.network.bridge.{name,enable_icc,enable_ip_masquerade,host_binding_ipv4,gateway_mode_ipv4,gateway_mode_ipv6}` and
    /// `com.docker.network.driver.mtu`; all others are recorded only.
    ///
    /// # Errors
    /// Docker's refusals (see [`NetworkError`]), or the kernel's.
    pub fn create_network(&self, spec: NetworkSpec) -> Result<Network, NetworkError> {
        let network = self.plan_network(spec)?;
        if network.driver != Driver::Bridge {
            return Ok(network);
        }
        if let Err(error) = self.bridge_of(&network) {
            for error in self.unmake_bridge(&network).into_iter().chain(self.strike_off(&network.id)) {
                tracing::warn!(network = %network.name, %error, "while giving up a network that could not be made");
            }
            return Err(error);
        }
        Ok(network)
    }

    /// Checks, chooses and records.
    fn plan_network(&self, spec: NetworkSpec) -> Result<Network, NetworkError> {
        if spec.name.trim().is_empty() {
            return Err(NetworkError::InvalidName("name is empty".into()));
        }
        if PREDEFINED.contains(&spec.name.as_str()) {
            return Err(NetworkError::Predefined(spec.name));
        }
        if spec.config_only {
            return self.record_template(spec);
        }
        let spec = self.filled_in(spec)?;
        let driver = match spec.driver.as_str() {
            "" | "bridge" => Driver::Bridge,
            "macvlan" => Driver::Macvlan,
            "ipvlan" => Driver::Ipvlan,
            "host" | "null" => return Err(NetworkError::SingleInstance(spec.driver)),
            _ => return Err(NetworkError::UnknownDriver(spec.driver)),
        };
        let options = BridgeOptions::of(&spec.options)?;
        options.fit(spec.internal, &spec.options)?;
        let parent = match driver {
            Driver::Bridge => None,
            _ => Some(self.try_parent(driver, &spec)?),
        };
        let mut books = lock(&self.books);
        if books.networks().any(|network| network.name == spec.name) {
            return Err(NetworkError::NameTaken(spec.name));
        }
        let mut links = lock(&self.links);
        let mut ipam = spec.ipam;
        ipam.pools = self.plan_pools(
            driver,
            ipam.pools,
            [spec.enable_ipv4, spec.enable_ipv6],
            &books,
            &mut links.socket,
        )?;
        let id = NetworkId::random();
        if let Some(name) = options.name.as_ref() {
            let ours = books.networks().any(|network| network.bridge == *name);
            if ours || links.socket.link(name)?.is_some() {
                return Err(NetworkError::LinkTaken { name: name.clone() });
            }
        }
        let network = Network {
            name: spec.name,
            driver,
            created: jiff::Timestamp::now(),
            internal: spec.internal,
            attachable: spec.attachable,
            enable_ipv4: spec.enable_ipv4,
            enable_ipv6: spec.enable_ipv6,
            ipam,
            options: spec.options,
            labels: spec.labels,
            config_only: false,
            config_from: spec.config_from,
            bridge: parent.or(options.name).unwrap_or_else(|| format!("br-{}", &id.as_str()[..12])),
            id,
        };
        books.insert_network(network.clone());
        if let Err(error) = self.state.write_networks(books.networks()) {
            books.remove_network(&network.id);
            return Err(error.into());
        }
        Ok(network)
    }

    /// Records a template: what it says is checked when a network is made from it.
    fn record_template(&self, spec: NetworkSpec) -> Result<Network, NetworkError> {
        if !matches!(spec.driver.as_str(), "" | "bridge" | "null") || !spec.config_from.is_empty() {
            return Err(NetworkError::TemplateConflict);
        }
        let mut books = lock(&self.books);
        if books.networks().any(|network| network.name == spec.name) {
            return Err(NetworkError::NameTaken(spec.name));
        }
        let network = Network {
            id: NetworkId::random(),
            name: spec.name,
            driver: Driver::Null,
            created: jiff::Timestamp::now(),
            internal: spec.internal,
            attachable: spec.attachable,
            enable_ipv4: spec.enable_ipv4,
            enable_ipv6: spec.enable_ipv6,
            ipam: spec.ipam,
            options: spec.options,
            labels: spec.labels,
            bridge: String::new(),
            config_only: true,
            config_from: String::new(),
        };
        books.insert_network(network.clone());
        if let Err(error) = self.state.write_networks(books.networks()) {
            books.remove_network(&network.id);
            return Err(error.into());
        }
        Ok(network)
    }

    /// The network as its template says; unchanged if it has none.
    fn filled_in(&self, spec: NetworkSpec) -> Result<NetworkSpec, NetworkError> {
        if spec.config_from.is_empty() {
            return Ok(spec);
        }
        let said = !spec.ipam.pools.is_empty()
            || spec.internal
            || !spec.enable_ipv4
            || spec.enable_ipv6
            || !spec.options.is_empty()
            || !spec.labels.is_empty();
        if said {
            return Err(NetworkError::TemplateConflict);
        }
        let books = lock(&self.books);
        let template = books.find(&spec.config_from)?;
        if !template.config_only {
            return Err(NetworkError::NoTemplate(spec.config_from));
        }
        Ok(NetworkSpec {
            ipam: template.ipam.clone(),
            internal: template.internal,
            enable_ipv4: template.enable_ipv4,
            enable_ipv6: template.enable_ipv6,
            options: template.options.clone(),
            labels: template.labels.clone(),
            config_from: template.name.clone(),
            ..spec
        })
    }

    /// The pools of a new network: those asked for, checked, and those that are missing.
    fn plan_pools(
        &self,
        driver: Driver,
        mut pools: Vec<IpamPool>,
        [ipv4, ipv6]: [bool; 2],
        books: &Books,
        host: &mut RouteSocket,
    ) -> Result<Vec<IpamPool>, NetworkError> {
        let families = |six: bool| pools.iter().filter(|pool| pool.subnet.is_ipv6() == six).count();
        if families(false) > 1 || families(true) > 1 {
            return Err(NetworkError::InvalidPool("a network takes one IPv4 and one IPv6 subnet".into()));
        }
        if !ipv4 && !ipv6 {
            return Err(NetworkError::InvalidPool("IPv4 or IPv6 must be enabled".into()));
        }
        if families(false) > 0 && !ipv4 {
            let why = "an IPv4 subnet needs a network with IPv4 (leave out --ipv4=false)";
            return Err(NetworkError::InvalidPool(why.into()));
        }
        if families(true) > 0 && !ipv6 {
            let why = "an IPv6 subnet needs a network with IPv6 (--ipv6)";
            return Err(NetworkError::InvalidPool(why.into()));
        }
        let (no_ipv4, no_ipv6) = (ipv4 && families(false) == 0, ipv6 && families(true) == 0);
        for pool in &pools {
            let mut taken = books.taken(host, true)?;
            if driver != Driver::Bridge {
                // The subnet is that of the parent's network, where the host has its routes.
                taken.retain(|taken| !taken.is_route);
            }
            ipam::check_free(pool.subnet, &taken)?;
        }
        let chosen = |subnet| IpamPool {
            subnet,
            ip_range: None,
            gateway: None,
            aux_addresses: BTreeMap::new(),
            asked_for: false,
        };
        if no_ipv4 {
            pools.insert(0, chosen(ipam::choose_subnet(&books.taken(host, false)?)?));
        }
        if no_ipv6 {
            pools.push(chosen(ipam::choose_ipv6_subnet(&self.instance, &books.taken(host, false)?)?));
        }
        pools.into_iter().map(ipam::complete).collect()
    }

    /// Whether links can be made on the parent that the network names: one is made and goes with its namespace.
    fn try_parent(&self, driver: Driver, spec: &NetworkSpec) -> Result<String, NetworkError> {
        let options = SubOptions::of(driver, &spec.options)?;
        let netns = self.sandboxes.take()?;
        options.plug(&mut lock(&self.links).socket, &spec.name, netns.as_fd(), "probe", None)?;
        Ok(options.parent)
    }

    /// Removes a network without endpoints, named as in [`Self::network`]; returns what it was.
    ///
    /// # Errors
    /// Docker's refusals, or the first thing that could not be undone: the record then stays.
    pub fn remove_network(&self, name: &str) -> Result<Network, NetworkError> {
        let network = {
            let mut books = lock(&self.books);
            let network = books.find(name)?.clone();
            if network.is_predefined() {
                return Err(NetworkError::PredefinedRemoval(network.name));
            }
            if let Some(user) = books.networks().find(|other| other.config_from == network.name) {
                return Err(NetworkError::TemplateInUse { template: network.name, user: user.name.clone() });
            }
            let active: Vec<_> = books
                .endpoints()
                .filter(|endpoint| endpoint.network == network.id)
                .map(|e| format!("name:{:?} id:{:?}", e.container_name, e.id.get(..12).unwrap_or(&e.id)))
                .collect();
            if !active.is_empty() {
                return Err(NetworkError::ActiveEndpoints {
                    network: network.name,
                    endpoints: active.join(", "),
                });
            }
            // Out of the books before the locks are let go: nobody can join it from here on.
            books.remove_network(&network.id);
            network
        };
        let mut errors = self.unmake_bridge(&network);
        if errors.is_empty() {
            errors.extend(self.strike_off(&network.id));
        }
        match errors.into_iter().next() {
            None => Ok(network),
            Some(error) => {
                lock(&self.books).insert_network(network);
                Err(error)
            }
        }
    }

    fn strike_off(&self, id: &NetworkId) -> Option<NetworkError> {
        let mut books = lock(&self.books);
        books.remove_network(id);
        self.state.write_networks(books.networks()).err().map(NetworkError::from)
    }

    /// The link index of the network's bridge, which is up, addressed and ruled when this returns.
    pub(super) fn bridge_of(&self, network: &Network) -> Result<u32, NetworkError> {
        let mut links = lock(&self.links);
        if let Some(index) = links.ready.get(&network.id) {
            return Ok(*index);
        }
        let index = make_bridge(&mut links, network)?;
        lock(&self.firewall).apply(&Change::AddBridge(network.bridge.clone(), bridge_rule(network)?))?;
        links.ready.insert(network.id.clone(), index);
        Ok(index)
    }

    /// Forgets that the bridge was seen, for a caller who found it gone.
    pub(super) fn bridge_vanished(&self, network: &Network) {
        lock(&self.links).ready.remove(&network.id);
    }

    /// Takes bridge and rules away; what is not there is fine.
    pub(super) fn unmake_bridge(&self, network: &Network) -> Vec<NetworkError> {
        if network.driver != Driver::Bridge {
            return Vec::new();
        }
        let mut links = lock(&self.links);
        links.ready.remove(&network.id);
        let unruled = lock(&self.firewall).apply(&Change::RemoveBridge(network.bridge.clone()));
        let unlinked = match links.socket.link(&network.bridge) {
            Ok(Some(link)) if link.is_bridge => links.socket.delete_link(&network.bridge),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        unruled.err().into_iter().chain(unlinked.err().map(NetworkError::from)).collect()
    }
}

/// How the network's bridge is treated.
pub(super) fn bridge_rule(network: &Network) -> Result<BridgeRule, NetworkError> {
    let options = BridgeOptions::of(&network.options)?;
    let doorway = |ipv6| {
        let gateway = options.gateway(ipv6);
        Doorway {
            masquerade: options.masquerade && gateway != Gateway::Routed,
            unprotected: gateway == Gateway::NatUnprotected && !network.internal,
        }
    };
    let (ipv4, ipv6) = (doorway(false), doorway(true));
    Ok(BridgeRule { internal: network.internal, ipv4, ipv6, talk: options.talk })
}

/// Makes the bridge, or takes up the one that an earlier run left, and sets what the kernel needs for it.
fn make_bridge(links: &mut Links, network: &Network) -> Result<u32, NetworkError> {
    let name = &network.bridge;
    let options = BridgeOptions::of(&network.options)?;
    let pools = network.ipam.pools.iter();
    let mut addresses: Vec<_> = pools.filter_map(|pool| Some((pool.gateway?, pool.subnet))).collect();
    if addresses.is_empty() {
        return Err(NetworkError::NoEndpoints(network.name.clone(), network.driver));
    }
    let link = match links.socket.link(name)? {
        Some(link) if link.is_bridge => link,
        Some(_) => return Err(NetworkError::LinkTaken { name: name.clone() }),
        None => {
            links.socket.create_bridge(&BridgeLink { name, mac: MacAddress::random(), mtu: options.mtu })?;
            links.socket.link(name)?.ok_or_else(|| NetworkError::LinkTaken { name: name.clone() })?
        }
    };
    if network.enable_ipv6 {
        sysctl::ensure(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        // Containers are no routers to believe (CVE-2020-13401).
        sysctl::ensure(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        // The host asks for neighbours under the bridge's link-local address, and would wait a second for it to be its own:
        // the first packets from outside would be lost.
        sysctl::ensure(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        sysctl::forward_ipv6()?;
    }
    addresses.retain(|(address, _)| options.gateway(address.is_ipv6()) != Gateway::Isolated);
    links.socket.configure(&link, &addresses, &[])?;
    if network.enable_ipv4 {
        sysctl::ensure("ipv4/ip_forward", "1")?;
        // Answers to connections from 127.0.0.1 come back through the bridge; the guard chain drops all else.
        sysctl::ensure(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    }
    Ok(link.index)
}
