//! Changes and export: what is in a container's file system.

use std::sync::Arc;

use berth_api::container::FilesystemChange;
use berth_store::ChangeKind;

use crate::engine::Engine;
use crate::error::Result;
use crate::items::{ByteStream, stream_from};

impl Engine {
    /// What differs from the image; `None` if nothing does.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn container_changes(self: &Arc<Self>, name: &str) -> Result<Option<Vec<FilesystemChange>>> {
        let container = self.containers.find(name)?;
        let changes =
            self.blocking(move |engine| Ok(engine.store.snapshots().changes(&container.id)?)).await?;
        let changes: Vec<FilesystemChange> = changes
            .into_iter()
            .map(|change| FilesystemChange {
                path: change.path,
                kind: match change.kind {
                    ChangeKind::Modified => 0,
                    ChangeKind::Added => 1,
                    ChangeKind::Deleted => 2,
                },
            })
            .collect();
        Ok((!changes.is_empty()).then_some(changes))
    }

    /// The file system of a container as a tar archive; volumes are not part of it.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn export_container(self: &Arc<Self>, name: &str) -> Result<ByteStream> {
        let container = self.containers.find(name)?;
        let engine = Arc::clone(self);
        self.events.publish("container", "export", &container.id, container.attributes(&[]));
        Ok(stream_from(move |sink| engine.store.export(&container.id, sink).map_err(std::io::Error::other)))
    }
}
