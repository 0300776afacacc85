//! Remove: everything of a container goes; errors on the way are collected, and leave it `dead`.

use std::sync::Arc;

use berth_api::options::RemoveContainer;
use berth_runtime_client::bundle;

use super::Container;
use super::machine::{Change, Phase};
use super::mounts::MountKind;
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// When it runs and `force` is not given; when something of it could not be removed.
    pub async fn remove_container(self: &Arc<Self>, name: &str, options: RemoveContainer) -> Result<()> {
        if options.link {
            return self.remove_link(name);
        }
        let container = self.containers.find(name)?;
        let (engine, name) = (Arc::clone(self), name.to_owned());
        self.detached(async move { engine.remove(&container, &name, options).await }).await
    }

    async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        options: RemoveContainer,
    ) -> Result<()> {
        let killed = options.force && container.phase().is_running();
        if killed {
            // Ahead of the lock: a stop that waits for its time-out holds it.
            self.disarm(container);
            self.kill_and_wait(container).await?;
        }
        let _operation = container.operation.lock().await;
        if container.status().removed {
            // AutoRemove was quicker.
            if killed {
                return Ok(());
            }
            return Err(EngineError::not_found(format!("No such container: {name}")));
        }
        match container.phase() {
            Phase::Paused if !options.force => {
                return Err(cannot_remove(name, "container is paused and must be unpaused first"));
            }
            phase if phase.is_running() && !options.force => {
                let state = phase.as_str();
                let advice = "stop the container before removing or force remove";
                return Err(cannot_remove(name, &format!("container is {state}: {advice}")));
            }
            phase if phase.is_running() => self.kill_and_wait(container).await?,
            _ => {}
        }
        self.remove_locked(container, options.volumes).await
    }

    /// Removes a container that has ended; the caller holds the operation lock.
    pub(crate) async fn remove_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<()> {
        match container.change(&self.db, Change::Remove, |_| {}) {
            // It is in no phase to be removed.
            Err(error) if error.kind() == Kind::Conflict => return Err(error),
            // A full disk must not keep what fills it. Were the daemon killed now, the container would be listed as it was
            // before, and could be removed again.
            result => self.note(result),
        }
        container.live().waiting.clear();
        let removed = {
            let container = Arc::clone(container);
            self.blocking(move |engine| engine.take_apart(&container, volumes)).await
        };
        if let Err(error) = removed {
            let error = error.context(format!("unable to remove container {}", container.id));
            self.note(container.removal_failed(&self.db, &error));
            return Err(error);
        }
        self.containers.remove(container);
        self.events.publish("container", "destroy", &container.id, container.attributes(&[]));
        container.gone();
        Ok(())
    }

    /// Everything but the row, then the row. Blocking.
    pub(crate) fn take_apart(&self, container: &Container, volumes: bool) -> Result<()> {
        let id = &container.id;
        let definition = container.definition();
        let mut errors: Vec<EngineError> = Vec::new();
        if !self.network.container_endpoints(id).is_empty() {
            errors.extend(
                self.network.detach_all(id).err().unwrap_or_default().into_iter().map(EngineError::from),
            );
        }
        self.forget_execs(id, true);
        errors.extend(bundle::remove(&self.run_dir(id)).err().map(EngineError::from));
        errors.extend(self.remove_snapshot(id).err());
        errors.extend(super::create::remove_tree(&self.container_dir(id)).err());
        if let Some(error) = EngineError::collect("removing its parts", errors) {
            return Err(error);
        }
        self.db.delete_container(id)?;
        if volumes || definition.host.auto_remove {
            // Not among the users any more once the row and the entry are gone.
            self.containers.remove(container);
            for plan in
                definition.mounts.iter().filter(|plan| plan.kind == MountKind::Volume && plan.anonymous)
            {
                if let Err(error) = self.drop_volume(&plan.source) {
                    tracing::warn!(container = id, volume = plan.source, %error, "removing an anonymous volume");
                }
            }
        }
        Ok(())
    }

    /// AutoRemove: after the end, or after a start that failed.
    pub(crate) async fn remove_after_end(self: &Arc<Self>, container: &Arc<Container>) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        // In a task of its own: whoever stops or starts the container holds its lock.
        self.tasks.spawn(async move {
            let _operation = container.operation.lock().await;
            let status = container.status();
            // Somebody started it again, or removed it.
            if status.removed || status.phase.is_running() || !container.definition().host.auto_remove {
                return;
            }
            if let Err(error) = engine.remove_locked(&container, true).await {
                tracing::warn!(container = container.id, %error, "removing a container that has ended");
            }
        });
    }
}

fn cannot_remove(name: &str, why: &str) -> EngineError {
    EngineError::conflict(format!("cannot remove container {name:?}: {why}"))
}
