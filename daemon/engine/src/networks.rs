//! Networks: docker's view of the network controller.

mod connect;
mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::network::{
    ConfigReference, EndpointResource, EndpointSettings, Ipam, IpamConfig, IpamStatus, Network,
    NetworkCreateRequest, NetworkCreateResponse, NetworkStatus, PruneNetworksResponse, SubnetStatus,
};
use berth_api::{Filters, Time};
use berth_network::{Endpoint, EndpointRequest, IpamPool, NetworkId, NetworkSpec};

use crate::containers::filters::{boolean, until};
use crate::containers::{Container, Definition, ports};
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};
pub(crate) use connect::netns_of;
use endpoint::request;
pub(crate) use endpoint::{check_endpoint, endpoint_settings};

const LIST_FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

fn show(network: &berth_network::Network) -> Network {
    let pools: Vec<IpamConfig> = network.ipam.pools.iter().map(show_pool).collect();
    Network {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: Time(network.created),
        scope: "local".to_owned(),
        driver: network.driver.as_str().to_owned(),
        enable_ipv4: network.enable_ipv4,
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
        config_only: network.config_only,
        config_from: ConfigReference { network: network.config_from.clone() },
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

/// How many addresses of a pool are taken, by containers and by the network itself, and how many it can still give.
fn fullness(pool: &IpamPool, endpoints: &[berth_network::Endpoint]) -> SubnetStatus {
    let subnet = pool.subnet;
    // The network's own address and that of all hosts; of IPv6 the address of all routers.
    let ends = match (subnet.is_ipv6(), subnet.size()) {
        (false, 0..=2) => [None, None],
        (false, _) => [Some(subnet.network()), Some(subnet.last())],
        (true, _) => [Some(subnet.network()), None],
    };
    let own = ends.into_iter().flatten().chain(pool.gateway).chain(pool.aux_addresses.values().copied());
    let given = endpoints.iter().flat_map(|endpoint| {
        [endpoint.ipv4.map(IpAddr::from), endpoint.ipv6.map(|(ip, _)| IpAddr::from(ip))]
    });
    let taken: BTreeSet<IpAddr> =
        own.chain(given.flatten()).filter(|address| subnet.contains(*address)).collect();
    let range = pool.ip_range.unwrap_or(subnet);
    let taken_of_range = taken.iter().filter(|address| range.contains(**address)).count() as u128;
    let available = range.size().saturating_sub(taken_of_range);
    SubnetStatus {
        ips_in_use: taken.len() as u64,
        dynamic_ips_available: u64::try_from(available).unwrap_or(u64::MAX),
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
    Ok(IpamPool { subnet, ip_range, gateway, aux_addresses, asked_for: true })
}

fn parse_spec(request: NetworkCreateRequest) -> Result<NetworkSpec> {
    if request.name.trim().is_empty() {
        return Err(EngineError::invalid("invalid name: name is empty"));
    }
    if request.ingress {
        return Err(EngineError::not_implemented("networks with this option are not supported (Ingress)"));
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
        enable_ipv4: request.enable_ipv4.unwrap_or(true),
        enable_ipv6: request.enable_ipv6.unwrap_or(false),
        options: request.options,
        labels: request.labels,
        config_only: request.config_only,
        config_from: request.config_from.map(|from| from.network).unwrap_or_default(),
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
        let endpoints = self.network.endpoints(&network.id);
        let pools = network.ipam.pools.iter();
        let subnets = pools.map(|pool| (pool.subnet.to_string(), fullness(pool, &endpoints))).collect();
        let endpoints = endpoints.into_iter().map(|endpoint| {
            let container = self.containers.find(&endpoint.container_id);
            let resource = EndpointResource {
                name: container
                    .map_or_else(|_| endpoint.container_name.clone(), |container| container.name()),
                endpoint_id: endpoint.id,
                mac_address: endpoint.mac.to_string(),
                ipv4_address: endpoint
                    .ipv4
                    .map(|ip| format!("{ip}/{}", endpoint.prefix_len))
                    .unwrap_or_default(),
                ipv6_address: endpoint.ipv6.map(|(ip, bits)| format!("{ip}/{bits}")).unwrap_or_default(),
            };
            (endpoint.container_id, resource)
        });
        let status = Some(NetworkStatus { ipam: IpamStatus { subnets } });
        Ok(Network { containers: Some(endpoints.collect()), status, ..show(&network) })
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
        // The first line names the other firewall; `info` has them all.
        let bridge = network.bridge.clone();
        let warnings = self.network.warnings().into_iter();
        let warning = warnings.filter(|warning| !bridge.is_empty() && warning.contains(&bridge));
        let warning = warning.collect::<Vec<_>>().join("\n");
        Ok(NetworkCreateResponse { id: network.id.to_string(), warning })
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
        assert!(spec(r#"{"Name":"n","Ingress":true}"#).unwrap_err().message().contains("Ingress"));
        assert!(spec(r#"{"Name":"n","Scope":"swarm"}"#).is_err());
    }
}
