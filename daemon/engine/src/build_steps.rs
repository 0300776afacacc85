//! What build steps get of the engine: networks and devices.

use std::fs::read_to_string;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use berth_builder::{DeviceError, Devices, NetworkMode, Sandbox, SandboxError, Sandboxes};
use berth_network::{EndpointRequest, NetworkController};

use crate::cdi::CdiDirs;
use crate::dns;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids;
use crate::networks;
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

    fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.get().and_then(Weak::upgrade)
    }

    /// Gives the step the network of a container, and what that knows of names.
    fn join(&self, container: &str, sandbox: &mut EngineSandbox) -> Result<()> {
        let engine = self.engine().ok_or_else(|| EngineError::internal("the engine is ending"))?;
        let container = engine.containers.find(container)?;
        if !container.phase().is_alive() {
            let name = container.definition().name.clone();
            return Err(EngineError::conflict(format!("container {name} is not running: it has no network")));
        }
        sandbox.netns = Some(networks::netns_of(&container)?);
        sandbox.donor = Some(engine.container_dir(&container.id));
        Ok(())
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
    /// Files of the container whose network it is.
    donor: Option<PathBuf>,
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
            donor: None,
        };
        let name = match mode {
            NetworkMode::Host => return Ok(Box::new(sandbox)),
            NetworkMode::None => None,
            NetworkMode::Default => Some("bridge"),
            NetworkMode::Named(name) => match name.strip_prefix("container:") {
                Some(container) => {
                    self.join(container, &mut sandbox)
                        .map_err(|e| SandboxError { message: e.to_string() })?;
                    return Ok(Box::new(sandbox));
                }
                None => Some(name.as_str()),
            },
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
            sandbox.address = endpoint.addresses().next();
            if dns::resolves_names(&network.name)
                && let Some(engine) = self.engine()
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
        if let Some(text) = self.donor.as_ref().and_then(|dir| read_to_string(dir.join("hosts")).ok()) {
            return text;
        }
        let names = vec![ids::short(&self.id).to_owned()];
        let own: Vec<HostLine> =
            self.address.map(|address| HostLine { address, names }).into_iter().collect();
        hosts(&[], None, &own)
    }

    fn resolv_conf(&self) -> String {
        if let Some(text) = self.donor.as_ref().and_then(|dir| read_to_string(dir.join("resolv.conf")).ok()) {
            return text;
        }
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
