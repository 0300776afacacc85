//! Networks: docker's view of the network controller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use berth_api::network::{
    EndpointResource, EndpointSettings, Ipam, IpamConfig, Network, NetworkConnectRequest,
    NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest, PruneNetworksResponse,
};
use berth_api::{Filters, Time};
use berth_network::{Endpoint, EndpointRequest, IpamPool, MacAddress, NetworkId, NetworkSpec};

use crate::containers::filters::{boolean, until};
use crate::containers::{Container, Definition, ports};
use crate::dns;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};

const LIST_FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// Checks an endpoint's wishes as far as they do not depend on the network's addresses.
pub(crate) fn check_endpoint(network: &str, settings: &EndpointSettings) -> Result<()> {
    ipv4(settings)?;
    ipv6(settings)?;
    link_local(settings)?;
    mac(settings)?;
    endpoint_sysctls(settings, "eth0")?;
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let fixed = !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty();
    if fixed && matches!(network, "bridge" | "host" | "none") {
        return Err(EngineError::invalid(
            "invalid endpoint settings: user specified IP address is supported on user defined networks only",
        ));
    }
    if settings.links.as_ref().is_some_and(|links| !links.is_empty()) {
        return Err(EngineError::not_implemented("links are not supported (EndpointSettings.Links)"));
    }
    let aliases = settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty());
    if aliases && matches!(network, "bridge" | "host" | "none") {
        return Err(EngineError::invalid(
            "invalid endpoint settings: network-scoped aliases are only supported for user-defined networks",
        ));
    }
    Ok(())
}

fn ipv4(settings: &EndpointSettings) -> Result<Option<Ipv4Addr>> {
    let text = settings.ipam_config.as_ref().map_or("", |ipam| ipam.ipv4_address.as_str());
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| EngineError::invalid(format!("invalid IPv4 address: {text}")))
}

fn ipv6(settings: &EndpointSettings) -> Result<Option<Ipv6Addr>> {
    let text = settings.ipam_config.as_ref().map_or("", |ipam| ipam.ipv6_address.as_str());
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| EngineError::invalid(format!("invalid IPv6 address: {text}")))
}

fn link_local(settings: &EndpointSettings) -> Result<Vec<IpAddr>> {
    let texts = settings.ipam_config.as_ref().and_then(|ipam| ipam.link_local_ips.as_ref());
    let parse = |text: &String| {
        text.parse().map_err(|_| EngineError::invalid(format!("invalid link-local IP address: {text}")))
    };
    texts.into_iter().flatten().map(parse).collect()
}

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const IFNAME: &str = "com.docker.network.endpoint.ifname";

/// Kernel settings of the interface, `net.ipv4.conf.IFNAME.log_martians=1,…`: only those of this very interface.
fn endpoint_sysctls(settings: &EndpointSettings, ifname: &str) -> Result<Vec<(String, String)>> {
    let list = settings.driver_opts.as_ref().and_then(|options| options.get(SYSCTLS));
    let parse = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        let parts: Vec<&str> = name.split('.').collect();
        let ["net", family @ ("ipv4" | "ipv6" | "mpls"), group, "IFNAME", key] = parts[..] else {
            return None;
        };
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (plain(group) && plain(key)).then(|| (format!("{family}/{group}/{ifname}/{key}"), value.to_owned()))
    };
    let entries = list.into_iter().flat_map(|list| list.split(',')).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            parse(entry).ok_or_else(|| {
                EngineError::invalid(format!(
                    "invalid endpoint sysctl {entry:?}: net.ipv4.conf.IFNAME.NAME=VALUE is expected ({SYSCTLS})"
                ))
            })
        })
        .collect()
}

fn mac(settings: &EndpointSettings) -> Result<Option<MacAddress>> {
    if settings.mac_address.is_empty() {
        return Ok(None);
    }
    let parsed = settings.mac_address.parse::<MacAddress>();
    parsed.map(Some).map_err(|error| EngineError::invalid(error.to_string()))
}

