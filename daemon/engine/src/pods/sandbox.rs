//! Sandboxes: run, stop, remove.
//!
//! ```text
//!   row (creating) ─▶ directory ─▶ namespaces pinned ─▶ files, /dev/shm ─▶ init, if shared pids ─▶ network ─▶ ready
//! ```
//!
//! What fails half-way is undone as a whole.

use std::sync::Arc;

use super::events::PodChange;
use super::hooks::PodMoment;
use super::model::{PidScope, SandboxSpec};
use super::namespaces::{Pins, Wanted};
use super::record::{SandboxPhase, SandboxRecord};
use super::registry::Sandbox;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::ids;

impl Engine {
    /// Makes a sandbox; its containers can be made when this returns. A retry of a call that is still under way waits
    /// for it, and a retry of one that has succeeded gets the same sandbox.
    ///
    /// # Errors
    /// Settings that contradict each other, a network that refuses; nothing is left then.
    pub async fn run_sandbox(self: &Arc<Self>, spec: SandboxSpec) -> Result<String> {
        check(&spec)?;
        let name = format!("{}_{}_{}_{}", spec.name, spec.namespace, spec.uid, spec.attempt);
        let engine = Arc::clone(self);
        self.pods.make_once(&self.tasks, name, move || engine.run_new_sandbox(spec)).await
    }

    async fn run_new_sandbox(self: Arc<Self>, spec: SandboxSpec) -> Result<String> {
        if let Some(twin) = self.sandbox_like(&spec)? {
            return Ok(twin);
        }
        let sandbox = Arc::new(Sandbox::new(SandboxRecord::new(ids::random(), spec)));
        self.db.put_sandbox(&sandbox.record())?;
        let _operation = sandbox.operation.lock().await;
        let _joining = self.pods.joining.read().await;
        let made = match self.make_sandbox(&sandbox).await {
            Ok(()) => self.pod_moment(PodMoment::Run, &sandbox).await,
            failed => failed,
        };
        match made {
            Ok(()) => {
                self.pods.add_sandbox(Arc::clone(&sandbox));
                self.tell(&sandbox.id, &sandbox.id, PodChange::Created);
                self.tell(&sandbox.id, &sandbox.id, PodChange::Started);
                Ok(sandbox.id.clone())
            }
            Err(error) => {
                for problem in self.unmake_sandbox(&sandbox).await {
                    tracing::warn!(sandbox = sandbox.id, error = %problem, "undoing a pod");
                }
                Err(error)
            }
        }
    }

    /// The sandbox that an earlier call made of the same request.
    fn sandbox_like(&self, spec: &SandboxSpec) -> Result<Option<String>> {
        let key =
            |spec: &SandboxSpec| (spec.name.clone(), spec.namespace.clone(), spec.uid.clone(), spec.attempt);
        let wanted = key(spec);
        for sandbox in self.pods.sandboxes() {
            let record = sandbox.record();
            if key(&record.spec) != wanted {
                continue;
            }
            if record.phase == SandboxPhase::Ready && *record.spec == *spec {
                return Ok(Some(record.id));
            }
            return Err(EngineError::conflict(format!(
                "sandbox {} of pod {}/{}, attempt {}, exists already: remove it first",
                record.id, spec.namespace, spec.name, spec.attempt
            )));
        }
        Ok(None)
    }

