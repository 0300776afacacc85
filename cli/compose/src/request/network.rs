//! Endpoints.

use berth_client::api::{
    ApiVersion,
    network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig},
};

use super::Wanted;
use crate::{Result, error::Error};

/// API in which a container can be created in several networks, each endpoint with its hardware address.
pub(crate) const MANY_ENDPOINTS: ApiVersion = ApiVersion::new(1, 44);
/// API that has names for interfaces.
const INTERFACE_NAME: ApiVersion = ApiVersion::new(1, 49);
/// The driver option for it.
const IFNAME: &str = "com.docker.network.endpoint.ifname";

/// The most important network of a service, by its key.
pub(crate) fn primary_network<'a>(wanted: &'a Wanted<'_>) -> Option<&'a str> {
    if !wanted.service.network_mode.is_empty() || wanted.project.networks.is_empty() {
        return None;
    }
    Some(wanted.service.networks_by_priority().first().copied().unwrap_or("default"))
}

/// The endpoints a container is created with, and its network mode.
pub(super) fn settings(wanted: &Wanted<'_>) -> Result<(Option<NetworkingConfig>, String)> {
    let service = wanted.service;
    if !service.network_mode.is_empty() {
        return Ok((None, service.network_mode.clone()));
    }
    let Some(primary) = primary_network(wanted) else { return Ok((None, "none".to_owned())) };
    let named = service.networks.values().flatten().any(|network| !network.interface_name.is_empty());
    if named && wanted.api < INTERFACE_NAME {
        return Err(Error::service(wanted.name, "interface_name requires Docker Engine v28.1 or later"));
    }
    let name =
        |key: &str| wanted.project.networks.get(key).map(|network| network.name.clone()).unwrap_or_default();
    let mut first = endpoint(wanted, primary);
    let mut config = NetworkingConfig::default();
    if wanted.api >= MANY_ENDPOINTS {
        for key in service.networks_by_priority().into_iter().skip(1) {
            config.endpoints_config.insert(name(key), Some(endpoint(wanted, key)));
        }
        if first.mac_address.is_empty() {
            first.mac_address.clone_from(&service.mac_address);
        }
    }
    config.endpoints_config.insert(name(primary), Some(first));
    Ok((Some(config), name(primary)))
}

/// The endpoint of a container in one network.
pub(crate) fn endpoint(wanted: &Wanted<'_>, key: &str) -> EndpointSettings {
    let mut aliases = vec![wanted.container.clone()];
    let config = wanted.service.networks.get(key).and_then(Option::as_ref);
    if wanted.aliases {
        aliases.push(wanted.name.to_owned());
        aliases.extend(config.into_iter().flat_map(|config| config.aliases.iter().cloned()));
    }
    let mut settings = EndpointSettings {
        aliases: Some(aliases),
        links: Some(wanted.links.clone()).filter(|links| !links.is_empty()),
        ..EndpointSettings::default()
    };
    if let Some(config) = config {
        settings.ip_address.clone_from(&config.ipv4_address);
        settings.ipv6_gateway.clone_from(&config.ipv6_address);
        settings.ipam_config = Some(EndpointIpamConfig {
            ipv4_address: config.ipv4_address.clone(),
            ipv6_address: config.ipv6_address.clone(),
            link_local_ips: Some(config.link_local_ips.clone()).filter(|ips| !ips.is_empty()),
        });
        settings.mac_address.clone_from(&config.mac_address);
        settings.gw_priority = config.gw_priority;
        let mut options = config.driver_opts.0.clone();
        if !config.interface_name.is_empty() {
            options.insert(IFNAME.to_owned(), config.interface_name.clone());
        }
        settings.driver_opts = Some(options).filter(|options| !options.is_empty());
    }
    settings
}

/// The container's own hardware address, which engines before API 1.44 want.
pub(super) fn container_mac(wanted: &Wanted<'_>) -> Result<String> {
    let service = wanted.service;
    let primary = service.networks_by_priority().first().copied();
    let main = primary.and_then(|key| service.networks.get(key)).and_then(Option::as_ref);
    let own = &service.mac_address;
    if let (Some(key), Some(main)) = (primary, main)
        && !own.is_empty()
        && !main.mac_address.is_empty()
        && main.mac_address != *own
    {
        let message = format!("the service-level mac_address should have the same value as network {key}");
        return Err(Error::service(wanted.name, message));
    }
    if wanted.api >= MANY_ENDPOINTS {
        return Ok(String::new());
    }
    let with: Vec<&str> = service
        .networks
        .iter()
        .filter(|(_, network)| network.as_ref().is_some_and(|network| !network.mac_address.is_empty()))
        .map(|(key, _)| key.as_str())
        .collect();
    if with.len() > 1 {
        let message = format!(
            "a MAC address is specified for multiple networks ({}), but this feature requires Docker Engine v25 or later",
            with.join(", ")
        );
        return Err(Error::service(wanted.name, message));
    }
    Ok(main.map(|main| main.mac_address.clone()).filter(|mac| !mac.is_empty()).unwrap_or_else(|| own.clone()))
}
