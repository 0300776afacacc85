//! `docker rmi`, `docker image prune`.

use std::sync::Arc;

use berth_api::Filters;
use berth_api::image::{ImageDeleteItem, PruneImagesResponse};
use berth_api::options::RemoveImage;
use berth_oci::ImageId;
use berth_store::Removed;

use crate::containers::filters::{boolean, until};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids;

impl Engine {
    /// Takes a name away, and the image when it was the last.
    ///
    /// # Errors
    /// When there is no such image, it has further names, children, or a container uses it.
    pub async fn remove_image(
        self: &Arc<Self>,
        name: &str,
        options: RemoveImage,
    ) -> Result<Vec<ImageDeleteItem>> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        self.detached(async move {
            engine
                .blocking(move |engine| {
                    let images = engine.store.images();
                    if !options.platforms.is_empty() {
                        engine.image_for_any(&name, &options.platforms)?;
                    }
                    let deletes = images.removal_deletes(&name, options.force)?;
                    let removed = match deletes {
                        Some((id, by_name)) if engine.must_stay(&name, by_name, &id, options.force)? => {
                            images.take_name(&name)?
                        }
                        _ => images.remove(&name, options.force, !options.no_prune)?,
                    };
                    engine.collect_garbage();
                    Ok(engine.tell_removed(removed))
                })
                .await
        })
        .await
    }

    /// Frees what no image refers to any more. That it fails is no failure of the removal.
    fn collect_garbage(&self) {
        if let Err(error) = self.store.gc() {
            tracing::warn!(%error, "collecting garbage of the image store");
        }
    }

    /// Whether an image that is to be deleted can only lose its name, because a container runs from it; what has to be
    /// forced, or cannot be, is refused.
    fn must_stay(&self, name: &str, by_name: bool, id: &ImageId, force: bool) -> Result<bool> {
        let users = self.images_in_use().remove(id.as_str()).unwrap_or_default();
        for user in users {
            let Ok(container) = self.containers.find(&user) else { continue };
            let (user, image) = (ids::short(&user), ids::short(id.hex()));
            let why = match (container.phase().is_running(), by_name, force) {
                (true, true, true) => return Ok(true),
                (_, true, false) => format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {user} is using its referenced image {image}"
                ),
                (true, false, _) => format!(
                    "conflict: unable to delete {image} (cannot be forced) - image is being used by running container {user}"
                ),
                (false, false, false) => format!(
                    "conflict: unable to delete {image} (must be forced) - image is being used by stopped container {user}"
                ),
                (false, _, true) => continue,
            };
            return Err(EngineError::conflict(why));
        }
        Ok(false)
    }

    pub(crate) fn tell_removed(&self, removed: Vec<Removed>) -> Vec<ImageDeleteItem> {
        let item = |one| match one {
            Removed::Untagged(name) => {
                self.events.publish("image", "untag", &name, [("name".to_owned(), name.clone())].into());
                ImageDeleteItem { untagged: name, ..ImageDeleteItem::default() }
            }
            Removed::Deleted(id) => {
                let id = id.to_string();
                self.events.publish("image", "delete", &id, [("name".to_owned(), id.clone())].into());
                ImageDeleteItem { deleted: id, ..ImageDeleteItem::default() }
            }
        };
        removed.into_iter().map(item).collect()
    }

    /// Removes the images without name that no container uses; with the filter `dangling=false` all that none uses.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn prune_images(self: &Arc<Self>, filters: &Filters) -> Result<PruneImagesResponse> {
        if let Some(key) = filters.unknown_key(&["dangling", "label", "label!", "until"]) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let dangling = boolean(filters, "dangling")?.unwrap_or(true);
        let until = until(filters)?;
        let (engine, filters) = (Arc::clone(self), filters.clone());
        self.detached(
            async move { engine.blocking(move |engine| engine.prune(&filters, dangling, until)).await },
        )
        .await
    }

    fn prune(
        &self,
        filters: &Filters,
        dangling: bool,
        until: Option<jiff::Timestamp>,
    ) -> Result<PruneImagesResponse> {
        let mut pruned = PruneImagesResponse::default();
        // Each removal frees what was its image's alone, and the collection what is left.
        let before = self.store.counted();
        for image in self.store.images().list(false)? {
            let config = self.store.images().config_of(&image.id).map_err(Into::into);
            let Some(config) = self.of_listed(&image, config)? else { continue };
            let labels = config.labels().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            let wanted = (!dangling || image.tags.is_empty())
                && until.is_none_or(|until| image.created <= until)
                && filters.matches_labels(&labels)
                && !self.images_in_use().contains_key(image.id.as_str());
            if !wanted {
                continue;
            }
            match self.store.images().remove(image.id.as_str(), true, true) {
                Ok(removed) => {
                    pruned.images_deleted.get_or_insert_default().extend(self.tell_removed(removed))
                }
                // An image that others are built on stays.
                Err(error) => tracing::debug!(image = %image.id, %error, "pruning an image"),
            }
        }
        self.collect_garbage();
        pruned.space_reclaimed = before.saturating_sub(self.store.counted());
        let bytes = pruned.space_reclaimed.to_string();
        self.events.publish("image", "prune", "", [("reclaimed".to_owned(), bytes)].into());
        Ok(pruned)
    }
}
