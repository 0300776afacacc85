//! The socket, those who came to it, and the engine's questions to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use berth_engine::{
    ContainerMoment, ContainerView, Engine, PodMoment, PodPlugins, PodResources, Result, SandboxView,
};
use berth_spec::oci;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prost::Message as _;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::connection::{Connection, Incoming};
use crate::plugin::{self, Plugin};
use crate::rounds::{Round, Wishes, change_of};
use crate::wire::{MAX_MESSAGE, Status};
use crate::{api, view};

/// The runtime's name, as plugins are told.
const NAME: &str = "berth";

/// The version of the interface whose definition we have.
const NRI_VERSION: &str = "v0.12.0";

/// gRPC's numbers of what can be wrong with a request.
const INVALID_ARGUMENT: i32 = 3;
const UNIMPLEMENTED: i32 = 12;

/// How long plugins may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To register, from when they connect; to be configured; to take in what there is.
    pub registration: Duration,
    /// To answer anything else.
    pub request: Duration,
}

impl Default for Timeouts {
    /// The interface's own.
    fn default() -> Self {
        Self { registration: Duration::from_secs(5), request: Duration::from_secs(2) }
    }
}

/// The NRI over an engine.
#[derive(Debug)]
pub struct NriServer {
    engine: Arc<Engine>,
    timeouts: Timeouts,
    /// In the order in which they are asked.
    plugins: RwLock<Vec<Arc<Plugin>>>,
    /// How many there are.
    count: AtomicUsize,
    /// Held for a round: plugins are written for one event at a time.
    round: tokio::sync::Mutex<()>,
}

/// A server that serves.
#[derive(Debug)]
pub struct Listening {
    server: Arc<NriServer>,
    task: JoinHandle<()>,
}

impl NriServer {
    /// Serves on a socket, and answers the engine's questions, until it is stopped. Must be called within a tokio runtime.
    #[must_use]
    pub fn listen(engine: &Arc<Engine>, listener: UnixListener, timeouts: Timeouts) -> Listening {
        let server = Arc::new(Self {
            engine: Arc::clone(engine),
            timeouts,
            plugins: RwLock::default(),
            count: AtomicUsize::new(0),
            round: tokio::sync::Mutex::default(),
        });
        engine.set_pod_plugins(Arc::<Self>::clone(&server));
        let task = tokio::spawn(accept(Arc::clone(&server), listener));
        Listening { server, task }
    }