/// An endpoint as inspect shows it: the wishes, and what they became while the container runs.
pub(crate) fn endpoint_settings(
    wanted: &EndpointSettings,
    endpoint: Option<&Endpoint>,
    definition: &Definition,
    network_id: String,
    user_network: bool,
) -> EndpointSettings {
    let mut settings = EndpointSettings { network_id, ..wanted.clone() };
    if user_network {
        settings.dns_names = Some(dns::names(definition, wanted.aliases.as_deref().unwrap_or_default()));
    }
    let Some(endpoint) = endpoint else { return settings };
    settings.endpoint_id.clone_from(&endpoint.id);
    settings.network_id = endpoint.network.to_string();
    settings.ip_address = endpoint.ipv4.to_string();
    settings.ip_prefix_len = endpoint.prefix_len;
    settings.gateway = endpoint.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    settings.mac_address = endpoint.mac.to_string();
    if let Some((address, bits)) = endpoint.ipv6 {
        settings.global_ipv6_address = address.to_string();
        settings.global_ipv6_prefix_len = bits;
        settings.ipv6_gateway = endpoint.ipv6_gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    }
    settings
}

fn show(network: &berth_network::Network) -> Network {
    let pools: Vec<IpamConfig> = network.ipam.pools.iter().map(show_pool).collect();
    Network {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: Time(network.created),
        scope: "local".to_owned(),
        driver: network.driver.as_str().to_owned(),
        enable_ipv4: true,
        enable_ipv6: network.enable_ipv6,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: network.ipam.options.clone(),
            config: (!pools.is_empty()).then_some(pools),
        },
        internal: network.internal,
        attachable: network.attachable,
        options: network.options.clone(),
        labels: network.labels.clone(),
        ..Network::default()
    }
}

fn show_pool(pool: &IpamPool) -> IpamConfig {
    let aux: BTreeMap<String, String> =
        pool.aux_addresses.iter().map(|(name, address)| (name.clone(), address.to_string())).collect();
    IpamConfig {
        subnet: pool.subnet.to_string(),
        ip_range: pool.ip_range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        aux_addresses: (!aux.is_empty()).then_some(aux),
    }
}

fn parse_pool(config: &IpamConfig) -> Result<IpamPool> {
    let bad = |what: &str, text: &str| {
        EngineError::invalid(format!("invalid network config: invalid {what} {text}"))
    };
    let address = |what, text: &str| text.parse::<IpAddr>().map_err(|_| bad(what, text));
    let subnet = config.subnet.parse().map_err(|_| bad("subnet", &config.subnet))?;
    let ip_range = match config.ip_range.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| bad("ip-range", text))?),
    };
    let gateway = match config.gateway.as_str() {
        "" => None,
        text => Some(address("gateway", text)?),
    };
    let aux = config.aux_addresses.iter().flatten();
    let aux_addresses = aux
        .map(|(name, text)| Ok((name.clone(), address("auxiliary address", text)?)))
        .collect::<Result<_>>()?;
    Ok(IpamPool { subnet, ip_range, gateway, aux_addresses })
}

fn parse_spec(request: NetworkCreateRequest) -> Result<NetworkSpec> {
    if request.name.trim().is_empty() {
        return Err(EngineError::invalid("invalid name: name is empty"));
    }
    for (asked, field) in [
        (request.ingress, "Ingress"),
        (request.config_only, "ConfigOnly"),
        (request.config_from.as_ref().is_some_and(|from| !from.network.is_empty()), "ConfigFrom"),
        (request.enable_ipv4 == Some(false), "EnableIPv4"),
    ] {
        if asked {
            return Err(EngineError::not_implemented(format!(
                "networks with this option are not supported ({field})"
            )));
        }
    }
    if !["", "local"].contains(&request.scope.as_str()) {
        return Err(EngineError::invalid(format!(
            "invalid scope: {}: only local networks are supported",
            request.scope
        )));
    }
    let ipam = request.ipam.unwrap_or_default();
    if !["", "default"].contains(&ipam.driver.as_str()) {
        return Err(EngineError::invalid(format!("could not find IPAM driver {}: use default", ipam.driver)));
    }
    // A pool that names only a gateway or nothing at all lets the engine choose.
    let pools = ipam.config.iter().flatten().filter(|pool| !pool.subnet.is_empty());
    let pools = pools.map(parse_pool).collect::<Result<_>>()?;
    Ok(NetworkSpec {
        name: request.name,
        driver: if request.driver.is_empty() { "bridge".to_owned() } else { request.driver },
        ipam: berth_network::IpamConfig { pools, options: ipam.options },
        internal: request.internal,
        attachable: request.attachable,
        enable_ipv6: request.enable_ipv6.unwrap_or(false),
        options: request.options,
        labels: request.labels,
    })
}

