//! Prune: remove the containers that have ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::Filters;
use berth_api::container::PruneContainersResponse;
use berth_api::options::RemoveContainer;

use super::filters::until;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// Removes the containers that do not run.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense. That a container could not be removed is told in the log.
    pub async fn prune_containers(self: &Arc<Self>, filters: &Filters) -> Result<PruneContainersResponse> {
        if let Some(key) = filters.unknown_key(&["label", "label!", "until"]) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let until = until(filters)?;
        let mut pruned = PruneContainersResponse::default();
        for container in self.containers.all() {
            let definition = container.definition();
            let old_enough = until.is_none_or(|until| definition.created <= until);
            if container.phase().is_running()
                || !old_enough
                || !filters.matches_labels(&definition.config.labels)
            {
                continue;
            }
            let size =
                self.weigh(&container).await.map_err(EngineError::from).flatten().map_or(0, |(own, _)| own);
            match self.remove_container(&container.id, RemoveContainer::default()).await {
                Ok(()) => {
                    pruned.space_reclaimed += u64::try_from(size).unwrap_or(0);
                    pruned.containers_deleted.get_or_insert_default().push(container.id.clone());
                }
                Err(error) => tracing::warn!(container = container.id, %error, "pruning a container"),
            }
        }
        let bytes = pruned.space_reclaimed.to_string();
        self.events.publish("container", "prune", "", BTreeMap::from([("reclaimed".to_owned(), bytes)]));
        Ok(pruned)
    }
}
