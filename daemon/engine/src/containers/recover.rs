//! What an earlier daemon left: containers are found again through their shims, interrupted creations are undone,
//! interrupted removals finished.

use std::sync::Arc;

use berth_runtime_client::protocol::Phase as ShimPhase;
use berth_runtime_client::{Reconnected, Shim};

use super::exit::lost;
use super::machine::{Change, Phase};
use super::record::{Definition, Status};
use super::{Container, restart};
use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let rows = self.db.containers()?;
        let mut live: Vec<String> = rows
            .iter()
            .filter(|(_, status)| status.phase.is_alive())
            .map(|(definition, _)| definition.id.clone())
            .collect();
        live.extend(self.bridged_sandboxes()?);
        self.blocking(move |engine| {
            for error in engine.network.recover(&live).errors {
                tracing::warn!(%error, "recovering the networks");
            }
            Ok(())
        })
        .await?;
        let found = rows.into_iter().map(|(definition, status)| self.recover_one(definition, status));
        futures_util::future::join_all(found).await;
        self.blocking(|engine| {
            engine.recover_volumes();
            for container in engine.containers.all() {
                engine.note(engine.reconcile_networks(&container));
            }
            if let Err(error) = engine.recover_names() {
                tracing::error!(%error, "names of containers are not resolved");
            }
            Ok(())
        })
        .await?;
        self.remove_orphans();
        for container in self.containers.all() {
            self.start_if_demanded(&container);
        }
        Ok(())
    }

    async fn recover_one(self: &Arc<Self>, definition: Definition, status: Status) {
        let id = definition.id.clone();
        let phase = status.phase;
        if phase == Phase::Creating {
            let made: Vec<String> = definition
                .mounts
                .iter()
                .filter(|plan| plan.anonymous)
                .map(|plan| plan.source.clone())
                .collect();
            for error in self.unmake(&id, &made) {
                tracing::warn!(container = id, %error, "undoing an interrupted creation");
            }
            return;
        }
        let container = Arc::new(Container::new(definition, status));
        self.containers.restore(Arc::clone(&container));
        match phase {
            Phase::Running | Phase::Paused => self.reconnect(&container).await,
            // A shim may have been on its way when the daemon died.
            Phase::Created | Phase::Exited => self.end_half_started(&container).await,
            Phase::Restarting => {
                self.end_half_started(&container).await;
                self.note(container.change(&self.db, Change::Ended, |_| {}));
            }
            Phase::Removing => {
                let container = Arc::clone(&container);
                let engine = Arc::clone(self);
                if let Err(error) = self.blocking(move |_| engine.finish_removal(&container)).await {
                    tracing::warn!(container = id, %error, "finishing an interrupted removal");
                }
            }
            Phase::Creating | Phase::Dead => {}
        }
    }

    fn finish_removal(&self, container: &Container) -> Result<()> {
        if let Err(error) = self.take_apart(container, false) {
            self.note(container.removal_failed(&self.db, &error));
            return Err(error);
        }
        self.containers.remove(container);
        Ok(())
    }

    async fn reconnect(self: &Arc<Self>, container: &Arc<Container>) {
        let dir = self.run_dir(&container.id);
        let record = match self.spawner.reconnect(&dir).await {
            Ok(Reconnected::Alive(shim)) => match self.resume(container, shim).await {
                Ok(()) => return,
                Err(why) => lost(&why),
            },
            Ok(Reconnected::Exited(record)) => record,
            Ok(Reconnected::Lost) => lost("the host was restarted, or the container's shim was killed"),
            Err(error) => {
                tracing::warn!(container = container.id, %error, "finding a container again");
                lost(&error.to_string())
            }
        };
        // Ended while no daemon was there: the policy decides anew in `start_if_demanded`.
        self.note(container.note(&self.db, |status| status.quick_failures = 0));
        self.ended(container, record).await;
    }

    /// Takes up a container that lives.
    async fn resume(self: &Arc<Self>, container: &Arc<Container>, shim: Shim) -> Result<(), String> {
        let events = shim.events();
        let state = shim.state().await.map_err(|error| error.to_string())?;
        self.recover_execs(container, &shim, &state);
        container.live().shim = Some(shim);
        let status = container.status();
        let change = match (status.phase, state.phase) {
            (Phase::Running, ShimPhase::Paused) => Some(Change::Paused),
            (Phase::Paused, ShimPhase::Running) => Some(Change::Resumed),
            _ => None,
        };
        if let Some(change) = change {
            self.note(container.change(&self.db, change, |_| {}));
        }
        self.note(container.note(&self.db, |status| {
            status.pid = state.pid.unwrap_or(status.pid);
            status.oom_killed |= state.oom_killed;
        }));
        self.watch(Arc::clone(container), events);
        self.watch_health(container);
        Ok(())
    }

    /// A start that the daemon's death interrupted: nobody was told that it runs, so it must not.
    async fn end_half_started(&self, container: &Container) {
        let dir = self.run_dir(&container.id);
        if !dir.join("shim.sock").exists() {
            return;
        }
        match self.spawner.reconnect(&dir).await {
            Ok(Reconnected::Alive(shim)) => {
                if shim.shutdown().await.is_err()
                    && let Err(error) = shim.kill_all(nix::libc::SIGKILL).await
                {
                    tracing::warn!(container = container.id, %error, "ending a start that was interrupted");
                }
                // Its end has no one to tell; that it is gone is what matters.
                shim.wait().await.ok();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(container = container.id, %error, "ending a start that was interrupted")
            }
        }
    }

    /// Directories of containers that no row knows: a crash came between the row's end and theirs.
    fn remove_orphans(&self) {
        let known = |name: &str| self.containers.find(name).is_ok();
        for parent in [self.config.root.join("containers"), self.config.run_root.join("containers")] {
            for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !known(&name)
                    && let Err(error) = super::create::remove_tree(&entry.path())
                {
                    tracing::warn!(%error, "removing what is left of a container");
                }
            }
        }
    }

    fn start_if_demanded(self: &Arc<Self>, container: &Arc<Container>) {
        let (definition, status) = (container.definition(), container.status());
        let wanted = status.phase == Phase::Exited
            && status.ever_started
            && restart::at_daemon_start(&definition.host.restart_policy, status.manually_stopped);
        if !wanted {
            return;
        }
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        self.tasks.spawn(async move {
            let _operation = container.operation.lock().await;
            if container.phase() != Phase::Exited {
                return;
            }
            if let Err(error) = engine.start_by_user(&container).await {
                tracing::warn!(container = container.id, %error, "starting a container with the daemon");
            }
        });
    }
}
