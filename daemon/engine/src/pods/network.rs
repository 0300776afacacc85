//! A pod's network: CNI plugins where there is a configuration, the engine's own bridge where there is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use berth_network::{EndpointRequest, PortRequest};

use super::cni::{Attachment, Subject};
use super::model::SandboxSpec;
use super::namespaces::{Pin, Pins};
use super::record::PodNetwork;
use super::registry::Sandbox;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// How long a pod may take to answer a forwarded connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The engine's network of pods that no CNI configuration claims.
const BRIDGE: &str = "bridge";

impl Engine {
    /// Puts the pod on the network. How is written down before it is done, so that a crash leaves nothing behind.
    pub(super) async fn join_pod_network(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        pins: &Pins,
    ) -> Result<()> {
        let spec = sandbox.record().spec;
        if spec.namespaces.host_network {
            return Ok(());
        }
        let addresses = match self.config.cni.current()? {
            Some(list) => {
                let mut attachment = Attachment::new(list, &sandbox.id, &spec);
                sandbox.change(&self.db, |record| {
                    record.network = PodNetwork::Cni(Box::new(attachment.clone()));
                })?;
                let netns = pins.path(Pin::Network);
                let subject = Subject { sandbox: &sandbox.id, netns: &netns };
                let addresses = self.config.cni.add(subject, &mut attachment).await?;
                sandbox.change(&self.db, |record| record.network = PodNetwork::Cni(Box::new(attachment)))?;
                addresses
            }
            None => {
                sandbox.change(&self.db, |record| record.network = PodNetwork::Bridge)?;
                let (pins, id) = (pins.clone(), sandbox.id.clone());
                self.blocking(move |engine| engine.join_bridge(&id, &spec, &pins)).await?
            }
        };
        sandbox.change(&self.db, |record| record.addresses = addresses)
    }

    fn join_bridge(&self, id: &str, spec: &SandboxSpec, pins: &Pins) -> Result<Vec<IpAddr>> {
        let network = self.network.network(BRIDGE)?;
        let ports = spec.ports.iter().filter(|port| port.host_port != 0).map(|port| PortRequest {
            container_port: port.container_port,
            protocol: port.protocol,
            host_ip: port.host_ip.filter(|address| !address.is_unspecified()),
            host_port: Some(port.host_port..=port.host_port),
        });
        let request = EndpointRequest {
            container_id: id.to_owned(),
            container_name: format!("{}/{}", spec.namespace, spec.name),
            ports: ports.collect(),
            // A pod may be behind the service that it calls.
            hairpin: true,
            ..EndpointRequest::default()
        };
        let endpoint = self.network.attach(pins.open(Pin::Network)?.as_fd(), &network.id, request)?;
        Ok(endpoint.addresses().collect())
    }

    /// Takes the pod off the network; may be called again after a failure.
    pub(super) async fn leave_pod_network(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let record = sandbox.record();
        match &record.network {
            PodNetwork::None => return Ok(()),
            PodNetwork::Bridge => {
                let id = sandbox.id.clone();
                self.blocking(move |engine| {
                    let errors = engine.network.detach_all(&id).err().unwrap_or_default();
                    let errors = errors.into_iter().map(EngineError::from).collect();
                    EngineError::collect("leaving the bridge", errors).map_or(Ok(()), Err)
                })
                .await?;
            }
            PodNetwork::Cni(attachment) => {
                let pins = self.pins(&sandbox.id);
                // Of a namespace that is gone the plugins are told nothing.
                let netns =
                    if pins.holds(Pin::Network) { pins.path(Pin::Network) } else { Default::default() };
                let subject = Subject { sandbox: &sandbox.id, netns: &netns };
                self.config.cni.delete(subject, attachment).await?;
            }
        }
        sandbox.change(&self.db, |record| {
            record.network = PodNetwork::None;
            record.addresses.clear();
        })
    }

    /// A connection to a port inside a pod, as a process of it would reach it at `localhost`.
    ///
    /// # Errors
    /// When there is no such pod, it is not ready, or nobody listens there.
    pub async fn connect_in_pod(self: &Arc<Self>, sandbox: &str, port: u16) -> Result<std::net::TcpStream> {
        let sandbox = self.pods.sandbox(sandbox)?;
        if !sandbox.is_ready() {
            return Err(EngineError::conflict(format!("sandbox {} is not running", sandbox.id)));
        }
        let own = !sandbox.record().spec.namespaces.host_network;
        let netns = if own { Some(self.pins(&sandbox.id).open(Pin::Network)?) } else { None };
        let connected = self.blocking(move |_| {
            // A thread of its own: it changes its namespace and ends. Its sockets stay where they were made.
            Ok(std::thread::spawn(move || connect(netns, port)).join())
        });
        let panicked = |_| EngineError::internal("the thread that connects to a pod panicked");
        connected.await?.map_err(panicked)?.map_err(|error| {
            EngineError::new(
                crate::error::Kind::Unavailable,
                format!("failed to connect to localhost:{port}: {error}"),
            )
        })
    }

    /// Whether pods can be put on the network, and if not why not.
    ///
    /// # Errors
    /// A CNI configuration that is none, a plugin that is missing or says that it is not ready.
    pub async fn pod_network_status(&self) -> Result<String> {
        match self.config.cni.current()? {
            Some(list) => {
                self.config.cni.status(&list).await?;
                Ok(format!("CNI network {:?}", list.name()))
            }
            None => Ok("built-in bridge: there is no CNI configuration".to_owned()),
        }
    }

    /// Whether a pod still has what its CNI plugins gave it; others have it as long as they exist.
    pub(super) async fn check_pod_network(&self, sandbox: &Sandbox) -> Result<()> {
        let PodNetwork::Cni(attachment) = sandbox.record().network else { return Ok(()) };
        let netns = self.pins(&sandbox.id).path(Pin::Network);
        self.config.cni.check(Subject { sandbox: &sandbox.id, netns: &netns }, &attachment).await
    }

    /// Lets CNI plugins free what no pod has any more.
    pub(super) async fn collect_pod_networks(&self) -> Result<()> {
        let Some(list) = self.config.cni.current()? else { return Ok(()) };
        let own = |sandbox: &Arc<Sandbox>| matches!(sandbox.record().network, PodNetwork::Cni(_));
        let ids: Vec<String> =
            self.pods.sandboxes().iter().filter(|s| own(s)).map(|sandbox| sandbox.id.clone()).collect();
        self.config.cni.collect_garbage(&list, &ids).await
    }
}

fn connect(netns: Option<OwnedFd>, port: u16) -> std::io::Result<TcpStream> {
    if let Some(netns) = netns {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
    }
    let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let connect = |address: &IpAddr| TcpStream::connect_timeout(&SocketAddr::new(*address, port), CONNECT);
    let stream = connect(&local[0]).or_else(|first| connect(&local[1]).map_err(|_| first))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
