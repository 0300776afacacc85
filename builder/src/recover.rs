//! What builds of a daemon that was killed have left.
//!
//! Nobody waits for them any more: a client's connection ended with the daemon. Steps still run under their shims, their
//! upper directories and what was unpacked for a build take room.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_runtime_client::{ClientError, Reconnected, ShimSpawner};
use nix::libc::SIGKILL;

use crate::shared::Shared;

/// What snapshots of steps are called, and a random number.
pub(crate) const SNAPSHOT: &str = "build-";

/// Finds it, before there are builds of our own; the future ends it and takes it away. What stays is told in the log: it is
/// in nobody's way.
pub(crate) fn recover(shared: &Arc<Shared>) -> impl Future<Output = ()> + Send + 'static {
    let steps = entries(&shared.dirs.run);
    let trees = entries(&shared.dirs.builds.join("tmp"));
    let mut snapshots = shared.store.snapshots().list().unwrap_or_default();
    snapshots.retain(|name| name.starts_with(SNAPSHOT));
    let shared = Arc::clone(shared);
    async move {
        for dir in steps {
            match end(&shared.spawner, &dir).await {
                Ok(()) => remove(&dir),
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "a step of an earlier build stays behind");
                }
            }
        }
        // Trees may be large.
        let removed = tokio::task::spawn_blocking(move || {
            for name in &snapshots {
                if let Err(error) = shared.store.snapshots().remove(name) {
                    tracing::warn!(snapshot = name, %error, "the snapshot of an earlier build stays behind");
                }
            }
            trees.iter().for_each(|dir| remove(dir));
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "what earlier builds had stays behind");
        }
    }
}

async fn end(spawner: &ShimSpawner, dir: &Path) -> Result<(), ClientError> {
    if let Reconnected::Alive(shim) = spawner.reconnect(dir).await? {
        // It may end by itself this moment; the end is waited for either way.
        shim.kill_all(SIGKILL).await.ok();
        shim.wait().await?;
    }
    Ok(())
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "what an earlier build had stays behind");
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|listed| listed.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
