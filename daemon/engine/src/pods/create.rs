//! Creation of a pod's container: everything that can fail by what was asked for fails here.

use std::sync::Arc;

use berth_runtime_client::bundle;
use jiff::Timestamp;

use super::events::PodChange;
use super::hooks::ContainerMoment;
use super::model::{ContainerSpec, PidScope};
use super::record::{ContainerPhase, ContainerRecord, ContainerStatus, ProcessUser};
use super::registry::{PodContainer, Sandbox};
use super::spec::Inputs;
use crate::containers::signal;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids;

impl Engine {
    /// Makes a container in a sandbox. A retry of a call that is still under way waits for it, and a retry of one that
    /// has succeeded gets the same container.
    ///
    /// # Errors
    /// A sandbox that does not exist or is not ready, an image that is not there, settings that cannot be carried out;
    /// nothing is left then.
    pub async fn create_pod_container(
        self: &Arc<Self>,
        sandbox: &str,
        spec: ContainerSpec,
    ) -> Result<String> {
        let sandbox = self.pods.sandbox(sandbox)?;
        if spec.name.is_empty() {
            return Err(EngineError::invalid("a container needs a name (ContainerMetadata)"));
        }
        let name = format!("{}/{}_{}", sandbox.id, spec.name, spec.attempt);
        let engine = Arc::clone(self);
        let make = move || async move {
            let _joining = Arc::clone(&engine.pods.joining).read_owned().await;
            engine.blocking(move |engine| engine.make_pod_container(&sandbox, spec)).await
        };
        self.pods.make_once(&self.tasks, name, make).await
    }

    fn make_pod_container(self: &Arc<Self>, sandbox: &Arc<Sandbox>, spec: ContainerSpec) -> Result<String> {
        if let Some(twin) = self.container_like(sandbox, &spec)? {
            return Ok(twin);
        }
        if !sandbox.is_ready() {
            return Err(EngineError::conflict(format!("sandbox {} is not ready", sandbox.id)));
        }
        let id = ids::random();
        let record = match self.prepare_pod_container(&id, sandbox, spec) {
            Ok(record) => record,
            Err(error) => {
                for problem in self.take_pod_container_apart(&id, &sandbox.id) {
                    tracing::warn!(container = id, error = %problem, "undoing a creation");
                }
                return Err(error);
            }
        };
        let container = Arc::new(PodContainer::new(record));
        self.pods.add_container(Arc::clone(&container));
        if !sandbox.is_ready() {
            // Stopped meanwhile: whoever stopped it may not have seen this container.
            tracing::debug!(container = id, "made in a sandbox that was stopped meanwhile");
        }
        self.tell(&sandbox.id, &id, PodChange::Created);
        let told = self.container_moment_told(ContainerMoment::Created, &container);
        tokio::runtime::Handle::current().block_on(told);
        Ok(id)
    }

    /// The container that an earlier call made of the same request.
    fn container_like(&self, sandbox: &Sandbox, spec: &ContainerSpec) -> Result<Option<String>> {
        let mut all = self.pods.containers_of(&sandbox.id).into_iter().map(|container| container.record());
        let twin = all.find(|record| record.spec.name == spec.name && record.spec.attempt == spec.attempt);
        match twin {
            None => Ok(None),
            // Limits may have been changed meanwhile, by plugins for instance.
            Some(twin)
                if *twin.spec == ContainerSpec { resources: twin.spec.resources.clone(), ..spec.clone() }
                    && twin.status.phase == ContainerPhase::Created =>
            {
                Ok(Some(twin.id))
            }
            Some(twin) => Err(EngineError::conflict(format!(
                "container {} is {:?}, attempt {}, of this sandbox already: remove it first",
                twin.id, spec.name, spec.attempt
            ))),
        }
    }

