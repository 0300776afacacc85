//! Ports: what is exposed, what is to be published, what is published. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use berth_api::container::{ContainerConfig, HostConfig, PortBinding, PortMap, PortSummary};
use berth_network::{PortRequest, Protocol, PublishedPort};

use super::record::{Definition, Status};
use crate::error::{EngineError, Result};

/// `80/tcp`, or `80`, which is the same.
fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.parse::<Protocol>().map_err(EngineError::invalid)?;
    let number = number
        .parse::<u16>()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| EngineError::invalid(format!("invalid port specification: {text:?}")))?;
    Ok((number, protocol))
}

/// A host port or a range of them; empty and `0` draw one.
fn parse_host_port(text: &str) -> Result<Option<RangeInclusive<u16>>> {
    let invalid = || EngineError::invalid(format!("invalid port specification: {text:?}"));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if first > last { Err(invalid()) } else { Ok(Some(first..=last)) }
}

/// Checks ports, makes ranges of exposed ones single ports, and brings bindings into the form `80/tcp`. An exposed `80` stays
/// as it was written.
pub(crate) fn normalize(config: &mut ContainerConfig, host: &mut HostConfig) -> Result<()> {
    let mut exposed = std::collections::BTreeMap::new();
    for port in config.exposed_ports.keys() {
        for port in expand(port)? {
            exposed.insert(port, berth_api::Empty);
        }
    }
    let mut bindings = PortMap::new();
    for (port, wanted) in std::mem::take(&mut host.port_bindings) {
        let (number, protocol) = parse_port(&port)?;
        for binding in wanted.iter().flatten() {
            parse_host_port(&binding.host_port)?;
            host_ip(&binding.host_ip)?;
        }
        exposed.entry(format!("{number}/{protocol}")).or_insert(berth_api::Empty);
        bindings.insert(format!("{number}/{protocol}"), wanted);
    }
    config.exposed_ports = exposed;
    host.port_bindings = bindings;
    Ok(())
}

/// `7000-7002/tcp` names three ports.
fn expand(text: &str) -> Result<Vec<String>> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let Some((first, last)) = numbers.split_once('-') else {
        parse_port(text)?;
        return Ok(vec![text.to_owned()]);
    };
    let (first, protocol) = parse_port(&format!("{first}/{protocol}"))?;
    let (last, _) = parse_port(&format!("{last}/{protocol}"))?;
    Ok((first..=last).map(|number| format!("{number}/{protocol}")).collect())
}

fn host_ip(text: &str) -> Result<Option<IpAddr>> {
    match text.trim_start_matches('[').trim_end_matches(']') {
        "" => Ok(None),
        text => {
            text.parse().map(Some).map_err(|_| EngineError::invalid(format!("invalid IP address: {text}")))
        }
    }
}

/// The exposed ports in the form `80/tcp`, each once.
fn exposed(definition: &Definition) -> Result<BTreeSet<String>> {
    let form = |port: &String| parse_port(port).map(|(number, protocol)| format!("{number}/{protocol}"));
    definition.config.exposed_ports.keys().map(form).collect()
}

/// What a container's network is to publish.
pub(crate) fn requests(definition: &Definition) -> Result<Vec<PortRequest>> {
    let mut requests = Vec::new();
    for (port, bindings) in &definition.host.port_bindings {
        let (container_port, protocol) = parse_port(port)?;
        let default = [PortBinding::default()];
        let bindings = match bindings.as_deref() {
            None | Some([]) => &default[..],
            Some(bindings) => bindings,
        };
        for binding in bindings {
            requests.push(PortRequest {
                container_port,
                protocol,
                host_ip: host_ip(&binding.host_ip)?,
                host_port: parse_host_port(&binding.host_port)?,
            });
        }
    }
    if definition.host.publish_all_ports {
        for port in exposed(definition)? {
            if definition.host.port_bindings.contains_key(&port) {
                continue;
            }
            let (container_port, protocol) = parse_port(&port)?;
            requests.push(PortRequest { container_port, protocol, host_ip: None, host_port: None });
        }
    }
    Ok(requests)
}

/// The ports of inspect: exposed ones are `null` unless published; none when there is no process.
pub(crate) fn map(definition: &Definition, status: &Status) -> PortMap {
    if !status.phase.is_alive() || definition.has_host_network() || definition.network_donor().is_some() {
        return PortMap::new();
    }
    let exposed = exposed(definition).unwrap_or_default();
    let mut ports: PortMap = exposed.into_iter().map(|port| (port, None)).collect();
    for port in status.ports() {
        let binding =
            PortBinding { host_ip: port.host_ip.to_string(), host_port: port.host_port.to_string() };
        let entry = ports.entry(format!("{}/{}", port.container_port, port.protocol)).or_default();
        entry.get_or_insert_default().push(binding);
    }
    ports
}

