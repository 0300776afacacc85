//! What a container wishes of a network, and what it got there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::network::EndpointSettings;
use berth_network::{Endpoint, EndpointRequest, MacAddress};

use crate::containers::{Definition, links};
use crate::dns;
use crate::error::{EngineError, Result};

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
    for link in settings.links.iter().flatten() {
        links::parse(link)?;
    }
    let aliases = settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty());
    if aliases && matches!(network, "bridge" | "host" | "none") {
        return Err(EngineError::invalid(
            "invalid endpoint settings: network-scoped aliases are only supported for user-defined networks",
        ));
    }
    Ok(())
}

/// Checks the fixed addresses against those that the network has.
pub(super) fn check_addresses(network: &berth_network::Network, settings: &EndpointSettings) -> Result<()> {
    let wanted = [ipv4(settings)?.map(IpAddr::V4), ipv6(settings)?.map(IpAddr::V6)];
    Ok(wanted.into_iter().flatten().try_for_each(|address| network.check_address(address))?)
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
    settings.ip_address = endpoint.ipv4.map(|address| address.to_string()).unwrap_or_default();
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

/// The wish without ports.
pub(super) fn request_of(definition: &Definition, settings: &EndpointSettings) -> Result<EndpointRequest> {
    request(definition, settings, Vec::new())
}

/// The wish with the ports that this network publishes.
pub(super) fn request(
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn settings_are_of_the_interface_alone() {
        let of = |list: &str| {
            let json = format!(r#"{{"DriverOpts":{{"com.docker.network.endpoint.sysctls":"{list}"}}}}"#);
            endpoint_sysctls(&serde_json::from_str(&json).unwrap(), "eth0")
        };
        let made = of("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2").unwrap();
        assert_eq!(made[0], ("ipv4/conf/eth0/log_martians".to_owned(), "1".to_owned()));
        assert_eq!(made.len(), 2);
        for bad in [
            "net.ipv4.ip_forward=1",
            "kernel.msgmax=1",
            "net.ipv4.conf.eth0.x=1",
            "net.ipv4.conf.IFNAME./x=1",
            "x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
