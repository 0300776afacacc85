//! Start: the hot path.
//!
//! ```text
//!   shim is spawned ───────────────────────┐
//!   network namespace, links, ports ───────┼─▶ attach waiting clients ─▶ Create ─▶ Start ─▶ running
//!   accounts, config.json, /etc/hosts … ───┘
//! ```
//!
//! A container with users of its own has a network namespace that belongs to them, so `Create` makes it and the network is
//! joined after that.
//!
//! The three run side by side. /etc/hosts needs the address, so it is written when the network is there; all it has
//! to do is be complete before `Create`. Nothing is synced to disk. What fails is undone as a whole, and the state
//! stays what it was, with the reason beside it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_network::{Endpoint, NetworkError};
use berth_runtime_client::protocol::{
    Create, FailureKind, MOUNT_PLACEHOLDER, Rootfs, StdinMode, Users, WindowSize,
};
use berth_runtime_client::{ClientError, Shim, bundle, protocol};
use berth_spec::defaults::NamespaceMode;
use berth_spec::oci;
use jiff::Timestamp;

use super::Container;
use super::machine::{Change, Phase};
use super::mounts::MountKind;
use super::record::Definition;
use super::sources::Sources;
use super::validate::OWN_RUNTIMES;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};
use crate::spec::user::Accounts;
use crate::spec::{self, Inputs, Namespaces};
use crate::users::OwnUsers;

/// Docker's words before the runtime's; clients look for what follows them.
const START_FAILED: &str = "failed to create task for container: failed to create shim task: OCI runtime create \
    failed: runc create failed: unable to start container process: error during container init";

/// Exit code of a container that failed to start for a reason of the host's.
const START_FAILED_CODE: i32 = 128;

/// What a start has made so far.
#[derive(Default)]
struct Made {
    shim: Option<Shim>,
    created: bool,
}

