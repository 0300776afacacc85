//! Commit: an image of what a container's file system is now.

use std::sync::Arc;

use berth_api::options::Commit;
use berth_oci::{History, ImageConfig, Reference, RuntimeConfig};
use berth_runtime_client::{ClientError, Shim};
use berth_store::NewImage;
use jiff::Timestamp;

use super::machine::Phase;
use super::{Container, Definition};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::images::changes;

impl Engine {
    /// Makes an image of a container. Returns its id.
    ///
    /// # Errors
    /// When there is no such container, the name is bad, or the changes are no instructions.
    pub async fn commit(self: &Arc<Self>, options: Commit) -> Result<String> {
        let container = self.containers.find(&options.container)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let reference = crate::images::new_reference(&options.repo, &options.tag)?;
            let _operation = container.operation.lock().await;
            if matches!(container.phase(), Phase::Removing | Phase::Dead) {
                let id = &container.id;
                return Err(EngineError::conflict(format!(
                    "You cannot commit container {id} which is being removed"
                )));
            }
            let frozen = engine.freeze(&container, options.pause).await;
            let result = {
                let (container, reference) = (Arc::clone(&container), reference.clone());
                engine
                    .blocking(move |engine| engine.commit_now(&container, &options, reference.as_ref()))
                    .await
            };
            if let Some(shim) = frozen
                && let Err(error) = shim.resume().await
                // It has been killed meanwhile.
                && !matches!(error, ClientError::Gone { .. })
            {
                tracing::warn!(container = container.id, %error, "thawing a container after its commit");
            }
            let id = result?;
            let name = reference.map(|reference| reference.familiar()).unwrap_or_default();
            let attributes = container.attributes(&[
                ("comment", String::new()),
                ("imageID", id.clone()),
                ("imageRef", name),
            ]);
            engine.events.publish("container", "commit", &container.id, attributes);
            Ok(id)
        })
        .await
    }

    /// Freezes a container that runs, so that its files hold still.
    async fn freeze(&self, container: &Container, wanted: bool) -> Option<Shim> {
        if !wanted || container.phase() != Phase::Running {
            return None;
        }
        let shim = container.shim().ok()?;
        match shim.pause().await {
            Ok(()) => Some(shim),
            Err(error) => {
                tracing::debug!(container = container.id, %error, "freezing a container for its commit");
                None
            }
        }
    }

    fn commit_now(
        &self,
        container: &Container,
        options: &Commit,
        reference: Option<&Reference>,
    ) -> Result<String> {
        let definition = container.definition();
        let lease = self.store.lease();
        let parent = berth_oci::Digest::parse(&definition.image_id)
            .map_err(|error| EngineError::internal(format!("image of the container: {error}")))?;
        let base = self.store.images().config_of(&parent)?;
        let layer = self.store.snapshots().capture(&container.id, &super::changes::mount_places())?;
        let mut config = image_config(base, &definition, options)?;
        config.rootfs.diff_ids.push(layer.diff_id);
        let image = NewImage { config: config.to_bytes(), manifest: None, parent: Some(parent) };
        let id = self.store.images().put(image)?;
        if let Some(reference) = reference {
            self.store.images().tag(reference, &id)?;
            self.image_event("tag", id.as_str(), &reference.familiar());
        }
        drop(lease);
        Ok(id.to_string())
    }
}

fn image_config(base: ImageConfig, definition: &Definition, options: &Commit) -> Result<ImageConfig> {
    let created = Timestamp::now();
    let mut config = base;
    let own = options.config.clone().unwrap_or_else(|| definition.config.clone());
    let mut runtime = changes::runtime_config(own);
    // What the body leaves open is the container's.
    if options.config.is_some() {
        let preset = changes::runtime_config(definition.config.clone());
        runtime = fill(runtime, preset);
    }
    changes::apply(&mut runtime, &options.changes)?;
    let (path, args) = definition.command();
    let command = std::iter::once(path).chain(args).collect::<Vec<_>>().join(" ");
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    config.config = Some(runtime);
    config.created = Some(created);
    config.author = text(&options.author).or(config.author);
    config.comment = text(&options.comment);
    config.container = Some(definition.id.clone());
    config.history.push(History {
        created: Some(created),
        created_by: Some(command),
        author: text(&options.author),
        comment: text(&options.comment),
        ..History::default()
    });
    Ok(config)
}

fn fill(mut own: RuntimeConfig, preset: RuntimeConfig) -> RuntimeConfig {
    let text = |own: &mut String, preset: String| {
        if own.is_empty() {
            *own = preset;
        }
    };
    text(&mut own.user, preset.user);
    text(&mut own.working_dir, preset.working_dir);
    if own.env.is_empty() {
        own.env = preset.env;
    }
    own.entrypoint = own.entrypoint.or(preset.entrypoint);
    own.cmd = own.cmd.or(preset.cmd);
    own.exposed_ports = own.exposed_ports.or(preset.exposed_ports);
    own.volumes = own.volumes.or(preset.volumes);
    own.labels = own.labels.or(preset.labels);
    own.stop_signal = own.stop_signal.or(preset.stop_signal);
    own.healthcheck = own.healthcheck.or(preset.healthcheck);
    own
}
