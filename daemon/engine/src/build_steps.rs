//! What build steps get of the engine: networks and devices.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use berth_builder::{DeviceError, Devices, NetworkMode, Sandbox, SandboxError, Sandboxes};
use berth_network::{EndpointRequest, NetworkController};

use crate::cdi::CdiDirs;
use crate::dns;
use crate::engine::Engine;
use crate::ids;
use crate::resolve_files::{HostLine, HostResolver, hosts, internal_resolv_conf, resolv_conf};

/// The engine that build steps belong to: known as soon as it is there, which is after its builder.
pub(crate) type Owner = Arc<OnceLock<Weak<Engine>>>;

/// Networks for build steps.
pub(crate) struct EngineSandboxes {
    network: Arc<NetworkController>,
    dns: Vec<String>,
    engine: Owner,
}

impl EngineSandboxes {
    pub(crate) fn new(network: Arc<NetworkController>, dns: Vec<String>, engine: Owner) -> Self {
        Self { network, dns, engine }
    }
}

/// The network of one build step.
struct EngineSandbox {
    network: Arc<NetworkController>,
    /// Stands for the step where the network controller asks for a container.
    id: String,
    netns: Option<OwnedFd>,
    address: Option<IpAddr>,
    dns: Vec<String>,
    /// Whom to tell when the step asks for names no more; none if it asks nobody of ours.
    names: Option<Arc<Engine>>,
}

impl Sandboxes for EngineSandboxes {
    fn acquire(&self, mode: &NetworkMode) -> Result<Box<dyn Sandbox>, SandboxError> {
        let failed = |error: berth_network::NetworkError| SandboxError { message: error.to_string() };
        let mut sandbox = EngineSandbox {
            network: Arc::clone(&self.network),
            id: ids::random(),
            netns: None,
            address: None,
            dns: self.dns.clone(),
            names: None,
        };
        let name = match mode {
            NetworkMode::Host => return Ok(Box::new(sandbox)),
            NetworkMode::None => None,
            NetworkMode::Default => Some("bridge"),
            NetworkMode::Named(name) if name.starts_with("container:") => {
                return Err(SandboxError {
                    message: format!("network mode {name} is not supported for builds"),
                });
            }
            NetworkMode::Named(name) => Some(name.as_str()),
        };
        let netns = self.network.new_sandbox().map_err(failed)?;
        if let Some(name) = name {
            let network = self.network.network(name).map_err(failed)?;
            let request = EndpointRequest {
                container_id: sandbox.id.clone(),
                container_name: format!("build-{}", ids::short(&sandbox.id)),
                ..EndpointRequest::default()
            };
            let endpoint = self.network.attach(netns.as_fd(), &network.id, request).map_err(failed)?;
            sandbox.address = Some(IpAddr::V4(endpoint.ipv4));
            if dns::resolves_names(&network.name)
                && let Some(engine) = self.engine.get().and_then(Weak::upgrade)
            {
                let served = engine.serve_names(&sandbox.id, &network, netns.as_fd());
                served.map_err(|error| SandboxError { message: error.to_string() })?;
                sandbox.names = Some(engine);
            }
        }
        sandbox.netns = Some(netns);
        Ok(Box::new(sandbox))
    }
}

impl Sandbox for EngineSandbox {
    fn netns(&self) -> Option<BorrowedFd<'_>> {
        self.netns.as_ref().map(OwnedFd::as_fd)
    }

    fn hosts(&self) -> String {
        let names = vec![ids::short(&self.id).to_owned()];
        let own: Vec<HostLine> =
            self.address.map(|address| HostLine { address, names }).into_iter().collect();
        hosts(&[], None, &own)
    }

    fn resolv_conf(&self) -> String {
        let wanted = HostResolver { servers: self.dns.clone(), ..HostResolver::default() };
        if self.names.is_some() {
            return internal_resolv_conf(&HostResolver::read(), &wanted);
        }
        resolv_conf(&HostResolver::read(), &wanted, self.netns.is_none())
    }
}

impl Drop for EngineSandbox {
    fn drop(&mut self) {
        if self.address.is_none() {
            return;
        }
        if let Some(engine) = self.names.take()
            && let Err(error) = engine.forget_names(&self.id)
        {
            tracing::warn!(%error, "the names of a build step's network stay served");
        }
        for error in self.network.detach_all(&self.id).err().unwrap_or_default() {
            tracing::warn!(%error, "leaving the network of a build step");
        }
    }
}

impl Devices for CdiDirs {
    fn names(&self) -> Vec<String> {
        self.read().names().map(str::to_owned).collect()
    }

    fn inject(&self, names: &[String], spec: &mut berth_spec::oci::Spec) -> Result<(), DeviceError> {
        let injected = self.read().inject_named(names, spec);
        injected.map_err(|error| DeviceError { message: error.to_string() })
    }
}