/// A container's network.
pub(crate) struct Joined {
    /// The namespace for the shim; none for the host's or another container's.
    netns: Option<OwnedFd>,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `NotModified` when it runs; otherwise why it could not be started, which its state tells as well.
    pub async fn start_container(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            match container.phase() {
                Phase::Running => return Err(EngineError::not_modified("")),
                Phase::Paused => {
                    return Err(EngineError::conflict(
                        "cannot start a paused container, try unpause instead",
                    ));
                }
                Phase::Removing | Phase::Dead => {
                    return Err(EngineError::conflict(
                        "container is marked for removal and cannot be started",
                    ));
                }
                Phase::Creating | Phase::Created | Phase::Exited | Phase::Restarting => {}
            }
            container.call_off_restart();
            engine.start_by_user(&container).await
        })
        .await
    }

    /// A start that arms the restart policy anew. The caller holds the operation lock.
    pub(crate) async fn start_by_user(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        container.note(&self.db, |status| {
            status.manually_stopped = false;
            status.restart_count = 0;
            status.quick_failures = 0;
        })?;
        self.start_locked(container).await
    }

    /// Starts it; the caller holds the operation lock.
    pub(crate) async fn start_locked(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let mut made = Made::default();
        let result = self.try_start(container, &mut made).await;
        let Err((error, code)) = result else { return Ok(()) };
        self.undo_start(container, made).await;
        self.note(container.note(&self.db, |status| {
            status.exit_code = code;
            status.error = error.message().to_owned();
            status.pid = 0;
            status.endpoints.clear();
        }));
        if container.definition().host.auto_remove {
            let engine = Arc::clone(self);
            let container = Arc::clone(container);
            // The caller holds the lock that a removal needs.
            self.tasks.spawn(async move { engine.remove_after_end(&container).await });
        }
        Err(error)
    }

    async fn undo_start(self: &Arc<Self>, container: &Arc<Container>, made: Made) {
        if let Some(shim) = made.shim {
            let ended = if made.created { shim.shutdown().await } else { Ok(()) };
            // After a failed start the shim has ended by itself.
            if let Err(error) = ended {
                tracing::debug!(container = container.id, %error, "ending the shim of a failed start");
            }
        }
        container.live().shim = None;
        if let Err(error) = self.leave_networks(container).await {
            tracing::warn!(container = container.id, %error, "leaving the networks after a failed start");
        }
        self.volumes.unmount_for(&container.id);
    }

    async fn try_start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        made: &mut Made,
    ) -> Result<(), (EngineError, i32)> {
        let host = |error: EngineError| (error, START_FAILED_CODE);
        container.weight.forget();
        let definition = container.definition();
        let run_dir = self.run_dir(&container.id);
        std::fs::create_dir_all(&run_dir).during("create", &run_dir).map_err(host)?;
        let users = self.users_of(&definition).map_err(host)?;
        let made_inside = users.as_ref().is_some_and(|users| users.joined.is_none());
        let network = async {
            if made_inside {
                return Ok(Joined { netns: None, endpoints: Vec::new() });
            }
            self.join(container, None).await
        };
        let prepare = {
            let definition = Arc::clone(&definition);
            self.blocking(move |engine| engine.prepare_bundle(&definition, users.as_ref()))
        };
        let (shim, joined, prepared) = tokio::join!(self.spawner.spawn(&run_dir), network, prepare);
        let shim = made.shim.insert(shim.map_err(|error| host(error.into()))?).clone();
        let mut joined = joined.map_err(host)?;
        let (create, spec, handed) = prepared.map_err(host)?;
        self.write_network_files(container, &joined.endpoints).map_err(host)?;
        bundle::write(&run_dir, &spec).map_err(|error| host(error.into()))?;
        let events = shim.events();
        self.attach_waiting(container, &shim).await;
        let handed: Vec<_> = handed.iter().map(OwnedFd::as_fd).collect();
        let pid = shim
            .create_with_mounts(create, joined.netns.as_ref().map(OwnedFd::as_fd), &handed)
            .await
            .map_err(|error| failed_start(error, &run_dir))?;
        made.created = true;
        if made_inside {
            joined = self.join(container, Some(pid)).await.map_err(host)?;
            self.write_network_files(container, &joined.endpoints).map_err(host)?;
        }
        let (pid, at) = shim.start().await.map_err(|error| failed_start(error, &run_dir))?;
        let endpoints = joined.endpoints.clone();
        self.note_started(container, pid, at, joined).map_err(host)?;
        let id = container.id.clone();
        self.blocking(move |engine| {
            // It may have ended already: then the engine is about to withdraw its names itself.
            if let Err(error) = engine.watch_names(&id, pid, &endpoints) {
                tracing::debug!(container = id, %error, "watching the container for its resolver");
            }
            engine.refresh_linked(&id);
            Ok(())
        })
        .await
        .map_err(host)?;
        self.watch(Arc::clone(container), events);
        self.watch_health(container);
        Ok(())
    }

    fn note_started(
        &self,
        container: &Arc<Container>,
        pid: i32,
        at: Timestamp,
        joined: Joined,
    ) -> Result<()> {
        let definition = container.definition();
        container.change(&self.db, Change::Started, |status| {
            status.pid = pid;
            status.started_at = Some(at);
            status.exit_code = 0;
            status.error.clear();
            status.oom_killed = false;
            status.ever_started = true;
            status.health = super::health::at_start(&definition.config);
            status.endpoints = joined
                .endpoints
                .into_iter()
                .map(|endpoint| (endpoint.network_name.clone(), endpoint))
                .collect();
        })?;
        self.mount_events(container);
        self.events.publish("container", "start", &container.id, container.attributes(&[]));
        Ok(())
    }

    fn mount_events(&self, container: &Container) {
        let definition = container.definition();
        for plan in definition.mounts.iter().filter(|plan| plan.kind == MountKind::Volume) {
            let attributes = [
                ("container", container.id.clone()),
                ("destination", plan.target.clone()),
                ("driver", "local".to_owned()),
                ("propagation", plan.propagation.clone()),
                ("read/write", (!plan.read_only).to_string()),
            ];
            let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            self.events.publish("volume", "mount", &plan.source, attributes);
        }
    }

    /// Everything for `Create` that does not need the network. Blocking.
    fn prepare_bundle(
        &self,
        definition: &Definition,
        users: Option<&OwnUsers>,
    ) -> Result<(Create, oci::Spec, Vec<OwnedFd>)> {
        let id = &definition.id;
        let missing =
            || EngineError::internal(format!("the snapshot of container {id} is gone: remove the container"));
        let snapshot = self.store.snapshots().get(id)?.ok_or_else(missing)?;
        let accounts = {
            let root = self.store.snapshots().mount(id)?;
            Accounts::read(root.as_fd())
        };
        let groups = definition.host.group_add.as_deref().unwrap_or_default();
        let user = accounts.resolve(&definition.config.user, groups)?;
        self.write_static_files(definition)?;
        let host_uts = definition.host.uts_mode == "host";
        let Sources { mut mounts, mut handed } = self.mount_sources(definition, &user, users.is_some())?;
        let init = self.init_of(definition);
        if let Some(program) = &init {
            mounts.push(spec::bind(program, crate::init::INSIDE, &["ro", "rprivate"]));
        }
        let mut spec = spec::build(Inputs {
            definition,
            user,
            namespaces: self.namespaces(definition, users.is_some(), &mut handed)?,
            mounts,
            init: init.is_some(),
            environment: self.link_environment(definition)?,
            host: &self.host,
            cgroup: self.config.cgroup_of(&definition.host.resources.cgroup_parent, id)?,
            hostname: if host_uts { crate::system::hostname() } else { definition.hostname().to_owned() },
        })?;
        if let Some(requests) = definition.host.resources.device_requests.as_deref()
            && !requests.is_empty()
        {
            self.config.cdi.read().inject(requests, &mut spec)?;
        }
        if let Some(users) = users {
            let asked = definition.host.sysctls.clone().unwrap_or_default();
            users.put_into(&mut spec, &self.place_of_roots()?, &asked)?;
        }
        let size = definition.host.console_size;
        let config = &definition.config;
        let create = Create {
            id: id.clone(),
            bundle: self.run_dir(id),
            rootfs: Rootfs::Overlay {
                lower: snapshot.lower,
                upper: snapshot.upper,
                work: snapshot.work,
                volatile: false,
                users: users.map(|users| match &users.joined {
                    Some(path) => Users::Namespace(path.clone()),
                    None => Users::Own,
                }),
            },
            terminal: config.tty,
            console_size: (size != [0, 0]).then_some(WindowSize { rows: size[0], cols: size[1] }),
            stdin: match (config.open_stdin, config.stdin_once) {
                (false, _) => StdinMode::Closed,
                (true, false) => StdinMode::Open,
                (true, true) => StdinMode::OpenOnce,
            },
            log: self.log_of(definition)?,
            systemd_cgroup: self.config.cgroup_driver.is_systemd(),
            runtime: self.runtime_of(definition)?,
            restore: None,
        };
        Ok((create, spec, handed))
    }

    /// The program that runs it; `None` is our own.
    fn runtime_of(&self, definition: &Definition) -> Result<Option<protocol::Runtime>> {
        let name = definition.host.runtime.as_str();
        if OWN_RUNTIMES.contains(&name) {
            return Ok(None);
        }
        // It may have been taken out of the configuration since the container was created.
        let Some(runtime) = self.config.runtimes.get(name) else {
            return Err(EngineError::invalid(format!("unknown or invalid runtime name: {name}")));
        };
        Ok(Some(protocol::Runtime { path: runtime.path.clone(), args: runtime.args.clone() }))
    }

    fn namespaces(
        &self,
        definition: &Definition,
        own_users: bool,
        handed: &mut Vec<OwnedFd>,
    ) -> Result<Namespaces> {
        let host = &definition.host;
        let network = match definition.network_donor() {
            Some(donor) => NamespaceMode::Path(self.namespace_of(donor, "net", "network")?),
            None if own_users => NamespaceMode::Private,
            None if definition.has_host_network() => NamespaceMode::Host,
            None => Namespaces::handed_network(),
        };
        let pid = match host.pid_mode.as_str() {
            "" => NamespaceMode::Private,
            "host" => NamespaceMode::Host,
            mode => {
                NamespaceMode::Path(self.namespace_of(mode.trim_start_matches("container:"), "pid", "PID")?)
            }
        };
        let mut shm = None;
        let ipc = match host.ipc_mode.as_str() {
            "host" => NamespaceMode::Host,
            mode => match mode.strip_prefix("container:") {
                None => NamespaceMode::Private,
                Some(donor) => {
                    let found = self.containers.find(donor)?;
                    if !matches!(found.definition().host.ipc_mode.as_str(), "shareable" | "host") {
                        return Err(EngineError::conflict(format!(
                            "cannot join IPC of a container {donor}: non-shareable IPC (hint: use \
                             IpcMode:shareable for the donor container)"
                        )));
                    }
                    let namespace = self.namespace_of(donor, "ipc", "IPC")?;
                    handed.push(super::sources::shm_of(found.status().pid)?);
                    shm = Some(PathBuf::from(format!("{MOUNT_PLACEHOLDER}{}", handed.len() - 1)));
                    NamespaceMode::Path(namespace)
                }
            },
        };
        Ok(Namespaces { network, pid, ipc, shm })
    }

    fn namespace_of(&self, donor: &str, kind: &str, words: &str) -> Result<PathBuf> {
        let container = self.containers.find(donor)?;
        let status = container.status();
        if !status.phase.is_alive() {
            return Err(EngineError::conflict(format!(
                "cannot join {words} namespace of a non running container: {donor}"
            )));
        }
        Ok(PathBuf::from(format!("/proc/{}/ns/{kind}", status.pid)))
    }

    /// Hands the clients that attached before the start to the shim.
    async fn attach_waiting(&self, container: &Container, shim: &Shim) {
        let waiting = {
            let mut live = container.live();
            // From here on clients go to the shim themselves.
            live.shim = Some(shim.clone());
            std::mem::take(&mut live.waiting)
        };
        for client in waiting {
            if let Err(error) = shim.attach(client.attach, client.stream).await {
                tracing::debug!(container = container.id, %error, "a client that attached before the start");
            }
        }
    }

    async fn join(self: &Arc<Self>, container: &Arc<Container>, made_by: Option<i32>) -> Result<Joined> {
        let container = Arc::clone(container);
        self.blocking(move |engine| engine.join_networks(&container, made_by)).await
    }

    /// A network namespace: that of the container's init, else a new one.
    fn network_namespace(&self, made_by: Option<i32>) -> Result<OwnedFd> {
        let Some(pid) = made_by else { return Ok(self.network.new_sandbox()?) };
        let path = format!("/proc/{pid}/ns/net");
        let netns = OwnedFd::from(std::fs::File::open(&path).during("open", &path)?);
        self.network.prepare_sandbox(netns.as_fd())?;
        Ok(netns)
    }

    /// Docker's words about a network that could not be joined, and who has the port; a port conflict is a 500 there.
    fn network_failed(&self, error: NetworkError, name: &str) -> EngineError {
        let holder = error.taken_port().and_then(|taken| self.holder_of(taken));
        let holder = holder.map(|holder| format!(" by container {holder}")).unwrap_or_default();
        let error = EngineError::from(error);
        let kind = if error.kind() == Kind::Conflict { Kind::Internal } else { error.kind() };
        EngineError::new(kind, format!("failed to set up container networking for {name}: {error}{holder}"))
    }

    /// The container that has published this port.
    fn holder_of(&self, taken: SocketAddr) -> Option<String> {
        let clashes = |ip: IpAddr| {
            ip.is_ipv4() == taken.is_ipv4()
                && (ip == taken.ip() || ip.is_unspecified() || taken.ip().is_unspecified())
        };
        let holds = |container: &Arc<Container>| {
            let endpoints = self.network.container_endpoints(&container.id);
            let mut ports = endpoints.iter().flat_map(|endpoint| &endpoint.ports);
            ports.any(|port| port.host_port == taken.port() && clashes(port.host_ip))
        };
        self.containers.all().into_iter().find(holds).map(|container| container.name())
    }

    /// Joins the container's networks; on failure none is left. Blocking.
    fn join_networks(self: &Arc<Self>, container: &Container, made_by: Option<i32>) -> Result<Joined> {
        let definition = container.definition();
        if definition.has_host_network() || definition.network_donor().is_some() {
            return Ok(Joined { netns: None, endpoints: Vec::new() });
        }
        let netns = self.network_namespace(made_by)?;
        let mut endpoints = Vec::new();
        // In order of preference: of each family, the first network with a gateway is the way out.
        for (network, request) in self.endpoint_requests(&definition)? {
            match self.network.attach(netns.as_fd(), &network, request) {
                Ok(endpoint) => {
                    self.network_event("connect", &endpoint);
                    endpoints.push(endpoint);
                }
                Err(error) => {
                    for problem in self.network.detach_all(&container.id).err().unwrap_or_default() {
                        tracing::warn!(container = container.id, error = %problem, "leaving a network");
                    }
                    return Err(self.network_failed(error, &definition.name));
                }
            }
        }
        if let Err(error) = self.announce(&definition, &endpoints, netns.as_fd(), false) {
            for problem in self.network.detach_all(&container.id).err().unwrap_or_default() {
                tracing::warn!(container = container.id, error = %problem, "leaving a network");
            }
            return Err(error);
        }
        Ok(Joined { netns: Some(netns), endpoints })
    }

    /// Leaves all networks.
    pub(crate) async fn leave_networks(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let container = Arc::clone(container);
        self.blocking(move |engine| {
            let endpoints = engine.network.container_endpoints(&container.id);
            if endpoints.is_empty() {
                return Ok(());
            }
            let errors = engine.network.detach_all(&container.id).err().unwrap_or_default();
            for endpoint in &endpoints {
                engine.network_event("disconnect", endpoint);
            }
            let mut errors: Vec<EngineError> = errors.into_iter().map(EngineError::from).collect();
            errors.extend(engine.withdraw(&container.id, &endpoints, true).err());
            EngineError::collect("leaving the networks", errors).map_or(Ok(()), Err)
        })
        .await
    }
}

