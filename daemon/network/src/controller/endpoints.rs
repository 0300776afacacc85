//! Endpoints: a container's way into a network and out again.

use std::net::{IpAddr, SocketAddrV4};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::error::NetworkError;
use crate::lock::lock;
use crate::netlink::{NetlinkError, PortFlags, VethLink};
use crate::nft::{Change, PortRule};
use crate::ports::{HeldPort, HeldSocket};
use crate::sandbox;
use crate::types::{Driver, Endpoint, EndpointRequest, Network, NetworkId, PublishedPort};

use super::NetworkController;
use super::books::Hold;
use super::networks::BridgeOptions;

/// Whether a caller waits for a link's deletion.
#[derive(Clone, Copy)]
pub(super) enum Unplug {
    Now,
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
        let (network, endpoint, held) = {
            let mut books = lock(&self.books);
            let network = books.network(network)?.clone();
            if network.driver != Driver::Bridge {
                return Err(NetworkError::NoEndpoints(network.name, network.driver));
            }
            let (endpoint, held) = books.promise(&network, request)?;
            (network, endpoint, held)
        };
        let done = self.state.write_endpoint(&endpoint).map_err(NetworkError::from);
        match done.and_then(|()| self.fulfil(netns, &network, &endpoint, held)) {
            Ok(()) => Ok(endpoint),
            Err(error) => {
                for undo in self.release(&endpoint, Unplug::Now) {
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
        held: Vec<HeldPort>,
    ) -> Result<(), NetworkError> {
        self.plug(netns, network, endpoint)?;
        let mut inside = sandbox::route_socket(netns)?;
        let link = inside.link(&endpoint.ifname)?.ok_or_else(|| {
            NetlinkError::new(format!("find {} in the container's namespace", endpoint.ifname), Errno::ENODEV)
        })?;
        let subnet = crate::subnet::Ipv4Subnet::containing(endpoint.ipv4, endpoint.prefix_len);
        let gateway = endpoint.gateway.filter(|_| endpoint.default_route);
        inside.configure(&link, endpoint.ipv4, subnet, gateway)?;
        lock(&self.links).socket.settle(&[&endpoint.host_ifname, &network.bridge])?;
        self.publish(endpoint, held)
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
            let flags = PortFlags { isolated: !options.talk, hairpin: !endpoint.ports.is_empty() };
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
        let mut holds = Vec::with_capacity(held.len());
        for HeldPort { port, socket } in held {
            holds.push(match socket {
                HeldSocket::Udp(fd) => Hold::Bound(fd),
                HeldSocket::Tcp(listener) => {
                    let target = SocketAddrV4::new(endpoint.ipv4, port.container_port);
                    Hold::Relayed(self.proxy.serve(listener, target).map_err(NetworkError::Relay)?)
                }
            });
        }
        lock(&self.books).keep(&endpoint.id, holds);
        Ok(())
    }

    /// Takes a container out of a network, running or not: frees address, ports, rules and link. The interface is
    /// gone when this returns, which takes tens of milliseconds; the namespace may be gone already.
    ///
    /// # Errors
    /// [`NetworkError::NotAttached`] alone, or everything that could not be undone; the endpoint is gone from the
    /// books all the same.
    pub fn detach(&self, container_id: &str, network: &NetworkId) -> Result<(), Vec<NetworkError>> {
        let endpoint = lock(&self.books).endpoint_of(container_id, network).cloned();
        let Some(endpoint) = endpoint else {
            let network = self.network(network.as_str()).map_or_else(|_| network.to_string(), |n| n.name);
            return Err(vec![NetworkError::NotAttached { container: container_id.to_owned(), network }]);
        };
        let errors = self.release(&endpoint, Unplug::Now);
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

    /// Undoes an endpoint, whatever part of it was done.
    pub(super) fn release(&self, endpoint: &Endpoint, unplug: Unplug) -> Vec<NetworkError> {
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
        let unlinked = match unplug {
            Unplug::Now => lock(&self.links).socket.delete_link(&endpoint.host_ifname),
            Unplug::Soon => self.reaper.bury(&endpoint.host_ifname),
        };
        errors.extend(unlinked.err().map(NetworkError::from));
        errors.extend(self.state.remove_endpoint(&endpoint.id).err().map(NetworkError::from));
        // The lease last: whoever gets the address next meets no leftovers.
        lock(&self.books).remove_endpoint(&endpoint.id);
        errors
    }
}

/// The rules of an endpoint's ports; IPv6 host addresses are the relay's business.
pub(super) fn port_rules(endpoint: &Endpoint) -> Vec<PortRule> {
    let rule = |port: &PublishedPort| match port.host_ip {
        IpAddr::V6(_) => None,
        IpAddr::V4(ip) => Some(PortRule {
            protocol: port.protocol,
            host_ip: Some(ip).filter(|ip| !ip.is_unspecified()),
            host_port: port.host_port,
            container_ip: endpoint.ipv4,
            container_port: port.container_port,
        }),
    };
    endpoint.ports.iter().filter_map(rule).collect()
}