    fn prepare_pod_container(
        &self,
        id: &str,
        sandbox: &Sandbox,
        spec: ContainerSpec,
    ) -> Result<ContainerRecord> {
        let pod = sandbox.record().spec;
        if spec.security.privileged && !pod.privileged {
            return Err(EngineError::invalid("no privileged container allowed in sandbox"));
        }
        let pins = self.pins(&sandbox.id);
        let checkpoint = self.checkpoint_of(&spec.image)?;
        if checkpoint.is_some() && pod.namespaces.users.is_some() {
            return Err(EngineError::invalid(format!(
                "container {:?} is a checkpoint, which cannot be restored into a pod with users of its own",
                spec.name
            )));
        }
        let image = match &checkpoint {
            Some(checkpoint) => self.base_of(checkpoint)?,
            None => self.store.images().resolve(&spec.image)?,
        };
        let config = self.store.images().config_of(&image.id)?.config.unwrap_or_default();
        let user = self.pod_user(&spec, &image, &config)?;
        let stop_signal = match spec.stop_signal.as_deref().or(config.stop_signal.as_deref()) {
            None | Some("") => signal::SIGTERM,
            Some(name) => signal::parse(name)?,
        };
        // Intent before effect: the row leads to whatever a crash leaves.
        let mut record = ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.id.clone(),
            log: log_path(&pod.log_directory, &spec.log_path),
            created: Timestamp::now(),
            image_id: image.id.to_string(),
            image_name: image.tags.first().map_or_else(|| spec.asked_image.clone(), ToString::to_string),
            image_ref: image_ref(&image),
            mounted_images: Vec::new(),
            stop_signal,
            user: ProcessUser::from(&user),
            restored: checkpoint.is_some(),
            status: ContainerStatus::default(),
            spec: Arc::new(spec),
        };
        self.db.put_pod_container(&record)?;
        let spec = Arc::clone(&record.spec);
        let target = self.pid_target(&spec.security.pid, &sandbox.id)?;
        let sources = self.pod_mounts(id, &spec, &pod, &pins, (&image, &config))?;
        record.mounted_images = sources.images.iter().map(|(image, _)| image.clone()).collect();
        let built = self.pod_spec(Inputs {
            id,
            spec: &spec,
            sandbox: &pod,
            sandbox_id: &sandbox.id,
            pins: &pins,
            image: &config,
            user,
            sources,
            target,
        })?;
        let given = built.linux().as_ref().map(|linux| linux.resources().clone());
        let built = self.ask_about_creation(sandbox, (&record).into(), built)?;
        if built.linux().as_ref().map(|linux| linux.resources().clone()) != given {
            let resources = super::spec::limits(&built, &record.spec.resources);
            Arc::make_mut(&mut record.spec).resources = resources;
        }
        let lease = self.store.lease();
        let mut layers = image.layers.clone();
        if let Some(checkpoint) = &checkpoint {
            layers.extend(self.unpack_checkpoint(id, checkpoint, record.log.as_deref())?);
        }
        self.store.snapshots().create(id, &layers)?;
        drop(lease);
        bundle::write(&self.pod_run_dir(&sandbox.id, id), &built)?;
        self.db.put_pod_container(&record)?;
        Ok(record)
    }

    /// The process whose pid namespace is joined. It must run, and be of the same pod.
    pub(super) fn pid_target(&self, scope: &PidScope, sandbox: &str) -> Result<Option<i32>> {
        let target = match scope {
            PidScope::Target(target) => target,
            PidScope::Pod if self.pods.sandbox(sandbox)?.record().spec.namespaces.pid != PidScope::Pod => {
                return Err(EngineError::invalid(format!(
                    "namespace_options.pid: the container asks for the processes of its pod, but pod {sandbox} does not \
                     share them: make both POD, or the container CONTAINER"
                )));
            }
            _ => return Ok(None),
        };
        let found = self.pods.container(target)?.record();
        if found.sandbox != sandbox {
            return Err(EngineError::invalid(format!(
                "invalid target container {target:?}: it is of another pod"
            )));
        }
        if found.status.phase != ContainerPhase::Running {
            return Err(EngineError::invalid(format!(
                "invalid target container {target:?}: it is not running"
            )));
        }
        Ok(Some(found.status.pid))
    }

    /// Where a container's shim has its socket and records.
    pub(super) fn pod_run_dir(&self, sandbox: &str, id: &str) -> std::path::PathBuf {
        self.pods_dir().join(sandbox).join(id)
    }

    /// What of a pod outlives a boot.
    pub(super) fn pod_state_dir(&self, sandbox: &str) -> std::path::PathBuf {
        self.config.root.join("pods").join(sandbox)
    }

    /// What of a container outlives a boot: the volumes of its image.
    pub(super) fn pod_container_dir(&self, id: &str) -> std::path::PathBuf {
        self.config.root.join("pods").join(id)
    }
}

/// What names an image for good.
fn image_ref(image: &berth_store::Image) -> String {
    image.repo_digests.first().map_or_else(|| image.id.to_string(), ToString::to_string)
}

fn log_path(directory: &str, path: &str) -> Option<std::path::PathBuf> {
    (!directory.is_empty() && !path.is_empty()).then(|| std::path::Path::new(directory).join(path))
}