/// The ports of a list.
pub(crate) fn summaries(definition: &Definition, status: &Status) -> Vec<PortSummary> {
    let mut summaries = Vec::new();
    for (port, bindings) in map(definition, status) {
        let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let exposed = PortSummary {
            private_port: number.parse().unwrap_or(0),
            kind: protocol.to_owned(),
            ..PortSummary::default()
        };
        match bindings {
            None => summaries.push(exposed),
            Some(bindings) => summaries.extend(bindings.into_iter().map(|binding| PortSummary {
                ip: binding.host_ip,
                public_port: binding.host_port.parse().unwrap_or(0),
                ..exposed.clone()
            })),
        }
    }
    summaries
}

/// Whether a published port is meant by a `publish` filter, `80`, `80/udp`, `8000-8010`.
pub(crate) fn is_published(port: &PublishedPort, filter: &str) -> Result<bool> {
    port_filter(filter, port.host_port, port.protocol)
}

/// Whether an exposed port is meant by an `expose` filter.
pub(crate) fn is_exposed(port: &str, filter: &str) -> Result<bool> {
    let (number, protocol) = parse_port(port)?;
    port_filter(filter, number, protocol)
}

/// Whether a `publish` or `expose` filter can be read.
pub(crate) fn check_filter(filter: &str) -> Result<()> {
    meant_by(filter).map(drop)
}

fn port_filter(filter: &str, number: u16, protocol: Protocol) -> Result<bool> {
    let (range, wanted) = meant_by(filter)?;
    Ok(wanted == protocol && range.contains(&number))
}

fn meant_by(filter: &str) -> Result<(RangeInclusive<u16>, Protocol)> {
    let (range, wanted) = filter.split_once('/').unwrap_or((filter, "tcp"));
    let wanted: Protocol = wanted.parse().map_err(EngineError::invalid)?;
    let invalid = || EngineError::invalid(format!("invalid port specification: {filter:?}"));
    Ok((parse_host_port(range)?.ok_or_else(invalid)?, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(config: &str, host: &str) -> Result<Definition> {
        let mut config: ContainerConfig = serde_json::from_str(config).unwrap();
        let mut host: HostConfig = serde_json::from_str(host).unwrap();
        normalize(&mut config, &mut host)?;
        Ok(Definition { config, host, ..Definition::default() })
    }

    #[test]
    fn bindings_become_requests() {
        let definition = definition(
            r#"{"ExposedPorts":{"81/udp":{},"7000-7001":{}}}"#,
            r#"{"PortBindings":{"80":[{"HostIp":"127.0.0.1","HostPort":"8000-8010"}],"90/tcp":null},"PublishAllPorts":true}"#,
        )
        .unwrap();
        let requests = requests(&definition).unwrap();
        assert_eq!(requests.len(), 5);
        assert!(definition.config.exposed_ports.contains_key("7001/tcp"));
        assert_eq!(requests[0].host_port, Some(8000..=8010));
        assert_eq!(requests[0].host_ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!((requests[1].container_port, requests[1].host_port.clone()), (90, None));
        assert!(definition.config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn an_exposed_port_stays_as_it_was_written() {
        let definition =
            definition(r#"{"ExposedPorts":{"80":{},"80/tcp":{}}}"#, r#"{"PublishAllPorts":true}"#);
        let definition = definition.unwrap();
        assert_eq!(definition.config.exposed_ports.len(), 2);
        assert_eq!(requests(&definition).unwrap().len(), 1);
    }

    #[test]
    fn bad_ports_are_refused() {
        let message = |host| definition("{}", host).unwrap_err().message().to_owned();
        assert_eq!(message(r#"{"PortBindings":{"80/bogus":[]}}"#), "invalid proto: bogus");
        assert_eq!(
            message(r#"{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}"#),
            "invalid port specification: \"x\""
        );
        assert!(message(r#"{"PortBindings":{"0/tcp":[]}}"#).starts_with("invalid port"));
        assert!(message(r#"{"PortBindings":{"80/tcp":[{"HostPort":"9-8"}]}}"#).starts_with("invalid port"));
        assert!(message(r#"{"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}"#).starts_with("invalid IP"));
    }

    #[test]
    fn filters_know_ranges_and_protocols() {
        let port = PublishedPort {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: "0.0.0.0".parse().unwrap(),
            host_port: 8080,
        };
        assert!(is_published(&port, "8080").unwrap());
        assert!(is_published(&port, "8000-9000/tcp").unwrap());
        assert!(!is_published(&port, "8080/udp").unwrap());
        assert!(is_published(&port, "x").is_err());
        assert!(is_exposed("53/udp", "53/udp").unwrap());
    }
}
