//! Changes and export: what is in a container's file system.

use std::path::Path;
use std::sync::Arc;

use berth_api::container::FilesystemChange;
use berth_store::{Change, ChangeKind};

use crate::engine::Engine;
use crate::error::Result;
use crate::items::{ByteStream, stream_from};

/// An empty file by which programs know that they are in a container: docker's name for it.
pub(super) const MARKER: &str = ".dockerenv";

/// The marker, and where the engine itself mounts something into every container. An image need not have these places;
/// the runtime makes them then, and they are no change of the user's.
const MOUNT_PLACES: [&str; 7] =
    ["etc/hosts", "etc/hostname", "etc/resolv.conf", "dev", "proc", "sys", MARKER];

/// The same as paths, relative to the root.
pub(crate) fn mount_places() -> [&'static Path; 7] {
    MOUNT_PLACES.map(Path::new)
}

/// Leaves out what was only made to mount something on, and `/etc` if nothing else changed in it.
fn without_mount_places(mut changes: Vec<Change>) -> Vec<Change> {
    let place = |change: &Change| {
        let path = change.path.strip_prefix('/').unwrap_or(&change.path);
        // An image that was exported from a container brings a marker of its own.
        path == MARKER || change.kind == ChangeKind::Added && MOUNT_PLACES.contains(&path)
    };
    let before = changes.len();
    changes.retain(|change| !place(change));
    if changes.len() < before && !changes.iter().any(|change| change.path.starts_with("/etc/")) {
        changes.retain(|change| change.path != "/etc");
    }
    changes
}

impl Engine {
    /// What differs from the image; `None` if nothing does.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn container_changes(self: &Arc<Self>, name: &str) -> Result<Option<Vec<FilesystemChange>>> {
        let container = self.containers.find(name)?;
        let changes =
            self.blocking(move |engine| Ok(engine.store.snapshots().changes(&container.id)?)).await?;
        let changes: Vec<FilesystemChange> = without_mount_places(changes)
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
