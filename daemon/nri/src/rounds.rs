//! Rounds: all plugins that want to know of something are asked, one after the other, in the order of their indexes. Each
//! sees what those before it have made of a container.

use std::sync::Arc;
use std::time::Duration;

use berth_engine::{
    ContainerMoment, ContainerView, EngineError, PodMoment, PodResources, Result, SandboxView,
};
use berth_spec::oci;
use prost::Message;
use serde_json::Value;

use crate::connection::CallError;
use crate::owners::{self, Owners};
use crate::plugin::Plugin;
use crate::{adjust, api, resources, view};

/// Those who are asked, and how long each may take.
pub(crate) struct Round {
    pub(crate) plugins: Vec<Arc<Plugin>>,
    pub(crate) limit: Duration,
}

/// What a round asks of other containers.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) updates: Vec<api::ContainerUpdate>,
    pub(crate) evictions: Vec<api::ContainerEviction>,
}

/// What a round makes of a new container.
#[derive(Debug)]
pub(crate) struct Creation {
    pub(crate) config: oci::Spec,
    /// Names of devices in CDI files.
    pub(crate) devices: Vec<String>,
    pub(crate) wishes: Wishes,
}

fn refused(plugin: &Plugin, what: &str, error: &CallError) -> EngineError {
    EngineError::refused(format!("NRI plugin {} refused {what}: {error}", plugin.full_name()))
}

