//! Endpoints: a container's way into a network and out again.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::error::NetworkError;
use crate::lock::lock;
use crate::netlink::{Link, NetlinkError, PortFlags, RouteSocket, VethLink};
use crate::nft::{self, Change, Flows, PortRule};
use crate::ports::{self, HeldPort, HeldSocket};
use crate::sandbox;
use crate::subnet::Subnet;
use crate::types::{
    Driver, Endpoint, EndpointRequest, IFNAME_PLACEHOLDER, Network, NetworkId, Protocol, PublishedPort,
};

use super::NetworkController;
use super::books::Hold;
use super::options::BridgeOptions;
use super::sub_links::SubOptions;

/// Whether a caller waits for a link's deletion.
#[derive(Clone, Copy)]
pub(super) enum Unplug<'a> {
    /// It does; the namespace, where it lives.
    Now(Option<BorrowedFd<'a>>),
    Soon,
}

impl NetworkController {
    /// Joins the namespace to a bridge network. When this returns, the interface is up inside with its address and
    /// route, and published ports answer. When it fails, nothing of it is left.
    ///
    /// # Errors
    /// [`NetworkError::Publish`] around port conflicts, address conflicts, or the kernel's refusals.
    pub fn attach(
        &self,
        netns: BorrowedFd<'_>,
        network: &NetworkId,
        request: EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let sysctls = request.sysctls.clone();
        let (network, endpoint, held) = {
            let mut books = lock(&self.books);
            let network = books.network(network)?.clone();
            if matches!(network.driver, Driver::Host | Driver::Null) && !network.config_only {
                return Err(NetworkError::NoEndpoints(network.name, network.driver));
            }
            let (endpoint, held) = books.promise(&network, request)?;
            (network, endpoint, held)
        };
        let done = self.state.write_endpoint(&endpoint).map_err(NetworkError::from);
        match done.and_then(|()| self.fulfil(netns, &network, &endpoint, &sysctls, held)) {
            Ok(()) => Ok(endpoint),
            Err(error) => {
                for undo in self.release(&endpoint, Unplug::Now(Some(netns))) {
                    tracing::warn!(endpoint = %endpoint.id, error = %undo, "while giving up an endpoint");
                }
                Err(error)
            }
        }
    }

    fn fulfil(
        &self,
        netns: BorrowedFd<'_>,
        network: &Network,
        endpoint: &Endpoint,
        sysctls: &[(String, String)],
        held: Vec<HeldPort>,
    ) -> Result<(), NetworkError> {
        if network.driver == Driver::Bridge {
            self.plug(netns, network, endpoint)?;
        } else {
            self.plug_sub_link(netns, network, endpoint)?;
        }
        let mut settings = ipv6_settings(network, endpoint);
        let named = |name: &str| name.replace(IFNAME_PLACEHOLDER, &endpoint.ifname);
        settings.extend(sysctls.iter().map(|(name, value)| (named(name), value.clone())));
        let mut inside = sandbox::configured_socket(netns, &settings)?;
        let link = inside_link(&mut inside, endpoint)?;
        inside.configure(&link, &addresses(endpoint), &endpoint.ways_out())?;
        if network.driver == Driver::Bridge {
            lock(&self.links).socket.settle(&[&endpoint.host_ifname, &network.bridge])?;
        }
        if endpoint.ipv6.is_some() {
            // IPv6 begins on a link, with its routes and groups, when the link is seen to be operational.
            inside.settle(&[&endpoint.ifname])?;
        }
        self.publish(endpoint, held)
    }

    /// Makes the link on top of the network's parent.
    fn plug_sub_link(
        &self,
        netns: BorrowedFd<'_>,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        let options = SubOptions::of(network.driver, &network.options)?;
        let mut links = lock(&self.links);
        options.plug(&mut links.socket, &network.name, netns, &endpoint.ifname, Some(endpoint.mac))
    }

    /// Leads a running container's default routes through the first of these networks that has a gateway of the
    /// family; networks that are not named come last.
    ///
    /// # Errors
    /// When the kernel refuses, or the record cannot be written.
    pub fn choose_way_out(
        &self,
        netns: BorrowedFd<'_>,
        container_id: &str,
        order: &[NetworkId],
    ) -> Result<(), NetworkError> {
        let changed = lock(&self.books).choose_way_out(container_id, order);
        if changed.is_empty() {
            return Ok(());
        }
        let mut inside = sandbox::route_socket(netns)?;
        for endpoint in &changed {
            self.state.write_endpoint(endpoint)?;
            let link = inside_link(&mut inside, endpoint)?;
            for way in endpoint.ways_out() {
                inside.reroute(&link, way)?;
            }
        }
        Ok(())
    }

