//! What build steps get of the engine: networks and devices.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use berth_builder::{DeviceError, Devices, NetworkMode, Sandbox, SandboxError, Sandboxes};
use berth_network::{Endpoint, EndpointRequest};

use crate::cdi::CdiDirs;
use crate::containers::Definition;
use crate::dns::resolves_names;
use crate::engine::Engine;
use crate::error::Result;
use crate::ids;
use crate::resolve_files::{HostLine, HostResolver, hosts, internal_resolv_conf, resolv_conf};

/// Networks for build steps.
#[derive(Default)]
pub(crate) struct EngineSandboxes {
    /// Whose networks; the builder is a part of it, so this comes after it.
    engine: OnceLock<Weak<Engine>>,
}

impl EngineSandboxes {
    pub(crate) fn belong_to(&self, engine: &Arc<Engine>) {
        self.engine.get_or_init(|| Arc::downgrade(engine));
    }
}

/// The network of one build step.
struct EngineSandbox {
    engine: Arc<Engine>,
    /// Stands for the step where a container is asked for.
    step: Definition,
    netns: Option<OwnedFd>,
    endpoint: Option<Endpoint>,
}

impl EngineSandbox {
    /// Joins the network, with its names where it has some.
    fn join(&mut self, netns: OwnedFd, name: &str) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        let network = engine.network.network(name)?;
        let request = EndpointRequest {
            container_id: self.step.id.clone(),
            container_name: self.step.name.clone(),
            ..EndpointRequest::default()
        };
        let endpoint = self.endpoint.insert(engine.network.attach(netns.as_fd(), &network.id, request)?);
        engine.announce(&self.step, std::slice::from_ref(endpoint), netns.as_fd(), false)?;
        self.netns = Some(netns);
        Ok(())
    }
}

impl Sandboxes for EngineSandboxes {
    fn acquire(&self, mode: &NetworkMode) -> Result<Box<dyn Sandbox>, SandboxError> {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else {
            return Err(SandboxError { message: "the engine is ending".to_owned() });
        };
        let id = ids::random();
        let name = format!("build-{}", ids::short(&id));
        let step = Definition { id, name, ..Definition::default() };
        let mut sandbox = EngineSandbox { engine, step, netns: None, endpoint: None };
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
        let failed = |message: String| SandboxError { message };
        let netns = sandbox.engine.network.new_sandbox().map_err(|error| failed(error.to_string()))?;
        match name {
            Some(name) => sandbox.join(netns, name).map_err(|error| failed(error.to_string()))?,
            None => sandbox.netns = Some(netns),
        }
        Ok(Box::new(sandbox))
    }
}

impl Sandbox for EngineSandbox {
    fn netns(&self) -> Option<BorrowedFd<'_>> {
        self.netns.as_ref().map(OwnedFd::as_fd)
    }

    fn hosts(&self) -> String {
        let names = vec![ids::short(&self.step.id).to_owned()];
        let address = self.endpoint.as_ref().map(|endpoint| IpAddr::V4(endpoint.ipv4));
        let own: Vec<HostLine> = address.map(|address| HostLine { address, names }).into_iter().collect();
        hosts(&[], None, &own)
    }

    fn resolv_conf(&self) -> String {
        let wanted = HostResolver { servers: self.engine.config.dns.clone(), ..HostResolver::default() };
        let host = HostResolver::read();
        if self.endpoint.as_ref().is_some_and(|endpoint| resolves_names(&endpoint.network_name)) {
            internal_resolv_conf(&host, &wanted)
        } else {
            resolv_conf(&host, &wanted, self.netns.is_none())
        }
    }
}

impl Drop for EngineSandbox {
    fn drop(&mut self) {
        let Some(endpoint) = self.endpoint.take() else { return };
        if let Err(error) = self.engine.withdraw(&self.step.id, &[endpoint], true) {
            tracing::warn!(%error, "taking the names of a build step away");
        }
        for error in self.engine.network.detach_all(&self.step.id).err().unwrap_or_default() {
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