/// A reason without the words that the runtime puts before it, as docker does, too.
pub(crate) fn bare(reason: &str) -> &str {
    const WORDS: [&str; 2] = ["unable to start container process: ", "error during container init: "];
    WORDS.iter().fold(reason, |reason, words| reason.strip_prefix(words).unwrap_or(reason))
}

/// A failed create or start, with the exit code that the container is said to have.
fn failed_start(error: ClientError, run_dir: &Path) -> (EngineError, i32) {
    let Some(failure) = error.failure() else {
        // The shim is gone; the file with its last words goes with the container.
        let log = run_dir.join(berth_runtime_client::protocol::files::SHIM_LOG);
        let words = std::fs::read_to_string(log).unwrap_or_default();
        let words = words.trim();
        let error = EngineError::from(error);
        let told = if words.is_empty() { error } else { EngineError::internal(format!("{error}: {words}")) };
        return (told, START_FAILED_CODE);
    };
    let code = failure.kind.exit_code();
    let kind = match failure.kind {
        FailureKind::NotFound
        | FailureKind::PermissionDenied
        | FailureKind::IsDirectory
        | FailureKind::NotExecutable
        | FailureKind::Invalid => Kind::InvalidParameter,
        _ => Kind::Internal,
    };
    (EngineError::new(kind, format!("{START_FAILED}: {}", bare(&failure.message))), code)
}
