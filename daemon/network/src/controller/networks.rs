//! Networks: records, bridges, and how a bridge is treated.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use crate::error::NetworkError;
use crate::ipam;
use crate::lock::lock;
use crate::mac::MacAddress;
use crate::netlink::{BridgeLink, RouteSocket};
use crate::nft::{BridgeRule, Change};
use crate::sysctl;
use crate::types::{Driver, IpamPool, Network, NetworkId, NetworkSpec, PREDEFINED};

use super::books::Books;
use super::sub_links::SubOptions;
use super::{Links, NetworkController};

const NAME: &str = "com.docker.network.bridge.name";
const TALK: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const MTU: &str = "com.docker.network.driver.mtu";
const DEFAULT_MTU: u32 = 1500;

/// The options of a bridge network that mean something to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    pub(super) name: Option<String>,
    pub(super) talk: bool,
    pub(super) masquerade: bool,
    /// Default host address of published ports; `None`: all.
    pub(super) host_binding: Option<IpAddr>,
    pub(super) mtu: u32,
}

impl BridgeOptions {
    /// Reads them; options that nobody here knows are left alone.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Result<Self, NetworkError> {
        let invalid = |option: &str, reason: &str| {
            let value = options.get(option).cloned().unwrap_or_default();
            NetworkError::InvalidOption { option: option.to_owned(), value, reason: reason.to_owned() }
        };
        let flag = |option: &str| match options.get(option).map(String::as_str) {
            None => Ok(true),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(invalid(option, "true or false is expected")),
        };
        let mtu = match options.get(MTU).map(|text| text.parse::<u32>()) {
            None => DEFAULT_MTU,
            Some(Ok(0)) => DEFAULT_MTU,
            Some(Ok(mtu @ 68..=65535)) => mtu,
            Some(_) => return Err(invalid(MTU, "a number from 68 to 65535 is expected")),
        };
        let host_binding = match options.get(HOST_BINDING).map(|text| text.parse::<IpAddr>()) {
            None => None,
            Some(Ok(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
            Some(Err(_)) => return Err(invalid(HOST_BINDING, "an IP address is expected")),
        };
        let name = options.get(NAME).filter(|name| !name.is_empty()).cloned();
        if name.as_deref().is_some_and(|name| !is_link_name(name)) {
            return Err(invalid(NAME, "a link name has at most 15 characters, no slash and no blank"));
        }
        Ok(Self { name, talk: flag(TALK)?, masquerade: flag(MASQUERADE)?, host_binding, mtu })
    }

    /// What Docker's inspect shows for the default bridge.
    pub(super) fn of_default_bridge(name: &str) -> BTreeMap<String, String> {
        let mtu = DEFAULT_MTU.to_string();
        [
            (DEFAULT_BRIDGE, "true"),
            (TALK, "true"),
            (MASQUERADE, "true"),
            (HOST_BINDING, "0.0.0.0"),
            (NAME, name),
            (MTU, &mtu),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}

/// The kernel's rule, `dev_valid_name()`.
fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
}

impl NetworkController {
    /// Makes a network: the record first, then, for the driver `bridge`, the bridge and its rules.
    ///
    /// Options understood: `parent`, `macvlan_mode`, `ipvlan_mode`, `com.docker.network.bridge.{name,enable_icc,enable_ip_masquerade,host_binding_ipv4}` and
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
        let driver = match spec.driver.as_str() {
            "" | "bridge" => Driver::Bridge,
            "macvlan" => Driver::Macvlan,
            "ipvlan" => Driver::Ipvlan,
            "host" | "null" => return Err(NetworkError::SingleInstance(spec.driver)),
            _ => return Err(NetworkError::UnknownDriver(spec.driver)),
        };
        let options = BridgeOptions::of(&spec.options)?;
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
        ipam.pools = self.plan_pools(driver, ipam.pools, spec.enable_ipv6, &books, &mut links.socket)?;
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
            enable_ipv6: spec.enable_ipv6,
            ipam,
            options: spec.options,
            labels: spec.labels,
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

    /// The pools of a new network: those asked for, checked, and those that are missing.
    fn plan_pools(
        &self,
        driver: Driver,
        mut pools: Vec<IpamPool>,
        ipv6: bool,
        books: &Books,
        host: &mut RouteSocket,
    ) -> Result<Vec<IpamPool>, NetworkError> {
        let families = |six: bool| pools.iter().filter(|pool| pool.subnet.is_ipv6() == six).count();
        if families(false) > 1 || families(true) > 1 {
            return Err(NetworkError::InvalidPool("a network takes one IPv4 and one IPv6 subnet".into()));
        }
        if families(true) > 0 && !ipv6 {
            let why = "an IPv6 subnet needs a network with IPv6 (--ipv6)";
            return Err(NetworkError::InvalidPool(why.into()));
        }
        let (no_ipv4, no_ipv6) = (families(false) == 0, ipv6 && families(true) == 0);
        for pool in &pools {
            let mut taken = books.taken(host, true)?;
            if driver != Driver::Bridge {
                // The subnet is that of the parent's network, where the host has its routes.
                taken.retain(|taken| !taken.is_route);
            }
            ipam::check_free(pool.subnet, &taken)?;
        }
        let chosen =
            |subnet| IpamPool { subnet, ip_range: None, gateway: None, aux_addresses: BTreeMap::new() };
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
    Ok(BridgeRule { internal: network.internal, masquerade: options.masquerade, talk: options.talk })
}

/// Makes the bridge, or takes up the one that an earlier run left, and sets what the kernel needs for it.
fn make_bridge(links: &mut Links, network: &Network) -> Result<u32, NetworkError> {
    let name = &network.bridge;
    let options = BridgeOptions::of(&network.options)?;
    let missing = || NetworkError::NoEndpoints(network.name.clone(), network.driver);
    let pool = network.pool().ok_or_else(missing)?;
    let gateway = pool.gateway.ok_or_else(missing)?;
    let link = match links.socket.link(name)? {
        Some(link) if link.is_bridge => link,
        Some(_) => return Err(NetworkError::LinkTaken { name: name.clone() }),
        None => {
            links.socket.create_bridge(&BridgeLink { name, mac: MacAddress::random(), mtu: options.mtu })?;
            links.socket.link(name)?.ok_or_else(|| NetworkError::LinkTaken { name: name.clone() })?
        }
    };
    let mut addresses = vec![(gateway, pool.subnet)];
    if network.enable_ipv6
        && let Some(pool) = network.ipv6_pool()
        && let Some(gateway) = pool.gateway
    {
        addresses.push((gateway, pool.subnet));
        sysctl::ensure(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        // Containers are no routers to believe (CVE-2020-13401).
        sysctl::ensure(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        sysctl::forward_ipv6()?;
    }
    links.socket.configure(&link, &addresses, &[])?;
    sysctl::ensure("ipv4/ip_forward", "1")?;
    // Answers to connections from 127.0.0.1 come back through the bridge; the guard chain drops all else.
    sysctl::ensure(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    Ok(link.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<BridgeOptions, NetworkError> {
        BridgeOptions::of(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn docker_s_defaults() {
        let expected =
            BridgeOptions { name: None, talk: true, masquerade: true, host_binding: None, mtu: 1500 };
        assert_eq!(options(&[]).unwrap(), expected);
        let of_default = BridgeOptions::of(&BridgeOptions::of_default_bridge("berth0")).unwrap();
        assert_eq!(of_default, BridgeOptions { name: Some("berth0".into()), ..expected });
    }

    #[test]
    fn nonsense_is_named() {
        for (option, value) in [
            (TALK, "maybe"),
            (MTU, "12"),
            (MTU, "x"),
            (NAME, "a/b"),
            (NAME, "0123456789abcdef"),
            (HOST_BINDING, "here"),
        ] {
            let error = options(&[(option, value)]).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
    }
}
