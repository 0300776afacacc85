//! Images as an orchestrator sees them: by any of their names or by their id, with full names.

use std::sync::Arc;

use berth_api::registry::AuthConfig;
use berth_oci::Platform;
use berth_store::Image;

use super::sandbox::known;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::images::{credentials, named};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodImage {
    /// `sha256:…`
    pub id: String,
    /// Full names with their tags.
    pub tags: Vec<String>,
    /// Full names with the digest that they were pulled by.
    pub digests: Vec<String>,
    /// Bytes of its layers' files.
    pub size: u64,
    /// The user of its processes, as the image says it.
    pub user: String,
    /// It must not be removed to make room.
    pub pinned: bool,
}

impl Engine {
    /// All images.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pod_images(self: &Arc<Self>) -> Result<Vec<PodImage>> {
        self.blocking(|engine| {
            let all = engine.store.images().list(false)?;
            let found = |image| engine.of_listed(image, engine.pod_image_of(image)).transpose();
            all.iter().filter_map(found).collect()
        })
        .await
    }

    /// An image by any of its names or its id; none if there is none.
    ///
    /// # Errors
    /// A name that is none, a store that cannot be read.
    pub async fn pod_image(self: &Arc<Self>, name: &str) -> Result<Option<PodImage>> {
        let name = name.to_owned();
        self.blocking(move |engine| {
            let found = known(engine.store.images().resolve(&name).map_err(Into::into))?;
            let found = found.map(|image| engine.of_listed(&image, engine.pod_image_of(&image)));
            Ok(found.transpose()?.flatten())
        })
        .await
    }

    /// What an image says of itself: its configuration, for people. None if there is no such image.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub async fn pod_image_config(self: &Arc<Self>, id: &str) -> Result<Option<serde_json::Value>> {
        let id = id.to_owned();
        self.blocking(move |engine| {
            let images = engine.store.images();
            let Some(image) = known(images.resolve(&id).map_err(Into::into))? else { return Ok(None) };
            let config = images.config_bytes(&image.id).map_err(Into::into);
            let Some(config) = engine.of_listed(&image, config)? else { return Ok(None) };
            serde_json::from_slice(&config)
                .map(Some)
                .map_err(|error| EngineError::internal(format!("configuration of {id}: {error}")))
        })
        .await
    }

    fn pod_image_of(&self, image: &Image) -> Result<PodImage> {
        let full = |names: &[berth_oci::Reference]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let tags = full(&image.tags);
        Ok(PodImage {
            pinned: tags.iter().any(|tag| self.config.pinned_images.contains(tag)),
            id: image.id.to_string(),
            digests: full(&image.repo_digests),
            tags,
            size: image.size,
            user: self.store.images().config_of(&image.id)?.config.unwrap_or_default().user,
        })
    }

    /// Pulls an image; whoever stops waiting for it calls it off. Returns its id.
    ///
    /// # Errors
    /// A name that is none; what the registry says.
    pub async fn pull_pod_image(self: &Arc<Self>, name: &str, auth: AuthConfig) -> Result<String> {
        let reference = named(name, "")?;
        let pulled = self.registry.pull(&reference, &Platform::host(), &credentials(&auth), |_| {}).await?;
        self.image_event("pull", &reference.familiar(), &reference.familiar_name());
        Ok(pulled.id.to_string())
    }

    /// Removes an image with all its names; one that does not exist is removed. Containers keep what they use of it.
    ///
    /// # Errors
    /// An image that others were built on.
    pub async fn remove_pod_image(self: &Arc<Self>, name: &str) -> Result<()> {
        let name = name.to_owned();
        let engine = Arc::clone(self);
        self.detached(async move {
            let removal = engine.blocking(move |engine| {
                let images = engine.store.images();
                let removed =
                    images.resolve(&name).and_then(|image| images.remove(image.id.as_str(), true, false));
                // Another call may have been faster, at either step.
                if let Some(removed) = known(removed.map_err(Into::into))? {
                    engine.tell_removed(removed);
                }
                Ok(())
            });
            removal.await
        })
        .await
    }
}
