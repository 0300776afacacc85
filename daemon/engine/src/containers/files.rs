//! The generated files: hosts, hostname, resolv.conf. They lie in the container's directory and are bind-mounted, so
//! they are rewritten in place: a new file would not be seen inside.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_network::Endpoint;

use super::Container;
use super::record::Definition;
use crate::dns;
use crate::engine::Engine;
use crate::error::{IoContext as _, Result};
use crate::resolve_files::{self, HostLine, HostResolver};

/// The files and where containers see them.
const GENERATED: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

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
    /// The generated files that a container sees: path and target. Those that are made at its start may be missing.
    pub(crate) fn generated_files(&self, definition: &Definition) -> Result<Vec<(PathBuf, &'static str)>> {
        let dir = match definition.network_donor() {
            Some(donor) => self.container_dir(&self.containers.find(donor)?.id),
            None => self.container_dir(&definition.id),
        };
        let taken = |target: &str| definition.mounts.iter().any(|plan| plan.target == target);
        let free = GENERATED.into_iter().filter(|(_, target)| !taken(target));
        Ok(free.map(|(file, target)| (dir.join(file), target)).collect())
    }

    /// Makes them for a container that has never been started.
    pub(crate) fn write_files_unstarted(&self, definition: &Definition) -> Result<()> {
        if definition.network_donor().is_some() {
            return Ok(());
        }
        self.write_static_files(definition)?;
        self.write_hosts(definition, std::iter::empty())
    }

    /// hostname and resolv.conf, which do not depend on the address.
    pub(crate) fn write_static_files(&self, definition: &Definition) -> Result<()> {
        if definition.network_donor().is_some() {
            return Ok(());
        }
        let dir = self.container_dir(&definition.id);
        write(&dir.join("hostname"), &format!("{}\n", definition.hostname()))?;
        let named = definition.networks.keys().any(|network| dns::resolves_names(network));
        self.write_resolv_conf(definition, named && !definition.has_host_network())
    }

    /// resolv.conf; `named` when the container has a network that resolves names.
    pub(crate) fn write_resolv_conf(&self, definition: &Definition, named: bool) -> Result<()> {
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
        let text = match named {
            true => resolve_files::internal_resolv_conf(&HostResolver::read(), &wanted),
            false => {
                resolve_files::resolv_conf(&HostResolver::read(), &wanted, definition.has_host_network())
            }
        };
        write(&self.container_dir(&definition.id).join("resolv.conf"), &text)
    }

    /// hosts of this container.
    pub(crate) fn write_network_files(&self, container: &Container, endpoints: &[Endpoint]) -> Result<()> {
        let definition = container.definition();
        if definition.network_donor().is_some() {
            return Ok(());
        }
        self.write_hosts(&definition, endpoints.iter())
    }

    fn write_hosts<'a>(
        &self,
        definition: &Definition,
        endpoints: impl Iterator<Item = &'a Endpoint>,
    ) -> Result<()> {
        let names = resolve_files::own_names(definition.hostname(), &definition.config.domainname);
        let links = self.link_lines(definition);
        let own =
            endpoints.flat_map(Endpoint::addresses).map(|address| HostLine { address, names: names.clone() });
        let lines: Vec<HostLine> = links.into_iter().chain(own).collect();
        let extra = definition.host.extra_hosts.as_deref().unwrap_or_default();
        let gateway =
            extra.iter().any(|entry| entry.ends_with("host-gateway")).then(|| self.host_gateway()).flatten();
        let text = resolve_files::hosts(extra, gateway, &lines);
        write(&self.container_dir(&definition.id).join("hosts"), &text)
    }

    /// The address of the host as containers of the default network see it.
    #[must_use]
    pub fn host_gateway(&self) -> Option<IpAddr> {
        let bridge = self.network.network("bridge").ok()?;
        bridge.pool().and_then(|pool| pool.gateway)
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