    fn all(&self) -> Vec<Arc<Plugin>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Plugin>>)) {
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut plugins);
        plugins.sort_by(|a, b| a.index.cmp(&b.index));
        self.count.store(plugins.len(), Ordering::Release);
    }

    fn round(&self) -> Round {
        Round { plugins: self.all(), limit: self.timeouts.request }
    }

    /// Serves one plugin to its end.
    async fn serve(self: Arc<Self>, stream: UnixStream) {
        let (connection, mut incoming) = Connection::over(stream);
        let admitted = tokio::select! {
            admitted = self.admit(&connection, &mut incoming) => admitted,
            () = connection.closed() => Err("it went away".to_owned()),
        };
        match admitted {
            Ok(plugin) => {
                tracing::info!(plugin = plugin.full_name(), "a plugin has joined");
                while let Some(asked) = incoming.recv().await {
                    self.answer(&plugin, asked).await;
                }
                self.change(|all| all.retain(|one| !Arc::ptr_eq(one, &plugin)));
                tracing::info!(plugin = plugin.full_name(), "a plugin has left");
            }
            Err(problem) => tracing::warn!(problem, "a plugin was not admitted"),
        }
        connection.close();
    }

    /// Registration, configuration, synchronization; from then on it is asked.
    async fn admit(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        incoming: &mut mpsc::Receiver<Incoming>,
    ) -> Result<Arc<Plugin>, String> {
        let registration = tokio::time::timeout(self.timeouts.registration, registered(connection, incoming));
        let asked = registration.await.map_err(|_| "it did not register in time".to_owned())??;
        let milliseconds = |limit: Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let configure = api::ConfigureRequest {
            config: String::new(),
            runtime_name: NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            registration_timeout: milliseconds(self.timeouts.registration),
            request_timeout: milliseconds(self.timeouts.request),
            nri_version: NRI_VERSION.to_owned(),
        };
        let name = asked.plugin_name.clone();
        let answer: api::ConfigureResponse = connection
            .call("Configure", &configure, self.timeouts.registration)
            .await
            .map_err(|error| format!("configuring plugin {name}: {error}"))?;
        let plugin = Plugin::new(asked, answer.events, Arc::clone(connection))
            .ok_or_else(|| format!("plugin {name} asks for unknown events: {:#x}", answer.events))?;
        let plugin = Arc::new(plugin);
        let held = self.engine.hold_pods().await;
        let updates = self.synchronize(&plugin).await?;
        self.change(|all| all.push(Arc::clone(&plugin)));
        drop(held);
        if let Err(error) = self.grant(Wishes { updates, ..Wishes::default() }).await {
            tracing::warn!(plugin = plugin.full_name(), %error, "carrying out what a plugin asked for");
        }
        Ok(plugin)
    }

    /// Shows it all there is, in as many messages as that takes.
    async fn synchronize(&self, plugin: &Plugin) -> Result<Vec<api::ContainerUpdate>, String> {
        let sandboxes = self.engine.sandboxes();
        let views = self.engine.pod_containers();
        let mut whole = api::SynchronizeRequest {
            pods: sandboxes.iter().map(view::pod).collect(),
            containers: views.iter().map(|one| view::container(one, &self.config_of(one))).collect(),
            more: false,
        };
        loop {
            let (request, rest) = piece(whole);
            let answer: Option<api::SynchronizeResponse> = plugin
                .ask("Synchronize", &request, self.timeouts.registration)
                .await
                .map_err(|error| format!("synchronizing plugin {}: {error}", plugin.full_name()))?;
            let answer = answer.ok_or("it was dropped")?;
            match rest {
                None => return Ok(answer.update),
                Some(_) if !answer.more => {
                    return Err(format!("plugin {} cannot be shown so many containers", plugin.full_name()));
                }
                Some(rest) => whole = rest,
            }
        }
    }

    /// What a container's config.json says; nothing when it is gone.
    fn config_of(&self, container: &ContainerView) -> Value {
        let text = self.engine.pod_container_config(&container.sandbox, &container.id);
        let text = text.unwrap_or_else(|error| {
            tracing::warn!(container = container.id, %error, "showing a container to plugins");
            None
        });
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Answers a request of a plugin that was admitted.
    async fn answer(&self, plugin: &Plugin, asked: Incoming) {
        let answered = match asked.request.method.as_str() {
            "UpdateContainers" => {
                match api::UpdateContainersRequest::decode(asked.request.payload.as_slice()) {
                    Ok(request) => {
                        let failed = self.update_containers(request).await;
                        let answer = api::UpdateContainersResponse { failed };
                        plugin.connection.answer(asked.stream, Ok(answer)).await
                    }
                    Err(error) => decline(plugin, &asked, INVALID_ARGUMENT, error.to_string()).await,
                }
            }
            other => decline(plugin, &asked, UNIMPLEMENTED, format!("there is no method {other} here")).await,
        };
        if let Err(error) = answered {
            tracing::debug!(plugin = plugin.full_name(), %error, "answering a plugin");
        }
    }

    /// Those that failed.
    async fn update_containers(&self, request: api::UpdateContainersRequest) -> Vec<api::ContainerUpdate> {
        let mut failed = Vec::new();
        for update in request.update {
            if let Err(error) = self.engine.change_limits(&update.container_id, change_of(&update)).await {
                tracing::warn!(container = update.container_id, %error, "updating a container for a plugin");
                failed.push(update);
            }
        }
        self.evict(request.evict);
        failed
    }

    /// Does what plugins want of other containers.
    async fn grant(&self, wishes: Wishes) -> Result<()> {
        self.evict(wishes.evictions);
        for update in wishes.updates {
            let done = self.engine.change_limits(&update.container_id, change_of(&update)).await;
            match done {
                Err(error) if !update.ignore_failure => return Err(error),
                Err(error) => {
                    tracing::debug!(container = update.container_id, %error, "an update that may fail")
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Kills containers. In tasks of their own: their end is a round as well.
    fn evict(&self, evictions: Vec<api::ContainerEviction>) {
        for eviction in evictions {
            let engine = Arc::clone(&self.engine);
            tracing::info!(container = eviction.container_id, reason = eviction.reason, "a plugin evicts");
            tokio::spawn(async move {
                let ended = engine.stop_pod_container(&eviction.container_id, Duration::ZERO).await;
                if let Err(error) = ended {
                    tracing::warn!(container = eviction.container_id, %error, "evicting");
                }
            });
        }
    }
}

async fn decline(
    plugin: &Plugin,
    asked: &Incoming,
    code: i32,
    message: String,
) -> Result<(), crate::connection::CallError> {
    plugin.connection.answer::<api::Empty>(asked.stream, Err(Status { code, message })).await
}

/// The registration, which is a plugin's first request.
async fn registered(
    connection: &Connection,
    incoming: &mut mpsc::Receiver<Incoming>,
) -> Result<api::RegisterPluginRequest, String> {
    let first = incoming.recv().await.ok_or("it went away")?;
    let checked = if first.request.method == "RegisterPlugin" {
        let asked = api::RegisterPluginRequest::decode(first.request.payload.as_slice());
        asked.map_err(|error| error.to_string()).and_then(|asked| plugin::check(&asked).map(|()| asked))
    } else {
        Err(format!("{} before RegisterPlugin", first.request.method))
    };
    let answer = checked.as_ref().map(|_| api::Empty {});
    let answer = answer.map_err(|message| Status { code: INVALID_ARGUMENT, message: message.clone() });
    connection.answer(first.stream, answer).await.map_err(|error| error.to_string())?;
    checked
}

/// So much of a synchronization as goes into one message, and the rest. What does not fit even by itself stays.
fn piece(mut whole: api::SynchronizeRequest) -> (api::SynchronizeRequest, Option<api::SynchronizeRequest>) {
    const ROOM: usize = MAX_MESSAGE - 4096;
    let mut rest = api::SynchronizeRequest::default();
    while whole.encoded_len() > ROOM && whole.pods.len() + whole.containers.len() > 1 {
        let containers = whole.containers.split_off(whole.containers.len() / 2);
        let pods =
            if containers.is_empty() { whole.pods.split_off(whole.pods.len() / 2) } else { Vec::new() };
        rest.containers.splice(0..0, containers);
        rest.pods.splice(0..0, pods);
    }
    whole.more = !(rest.pods.is_empty() && rest.containers.is_empty());
    let rest = whole.more.then_some(rest);
    (whole, rest)
}

async fn accept(server: Arc<NriServer>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&server).serve(stream))),
            Err(error) => {
                tracing::warn!(%error, "accepting a plugin");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl PodPlugins for NriServer {
    fn none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn pod(&self, moment: PodMoment, sandbox: SandboxView) -> BoxFuture<'_, Result<()>> {
        async move {
            let _one = self.round.lock().await;
            self.round().pod(moment, &sandbox).await
        }
        .boxed()
    }

    fn container(
        &self,
        moment: ContainerMoment,
        sandbox: SandboxView,
        container: ContainerView,
    ) -> BoxFuture<'_, Result<()>> {
        async move {
            let config = self.config_of(&container);
            let wishes = {
                let _one = self.round.lock().await;
                self.round().container(moment, &sandbox, &container, &config).await?
            };
            self.grant(wishes).await
        }
        .boxed()
    }

    fn create(
        &self,
        sandbox: SandboxView,
        container: ContainerView,
        config: oci::Spec,
    ) -> BoxFuture<'_, Result<oci::Spec>> {
        async move {
            let creation = {
                let _one = self.round.lock().await;
                self.round().create(&sandbox, &container, config).await?
            };
            self.grant(creation.wishes).await?;
            let mut config = creation.config;
            if !creation.devices.is_empty() {
                self.engine.inject_cdi_devices(&creation.devices, &mut config)?;
            }
            Ok(config)
        }
        .boxed()
    }

    fn update(
        &self,
        sandbox: SandboxView,
        container: ContainerView,
        change: PodResources,
    ) -> BoxFuture<'_, Result<PodResources>> {
        async move {
            let config = self.config_of(&container);
            let (change, wishes) = {
                let _one = self.round.lock().await;
                self.round().update(&sandbox, &container, &config, change).await?
            };
            self.grant(wishes).await?;
            Ok(change)
        }
        .boxed()
    }
}

