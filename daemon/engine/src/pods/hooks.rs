//! Who is asked while pods and containers are made, and told what became of them: the node's plugins (NRI).
//!
//! The engine knows neither plugins nor their protocol. It says when something happens, and holds still (`joining`) while
//! a plugin is shown all that there is: so no pod and no container is in neither.

use std::sync::Arc;

use berth_spec::oci;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedRwLockWriteGuard;

use super::model::PodResources;
use super::record::{ContainerPhase, ContainerView, SandboxView};
use super::registry::{PodContainer, Sandbox};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

/// A moment of a sandbox' life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodMoment {
    /// It is whole, but nobody sees it yet; an error undoes it.
    Run,
    /// Its resources are about to be changed.
    Update,
    /// They were.
    Updated,
    /// Its containers have ended; its network is still there.
    Stop,
    /// It is about to go.
    Remove,
}

/// A moment of a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerMoment {
    /// It was made.
    Created,
    /// It is about to be started; an error prevents it.
    Start,
    /// It runs.
    Started,
    /// Its limits were changed.
    Updated,
    /// It has ended.
    Stop,
    /// It is about to go.
    Remove,
}

/// The node's plugins, as the engine sees them.
pub trait PodPlugins: std::fmt::Debug + Send + Sync {
    /// There are none: nothing is asked and nobody told.
    fn none(&self) -> bool;

    /// A sandbox has come to this moment.
    fn pod(&self, moment: PodMoment, sandbox: SandboxView) -> BoxFuture<'_, Result<()>>;

    /// A container has come to this moment.
    fn container(
        &self,
        moment: ContainerMoment,
        sandbox: SandboxView,
        container: ContainerView,
    ) -> BoxFuture<'_, Result<()>>;

    /// A container is about to be made: what its config.json shall be.
    fn create(
        &self,
        sandbox: SandboxView,
        container: ContainerView,
        config: oci::Spec,
    ) -> BoxFuture<'_, Result<oci::Spec>>;

    /// A container's limits are about to be changed: what shall be changed.
    fn update(
        &self,
        sandbox: SandboxView,
        container: ContainerView,
        change: PodResources,
    ) -> BoxFuture<'_, Result<PodResources>>;
}

impl Engine {
    /// From now on these are asked and told. The first ones stay.
    pub fn set_pod_plugins(&self, plugins: Arc<dyn PodPlugins>) {
        if self.pods.plugins.set(plugins).is_err() {
            tracing::warn!("plugins for pods were set twice: the second are not used");
        }
    }

    /// Nothing of a pod is made, started or removed as long as this is held.
    pub async fn hold_pods(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.pods.joining).write_owned().await
    }

    /// A container's config.json as the runtime reads it; none when it is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pod_container_config(&self, sandbox: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let path = self.pod_run_dir(sandbox, id).join(berth_runtime_client::protocol::files::CONFIG);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).during("read", &path),
        }
    }

    /// Gives a config.json the devices that CDI files call by these names.
    ///
    /// # Errors
    /// A name that no file has.
    pub fn inject_cdi_devices(&self, names: &[String], config: &mut oci::Spec) -> Result<()> {
        self.config.cdi.read().inject_named(names, config)
    }

    fn plugins(&self) -> Option<&Arc<dyn PodPlugins>> {
        self.pods.plugins.get().filter(|plugins| !plugins.none())
    }

    /// A sandbox has come to this moment.
    pub(super) async fn pod_moment(&self, moment: PodMoment, sandbox: &Sandbox) -> Result<()> {
        let Some(plugins) = self.plugins() else { return Ok(()) };
        plugins.pod(moment, self.sandbox_view(sandbox)).await
    }

    /// A container has come to this moment.
    pub(super) async fn container_moment(
        &self,
        moment: ContainerMoment,
        container: &PodContainer,
    ) -> Result<()> {
        let Some(plugins) = self.plugins() else { return Ok(()) };
        let sandbox = self.sandbox(&container.sandbox)?;
        plugins.container(moment, sandbox, (&container.record()).into()).await
    }

    /// The same where a plugin's refusal comes too late.
    pub(super) async fn container_moment_told(&self, moment: ContainerMoment, container: &PodContainer) {
        if let Err(error) = self.container_moment(moment, container).await {
            tracing::warn!(container = container.id, ?moment, %error, "telling plugins");
        }
    }

    /// The same for a sandbox.
    pub(super) async fn pod_moment_told(&self, moment: PodMoment, sandbox: &Sandbox) {
        if let Err(error) = self.pod_moment(moment, sandbox).await {
            tracing::warn!(sandbox = sandbox.id, ?moment, %error, "telling plugins");
        }
    }

    /// Tells the end of a container: once, and everybody who goes on after its end waits for that.
    pub(super) async fn tell_end(&self, container: &PodContainer) {
        if container.phase() == ContainerPhase::Exited {
            let tell = || self.container_moment_told(ContainerMoment::Stop, container);
            container.end_told.get_or_init(tell).await;
        }
    }

    /// What plugins make of a new container's config.json. Blocking, in a thread of the runtime's.
    pub(super) fn ask_about_creation(
        &self,
        sandbox: &Sandbox,
        container: ContainerView,
        config: oci::Spec,
    ) -> Result<oci::Spec> {
        let Some(plugins) = self.plugins() else { return Ok(config) };
        let asked = plugins.create(self.sandbox_view(sandbox), container, config);
        let mut config = tokio::runtime::Handle::current().block_on(asked)?;
        if let Some(process) = config.process_mut()
            && let Some(wanted) = process.oom_score_adj()
        {
            process.set_oom_score_adj(Some(super::spec::oom_score_adj(wanted.into(), self.host.bounding)));
        }
        Ok(config)
    }

    /// What plugins make of a change of limits.
    pub(super) async fn ask_about_update(
        &self,
        container: &PodContainer,
        change: PodResources,
    ) -> Result<PodResources> {
        let Some(plugins) = self.plugins() else { return Ok(change) };
        let sandbox = self.sandbox(&container.sandbox)?;
        plugins.update(sandbox, (&container.record()).into(), change).await
    }

    /// The orchestrator has changed the resources of a pod's cgroup; plugins are told.
    ///
    /// # Errors
    /// When there is no such pod, or a plugin refuses.
    pub async fn update_sandbox(&self, id: &str) -> Result<()> {
        let sandbox = self.pods.sandbox(id)?;
        self.pod_moment(PodMoment::Update, &sandbox).await?;
        self.pod_moment_told(PodMoment::Updated, &sandbox).await;
        Ok(())
    }
}

impl EngineError {
    /// A plugin would not have it.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(crate::error::Kind::Internal, message)
    }
}
