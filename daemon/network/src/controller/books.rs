//! The books: networks, endpoints, leases and held ports, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::error::NetworkError;
use crate::ipam::{self, Taken};
use crate::mac::MacAddress;
use crate::netlink::RouteSocket;
use crate::ports::{HeldPort, PortAllocator};
use crate::proxy::Token;
use crate::types::{
    Driver, Endpoint, EndpointRequest, IpamConfig, IpamPool, Network, NetworkId, PREDEFINED, PublishedPort,
    random_id,
};

use super::options::{BridgeOptions, Gateway};
use super::sub_links::SubOptions;

/// What keeps a published port ours.
#[derive(Debug)]
pub(super) enum Hold {
    /// A socket served by the relay.
    Relayed(Token),
    /// A bound UDP socket.
    Bound(#[expect(dead_code, reason = "held, not used")] UdpSocket),
}

#[derive(Debug)]
struct Joined {
    endpoint: Endpoint,
    holds: Vec<Hold>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Books {
    networks: BTreeMap<NetworkId, Network>,
    joined: BTreeMap<String, Joined>,
    /// By network and whether it is IPv6.
    last_address: HashMap<(NetworkId, bool), IpAddr>,
    allocator: PortAllocator,
}

impl Books {
    pub(super) fn new(networks: Vec<Network>, endpoints: Vec<Endpoint>) -> Self {
        let joined = |endpoint: Endpoint| (endpoint.id.clone(), Joined { endpoint, holds: Vec::new() });
        Self {
            networks: networks.into_iter().map(|network| (network.id.clone(), network)).collect(),
            joined: endpoints.into_iter().map(joined).collect(),
            last_address: HashMap::new(),
            allocator: PortAllocator::default(),
        }
    }

    /// Adds `bridge`, `host` and `none` where they are missing; `true` when something was.
    pub(super) fn add_predefined(
        &mut self,
        default_bridge: &str,
        host: &mut RouteSocket,
    ) -> Result<bool, NetworkError> {
        let mut added = false;
        for (name, driver) in PREDEFINED.into_iter().zip([Driver::Bridge, Driver::Host, Driver::Null]) {
            if self.networks.values().any(|network| network.name == name) {
                continue;
            }
            let (mut ipam, mut bridge, mut options) = (IpamConfig::default(), String::new(), BTreeMap::new());
            if driver == Driver::Bridge {
                let subnet = ipam::choose_subnet(&self.taken(host, false)?)?;
                let pool = IpamPool {
                    subnet,
                    ip_range: None,
                    gateway: None,
                    aux_addresses: BTreeMap::new(),
                    asked_for: false,
                };
                ipam.pools.push(ipam::complete(pool)?);
                default_bridge.clone_into(&mut bridge);
                options = BridgeOptions::of_default_bridge(default_bridge);
            }
            self.insert_network(Network {
                id: NetworkId::random(),
                name: name.to_owned(),
                driver,
                created: jiff::Timestamp::now(),
                internal: false,
                attachable: false,
                enable_ipv4: true,
                enable_ipv6: false,
                ipam,
                options,
                labels: BTreeMap::new(),
                bridge,
                config_only: false,
                config_from: String::new(),
            });
            added = true;
        }
        Ok(added)
    }

