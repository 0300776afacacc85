//! The generated files: hosts, hostname, resolv.conf. They lie in the container's directory and are bind-mounted, so
//! they are rewritten in place: a new file would not be seen inside.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use berth_network::Endpoint;

use super::Container;
use super::record::Definition;
use crate::engine::Engine;
use crate::error::{IoContext as _, Result};
use crate::ids;
use crate::resolve_files::{self, HostLine, HostResolver};

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .during("create", path)?;
    file.write_all(text.as_bytes()).during("write", path)
}

impl Engine {
    /// hostname and resolv.conf, which do not depend on the address.
    pub(crate) fn write_static_files(&self, definition: &Definition) -> Result<()> {
        if definition.network_donor().is_some() {
            return Ok(());
        }
        let dir = self.container_dir(&definition.id);
        write(&dir.join("hostname"), &format!("{}\n", definition.hostname()))?;
        let host = &definition.host;
        let given = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let mut wanted = HostResolver {
            servers: given(&host.dns),
            search: given(&host.dns_search),
            options: given(&host.dns_options),
        };
        if wanted.servers.is_empty() {
            wanted.servers.clone_from(&self.config.dns);
        }
        let text = resolve_files::resolv_conf(&HostResolver::read(), &wanted, definition.has_host_network());
        write(&dir.join("resolv.conf"), &text)
    }

    /// hosts, of this container and of its neighbours in networks that resolve names.
    pub(crate) fn write_network_files(&self, container: &Container, endpoints: &[Endpoint]) -> Result<()> {
        let definition = container.definition();
        if definition.network_donor().is_some() {
            return Ok(());
        }
        self.write_hosts(&definition, endpoints.iter())?;
        let joined =
            endpoints.iter().map(|endpoint| (endpoint.network_name.clone(), endpoint.clone())).collect();
        self.refresh_neighbours(container, &joined);
        Ok(())
    }

    fn write_hosts<'a>(
        &self,
        definition: &Definition,
        endpoints: impl Iterator<Item = &'a Endpoint>,
    ) -> Result<()> {
        let endpoints: Vec<&Endpoint> = endpoints.collect();
        let names = resolve_files::own_names(definition.hostname(), &definition.config.domainname);
        let own: Vec<HostLine> = endpoints
            .iter()
            .map(|endpoint| HostLine { address: IpAddr::V4(endpoint.ipv4), names: names.clone() })
            .collect();
        let mut neighbours = Vec::new();
        for endpoint in endpoints.iter().filter(|endpoint| resolves_names(&endpoint.network_name)) {
            for other in self.network.endpoints(&endpoint.network) {
                if other.container_id != definition.id {
                    neighbours.push(self.neighbour(&other));
                }
            }
        }
        let extra = definition.host.extra_hosts.as_deref().unwrap_or_default();
        let gateway =
            extra.iter().any(|entry| entry.ends_with("host-gateway")).then(|| self.host_gateway()).flatten();
        let text = resolve_files::hosts(extra, gateway, &own, &neighbours);
        write(&self.container_dir(&definition.id).join("hosts"), &text)
    }

    /// The address of the host as containers of the default network see it.
    fn host_gateway(&self) -> Option<Ipv4Addr> {
        let bridge = self.network.network("bridge").ok()?;
        bridge.pool().and_then(|pool| pool.gateway)
    }

    fn neighbour(&self, endpoint: &Endpoint) -> HostLine {
        let id = &endpoint.container_id;
        let mut names = vec![endpoint.container_name.clone()];
        if let Ok(container) = self.containers.find(id) {
            let definition = container.definition();
            names[0].clone_from(&definition.name);
            if definition.hostname() != ids::short(id) {
                names.push(definition.hostname().to_owned());
            }
        }
        names.push(ids::short(id).to_owned());
        names.extend(endpoint.aliases.iter().cloned());
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        HostLine { address: IpAddr::V4(endpoint.ipv4), names }
    }

    /// Rewrites the hosts files of those who share a network with a container that came or went.
    pub(crate) fn refresh_neighbours(&self, container: &Container, networks: &BTreeMap<String, Endpoint>) {
        for endpoint in networks.values().filter(|endpoint| resolves_names(&endpoint.network_name)) {
            for other in self.network.endpoints(&endpoint.network) {
                if other.container_id != container.id {
                    self.refresh_hosts(&other.container_id);
                }
            }
        }
    }

    /// Rewrites the hosts file of a container that runs.
    pub(crate) fn refresh_hosts(&self, id: &str) {
        let Ok(container) = self.containers.find(id) else { return };
        let endpoints = self.network.container_endpoints(id);
        if let Err(error) = self.write_hosts(&container.definition(), endpoints.iter()) {
            tracing::warn!(container = id, %error, "rewriting a container's hosts file");
        }
    }
}

/// Containers of the default network do not know each other's names, as in docker.
fn resolves_names(network: &str) -> bool {
    network != "bridge"
}
