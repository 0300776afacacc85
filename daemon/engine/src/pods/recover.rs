//! What an earlier daemon left: pods and their containers are found again, interrupted work is undone or finished.

use std::sync::Arc;

use berth_runtime_client::Reconnected;
use berth_runtime_client::Shim;
use berth_runtime_client::protocol::Phase;

use super::life::lost;
use super::namespaces::Pin;
use super::record::{ContainerPhase, ContainerRecord, PodNetwork, SandboxPhase, SandboxRecord};
use super::registry::{PodContainer, Sandbox};
use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Ids of the sandboxes whose places in the engine's own networks stay.
    pub(crate) fn bridged_sandboxes(&self) -> Result<Vec<String>> {
        let stays = |record: &SandboxRecord| {
            record.network == PodNetwork::Bridge && self.pins(&record.id).holds(Pin::Network)
        };
        Ok(self.db.sandboxes()?.into_iter().filter(stays).map(|record| record.id).collect())
    }

    /// Finds pods and containers again.
    pub(crate) async fn recover_pods(self: &Arc<Self>) -> Result<()> {
        let (sandboxes, containers) = (self.db.sandboxes()?, self.db.pod_containers()?);
        if sandboxes.is_empty() && containers.is_empty() {
            return Ok(());
        }
        // All are listed before the first is looked after: nobody may see half of a pod.
        let sandboxes: Vec<_> = sandboxes.into_iter().map(|record| Arc::new(Sandbox::new(record))).collect();
        for sandbox in &sandboxes {
            self.pods.add_sandbox(Arc::clone(sandbox));
        }
        let containers: Vec<_> =
            containers.into_iter().map(|record| Arc::new(PodContainer::new(record))).collect();
        for container in &containers {
            self.pods.add_container(Arc::clone(container));
        }
        let found = containers.iter().map(|container| self.recover_pod_container(container));
        futures_util::future::join_all(found).await;
        let found = sandboxes.iter().map(|sandbox| self.recover_sandbox(sandbox));
        futures_util::future::join_all(found).await;
        if let Err(error) = self.collect_pod_networks().await {
            tracing::warn!(%error, "collecting garbage of pod networks");
        }
        Ok(())
    }

    async fn recover_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let record = sandbox.record();
        match record.phase {
            SandboxPhase::Creating => {
                let errors = self.unmake_sandbox(sandbox).await;
                if errors.is_empty() {
                    return self.pods.drop_sandbox(&record.id);
                }
                for error in errors {
                    tracing::warn!(sandbox = record.id, %error, "undoing an interrupted pod");
                }
                // It can still be removed by whoever asks.
                self.note(sandbox.change(&self.db, |record| record.phase = SandboxPhase::NotReady));
            }
            SandboxPhase::Ready if !self.is_whole(sandbox, &record).await => {
                self.note(sandbox.change(&self.db, |record| record.phase = SandboxPhase::NotReady));
            }
            SandboxPhase::Removing => {
                if let Err(error) = self.remove_sandbox(&record.id).await {
                    tracing::warn!(sandbox = record.id, %error, "finishing an interrupted removal");
                }
            }
            SandboxPhase::Ready | SandboxPhase::NotReady => {}
        }
    }

    /// Whether everything of a ready pod is there.
    async fn is_whole(self: &Arc<Self>, sandbox: &Arc<Sandbox>, record: &SandboxRecord) -> bool {
        let pins = self.pins(&record.id);
        let own = &record.spec.namespaces;
        if !own.host_network && !pins.holds(Pin::Network) || !own.host_ipc && !pins.holds(Pin::Ipc) {
            return false;
        }
        if record.spec.needs_holder() {
            match self.find_holder(sandbox).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    tracing::warn!(sandbox = record.id, %error, "finding a pod's init again");
                    return false;
                }
            }
        }
        if let Err(error) = self.check_pod_network(sandbox).await {
            tracing::warn!(sandbox = record.id, %error, "a pod's network is not what it was");
        }
        true
    }

    async fn recover_pod_container(self: &Arc<Self>, container: &Arc<PodContainer>) {
        let record = container.record();
        if self.pods.sandbox(&record.sandbox).is_err() {
            // A creation or removal that was interrupted.
            for error in self.take_pod_container_apart(&record.id, &record.sandbox) {
                tracing::warn!(container = record.id, %error, "removing a container without a pod");
            }
            return self.pods.drop_container(&record.id);
        }
        match record.status.phase {
            ContainerPhase::Created => self.recover_created(&record).await,
            ContainerPhase::Running => self.reconnect_pod_container(container, &record).await,
            ContainerPhase::Exited => {}
        }
    }

    /// A creation that was interrupted is undone; a start that was interrupted has nobody who was told that it runs, so
    /// it must not.
    async fn recover_created(self: &Arc<Self>, record: &ContainerRecord) {
        let dir = self.pod_run_dir(&record.sandbox, &record.id);
        let whole = dir.join(berth_runtime_client::protocol::files::CONFIG).exists()
            && self.store.snapshots().get(&record.id).is_ok_and(|snapshot| snapshot.is_some());
        if !whole {
            for error in self.take_pod_container_apart(&record.id, &record.sandbox) {
                tracing::warn!(container = record.id, %error, "undoing an interrupted creation");
            }
            return self.pods.drop_container(&record.id);
        }
        if !dir.join(berth_runtime_client::protocol::files::SOCKET).exists() {
            return;
        }
        match self.spawner.reconnect(&dir).await {
            Ok(Reconnected::Alive(shim)) => {
                if shim.shutdown().await.is_err()
                    && let Err(error) = shim.kill_all(nix::libc::SIGKILL).await
                {
                    tracing::warn!(container = record.id, %error, "ending a start that was interrupted");
                }
                // Its end has no one to tell; that it is gone is what matters.
                shim.wait().await.ok();
            }
            Ok(Reconnected::Exited(_) | Reconnected::Lost) => {}
            Err(error) => {
                tracing::warn!(container = record.id, %error, "ending a start that was interrupted");
            }
        }
    }

    async fn reconnect_pod_container(
        self: &Arc<Self>,
        container: &Arc<PodContainer>,
        record: &ContainerRecord,
    ) {
        let dir = self.pod_run_dir(&record.sandbox, &record.id);
        if !dir.exists() {
            return self.pod_container_ended(container, lost("the host was restarted"));
        }
        let ended = match self.spawner.reconnect(&dir).await {
            Ok(Reconnected::Alive(shim)) => match self.resume_pod_container(container, shim).await {
                Ok(()) => return,
                Err(why) => lost(&why),
            },
            Ok(Reconnected::Exited(record)) => record,
            Ok(Reconnected::Lost) => lost("the host was restarted, or the container's shim was killed"),
            Err(error) => {
                tracing::warn!(container = record.id, %error, "finding a container again");
                lost(&error.to_string())
            }
        };
        self.pod_container_ended(container, ended);
    }

    /// Takes up a container that lives.
    async fn resume_pod_container(
        self: &Arc<Self>,
        container: &Arc<PodContainer>,
        shim: Shim,
    ) -> Result<(), String> {
        let events = shim.events();
        let state = shim.state().await.map_err(|error| error.to_string())?;
        // The daemon before was killed while it took a checkpoint.
        if state.phase == Phase::Paused {
            shim.resume().await.map_err(|error| error.to_string())?;
        }
        container.set_shim(Some(shim.clone()));
        self.note(container.change_status(&self.db, |status| {
            status.pid = state.pid.unwrap_or(status.pid);
            status.oom_killed |= state.oom_killed;
        }));
        self.watch_pod_container(Arc::clone(container), shim, events);
        Ok(())
    }

    /// Stops all pods: the daemon is to leave nothing behind.
    pub(crate) async fn stop_all_pods(self: &Arc<Self>) -> Vec<crate::error::EngineError> {
        let sandboxes = self.pods.sandboxes();
        let stops = sandboxes.iter().map(|sandbox| self.stop_sandbox(&sandbox.id));
        let mut errors: Vec<_> =
            futures_util::future::join_all(stops).await.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() {
            errors.extend(self.leave_pods_dir().err());
        }
        errors
    }
}