impl Listening {
    /// Admits nobody any more, and tells the plugins there are that the daemon goes.
    pub async fn stop(self) {
        self.task.abort();
        for plugin in self.server.all() {
            let told: Result<Option<api::Empty>, _> =
                plugin.ask("Shutdown", &api::Empty {}, Duration::from_millis(500)).await;
            if let Err(error) = told {
                tracing::debug!(plugin = plugin.full_name(), %error, "telling a plugin that the daemon goes");
            }
            plugin.connection.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synchronization_is_cut_into_messages_that_fit() {
        let big = "x".repeat(MAX_MESSAGE / 8);
        let container =
            |id: usize| api::Container { id: id.to_string(), args: vec![big.clone()], ..Default::default() };
        let mut rest = Some(api::SynchronizeRequest {
            pods: vec![api::PodSandbox::default(); 3],
            containers: (0..20).map(container).collect(),
            more: false,
        });
        let (mut pieces, mut seen) = (0, Vec::new());
        while let Some(whole) = rest {
            let (one, further) = piece(whole);
            assert!(one.encoded_len() <= MAX_MESSAGE && one.more == further.is_some());
            seen.extend(one.containers.into_iter().map(|container| container.id));
            (rest, pieces) = (further, pieces + 1);
        }
        assert!(pieces > 2);
        assert_eq!(seen, (0..20).map(|id| id.to_string()).collect::<Vec<_>>());
    }
}