/// A container's networks: the highest priority gives the way out, then the network of the mode, then the name.
fn by_preference(definition: &Definition) -> Vec<(&String, &EndpointSettings)> {
    let mut networks: Vec<(&String, &EndpointSettings)> = definition.networks.iter().collect();
    let mode = &definition.host.network_mode;
    networks.sort_by_key(|(name, settings)| (-settings.gw_priority, **name != *mode, (*name).clone()));
    networks
}

impl Engine {
    /// The networks to join at the start, the one with the default route first.
    pub(crate) fn endpoint_requests(
        &self,
        definition: &Definition,
    ) -> Result<Vec<(NetworkId, EndpointRequest)>> {
        let networks = by_preference(definition);
        let mut requests = Vec::new();
        for (at, (name, settings)) in networks.into_iter().enumerate() {
            if name == "none" {
                continue;
            }
            let network = self.network.network(name)?;
            // Ports belong to the first network that has any; a link of one's own needs none.
            let first = at == 0 || requests.is_empty();
            let ports = if first { ports::requests(definition)? } else { Vec::new() };
            requests.push((network.id, request(definition, settings, ports)?));
        }
        Ok(requests)
    }

    fn driver_of(&self, endpoint: &Endpoint) -> String {
        let network = self.network.network(endpoint.network.as_str());
        network.map_or_else(|_| String::new(), |network| network.driver.as_str().to_owned())
    }

    pub(crate) fn network_event(&self, action: &str, endpoint: &Endpoint) {
        let attributes = [
            ("container", endpoint.container_id.clone()),
            ("name", endpoint.network_name.clone()),
            ("type", self.driver_of(endpoint)),
        ];
        let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        self.events.publish("network", action, endpoint.network.as_str(), attributes);
    }

    fn plain_network_event(&self, action: &str, network: &berth_network::Network) {
        let attributes = [("name", network.name.clone()), ("type", network.driver.as_str().to_owned())];
        let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        self.events.publish("network", action, network.id.as_str(), attributes);
    }

    /// Names of the containers, running or not, that are to join a network.
    fn network_users(&self, name: &str) -> Vec<Arc<Container>> {
        let all = self.containers.all().into_iter();
        all.filter(|container| container.definition().networks.contains_key(name)).collect()
    }