    /// Whether an endpoint's link is there inside; so it is taken to be when nobody can tell.
    pub fn is_plugged(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> bool {
        let link = sandbox::route_socket(netns).map(|mut inside| inside.link(&endpoint.ifname));
        !matches!(link, Ok(Ok(None)))
    }

    /// Makes the veth pair; a bridge that somebody deleted meanwhile is made again.
    fn plug(
        &self,
        netns: BorrowedFd<'_>,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        let options = BridgeOptions::of(&network.options)?;
        let plug = |bridge| {
            let veth = VethLink {
                host_name: &endpoint.host_ifname,
                bridge,
                netns,
                inner_name: &endpoint.ifname,
                mac: endpoint.mac,
                mtu: options.mtu,
            };
            let flags = PortFlags { isolated: !options.talk, hairpin: endpoint.hairpin };
            lock(&self.links).socket.create_veth(&veth, flags)
        };
        match plug(self.bridge_of(network)?) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.errno(), Errno::ENODEV | Errno::EINVAL) => {
                self.bridge_vanished(network);
                Ok(plug(self.bridge_of(network)?)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts rules in force and sockets into the relay's care.
    pub(super) fn publish(&self, endpoint: &Endpoint, held: Vec<HeldPort>) -> Result<(), NetworkError> {
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        lock(&self.firewall).apply(&Change::AddPorts(port_rules(endpoint)))?;
        forget_flows(endpoint, sent_before);
        let mut holds = Vec::with_capacity(held.len());
        for HeldPort { port, socket } in held {
            let Some(address) = endpoint.addresses().next() else { continue };
            let target = SocketAddr::new(address, port.container_port);
            holds.push(match socket {
                // Over IPv4 the kernel translates; what arrives here is nothing that could be relayed better.
                HeldSocket::Udp(socket) if port.host_ip.is_ipv4() && address.is_ipv4() => Hold::Bound(socket),
                HeldSocket::Udp(socket) => {
                    Hold::Relayed(self.proxy.serve_udp(socket, target).map_err(NetworkError::Relay)?)
                }
                HeldSocket::Tcp(listener) => {
                    Hold::Relayed(self.proxy.serve(listener, target).map_err(NetworkError::Relay)?)
                }
                HeldSocket::None => continue,
            });
        }
        lock(&self.books).keep(&endpoint.id, holds);
        Ok(())
    }

    /// Takes a container out of a network, running or not: frees address, ports, rules and link. The interface is
    /// gone when this returns, which takes tens of milliseconds; the namespace may be gone already, and needs to be
    /// given only for links that have no end on the host (macvlan, ipvlan).
    ///
    /// # Errors
    /// [`NetworkError::NotAttached`] alone, or everything that could not be undone; the endpoint is gone from the
    /// books all the same.
    pub fn detach(
        &self,
        container_id: &str,
        network: &NetworkId,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), Vec<NetworkError>> {
        let endpoint = lock(&self.books).endpoint_of(container_id, network).cloned();
        let Some(endpoint) = endpoint else {
            let network = self.network(network.as_str()).map_or_else(|_| network.to_string(), |n| n.name);
            return Err(vec![NetworkError::NotAttached { container: container_id.to_owned(), network }]);
        };
        let errors = self.release(&endpoint, Unplug::Now(netns));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Takes an ended container out of all its networks; that there are none is no error. Addresses and ports are
    /// free when this returns; what may still exist of the links passes no packets and goes in the background.
    ///
    /// # Errors
    /// Everything that could not be undone.
    pub fn detach_all(&self, container_id: &str) -> Result<(), Vec<NetworkError>> {
        let endpoints = self.container_endpoints(container_id);
        let errors: Vec<_> =
            endpoints.iter().flat_map(|endpoint| self.release(endpoint, Unplug::Soon)).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn unplug(&self, endpoint: &Endpoint, unplug: Unplug<'_>) -> Result<(), NetworkError> {
        match unplug {
            Unplug::Now(Some(netns)) if endpoint.host_ifname.is_empty() => {
                Ok(sandbox::route_socket(netns)?.delete_link(&endpoint.ifname)?)
            }
            // It goes with its namespace.
            _ if endpoint.host_ifname.is_empty() => Ok(()),
            Unplug::Now(_) => Ok(lock(&self.links).socket.delete_link(&endpoint.host_ifname)?),
            Unplug::Soon => Ok(self.reaper.bury(&endpoint.host_ifname)?),
        }
    }

    /// Undoes an endpoint, whatever part of it was done.
    pub(super) fn release(&self, endpoint: &Endpoint, unplug: Unplug<'_>) -> Vec<NetworkError> {
        let mut errors = Vec::new();
        let holds = lock(&self.books).take_holds(&endpoint.id);
        for hold in holds {
            if let Hold::Relayed(token) = hold {
                self.proxy.forget(&token);
            }
        }
        if !endpoint.ports.is_empty() {
            let unruled = lock(&self.firewall).apply(&Change::RemovePorts(port_rules(endpoint)));
            errors.extend(unruled.err());
        }
        errors.extend(self.unplug(endpoint, unplug).err());
        forget_flows(endpoint, answered_by);
        errors.extend(self.state.remove_endpoint(&endpoint.id).err().map(NetworkError::from));
        // The lease last: whoever gets the address next meets no leftovers.
        lock(&self.books).remove_endpoint(&endpoint.id);
        errors
    }
}

/// What the namespace must be told before the link gets its addresses.
fn ipv6_settings(network: &Network, endpoint: &Endpoint) -> Vec<(String, String)> {
    let conf = |name: &str, value: &str| (format!("ipv6/conf/{}/{name}", endpoint.ifname), value.to_owned());
    let mut settings = Vec::new();
    if endpoint.ipv6.is_some() || endpoint.link_local.iter().any(IpAddr::is_ipv6) {
        settings.push(conf("disable_ipv6", "0"));
        if network.driver == Driver::Bridge {
            // Nobody but a neighbour that means ill sends router advertisements here.
            settings.push(conf("accept_ra", "0"));
        }
    }
    settings
}

fn inside_link(inside: &mut RouteSocket, endpoint: &Endpoint) -> Result<Link, NetworkError> {
    Ok(inside.link(&endpoint.ifname)?.ok_or_else(|| {
        NetlinkError::new(format!("find {} in the container's namespace", endpoint.ifname), Errno::ENODEV)
    })?)
}

/// All addresses of an endpoint with their networks.
fn addresses(endpoint: &Endpoint) -> Vec<(IpAddr, Subnet)> {
    let with_subnet = |ip: IpAddr, bits: u8| (ip, Subnet::containing(ip, bits));
    let v4 = endpoint.ipv4.map(|ip| with_subnet(ip.into(), endpoint.prefix_len));
    let mut addresses: Vec<_> = v4.into_iter().collect();
    addresses.extend(endpoint.ipv6.map(|(ip, bits)| with_subnet(ip.into(), bits)));
    let link_local = |ip: &IpAddr| with_subnet(*ip, if ip.is_ipv4() { 16 } else { 64 });
    addresses.extend(endpoint.link_local.iter().map(link_local));
    addresses
}

/// UDP flows that the endpoint's ports concern, by what is said of each port.
fn forget_flows(endpoint: &Endpoint, of: impl Fn(&Endpoint, &PublishedPort) -> Vec<Flows>) {
    let ports = endpoint.ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let mut flows: Vec<Flows> = ports.flat_map(|port| of(endpoint, port)).collect();
    flows.dedup();
    if flows.is_empty() {
        return;
    }
    if let Err(error) = nft::forget(&flows) {
        // Old flows end by themselves when they are silent for a while.
        tracing::warn!(endpoint = %endpoint.id, %error, "old UDP flows may go astray");
    }
}

/// Flows from before the port was published, which reach nobody.
fn sent_before(endpoint: &Endpoint, port: &PublishedPort) -> Vec<Flows> {
    let reaches = endpoint.addresses().any(|address| address.is_ipv4() == port.host_ip.is_ipv4());
    let translated = reaches && port.host_port != ports::ROUTED;
    let hosts = if port.host_ip.is_unspecified() { sandbox::own_addresses() } else { vec![port.host_ip] };
    let same_family = hosts.into_iter().filter(|ip| translated && ip.is_ipv4() == port.host_ip.is_ipv4());
    same_family.map(|ip| Flows::SentTo(ip, port.host_port)).collect()
}

/// Flows to the container, which is about to be gone.
fn answered_by(endpoint: &Endpoint, port: &PublishedPort) -> Vec<Flows> {
    endpoint.addresses().map(|address| Flows::AnsweredBy(address, port.container_port)).collect()
}

/// The rules of an endpoint's ports. What the kernel cannot translate is the relay's business: clients of
/// one family of a container that has only the other, and those on the host's ::1.
pub(super) fn port_rules(endpoint: &Endpoint) -> Vec<PortRule> {
    let rule = |port: &PublishedPort| {
        let container_ip = match port.host_ip {
            IpAddr::V4(_) => IpAddr::V4(endpoint.ipv4?),
            IpAddr::V6(ip) if ip.is_loopback() => return None,
            IpAddr::V6(_) => IpAddr::V6(endpoint.ipv6?.0),
        };
        Some(PortRule {
            protocol: port.protocol,
            host_ip: Some(port.host_ip).filter(|ip| !ip.is_unspecified()),
            host_port: port.host_port,
            container_ip,
            container_port: port.container_port,
            routed: port.host_port == ports::ROUTED,
        })
    };
    endpoint.ports.iter().filter_map(rule).collect()
}
