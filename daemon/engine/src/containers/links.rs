//! Links (`--link other:alias`): docker's way of before there were networks with names.
//!
//! On the default bridge a link is a line in /etc/hosts and some variables, both made at the start; the line follows the
//! other container's address. On other networks a link is an alias that only this container can resolve, told to the
//! resolver process (see `dns`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::network::EndpointSettings;
use serde::{Deserialize, Serialize};

use super::Container;
use super::record::Definition;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::resolve_files::HostLine;

/// The network whose links are lines and variables.
const BRIDGE: &str = "bridge";

/// One link of a container on the default bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Id of the other container.
    pub(crate) to: String,
    pub(crate) alias: String,
}

/// `name`, `name:alias`, or as inspect shows it: `/name:/own/alias`.
pub(crate) fn parse(text: &str) -> Result<(&str, &str)> {
    if text.is_empty() {
        return Err(EngineError::invalid("empty string specified for links"));
    }
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let alias = if name.starts_with('/') { alias.rsplit('/').next().unwrap_or(alias) } else { alias };
    if alias.contains(':') || alias.is_empty() || name.is_empty() {
        return Err(EngineError::invalid(format!("bad format for links: {text}")));
    }
    Ok((name, alias))
}

/// The aliases that links of an endpoint on a network with names give: alias → name.
pub(crate) fn aliases<'a>(endpoints: impl Iterator<Item = &'a EndpointSettings>) -> BTreeMap<String, String> {
    let links = endpoints.flat_map(|endpoint| endpoint.links.iter().flatten());
    links
        .filter_map(|text| parse(text).ok())
        .map(|(name, alias)| (alias.to_ascii_lowercase(), name.trim_start_matches('/').to_ascii_lowercase()))
        .collect()
}