impl Round {
    fn wanting(&self, event: api::Event) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.iter().filter(move |plugin| plugin.wants(event))
    }

    /// Tells all; the first refusal is the answer, but it is told to all.
    async fn tell(&self, event: api::Event, method: &str, request: &impl Message) -> Result<()> {
        let mut answer = Ok(());
        for plugin in self.wanting(event) {
            // Their answers are empty messages.
            if let Err(error) = plugin.ask::<api::Empty>(method, request, self.limit).await {
                answer = answer.and(Err(refused(plugin, method, &error)));
            }
        }
        answer
    }

    /// A moment of a pod.
    pub(crate) async fn pod(&self, moment: PodMoment, sandbox: &SandboxView) -> Result<()> {
        use api::Event as E;
        let pod = Some(view::pod(sandbox));
        match moment {
            PodMoment::Run => {
                self.tell(E::RunPodSandbox, "RunPodSandbox", &api::RunPodSandboxRequest { pod }).await
            }
            PodMoment::Update => {
                let request = api::UpdatePodSandboxRequest { pod, ..Default::default() };
                self.tell(E::UpdatePodSandbox, "UpdatePodSandbox", &request).await
            }
            PodMoment::Updated => {
                let request = api::PostUpdatePodSandboxRequest { pod };
                self.tell(E::PostUpdatePodSandbox, "PostUpdatePodSandbox", &request).await
            }
            PodMoment::Stop => {
                self.tell(E::StopPodSandbox, "StopPodSandbox", &api::StopPodSandboxRequest { pod }).await
            }
            PodMoment::Remove => {
                let request = api::RemovePodSandboxRequest { pod };
                self.tell(E::RemovePodSandbox, "RemovePodSandbox", &request).await
            }
        }
    }

    /// A moment of a container; only its end brings wishes.
    pub(crate) async fn container(
        &self,
        moment: ContainerMoment,
        sandbox: &SandboxView,
        container: &ContainerView,
        config: &Value,
    ) -> Result<Wishes> {
        use api::Event as E;
        let pod = Some(view::pod(sandbox));
        let container = Some(view::container(container, config));
        let told = match moment {
            ContainerMoment::Created => {
                let request = api::PostCreateContainerRequest { pod, container };
                self.tell(E::PostCreateContainer, "PostCreateContainer", &request).await
            }
            ContainerMoment::Start => {
                let request = api::StartContainerRequest { pod, container };
                self.tell(E::StartContainer, "StartContainer", &request).await
            }
            ContainerMoment::Started => {
                let request = api::PostStartContainerRequest { pod, container };
                self.tell(E::PostStartContainer, "PostStartContainer", &request).await
            }
            ContainerMoment::Updated => {
                let request = api::PostUpdateContainerRequest { pod, container };
                self.tell(E::PostUpdateContainer, "PostUpdateContainer", &request).await
            }
            ContainerMoment::Remove => {
                let request = api::RemoveContainerRequest { pod, container };
                self.tell(E::RemoveContainer, "RemoveContainer", &request).await
            }
            ContainerMoment::Stop => {
                return self.stop(&api::StopContainerRequest { pod, container }).await;
            }
        };
        told.map(|()| Wishes::default())
    }

    async fn stop(&self, request: &api::StopContainerRequest) -> Result<Wishes> {
        let (mut owners, mut wishes) = (Owners::default(), Wishes::default());
        for plugin in self.wanting(api::Event::StopContainer) {
            let answer = plugin.ask::<api::StopContainerResponse>("StopContainer", request, self.limit).await;
            match answer {
                Ok(Some(answer)) => wishes.add(plugin, &mut owners, answer.update, Vec::new())?,
                Ok(None) => {}
                Err(error) => {
                    let plugin = plugin.full_name();
                    tracing::warn!(plugin, %error, "telling the end of a container");
                }
            }
        }
        Ok(wishes)
    }

    /// A new container.
    pub(crate) async fn create(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        spec: oci::Spec,
    ) -> Result<Creation> {
        let unreadable = |error: serde_json::Error| EngineError::refused(format!("config.json: {error}"));
        let mut config = serde_json::to_value(&spec).map_err(unreadable)?;
        let pod = view::pod(sandbox);
        let pristine = view::container(container, &config);
        let (mut owners, mut wishes) = (Owners::default(), Wishes::default());
        let mut all = api::ContainerAdjustment::default();
        let mut adjusted = false;
        for plugin in self.wanting(api::Event::CreateContainer) {
            let request = api::CreateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(view::container(container, &config)),
            };
            let answer =
                plugin.ask::<api::CreateContainerResponse>("CreateContainer", &request, self.limit).await;
            let answer = answer.map_err(|error| refused(plugin, "CreateContainer", &error))?;
            let Some(answer) = answer else { continue };
            if let Some(adjust) = answer.adjust {
                owners
                    .claim(&container.id, &plugin.full_name(), &owners::of_adjustment(&adjust))
                    .and_then(|()| adjust::apply(&mut config, &adjust))
                    .map_err(EngineError::refused)?;
                join(&mut all, &adjust);
                adjusted = true;
            }
            wishes.add(plugin, &mut owners, answer.update, answer.evict)?;
        }
        let devices = all.cdi_devices.iter().map(|device| device.name.clone()).collect();
        let request = api::ValidateContainerAdjustmentRequest {
            pod: Some(pod),
            container: Some(pristine),
            adjust: Some(all),
            update: wishes.updates.clone(),
            owners: Some(owners.told()),
            plugins: self
                .plugins
                .iter()
                .map(|plugin| api::PluginInstance { name: plugin.name.clone(), index: plugin.index.clone() })
                .collect(),
        };
        self.validate(&request).await?;
        let config = if adjusted {
            serde_json::from_value(config).map_err(|error| {
                EngineError::refused(format!("what NRI plugins made of config.json is none: {error}"))
            })?
        } else {
            spec
        };
        Ok(Creation { config, devices, wishes })
    }

    /// One plugin that rejects what the others want is enough, and so is one that cannot be asked.
    async fn validate(&self, request: &api::ValidateContainerAdjustmentRequest) -> Result<()> {
        const METHOD: &str = "ValidateContainerAdjustment";
        for plugin in self.wanting(api::Event::ValidateContainerAdjustment) {
            let answer = plugin
                .ask::<api::ValidateContainerAdjustmentResponse>(METHOD, request, self.limit)
                .await
                .map_err(|error| refused(plugin, METHOD, &error))?;
            let name = plugin.full_name();
            match answer {
                Some(answer) if answer.reject => {
                    return Err(EngineError::refused(format!(
                        "NRI validator {name} rejected the container's adjustment: {}",
                        answer.reason
                    )));
                }
                Some(_) => {}
                None => return Err(EngineError::refused(format!("NRI validator {name} did not answer"))),
            }
        }
        Ok(())
    }

    /// A change of limits.
    pub(crate) async fn update(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        config: &Value,
        mut change: PodResources,
    ) -> Result<(PodResources, Wishes)> {
        let (mut owners, mut wishes) = (Owners::default(), Wishes::default());
        for plugin in self.wanting(api::Event::UpdateContainer) {
            let request = api::UpdateContainerRequest {
                pod: Some(view::pod(sandbox)),
                container: Some(view::container(container, config)),
                linux_resources: Some(resources::told(&change)),
            };
            let answer =
                plugin.ask::<api::UpdateContainerResponse>("UpdateContainer", &request, self.limit).await;
            let answer = answer.map_err(|error| refused(plugin, "UpdateContainer", &error))?;
            let Some(answer) = answer else { continue };
            wishes.add(plugin, &mut owners, answer.update, answer.evict)?;
            let (own, others) =
                wishes.updates.into_iter().partition(|update| update.container_id == container.id);
            wishes.updates = others;
            for update in own {
                change = resources::over(change, change_of(&update));
            }
        }
        Ok((change, wishes))
    }
}

impl Wishes {
    fn add(
        &mut self,
        plugin: &Plugin,
        owners: &mut Owners,
        updates: Vec<api::ContainerUpdate>,
        evictions: Vec<api::ContainerEviction>,
    ) -> Result<()> {
        for update in &updates {
            let wanted = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
            let claims = wanted.map(owners::of_resources).unwrap_or_default();
            owners.claim(&update.container_id, &plugin.full_name(), &claims).map_err(EngineError::refused)?;
        }
        self.updates.extend(updates);
        self.evictions.extend(evictions);
        Ok(())
    }
}

/// The change that an update asks for.
pub(crate) fn change_of(update: &api::ContainerUpdate) -> PodResources {
    let wanted = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    wanted.map(resources::change).unwrap_or_default()
}

/// Adds a plugin's adjustment to those before it: lists are appended, the rest is replaced.
fn join(all: &mut api::ContainerAdjustment, further: &api::ContainerAdjustment) {
    if let Err(error) = all.merge(further.encode_to_vec().as_slice()) {
        tracing::warn!(%error, "a message of our own is none");
    }
}
