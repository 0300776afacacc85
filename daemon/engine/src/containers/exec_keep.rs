//! What is written down of execs, so that a client that asks after the daemon was restarted still hears of them.
//!
//! One file per exec in the container's run directory, written once; how the exec ended, the shim's record tells. Both go
//! with the exec, at the latest with the container's end: an exec never outlives that, and a reboot takes both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_api::exec::ExecConfig;
use berth_runtime_client::Shim;
use berth_runtime_client::protocol::State;
use serde::{Deserialize, Serialize};

use super::Container;
use super::attach::detach_keys;
use super::exec::{Exec, forget_record};
use crate::engine::Engine;

/// An exec as it lies on the disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) config: ExecConfig,
}

fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("execs")
}

fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Of a daemon that dies meanwhile it is no text at all, and nobody has heard of the exec yet.
    std::fs::write(path, serde_json::to_vec(kept)?)
}

impl Engine {
    /// Writes an exec down. That it cannot be is no reason not to run it: only a restart would forget it.
    pub(super) fn keep_exec(&self, exec: &Exec) {
        let path = directory(&self.run_dir(exec.container())).join(exec.id());
        if let Err(error) = write(&path, &exec.kept()) {
            tracing::warn!(path = %path.display(), %error, "writing an exec down");
        }
    }

    /// Strikes an exec off.
    pub(super) fn drop_kept_exec(&self, container: &str, id: &str) {
        remove(&directory(&self.run_dir(container)).join(id), false);
    }

    /// Strikes all execs of a container off.
    pub(super) fn drop_kept_execs(&self, container: &str) {
        remove(&directory(&self.run_dir(container)), true);
    }

    /// Takes up the execs of a container that lives, as an earlier daemon wrote them down.
    pub(super) fn recover_execs(&self, container: &Container, shim: &Shim, state: &State) {
        let dir = directory(&self.run_dir(&container.id));
        let ended = shim.ended_execs();
        for record in ended.iter().filter(|record| !dir.join(&record.exec_id).exists()) {
            forget_record(shim, &record.exec_id);
        }
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            let kept: Option<Kept> =
                std::fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let Some(kept) = kept else {
                remove(&entry.path(), false);
                continue;
            };
            let running = state.execs.iter().find(|running| running.exec_id == id);
            let record = ended.iter().find(|record| record.exec_id == id);
            let code = record.map(|record| record.code);
            let keys = detach_keys(Some(&kept.config.detach_keys)).unwrap_or_default();
            let exec = Exec::restore(id, &container.id, kept, keys, running.map(|running| running.pid), code);
            self.execs().insert(exec.id().to_owned(), Arc::new(exec));
        }
    }
}

fn remove(path: &Path, all: bool) {
    let removed = if all { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "striking execs off");
        }
        _ => {}
    }
}