/// Docker's variables for a link.
fn environment(alias: &str, path: &str, address: IpAddr, other: &Definition) -> Vec<String> {
    let name = alias.to_ascii_uppercase().replace('-', "_");
    let mut list = Vec::new();
    let mut ports: Vec<(u16, &str)> = other
        .config
        .exposed_ports
        .keys()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port.as_str(), "tcp"));
            Some((number.parse().ok()?, protocol))
        })
        .collect();
    // The lowest TCP port stands for the link.
    ports.sort_by_key(|(number, protocol)| (*protocol != "tcp", *number));
    if let Some((port, protocol)) = ports.first() {
        list.push(format!("{name}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in ports {
        let key = format!("{name}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        list.push(format!("{key}={protocol}://{address}:{port}"));
        list.push(format!("{key}_ADDR={address}"));
        list.push(format!("{key}_PORT={port}"));
        list.push(format!("{key}_PROTO={protocol}"));
    }
    list.push(format!("{name}_NAME={path}"));
    let own = |entry: &&String| !["HOME", "PATH"].contains(&entry.split('=').next().unwrap_or_default());
    let variables = other.config.env.iter().flatten().filter(own).filter(|entry| entry.contains('='));
    list.extend(variables.map(|entry| format!("{name}_ENV_{entry}")));
    list
}

impl Engine {
    /// The links of a container that is to be created. Only the default bridge has them; without a network, or with another's,
    /// they mean nothing, but must lead somewhere. On a network with names that is asked when the name is.
    pub(super) fn resolve_links(&self, network: &str, wanted: Option<&Vec<String>>) -> Result<Vec<Link>> {
        let shared = network.starts_with("container:");
        if !shared && !matches!(network, BRIDGE | "host" | "none") {
            return Ok(Vec::new());
        }
        let link = |text: &String| -> Result<Link> {
            let (name, alias) = parse(text)?;
            let other = self.containers.find(name);
            let other = other.map_err(|error| {
                EngineError::invalid(format!("could not get container for {name}: {error}"))
            })?;
            Ok(Link { to: other.id.clone(), alias: alias.to_owned() })
        };
        let links: Vec<Link> = wanted.into_iter().flatten().map(link).collect::<Result<_>>()?;
        Ok(if network == BRIDGE { links } else { Vec::new() })
    }

    /// Links whose other end still exists.
    fn links<'a>(&self, definition: &'a Definition) -> impl Iterator<Item = (&'a Link, Arc<Container>)> {
        let found = |link: &'a Link| self.containers.find(&link.to).ok().map(|other| (link, other));
        definition.links.iter().filter_map(found).collect::<Vec<_>>().into_iter()
    }

    /// `/other:/own/alias`, as inspect shows links.
    pub(super) fn shown_links(&self, definition: &Definition) -> Option<Vec<String>> {
        let links = self.links(definition);
        let shown: Vec<String> = links
            .map(|(link, other)| format!("/{}:/{}/{}", other.name(), definition.name, link.alias))
            .collect();
        (!shown.is_empty()).then_some(shown)
    }

    /// The names `/other/alias` that other containers' links give each container, by its id.
    pub(super) fn link_names(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.containers.all() {
            let definition = container.definition();
            for link in &definition.links {
                names
                    .entry(link.to.clone())
                    .or_default()
                    .push(format!("/{}/{}", definition.name, link.alias));
            }
        }
        names
    }

    /// Variables of the links; every linked container must run.
    pub(super) fn link_environment(&self, definition: &Definition) -> Result<Vec<String>> {
        let mut list = Vec::new();
        for (link, other) in self.links(definition) {
            let path = format!("/{}/{}", definition.name, link.alias);
            let status = other.status();
            if !status.phase.is_running() {
                let name = other.name();
                return Err(EngineError::internal(format!(
                    "Cannot link to a non running container: /{name} AS {path}"
                )));
            }
            let Some(endpoint) = status.endpoints.get(BRIDGE) else {
                let name = other.name();
                return Err(EngineError::internal(format!(
                    "Cannot link to /{name}, as it does not belong to the default network"
                )));
            };
            if let Some(address) = endpoint.addresses().next() {
                list.extend(environment(&link.alias, &path, address, &other.definition()));
            }
        }
        Ok(list)
    }

    /// Lines of /etc/hosts for the links: alias, host name and name of the other.
    pub(super) fn link_lines(&self, definition: &Definition) -> Vec<HostLine> {
        let line = |(link, other): (&Link, Arc<Container>)| {
            let address = other.status().endpoints.get(BRIDGE)?.addresses().next()?;
            let other = other.definition();
            let mut names = vec![link.alias.clone(), other.hostname().to_owned()];
            if link.alias != other.name {
                names.push(other.name.clone());
            }
            Some(HostLine { address, names })
        };
        self.links(definition).filter_map(line).collect()
    }

    /// Rewrites the hosts files of those that are linked to a container, which has another address now. Blocking.
    pub(super) fn refresh_linked(&self, id: &str) {
        for container in self.containers.all() {
            let linked = container.definition().links.iter().any(|link| link.to == id);
            if linked && container.phase().is_alive() {
                self.refresh_hosts(&container.id);
            }
        }
    }

    /// Removes the link that `container/alias` names.
    pub(super) fn remove_link(&self, name: &str) -> Result<()> {
        let (parent, alias) = name
            .trim_start_matches('/')
            .split_once('/')
            .ok_or_else(|| EngineError::invalid(format!("{name} is no link: CONTAINER/ALIAS is expected")))?;
        let container = self.containers.find(parent).map_err(|_| {
            EngineError::not_found(format!("Cannot get parent /{parent} for link name {name}"))
        })?;
        if !container.definition().links.iter().any(|link| link.alias == alias) {
            return Err(EngineError::not_found(format!("No such link: {name}")));
        }
        container.redefine(&self.db, |definition| definition.links.retain(|link| link.alias != alias))?;
        if container.phase().is_alive() {
            self.refresh_hosts(&container.id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_parsed_as_docker_does() {
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("db:base").unwrap(), ("db", "base"));
        assert_eq!(parse("/db:/web/base").unwrap(), ("/db", "base"));
        for bad in ["", "a:b:c", ":b", "a:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_dockers() {
        let config = r#"{"ExposedPorts":{"6379/tcp":{},"53/udp":{}},"Env":["PATH=/bin","MODE=x"]}"#;
        let other = Definition { config: serde_json::from_str(config).unwrap(), ..Definition::default() };
        let list = environment("my-db", "/web/my-db", IpAddr::from([172, 17, 0, 2]), &other);
        assert_eq!(list[0], "MY_DB_PORT=tcp://172.17.0.2:6379");
        assert!(list.contains(&"MY_DB_PORT_6379_TCP_ADDR=172.17.0.2".to_owned()));
        assert!(list.contains(&"MY_DB_PORT_53_UDP_PROTO=udp".to_owned()));
        assert!(list.contains(&"MY_DB_NAME=/web/my-db".to_owned()));
        assert!(list.contains(&"MY_DB_ENV_MODE=x".to_owned()));
        assert!(!list.iter().any(|entry| entry.contains("ENV_PATH")));
    }
}
