//! What a failed `RUN` left, kept as an image without a name until the next build or prune, so that one can look at it.

use std::fs;

use berth_oci::Digest;
use berth_store::NewImage;

use crate::fault::At;
use crate::shared::Shared;
use crate::stage::StageState;

/// Makes the image. That it cannot be made hides no step's own error.
pub(crate) fn keep(shared: &Shared, snapshot: &str, state: &StageState) -> Option<Digest> {
    let store = &shared.store;
    let kept = store.snapshots().commit(snapshot, None).and_then(|layer| {
        let mut state = state.clone();
        state.add_layer(layer.diff_id, "the step that failed".to_owned());
        store.images().put(NewImage { config: state.config.to_bytes(), ..NewImage::default() })
    });
    let noted = kept.map_err(|error| error.to_string()).and_then(|id| {
        let dir = shared.dirs.builds.join("failed");
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(dir.join(id.hex()), ""))
            .at("note in", &dir)
            .map(|()| id)
            .map_err(|error| error.to_string())
    });
    noted.map_err(|error| tracing::warn!(error, "what a failed step left cannot be kept")).ok()
}

/// Removes them. One that a container uses stays the user's.
pub(crate) fn clear(shared: &Shared) {
    let dir = shared.dirs.builds.join("failed");
    let Ok(entries) = fs::read_dir(&dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Err(error) = shared.store.images().remove(&name, false, false) {
            tracing::debug!(%error, "the image of a failed step");
        }
        fs::remove_file(entry.path()).ok();
    }
}