    /// The networks that pass the filters.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn list_networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        if let Some(key) = filters.unknown_key(&LIST_FILTERS) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let dangling = boolean(filters, "dangling")?;
        let kinds = filters.get("type");
        if let Some(kind) = kinds.iter().find(|kind| !["custom", "builtin"].contains(&kind.as_str())) {
            return Err(EngineError::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let one_of = |key: &str, test: &dyn Fn(&String) -> bool| {
            filters.get(key).is_empty() || filters.get(key).iter().any(test)
        };
        let networks = self.network.networks().into_iter().filter(|network| {
            one_of("name", &|wanted| network.name.contains(wanted.as_str()))
                && one_of("id", &|wanted| network.id.as_str().starts_with(wanted.as_str()))
                && one_of("driver", &|wanted| network.driver.as_str() == wanted)
                && one_of("scope", &|wanted| wanted == "local")
                && one_of("type", &|wanted| (wanted == "builtin") == network.is_predefined())
                && filters.matches_labels(&network.labels)
                && dangling.is_none_or(|dangling| {
                    (!network.is_predefined() && self.network_users(&network.name).is_empty()) == dangling
                })
        });
        Ok(networks.map(|network| show(&network)).collect())
    }

    /// A network with its containers.
    ///
    /// # Errors
    /// When there is none of this name or id.
    pub async fn inspect_network(&self, name: &str) -> Result<Network> {
        let network = self.network.network(name)?;
        let endpoints = self.network.endpoints(&network.id).into_iter().map(|endpoint| {
            let container = self.containers.find(&endpoint.container_id);
            let resource = EndpointResource {
                name: container
                    .map_or_else(|_| endpoint.container_name.clone(), |container| container.name()),
                endpoint_id: endpoint.id,
                mac_address: endpoint.mac.to_string(),
                ipv4_address: format!("{}/{}", endpoint.ipv4, endpoint.prefix_len),
                ipv6_address: endpoint.ipv6.map(|(ip, bits)| format!("{ip}/{bits}")).unwrap_or_default(),
            };
            (endpoint.container_id, resource)
        });
        Ok(Network { containers: Some(endpoints.collect()), ..show(&network) })
    }

    /// Makes a network.
    ///
    /// # Errors
    /// A name that is taken, empty or predefined, addresses that overlap, options that are not supported.
    pub async fn create_network(
        self: &Arc<Self>,
        request: NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse> {
        let spec = parse_spec(request)?;
        let engine = Arc::clone(self);
        let network =
            self.detached(
                async move { engine.blocking(|engine| Ok(engine.network.create_network(spec)?)).await },
            );
        let network = network.await?;
        self.plain_network_event("create", &network);
        Ok(NetworkCreateResponse { id: network.id.to_string(), warning: String::new() })
    }

    /// Removes a network that no container is connected to.
    ///
    /// # Errors
    /// When there is none of this name, it is predefined, or has endpoints.
    pub async fn remove_network(self: &Arc<Self>, name: &str) -> Result<()> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        let removed = self.detached(async move {
            engine.blocking(move |engine| Ok(engine.network.remove_network(&name)?)).await
        });
        let removed = removed.await.map_err(|error| match error.kind() {
            // Docker forbids it.
            Kind::Conflict => EngineError::forbidden(error.message()),
            _ => error,
        })?;
        self.plain_network_event("destroy", &removed);
        Ok(())
    }

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
            if definition.networks.contains_key(&network.name) {
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
        let definition = container.definition();
        let request = EndpointRequest { no_default_route: true, ..request_of(&definition, settings)? };
        let netns = netns_of(container)?;
        let (id, this) = (network.id.clone(), Arc::clone(container));
        let endpoint = self
            .blocking(move |engine| {
                let before = engine.network.container_endpoints(&this.id);
                let served = before.iter().any(|endpoint| dns::resolves_names(&endpoint.network_name));
                let endpoint = engine.network.attach(netns.as_fd(), &id, request)?;
                let all = engine.network.container_endpoints(&this.id);
                if let Err(error) = engine.announce(&this.definition(), &all, netns.as_fd(), served) {
                    for problem in
                        engine.network.detach(&this.id, &id, Some(netns.as_fd())).err().unwrap_or_default()
                    {
                        tracing::warn!(container = this.id, error = %problem, "giving up a connection");
                    }
                    return Err(error);
                }
                if !served && dns::resolves_names(&endpoint.network_name) {
                    engine.write_resolv_conf(&this.definition(), true)?;
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
        let mut definition = Definition::clone(&definition);
        definition.networks.insert(network.name.clone(), settings.clone());
        self.choose_way_out(container, definition).await
    }

    /// Leads a running container's default routes through the network that its definition prefers.
    async fn choose_way_out(
        self: &Arc<Self>,
        container: &Arc<Container>,
        definition: Definition,
    ) -> Result<()> {
        let netns = netns_of(container)?;
        let id = container.id.clone();
        self.blocking(move |engine| {
            let networks = by_preference(&definition).into_iter();
            let order: Vec<NetworkId> =
                networks.filter_map(|(name, _)| engine.network.network(name).ok()).map(|n| n.id).collect();
            Ok(engine.network.choose_way_out(netns.as_fd(), &id, &order)?)
        })
        .await
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
        self.choose_way_out(container, definition).await?;
        let container = Arc::clone(container);
        self.blocking(move |engine| {
            engine.withdraw(&container.id, std::slice::from_ref(&endpoint), false)?;
            let left = engine.network.container_endpoints(&container.id);
            let netns = netns_of(&container)?;
            engine.announce(
                &container.definition(),
                &left,
                netns.as_fd(),
                dns::resolves_names(&endpoint.network_name),
            )
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
        for endpoint in self.network.container_endpoints(&container.id) {
            if definition.networks.contains_key(&endpoint.network_name) {
                continue;
            }
            tracing::info!(container = container.id, network = endpoint.network_name, "undoing a connection");
            let netns = netns_of(container).ok();
            let netns = netns.as_ref().map(OwnedFd::as_fd);
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

    /// Removes the networks that no container uses.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn prune_networks(self: &Arc<Self>, filters: &Filters) -> Result<PruneNetworksResponse> {
        if let Some(key) = filters.unknown_key(&["label", "label!", "until"]) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let until = until(filters)?;
        let mut pruned = PruneNetworksResponse::default();
        for network in self.network.networks() {
            let old_enough = until.is_none_or(|until| network.created <= until);
            let unused = !network.is_predefined() && self.network_users(&network.name).is_empty();
            if !unused || !old_enough || !filters.matches_labels(&network.labels) {
                continue;
            }
            match self.remove_network(network.id.as_str()).await {
                Ok(()) => pruned.networks_deleted.get_or_insert_default().push(network.name),
                Err(error) => tracing::warn!(network = network.name, %error, "pruning a network"),
            }
        }
        self.events.publish(
            "network",
            "prune",
            "",
            BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]),
        );
        Ok(pruned)
    }
}

fn request_of(definition: &Definition, settings: &EndpointSettings) -> Result<EndpointRequest> {
    request(definition, settings, Vec::new())
}

fn request(
    definition: &Definition,
    settings: &EndpointSettings,
    ports: Vec<berth_network::PortRequest>,
) -> Result<EndpointRequest> {
    let ifname = settings.driver_opts.as_ref().and_then(|options| options.get(IFNAME)).cloned();
    Ok(EndpointRequest {
        container_id: definition.id.clone(),
        container_name: definition.name.clone(),
        ifname,
        ipv4: ipv4(settings)?,
        ipv6: ipv6(settings)?,
        link_local: link_local(settings)?,
        sysctls: endpoint_sysctls(settings, berth_network::IFNAME_PLACEHOLDER)?,
        mac: mac(settings)?,
        aliases: settings.aliases.clone().unwrap_or_default(),
        ports,
        ..EndpointRequest::default()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<NetworkSpec> {
        parse_spec(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn requests_become_specs() {
        let spec = spec(
            r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.1","IPRange":"10.9.0.128/25"}]}}"#,
        )
        .unwrap();
        assert_eq!((spec.driver.as_str(), spec.ipam.pools.len()), ("bridge", 1));
        assert_eq!(spec.ipam.pools[0].gateway, Some(IpAddr::from([10, 9, 0, 1])));
    }

    #[test]
    fn bad_requests_are_refused() {
        assert_eq!(spec("{}").unwrap_err().message(), "invalid name: name is empty");
        assert!(spec(r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"x"}]}}"#).is_err());
        assert!(spec(r#"{"Name":"n","ConfigOnly":true}"#).unwrap_err().message().contains("ConfigOnly"));
        assert!(spec(r#"{"Name":"n","Scope":"swarm"}"#).is_err());
    }

    #[test]
    fn fixed_addresses_need_a_network_of_ones_own() {
        let settings: EndpointSettings =
            serde_json::from_str(r#"{"IPAMConfig":{"IPv4Address":"10.0.0.9"}}"#).unwrap();
        assert!(check_endpoint("mine", &settings).is_ok());
        assert!(
            check_endpoint("bridge", &settings).unwrap_err().message().contains("user defined networks only")
        );
        let settings: EndpointSettings = serde_json::from_str(r#"{"MacAddress":"zz"}"#).unwrap();
        assert!(check_endpoint("mine", &settings).is_err());
    }
}
