//! `docker history`.

use std::collections::HashMap;

use berth_oci::{DiffId, ImageId};

use crate::error::Result;
use crate::images::{HistoryEntry, Images};

impl Images {
    /// `docker history`, newest first. Steps that are images of the store (of a local build) carry their ids.
    ///
    /// # Errors
    /// If the image is not there.
    pub fn history(&self, id: &ImageId) -> Result<Vec<HistoryEntry>> {
        let config = self.config_of(id)?;
        let layers = self.layers();
        let steps = self.ancestors(id)?;
        let mut diff_ids = config.diff_ids().iter();
        let mut entries = Vec::with_capacity(config.history.len());
        for (position, history) in config.history.iter().enumerate() {
            let layer: Option<&DiffId> = if history.empty_layer { None } else { diff_ids.next() };
            let size = match layer {
                Some(diff_id) => layers.info(diff_id)?.map_or(0, |info| info.size),
                None => 0,
            };
            let id = steps.get(&(position + 1)).cloned();
            let tags = match &id {
                Some(id) => {
                    self.references("SELECT reference FROM tags WHERE id = ?1 ORDER BY reference", id)?
                }
                None => Vec::new(),
            };
            entries.push(HistoryEntry { id, history: history.clone(), size, tags });
        }
        entries.reverse();
        Ok(entries)
    }

    /// This image and those it was built on, by the length of their history.
    fn ancestors(&self, id: &ImageId) -> Result<HashMap<usize, ImageId>> {
        let mut found = HashMap::new();
        let mut next = Some(id.clone());
        while let Some(id) = next {
            let Some(image) = self.get(&id)? else { break };
            let length = self.config_of(&id)?.history.len();
            // A parent has a shorter history; anything else is no build's doing, and could be a ring.
            if found.keys().any(|&known| known <= length) {
                break;
            }
            found.insert(length, id);
            next = image.parent;
        }
        Ok(found)
    }
}