    /// Subnets in use: by our networks, and by routes of the host. For a subnet that the user names, only routes
    /// count which a network there would really break: attached networks, and parts of the subnet; one behind a
    /// wide route (10.0.0.0/8 through a VPN) is the user's choice.
    pub(super) fn taken(
        &self,
        host: &mut RouteSocket,
        for_named_subnet: bool,
    ) -> Result<Vec<Taken>, NetworkError> {
        let mut taken: Vec<Taken> = self
            .networks
            .values()
            // A template has no addresses, it only names them.
            .filter(|network| !network.config_only)
            .flat_map(|network| network.ipam.pools.iter().map(move |pool| (network, pool)))
            .map(|(network, pool)| Taken {
                subnet: pool.subnet,
                by: format!("network {}", network.name),
                is_route: false,
            })
            .collect();
        for route in host.routes()? {
            if for_named_subnet && !route.attached {
                continue;
            }
            let link = nix::net::if_::if_indextoname(route.interface).map_or_else(
                |_| format!("link {}", route.interface),
                |name| name.to_string_lossy().into_owned(),
            );
            // Bridges of our own stand in the list as networks already.
            if self.networks.values().any(|n| n.driver == Driver::Bridge && n.bridge == link) {
                continue;
            }
            let by = format!("route of this host on {link}");
            taken.push(Taken { subnet: route.subnet, by, is_route: true });
        }
        Ok(taken)
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    pub(super) fn find(&self, name: &str) -> Result<&Network, NetworkError> {
        let by_name = || self.networks.values().find(|network| network.name == name);
        if let Some(network) = self.networks.values().find(|n| n.id.as_str() == name).or_else(by_name) {
            return Ok(network);
        }
        let mut matching = self
            .networks
            .values()
            .filter(|network| !name.is_empty() && network.id.as_str().starts_with(name));
        match (matching.next(), matching.next()) {
            (Some(network), None) => Ok(network),
            (None, _) => Err(NetworkError::NotFound(name.to_owned())),
            (Some(_), Some(_)) => Err(NetworkError::Ambiguous(name.to_owned())),
        }
    }

    pub(super) fn network(&self, id: &NetworkId) -> Result<&Network, NetworkError> {
        self.networks.get(id).ok_or_else(|| NetworkError::NotFound(id.to_string()))
    }

    pub(super) fn insert_network(&mut self, network: Network) {
        self.networks.insert(network.id.clone(), network);
    }

    pub(super) fn remove_network(&mut self, id: &NetworkId) {
        self.networks.remove(id);
        self.last_address.retain(|(network, _), _| network != id);
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.joined.values().map(|joined| &joined.endpoint)
    }

    pub(super) fn endpoint_of(&self, container_id: &str, network: &NetworkId) -> Option<&Endpoint> {
        self.endpoints().find(|e| e.container_id == container_id && e.network == *network)
    }

    /// Chooses everything for a new endpoint and enters it; the ports are held when this returns.
    pub(super) fn promise(
        &mut self,
        network: &Network,
        request: EndpointRequest,
    ) -> Result<(Endpoint, Vec<HeldPort>), NetworkError> {
        if self.network(&network.id)?.config_only {
            return Err(NetworkError::Template(network.name.clone()));
        }
        if self.endpoint_of(&request.container_id, &network.id).is_some() {
            return Err(NetworkError::AlreadyAttached {
                container: request.container_name,
                network: network.name.clone(),
            });
        }
        if let Some(mac) = request.mac.filter(|mac| !mac.is_unicast()) {
            return Err(NetworkError::InvalidMac(mac));
        }
        let ipv4 = self.lease_of(network, network.pool(), request.ipv4.map(IpAddr::V4))?;
        let ipv6 = self.lease_of(network, network.ipv6_pool(), request.ipv6.map(IpAddr::V6))?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(NetworkError::NoEndpoints(network.name.clone(), network.driver));
        }
        if let Some(address) = request.link_local.iter().find(|address| !is_link_local(**address)) {
            return Err(NetworkError::NotLinkLocal(*address));
        }
        let id = random_id();
        let held = self.hold_ports(network, &request, &id)?;
        let siblings = || self.endpoints().filter(|e| e.container_id == request.container_id);
        let free_name = || {
            let names: BTreeSet<&str> = siblings().map(|e| e.ifname.as_str()).collect();
            (0..).map(|n| format!("eth{n}")).find(|name| !names.contains(name.as_str()))
        };
        let direct = has_no_gateways(network)?;
        let gateway = |lease: Option<(IpAddr, &IpamPool)>| {
            lease.and_then(|(_, pool)| pool.gateway).filter(|_| !network.internal && !direct)
        };
        let mut endpoint = Endpoint {
            host_ifname: match network.driver {
                Driver::Bridge => format!("veth{}", &id[..8]),
                _ => String::new(),
            },
            network: network.id.clone(),
            network_name: network.name.clone(),
            ifname: request.ifname.clone().or_else(free_name).unwrap_or_default(),
            default_route: false,
            default_ipv6_route: false,
            container_id: request.container_id.clone(),
            container_name: request.container_name,
            ipv4: ipv4.and_then(|(address, _)| v4(address)),
            prefix_len: ipv4.map_or(0, |(_, pool)| pool.subnet.prefix_len()),
            gateway: gateway(ipv4).and_then(v4),
            direct: direct && !network.internal,
            mac: request.mac.unwrap_or_else(MacAddress::random),
            ipv6: ipv6.and_then(|(address, pool)| Some((v6(address)?, pool.subnet.prefix_len()))),
            ipv6_gateway: gateway(ipv6).and_then(v6),
            link_local: request.link_local,
            hairpin: request.hairpin || !held.is_empty(),
            aliases: request.aliases,
            ports: held.iter().map(|h| h.port).collect(),
            id,
        };
        let leads = |ipv6| !request.no_default_route && endpoint.way_out(ipv6).is_some();
        let routes = (
            leads(false) && !siblings().any(|s| s.default_route),
            leads(true) && !siblings().any(|s| s.default_ipv6_route),
        );
        (endpoint.default_route, endpoint.default_ipv6_route) = routes;
        for address in endpoint.addresses() {
            self.last_address.insert((network.id.clone(), address.is_ipv6()), address);
        }
        self.joined.insert(endpoint.id.clone(), Joined { endpoint: endpoint.clone(), holds: Vec::new() });
        Ok((endpoint, held))
    }

