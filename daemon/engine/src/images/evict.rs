//! Room below the cap of the image store: what goes first when a write would pass it.
//!
//! 1. What unfinished pulls left.
//! 2. Images without a name.
//! 3. Images that no container uses, the one whose name is oldest first.
//!
//! Images that a container uses, and what running operations touch, never go.

use std::sync::Arc;

use berth_store::Image;

use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Puts the cap of the configuration into force.
    pub(crate) fn limit_images(self: &Arc<Self>) {
        let Some(cap) = self.config.image_cap else { return };
        let engine = Arc::downgrade(self);
        self.store.limit(cap, move |bytes| {
            if let Some(engine) = engine.upgrade()
                && let Err(error) = engine.make_room(bytes)
            {
                tracing::warn!(%error, "making room in the image store");
            }
        });
    }

    /// Frees so many bytes, if that much can go.
    fn make_room(&self, bytes: u64) -> Result<(), EngineError> {
        let target = self.store.counted().saturating_sub(bytes);
        self.store.gc_leftovers()?;
        let used = self.images_in_use();
        let mut images = self.store.images().list(false)?;
        images.retain(|image| !used.contains_key(image.id.as_str()));
        images.sort_by_key(|image: &Image| (!image.tags.is_empty(), image.tagged.unwrap_or(image.created)));
        for image in images {
            if self.store.counted() <= target {
                break;
            }
            match self.store.images().remove(image.id.as_str(), true, true) {
                Ok(removed) => {
                    tracing::info!(image = %image.id, "removed to stay below the cap of the image store");
                    self.tell_removed(removed);
                }
                // One that others are built on stays.
                Err(error) => tracing::debug!(image = %image.id, %error, "making room"),
            }
        }
        Ok(())
    }
}