    async fn make_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let spec = sandbox.record().spec;
        let pins = self.pins(&sandbox.id);
        {
            let (pins, spec) = (pins.clone(), Arc::clone(&spec));
            self.blocking(move |engine| engine.make_shared(&spec, &pins)).await?;
        }
        if spec.needs_holder() {
            self.make_holder(sandbox, &pins).await?;
            let (pins, spec) = (pins.clone(), Arc::clone(&spec));
            self.blocking(move |engine| engine.settle_users(&spec, &pins)).await?;
        }
        self.join_pod_network(sandbox, &pins).await?;
        sandbox.change(&self.db, |record| record.phase = SandboxPhase::Ready)
    }

    /// What the containers share and no process is needed for. Blocking.
    fn make_shared(&self, spec: &SandboxSpec, pins: &Pins) -> Result<()> {
        self.prepare_pods_dir()?;
        std::fs::create_dir_all(&pins.dir).during("create", &pins.dir)?;
        // With users of its own the pod's init makes the namespaces.
        let made_here = spec.namespaces.users.is_none();
        let own_network = !spec.namespaces.host_network && made_here;
        let hostname = self.pod_hostname(spec);
        let wanted = Wanted {
            network: if own_network { Some(self.network.new_sandbox()?) } else { None },
            ipc: !spec.namespaces.host_ipc && made_here,
            uts: own_network.then_some(hostname.as_str()),
            sysctls: made_here.then_some(&spec.sysctls),
        };
        pins.make(&wanted)?;
        if !spec.namespaces.host_ipc {
            pins.make_shm(spec.namespaces.users.map_or(0, |users| users.host_id))?;
        }
        self.write_pod_files(spec, pins)
    }

    /// Undoes a sandbox as far as it was made; goes on past errors. Its row goes only when nothing else is left.
    pub(super) async fn unmake_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Vec<EngineError> {
        let mut errors = Vec::new();
        errors.extend(self.leave_pod_network(sandbox).await.err());
        errors.extend(self.end_holder(sandbox).await.err());
        let id = sandbox.id.clone();
        let released = self.blocking(move |engine| {
            let pins = engine.pins(&id);
            let mut errors = pins.release();
            if errors.is_empty() {
                errors.extend(pins.remove().err());
                errors.extend(crate::containers::remove_tree(&engine.pod_state_dir(&id)).err());
            }
            Ok(errors)
        });
        match released.await {
            Ok(more) => errors.extend(more),
            Err(error) => errors.push(error),
        }
        if errors.is_empty() {
            errors.extend(self.db.delete_sandbox(&sandbox.id).err());
        }
        errors
    }

    /// Ends everything in a sandbox and takes it off the network. One that does not exist is stopped.
    ///
    /// # Errors
    /// What could not be ended or undone; may be tried again.
    pub async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(sandbox) = known(self.pods.sandbox(id))? else { return Ok(()) };
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = sandbox.operation.lock().await;
            engine.stop_sandbox_locked(&sandbox).await
        })
        .await
    }

    async fn stop_sandbox_locked(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let was_ready = sandbox.is_ready();
        if was_ready {
            // Stopping and removing make room on a full disk: that they cannot be written down does not end them.
            self.note(sandbox.change(&self.db, |record| record.phase = SandboxPhase::NotReady));
        }
        let containers = self.pods.containers_of(&sandbox.id);
        let stops =
            containers.iter().map(|container| self.end_container(container, std::time::Duration::ZERO));
        let mut errors: Vec<EngineError> =
            futures_util::future::join_all(stops).await.into_iter().filter_map(Result::err).collect();
        for container in &containers {
            self.tell_end(container).await;
        }
        if was_ready {
            self.pod_moment_told(PodMoment::Stop, sandbox).await;
        }
        errors.extend(self.leave_pod_network(sandbox).await.err());
        errors.extend(self.end_holder(sandbox).await.err());
        if errors.is_empty() {
            let id = sandbox.id.clone();
            errors.extend(self.blocking(move |engine| Ok(engine.pins(&id).release())).await?);
        }
        if was_ready {
            self.tell(&sandbox.id, &sandbox.id, PodChange::Stopped);
        }
        EngineError::collect(&format!("stopping sandbox {}", sandbox.id), errors).map_or(Ok(()), Err)
    }

    /// Stops a sandbox and removes it with its containers. One that does not exist is removed.
    ///
    /// # Errors
    /// What could not be removed; may be tried again.
    pub async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(sandbox) = known(self.pods.sandbox(id))? else { return Ok(()) };
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = sandbox.operation.lock().await;
            if known(engine.pods.sandbox(&sandbox.id))?.is_none() {
                return Ok(());
            }
            engine.stop_sandbox_locked(&sandbox).await?;
            engine.note(sandbox.change(&engine.db, |record| record.phase = SandboxPhase::Removing));
            let mut errors = Vec::new();
            for container in engine.pods.containers_of(&sandbox.id) {
                errors.extend(engine.remove_known_container(&container).await.err());
            }
            let _joining = engine.pods.joining.read().await;
            if errors.is_empty() {
                engine.pod_moment_told(PodMoment::Remove, &sandbox).await;
                errors = engine.unmake_sandbox(&sandbox).await;
            }
            if let Some(error) = EngineError::collect(&format!("removing sandbox {}", sandbox.id), errors) {
                return Err(error);
            }
            engine.pods.drop_sandbox(&sandbox.id);
            engine.tell(&sandbox.id, &sandbox.id, PodChange::Deleted);
            Ok(())
        })
        .await
    }
}

/// What does not exist is no error for those who end things.
pub(super) fn known<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == crate::error::Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn check(spec: &SandboxSpec) -> Result<()> {
    if spec.name.is_empty() || spec.uid.is_empty() {
        return Err(EngineError::invalid("a sandbox needs a name and a uid (PodSandboxMetadata)"));
    }
    if matches!(spec.namespaces.pid, PidScope::Target(_)) {
        return Err(EngineError::invalid("a sandbox cannot have the pid namespace of a container (TARGET)"));
    }
    if spec.namespaces.users.is_some() && spec.namespaces.host_network {
        return Err(EngineError::invalid("a pod with a user namespace cannot have the host's network"));
    }
    for name in spec.sysctls.keys() {
        let (host, what) = if name.starts_with("net.") {
            (spec.namespaces.host_network, "network")
        } else if ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p))
        {
            (spec.namespaces.host_ipc, "IPC")
        } else {
            return Err(EngineError::invalid(format!(
                "sysctl {name:?} is not of a namespace: net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* are"
            )));
        };
        if host {
            return Err(EngineError::invalid(format!(
                "sysctl {name:?} is not allowed in the host's {what} namespace"
            )));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) || name.contains("..") {
            return Err(EngineError::invalid(format!("sysctl {name:?} is no name of a kernel parameter")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::model::PodNamespaces;
    use super::*;

    fn with(sysctl: &str, host_network: bool) -> Result<()> {
        check(&SandboxSpec {
            name: "p".into(),
            uid: "u".into(),
            sysctls: [(sysctl.to_owned(), "1".to_owned())].into(),
            namespaces: PodNamespaces { host_network, ..PodNamespaces::default() },
            ..SandboxSpec::default()
        })
    }

    #[test]
    fn sysctls_must_be_of_the_pods_own_namespaces() {
        assert!(with("net.ipv4.ip_forward", false).is_ok());
        assert!(with("net.ipv4.ip_forward", true).is_err());
        assert!(with("kernel.shmmax", true).is_ok());
        for bad in ["kernel.core_pattern", "vm.swappiness", "net.../../kernel.x"] {
            assert!(with(bad, false).is_err(), "{bad}");
        }
    }
}