    /// Holds the ports that an endpoint publishes.
    fn hold_ports(
        &mut self,
        network: &Network,
        request: &EndpointRequest,
        endpoint: &str,
    ) -> Result<Vec<HeldPort>, NetworkError> {
        let taken: Vec<PublishedPort> = self.endpoints().flat_map(|e| e.ports.iter().copied()).collect();
        let options = BridgeOptions::of(&network.options)?;
        let default_ip = options.host_binding;
        // Links of one's own have addresses that others reach: there is nothing to publish.
        let ports = if network.driver == Driver::Bridge { &request.ports[..] } else { &[] };
        let routed = |ipv6| options.gateway(ipv6) == Gateway::Routed;
        self.allocator.reserve(ports, default_ip, &taken, routed).map_err(|source| NetworkError::Publish {
            container: request.container_name.clone(),
            endpoint: endpoint.to_owned(),
            source: Box::new(source),
        })
    }

    /// An address of a family, if the network has it.
    fn lease_of<'n>(
        &self,
        network: &Network,
        pool: Option<&'n IpamPool>,
        wanted: Option<IpAddr>,
    ) -> Result<Option<(IpAddr, &'n IpamPool)>, NetworkError> {
        if let Some(address) = wanted {
            network.check_address(address)?;
        }
        pool.map(|pool| Ok((self.lease(network, pool, wanted)?, pool))).transpose()
    }

    fn lease(
        &self,
        network: &Network,
        pool: &IpamPool,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, NetworkError> {
        let members = self.endpoints().filter(|e| e.network == network.id);
        let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
        for member in members {
            let owner = format!("container {}", member.container_name);
            owners.extend(member.addresses().map(|address| (address, owner.clone())));
        }
        owners.extend(pool.aux_addresses.iter().map(|(name, a)| (*a, format!("auxiliary address {name}"))));
        owners.extend(pool.gateway.map(|gateway| (gateway, "the gateway".to_owned())));
        if let Some(address) = wanted {
            return match owners.remove(&address) {
                None => Ok(address),
                Some(owner) => {
                    Err(NetworkError::AddressInUse { address, network: network.name.clone(), owner })
                }
            };
        }
        let used: BTreeSet<IpAddr> = owners.into_keys().collect();
        let last = self.last_address.get(&(network.id.clone(), pool.subnet.is_ipv6())).copied();
        ipam::next_address(pool, &used, last).ok_or_else(|| NetworkError::AddressesExhausted {
            network: network.name.clone(),
            pool: pool.ip_range.unwrap_or(pool.subnet),
            leases: used.iter().filter(|address| pool.subnet.contains(**address)).count(),
        })
    }

    /// Decides which of a container's networks is its way out, in this order of preference; the endpoints that lead
    /// out now are returned first, then those that did and do not any more.
    pub(super) fn choose_way_out(&mut self, container_id: &str, order: &[NetworkId]) -> Vec<Endpoint> {
        let place = |endpoint: &Endpoint| order.iter().position(|id| *id == endpoint.network);
        let best = |leads: &dyn Fn(&Endpoint) -> bool| {
            let members = self.endpoints().filter(|e| e.container_id == container_id && leads(e));
            members.min_by_key(|e| (place(e).is_none(), place(e))).map(|e| e.id.clone())
        };
        let v4 = best(&|e| e.way_out(false).is_some());
        let v6 = best(&|e| e.way_out(true).is_some());
        let mut changed = Vec::new();
        for joined in self.joined.values_mut().filter(|j| j.endpoint.container_id == container_id) {
            let endpoint = &mut joined.endpoint;
            let leads = (v4.as_ref() == Some(&endpoint.id), v6.as_ref() == Some(&endpoint.id));
            if leads != (endpoint.default_route, endpoint.default_ipv6_route) {
                (endpoint.default_route, endpoint.default_ipv6_route) = leads;
                changed.push(endpoint.clone());
            }
        }
        changed.sort_by_key(|endpoint| !(endpoint.default_route || endpoint.default_ipv6_route));
        changed
    }

    /// Keeps what holds the endpoint's ports.
    pub(super) fn keep(&mut self, endpoint_id: &str, holds: Vec<Hold>) {
        if let Some(joined) = self.joined.get_mut(endpoint_id) {
            joined.holds.extend(holds);
        }
    }

    /// Takes what holds the endpoint's ports; the lease stays.
    pub(super) fn take_holds(&mut self, endpoint_id: &str) -> Vec<Hold> {
        self.joined.get_mut(endpoint_id).map(|joined| std::mem::take(&mut joined.holds)).unwrap_or_default()
    }

    /// Strikes the endpoint off.
    pub(super) fn remove_endpoint(&mut self, endpoint_id: &str) {
        self.joined.remove(endpoint_id);
    }
}

/// Whether the links of a network find everybody by themselves.
fn has_no_gateways(network: &Network) -> Result<bool, NetworkError> {
    Ok(network.driver == Driver::Ipvlan && SubOptions::of(network.driver, &network.options)?.routes())
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
