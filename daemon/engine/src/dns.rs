//! Names of containers on user-defined networks: what the resolver process is told.
//!
//! The process is started with the first container that needs it and goes on when the daemon ends. The daemon keeps no
//! copy of what it said: when the process is new, found again or has died, everything is told anew from the network
//! controller's endpoints and the containers' definitions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_dns::{Client, DnsError, Member, Upstream, View};
use berth_network::{Endpoint, Network};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::containers::{Container, Definition, links};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::ids;

const PROJECT_LABEL: &str = "com.docker.compose.project";

/// The argument that makes `berthd` the resolver process.
pub const DNS_ROLE: &str = "dns";

/// The connection to the process, while there is one.
#[derive(Debug)]
pub(crate) struct NameService {
    run_root: PathBuf,
    program: PathBuf,
    client: Mutex<Option<Client>>,
}

impl NameService {
    pub(crate) fn new(run_root: PathBuf, program: PathBuf) -> Self {
        Self { run_root, program, client: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Result<Client, DnsError> {
        Client::start(&self.run_root, &self.program, &[DNS_ROLE])
    }
}

/// Whether containers of this network know each other's names: all networks but those that every daemon has.
pub(crate) fn resolves_names(network: &str) -> bool {
    !matches!(network, "bridge" | "host" | "none")
}

/// The names of a container on a network, as inspect lists them.
pub(crate) fn names(definition: &Definition, aliases: &[String]) -> Vec<String> {
    let short = ids::short(&definition.id).to_owned();
    let mut names = vec![definition.name.clone()];
    names.extend(aliases.iter().cloned());
    names.push(short);
    names.push(definition.hostname().to_owned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

fn project(definition: &Definition) -> Option<String> {
    definition.config.labels.get(PROJECT_LABEL).cloned()
}

fn member(definition: &Definition, endpoint: &Endpoint) -> Member {
    Member {
        network: endpoint.network.to_string(),
        network_name: endpoint.network_name.clone(),
        container: definition.id.clone(),
        names: names(definition, &endpoint.aliases),
        project: project(definition),
        addresses: endpoint.addresses().collect(),
    }
}

fn named(endpoints: &[Endpoint]) -> impl Iterator<Item = &Endpoint> {
    endpoints.iter().filter(|endpoint| resolves_names(&endpoint.network_name))
}

fn has_names(endpoints: &[Endpoint]) -> bool {
    named(endpoints).next().is_some()
}

/// Who is asked for names that are not ours: these servers, or the host's.
fn upstream(servers: &[String]) -> Vec<Upstream> {
    let servers = servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
    let upstream: Vec<Upstream> = servers.map(|ip| Upstream::Server(SocketAddr::new(ip, 53))).collect();
    if upstream.is_empty() { vec![Upstream::Host] } else { upstream }
}

impl Engine {
    /// Lets a build step, which has no name itself, ask for those of a network. Blocking.
    pub(crate) fn serve_names(
        self: &Arc<Self>,
        step: &str,
        network: &Network,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let view = View {
            container: step.to_owned(),
            networks: vec![network.id.to_string()],
            project: None,
            links: BTreeMap::new(),
            upstream: if network.internal { Vec::new() } else { upstream(&self.config.dns) },
        };
        let sockets = self.network.resolver_sockets(netns)?;
        self.tell_names(|client| client.serve(view.clone(), sockets.udp.as_fd(), sockets.tcp.as_fd(), netns))
    }

    /// A build step has ended. Blocking.
    pub(crate) fn forget_names(self: &Arc<Self>, step: &str) -> Result<()> {
        self.tell_names(|client| client.forget(step))
    }

    fn view(&self, definition: &Definition, endpoints: &[Endpoint]) -> View {
        let leads_out = |endpoint: &Endpoint| {
            self.network.network(endpoint.network.as_str()).is_ok_and(|network| !network.internal)
        };
        let wanted = definition.host.dns.as_deref().filter(|servers| !servers.is_empty());
        let mut upstream = upstream(wanted.unwrap_or(&self.config.dns));
        if !endpoints.iter().any(leads_out) {
            upstream.clear();
        }
        View {
            container: definition.id.clone(),
            networks: named(endpoints).map(|endpoint| endpoint.network.to_string()).collect(),
            project: project(definition),
            links: links::aliases(definition.networks.values()),
            upstream,
        }
    }

    /// Makes names known and, when the container is not served yet, its resolver: when this returns, it can ask.
    /// Blocking.
    pub(crate) fn announce(
        self: &Arc<Self>,
        definition: &Definition,
        endpoints: &[Endpoint],
        netns: BorrowedFd<'_>,
        served: bool,
    ) -> Result<()> {
        if !has_names(endpoints) && !served {
            return Ok(());
        }
        let view = self.view(definition, endpoints);
        let sockets = if served { None } else { Some(self.network.resolver_sockets(netns)?) };
        self.tell_names(|client| {
            for endpoint in named(endpoints) {
                client.join(member(definition, endpoint))?;
            }
            match &sockets {
                Some(sockets) => client.serve(view.clone(), sockets.udp.as_fd(), sockets.tcp.as_fd(), netns),
                None => client.update(view.clone()),
            }
        })
    }

    /// Ends a container's service with its first process, even if no daemon is there then. Blocking.
    pub(crate) fn watch_names(self: &Arc<Self>, id: &str, pid: i32, endpoints: &[Endpoint]) -> Result<()> {
        if !has_names(endpoints) {
            return Ok(());
        }
        let pidfd = pidfd(pid)?;
        self.tell_names(|client| client.watch(id, pidfd.as_fd()))
    }

    /// Takes a container's names off these networks; with `all`, its resolver, too. Blocking.
    pub(crate) fn withdraw(self: &Arc<Self>, id: &str, endpoints: &[Endpoint], all: bool) -> Result<()> {
        if !has_names(endpoints) {
            return Ok(());
        }
        self.tell_names(|client| {
            for endpoint in named(endpoints) {
                client.leave(endpoint.network.as_str(), id)?;
            }
            if all { client.forget(id) } else { Ok(()) }
        })
    }

    /// A container that runs has other names now. Blocking.
    pub(crate) fn announce_again(self: &Arc<Self>, container: &Container) -> Result<()> {
        let (definition, endpoints) =
            (container.definition(), self.network.container_endpoints(&container.id));
        if !has_names(&endpoints) {
            return Ok(());
        }
        self.tell_names(|client| {
            named(&endpoints).try_for_each(|endpoint| client.join(member(&definition, endpoint)))
        })
    }

    /// Tells the process something. A process that is not there is started and told everything first.
    fn tell_names(self: &Arc<Self>, mut tell: impl FnMut(&mut Client) -> Result<(), DnsError>) -> Result<()> {
        let mut slot = self.names.lock();
        if let Some(client) = &mut *slot {
            match tell(client) {
                Err(DnsError::Io { .. }) => *slot = None,
                other => return Ok(other?),
            }
        }
        let mut client = self.names.start()?;
        self.tell_everything(&mut client, &[])?;
        let told = tell(&mut client);
        self.supervise(&client);
        *slot = Some(client);
        Ok(told?)
    }

    /// Finds the process of an earlier daemon, or starts one if containers need it.
    pub(crate) fn recover_names(self: &Arc<Self>) -> Result<()> {
        let found = match Client::find(&self.config.run_root) {
            Err(error @ DnsError::Version { .. }) => {
                tracing::info!(%error, "starting another");
                None
            }
            other => other?,
        };
        let mut slot = self.names.lock();
        let (mut client, serves) = match found {
            Some(found) => found,
            None if self.speakers().is_empty() => return Ok(()),
            None => (self.names.start()?, Vec::new()),
        };
        self.tell_everything(&mut client, &serves)?;
        self.supervise(&client);
        *slot = Some(client);
        Ok(())
    }

    /// Containers that live and have a network with names.
    fn speakers(&self) -> Vec<(Arc<Container>, Vec<Endpoint>)> {
        let live = self.containers.all().into_iter().filter(|container| container.phase().is_alive());
        live.filter_map(|container| {
            let endpoints = self.network.container_endpoints(&container.id);
            has_names(&endpoints).then_some((container, endpoints))
        })
        .collect()
    }

    /// Tells everything; containers that the process serves already keep their sockets.
    fn tell_everything(&self, client: &mut Client, serves: &[String]) -> Result<()> {
        client.begin()?;
        for (container, endpoints) in self.speakers() {
            if let Err(error) = self.tell_of(client, &container, &endpoints, serves) {
                tracing::warn!(container = container.id, %error, "the container's names are not resolved");
            }
        }
        Ok(client.commit()?)
    }

    fn tell_of(
        &self,
        client: &mut Client,
        container: &Container,
        endpoints: &[Endpoint],
        serves: &[String],
    ) -> Result<()> {
        let definition = container.definition();
        for endpoint in named(endpoints) {
            client.join(member(&definition, endpoint))?;
        }
        let view = self.view(&definition, endpoints);
        if serves.contains(&container.id) {
            return Ok(client.update(view)?);
        }
        let netns = crate::networks::netns_of(container)?;
        let sockets = self.network.resolver_sockets(netns.as_fd())?;
        client.serve(view, sockets.udp.as_fd(), sockets.tcp.as_fd(), netns.as_fd())?;
        Ok(client.watch(&container.id, pidfd(container.status().pid)?.as_fd())?)
    }

    /// Starts the process again when it dies while containers need it.
    fn supervise(self: &Arc<Self>, client: &Client) {
        let engine = Arc::downgrade(self);
        let watched = match client.end() {
            Ok(watched) => watched,
            Err(error) => {
                tracing::warn!(%error, "the DNS process is not supervised");
                return;
            }
        };
        let wait = move || {
            // Nothing asked for: only the end of the connection wakes us.
            let mut ends = [PollFd::new(watched.as_fd(), PollFlags::empty())];
            while poll(&mut ends, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
            let Some(engine) = engine.upgrade() else { return };
            if engine.ending.is_cancelled() || engine.closed.is_cancelled() {
                return;
            }
            let mut slot = engine.names.lock();
            *slot = None;
            if engine.speakers().is_empty() {
                return;
            }
            drop(slot);
            tracing::warn!("the DNS process ended: starting it again");
            if let Err(error) = engine.tell_names(|_| Ok(())) {
                tracing::error!(%error, "names of containers are not resolved");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("berth-dns-watch".into()).spawn(wait) {
            tracing::warn!(%error, "the DNS process is not supervised");
        }
    }

    /// Ends the process.
    pub(crate) fn end_names(&self) -> Result<()> {
        match self.names.lock().take() {
            Some(client) => Ok(client.quit()?),
            None => Ok(()),
        }
    }
}

fn pidfd(pid: i32) -> Result<OwnedFd> {
    berth_sys::pidfd::open(nix::unistd::Pid::from_raw(pid))
        .map_err(std::io::Error::from)
        .during("open a pidfd of", pid.to_string())
}

impl From<DnsError> for EngineError {
    fn from(error: DnsError) -> Self {
        Self::internal(format!("names on networks: {error}"))
    }
}
