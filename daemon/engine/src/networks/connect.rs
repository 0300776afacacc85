//! Into a network and out again, while the container runs or not.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use berth_api::network::{EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest};
use berth_network::{Endpoint, EndpointRequest, NetworkId};

use super::by_preference;
use super::endpoint::{check_addresses, check_endpoint, request_of};
use crate::containers::{Container, Definition};
use crate::dns;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

impl Engine {
    /// Connects a container to a network, running or not.
    ///
    /// # Errors
    /// When there is no such network or container, it is connected already, or shares another's network.
    pub async fn connect_network(self: &Arc<Self>, name: &str, request: NetworkConnectRequest) -> Result<()> {
        let container = self.containers.find(&request.container)?;
        let (engine, name) = (Arc::clone(self), name.to_owned());
        self.detached(async move {
            let _operation = container.operation.lock().await;
            let network = engine.network.network(&name)?;
            let settings = request.endpoint_config.unwrap_or_default();
            check_endpoint(&network.name, &settings)?;
            let definition = container.definition();
            refuse_shared(&definition, &network)?;
            check_addresses(&network, &settings)?;
            // One that does not run is only to join another way.
            if container.phase().is_alive() && definition.networks.contains_key(&network.name) {
                return Err(EngineError::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    definition.name, network.name
                )));
            }
            if container.phase().is_alive() {
                engine.connect_running(&container, &network, &settings).await?;
            }
            container.redefine(&engine.db, |definition| {
                // `none` means no network; it gives way.
                definition.networks.remove("none");
                definition.networks.insert(network.name.clone(), settings);
            })
        })
        .await
    }

    async fn connect_running(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &berth_network::Network,
        settings: &EndpointSettings,
    ) -> Result<()> {
        let before = container.definition();
        let request = EndpointRequest { no_default_route: true, ..request_of(&before, settings)? };
        // As it will be: its names and links are told now, and written down when all this has gone well.
        let mut definition = Definition::clone(&before);
        definition.networks.insert(network.name.clone(), settings.clone());
        let definition = Arc::new(definition);
        let netns = netns_of(container)?;
        let (id, this, told) = (network.id.clone(), Arc::clone(container), Arc::clone(&definition));
        let endpoint = self
            .blocking(move |engine| {
                let before = engine.network.container_endpoints(&this.id);
                let served = before.iter().any(|endpoint| dns::resolves_names(&endpoint.network_name));
                let endpoint = engine.network.attach(netns.as_fd(), &id, request)?;
                let all = engine.network.container_endpoints(&this.id);
                if let Err(error) = engine.announce(&told, &all, netns.as_fd(), served) {
                    for problem in
                        engine.network.detach(&this.id, &id, Some(netns.as_fd())).err().unwrap_or_default()
                    {
                        tracing::warn!(container = this.id, error = %problem, "giving up a connection");
                    }
                    return Err(error);
                }
                if !served && dns::resolves_names(&endpoint.network_name) {
                    engine.write_resolv_conf(&told, true)?;
                    let pid = this.status().pid;
                    engine.watch_names(&this.id, pid, &all)?;
                }
                Ok(endpoint)
            })
            .await?;
        self.network_event("connect", &endpoint);
        container.note(&self.db, |status| {
            status.endpoints.insert(endpoint.network_name.clone(), endpoint.clone());
        })?;
        self.refresh_hosts(&container.id);
        self.choose_way_out(container, definition).await
    }

    /// Leads a running container's default routes through the network that its definition prefers.
    async fn choose_way_out(
        self: &Arc<Self>,
        container: &Arc<Container>,
        definition: Arc<Definition>,
    ) -> Result<()> {
        let netns = netns_of(container)?;
        let id = container.id.clone();
        self.blocking(move |engine| {
            let order = engine.in_order(&definition);
            Ok(engine.network.choose_way_out(netns.as_fd(), &id, &order)?)
        })
        .await
    }

    /// A container's networks, the one that is best for the way out first.
    fn in_order(&self, definition: &Definition) -> Vec<NetworkId> {
        let networks = by_preference(definition).into_iter();
        networks.filter_map(|(name, _)| self.network.network(name).ok()).map(|network| network.id).collect()
    }

    async fn disconnect_running(
        self: &Arc<Self>,
        container: &Arc<Container>,
        endpoint: Endpoint,
    ) -> Result<()> {
        let network = endpoint.network.clone();
        self.detach(&container.id, &network, Some(netns_of(container)?)).await?;
        self.network_event("disconnect", &endpoint);
        container.note(&self.db, |status| {
            status.endpoints.remove(&endpoint.network_name);
        })?;
        self.refresh_hosts(&container.id);
        let mut definition = Definition::clone(&container.definition());
        definition.networks.remove(&endpoint.network_name);
        let definition = Arc::new(definition);
        self.choose_way_out(container, Arc::clone(&definition)).await?;
        let container = Arc::clone(container);
        self.blocking(move |engine| {
            engine.withdraw(&container.id, std::slice::from_ref(&endpoint), false)?;
            let left = engine.network.container_endpoints(&container.id);
            let netns = netns_of(&container)?;
            engine.announce(&definition, &left, netns.as_fd(), dns::resolves_names(&endpoint.network_name))
        })
        .await
    }

    /// Disconnects a container from a network.
    ///
    /// # Errors
    /// When there is no such network or container, or it is not connected.
    pub async fn disconnect_network(
        self: &Arc<Self>,
        name: &str,
        request: NetworkDisconnectRequest,
    ) -> Result<()> {
        let network = self.network.network(name)?;
        let container = match self.containers.find(&request.container) {
            Ok(container) => container,
            Err(_) if request.force => return self.detach(&request.container, &network.id, None).await,
            Err(error) => return Err(error),
        };
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            if container.definition().has_host_network() && network.name == "host" {
                return Err(EngineError::forbidden(
                    "container cannot be disconnected from host network or connected to host network",
                ));
            }
            if !container.definition().networks.contains_key(&network.name) {
                return Err(EngineError::forbidden(format!(
                    "container {} is not connected to network {}",
                    container.id, network.name
                )));
            }
            let endpoint = container.status().endpoints.remove(&network.name);
            if let Some(endpoint) = endpoint {
                engine.disconnect_running(&container, endpoint).await?;
            }
            container.redefine(&engine.db, |definition| {
                definition.networks.remove(&network.name);
            })
        })
        .await
    }

    /// After a restart: a connection or disconnection of a running container that was cut short, and of which nobody
    /// was told that it is done, is undone or finished: what is not both wished for and there goes. Blocking.
    pub(crate) fn reconcile_networks(&self, container: &Container) -> Result<()> {
        let definition = container.definition();
        let shares = definition.network_donor().is_some() || definition.has_host_network();
        if !container.phase().is_alive() || shares {
            return Ok(());
        }
        let netns = netns_of(container).ok();
        let netns = netns.as_ref().map(OwnedFd::as_fd);
        for endpoint in self.network.container_endpoints(&container.id) {
            let wished = definition.networks.contains_key(&endpoint.network_name);
            if wished && netns.is_none_or(|netns| self.network.is_plugged(netns, &endpoint)) {
                continue;
            }
            tracing::info!(container = container.id, network = endpoint.network_name, "undoing a connection");
            for error in
                self.network.detach(&container.id, &endpoint.network, netns).err().unwrap_or_default()
            {
                tracing::warn!(container = container.id, %error, "undoing a connection");
            }
        }
        let there: BTreeMap<String, Endpoint> = self
            .network
            .container_endpoints(&container.id)
            .into_iter()
            .map(|endpoint| (endpoint.network_name.clone(), endpoint))
            .collect();
        let lost = |name: &String| name != "none" && !there.contains_key(name);
        if definition.networks.keys().any(lost) {
            container.redefine(&self.db, |definition| definition.networks.retain(|name, _| !lost(name)))?;
        }
        if container.status().endpoints != there {
            container.note(&self.db, |status| status.endpoints = there)?;
            if let Some(netns) = netns {
                let order = self.in_order(&container.definition());
                self.network.choose_way_out(netns, &container.id, &order)?;
            }
        }
        self.refresh_hosts(&container.id);
        Ok(())
    }

    async fn detach(
        self: &Arc<Self>,
        container: &str,
        network: &NetworkId,
        netns: Option<OwnedFd>,
    ) -> Result<()> {
        let (container, network) = (container.to_owned(), network.clone());
        self.blocking(move |engine| {
            let netns = netns.as_ref().map(OwnedFd::as_fd);
            let errors = engine.network.detach(&container, &network, netns).err().unwrap_or_default();
            let errors = errors.into_iter().map(EngineError::from).collect();
            EngineError::collect("disconnecting", errors).map_or(Ok(()), Err)
        })
        .await
    }
}

fn refuse_shared(definition: &Definition, network: &berth_network::Network) -> Result<()> {
    let shares = definition.network_donor().is_some() || definition.has_host_network();
    let predefined = matches!(network.name.as_str(), "host" | "none");
    if shares || predefined {
        return Err(EngineError::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    Ok(())
}

/// The network namespace of a container that runs.
pub(crate) fn netns_of(container: &Container) -> Result<OwnedFd> {
    let path = format!("/proc/{}/ns/net", container.status().pid);
    Ok(std::fs::File::open(&path).during("open", &path)?.into())
}
