//! A container's start, its end, its removal.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_runtime_client::protocol::{
    Create, Event, ExitRecord, Log, LogFile, LogFormat, Rootfs, StdinMode, Users,
};
use berth_runtime_client::{ClientError, EventStream, Shim, bundle};
use jiff::Timestamp;

use super::events::PodChange;
use super::hooks::ContainerMoment;
use super::namespaces::Pin;
use super::record::{ContainerPhase, ContainerRecord};
use super::registry::PodContainer;
use super::sandbox::known;
use crate::containers::bare;
use crate::containers::signal::SIGKILL;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};

/// Exit code of a container that could not be started.
const START_FAILED: i32 = 128;

/// Exit code of a container of which nobody saw the end.
const LOST: i32 = 255;

/// How long a killed process may take to be gone; longer means that the kernel holds it (a hung mount, say).
pub(super) const DEATH: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts a container. When this returns its program was loaded.
    ///
    /// # Errors
    /// When it was started before, its sandbox is not ready, or its program cannot be run: then it has ended.
    pub async fn start_pod_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.pods.container(id)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            match container.phase() {
                ContainerPhase::Created => {}
                // A retry of a start that has succeeded.
                ContainerPhase::Running => return Ok(()),
                ContainerPhase::Exited => {
                    return Err(EngineError::conflict(format!(
                        "container {} has ended already: make a new one",
                        container.id
                    )));
                }
            }
            let sandbox = engine.pods.sandbox(&container.sandbox)?;
            if !sandbox.is_ready() {
                return Err(EngineError::conflict(format!("sandbox {} is not ready", sandbox.id)));
            }
            let _joining = engine.pods.joining.read().await;
            let started = match engine.container_moment(ContainerMoment::Start, &container).await {
                Ok(()) => engine.run_pod_container(&container).await,
                refused => refused,
            };
            let Err(error) = started else {
                engine.tell(&container.sandbox, &container.id, PodChange::Started);
                engine.container_moment_told(ContainerMoment::Started, &container).await;
                return Ok(());
            };
            container.set_shim(None);
            engine.note(container.change_status(&engine.db, |status| {
                status.phase = ContainerPhase::Exited;
                status.exit_code = START_FAILED;
                status.start_failed = true;
                status.finished = Some(Timestamp::now());
                status.message = error.message().to_owned();
            }));
            engine.tell(&container.sandbox, &container.id, PodChange::Stopped);
            engine.tell_end(&container).await;
            Err(error)
        })
        .await
    }

    async fn run_pod_container(self: &Arc<Self>, container: &Arc<PodContainer>) -> Result<()> {
        let record = container.record();
        let dir = self.pod_run_dir(&record.sandbox, &record.id);
        let prepared = self.blocking(move |engine| engine.prepare_start(&record));
        let (shim, prepared) = tokio::join!(self.spawner.spawn(&dir), prepared);
        let shim = shim?;
        let (create, handed) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                end_unused(&shim).await;
                return Err(error);
            }
        };
        let events = shim.events();
        let handed: Vec<_> = handed.iter().map(OwnedFd::as_fd).collect();
        if let Err(error) = shim.create_with_mounts(create, None, &handed).await {
            end_unused(&shim).await;
            return Err(failed_start(error, &dir));
        }
        let (pid, at) = shim.start().await.map_err(|error| failed_start(error, &dir))?;
        container.set_shim(Some(shim.clone()));
        // It runs, whether that can be written down or not: from here on somebody has to watch it.
        self.note(container.change_status(&self.db, |status| {
            status.phase = ContainerPhase::Running;
            status.pid = pid;
            status.started = Some(at);
        }));
        self.watch_pod_container(Arc::clone(container), shim, events);
        Ok(())
    }

    /// What the shim is told. Blocking.
    fn prepare_start(&self, record: &ContainerRecord) -> Result<(Create, Vec<OwnedFd>)> {
        let gone =
            || EngineError::internal(format!("the snapshot of container {} is gone: remove it", record.id));
        let snapshot = self.store.snapshots().get(&record.id)?.ok_or_else(gone)?;
        self.pid_target(&record.spec.security.pid, &record.sandbox)?;
        let images = record.spec.mounts.iter().filter(|mount| mount.image.is_some());
        let handed = images
            .zip(&record.mounted_images)
            .map(|(mount, id)| self.image_source(&(id.clone(), mount.image_sub_path.clone())))
            .collect::<Result<Vec<_>>>()?;
        if let Some(dir) = record.log.as_ref().and_then(|log| log.parent()) {
            std::fs::create_dir_all(dir).during("create the log directory", dir)?;
        }
        let spec = &record.spec;
        let own_users = self.pods.sandbox(&record.sandbox)?.record().spec.namespaces.users.is_some();
        let (runtime, restore) = match record.restored {
            true => {
                let (runtime, restore) = self.restoring(&record.id);
                (Some(runtime), Some(restore))
            }
            false => (None, None),
        };
        let create = Create {
            id: record.id.clone(),
            bundle: self.pod_run_dir(&record.sandbox, &record.id),
            rootfs: Rootfs::Overlay {
                lower: snapshot.lower,
                upper: snapshot.upper,
                work: snapshot.work,
                volatile: false,
                users: own_users.then(|| Users::Namespace(self.pins(&record.sandbox).path(Pin::User))),
            },
            terminal: spec.tty,
            console_size: None,
            stdin: match (spec.stdin, spec.stdin_once) {
                (false, _) => StdinMode::Closed,
                (true, false) => StdinMode::Open,
                (true, true) => StdinMode::OpenOnce,
            },
            log: Log {
                file: record.log.clone().map(|path| LogFile {
                    path,
                    format: LogFormat::Cri,
                    ..LogFile::default()
                }),
                forward: None,
            },
            systemd_cgroup: self.config.cgroup_driver.is_systemd(),
            runtime,
            restore,
        };
        Ok((create, handed))
    }

    /// Follows a container to its end.
    pub(super) fn watch_pod_container(
        self: &Arc<Self>,
        container: Arc<PodContainer>,
        shim: Shim,
        mut events: EventStream,
    ) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = engine.closed.cancelled() => return,
                };
                match event {
                    None => break,
                    Some(Event::Oom) => {
                        engine.note(container.change_status(&engine.db, |status| status.oom_killed = true));
                    }
                    Some(Event::Exited(record)) => {
                        engine.pod_container_ended(&container, record);
                        return engine.tell_end(&container).await;
                    }
                    Some(Event::ExecExited(record)) => {
                        // Who runs it waits for it; records that nobody asks for any more go with the container.
                        tracing::trace!(exec = record.exec_id, code = record.code, "an exec has ended");
                    }
                    Some(_) => {}
                }
            }
            // The shim was killed. What it left behind is swept up before the container counts as ended.
            let record = match shim.wait().await {
                Ok(record) => record,
                Err(_) => {
                    if let Err(error) = engine.spawner.sweep(shim.dir()).await {
                        tracing::warn!(container = container.id, %error, "sweeping up after a lost shim");
                    }
                    lost("the container's shim was killed")
                }
            };
            engine.pod_container_ended(&container, record);
            engine.tell_end(&container).await;
        });
    }

    /// Writes the end of a container down and tells it.
    pub(super) fn pod_container_ended(&self, container: &Arc<PodContainer>, record: ExitRecord) {
        container.set_shim(None);
        self.note(container.change_status(&self.db, |status| {
            status.phase = ContainerPhase::Exited;
            status.pid = 0;
            status.exit_code = record.code;
            status.oom_killed |= record.oom_killed;
            status.started = status.started.or(record.started_at);
            status.finished = Some(record.at);
            status.lost = record.code == LOST && record.signal.is_none() && record.error.is_some();
            if let Some(error) = record.error {
                status.message = error;
            }
        }));
        self.tell(&container.sandbox, &container.id, PodChange::Stopped);
    }

    /// Asks a container to end and kills it when it has not within `patience`. One that has ended or does not exist is
    /// stopped. Of several calls at once the most impatient decides, and the signal is sent once.
    ///
    /// # Errors
    /// A process that cannot be killed.
    pub async fn stop_pod_container(self: &Arc<Self>, id: &str, patience: Duration) -> Result<()> {
        let Some(container) = known(self.pods.container(id))? else { return Ok(()) };
        let engine = Arc::clone(self);
        self.detached(async move {
            engine.end_container(&container, patience).await?;
            engine.tell_end(&container).await;
            Ok(())
        })
        .await
    }

    pub(super) async fn end_container(
        self: &Arc<Self>,
        container: &Arc<PodContainer>,
        patience: Duration,
    ) -> Result<()> {
        let mut record = container.watch();
        let Ok(shim) = container.shim() else { return Ok(()) };
        let over = |record: &ContainerRecord| record.status.phase == ContainerPhase::Exited;
        if !patience.is_zero() {
            if !container.asked_to_end.swap(true, Ordering::Relaxed) {
                let number = container.record().stop_signal;
                if let Err(error) = shim.kill(number).await {
                    tracing::debug!(container = container.id, %error, "the stop signal was not taken");
                }
            }
            let ended = tokio::select! {
                ended = tokio::time::timeout(patience, record.wait_for(over)) => ended.is_ok(),
                // Whoever wants it stopped asks the next daemon again.
                () = self.ending.cancelled() => {
                    return Err(EngineError::new(Kind::Unavailable, "the daemon is going away"));
                }
            };
            if ended {
                return Ok(());
            }
        }
        match shim.kill_all(SIGKILL).await {
            Ok(()) | Err(ClientError::Gone { .. } | ClientError::Send { .. }) => {}
            Err(error) => match EngineError::from(error).kind() {
                // It ends this very moment.
                Kind::Conflict => {}
                _ => shim.kill(SIGKILL).await?,
            },
        }
        match tokio::time::timeout(DEATH, record.wait_for(over)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::internal(format!(
                "container {} did not end within {} s of SIGKILL: its process hangs in the kernel",
                container.id,
                DEATH.as_secs()
            ))),
        }
    }

    /// Kills a container, if it runs, and removes it. One that does not exist is removed.
    ///
    /// # Errors
    /// What could not be removed; may be tried again.
    pub async fn remove_pod_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(container) = known(self.pods.container(id))? else { return Ok(()) };
        let engine = Arc::clone(self);
        self.detached(async move { engine.remove_known_container(&container).await }).await
    }

    pub(super) async fn remove_known_container(
        self: &Arc<Self>,
        container: &Arc<PodContainer>,
    ) -> Result<()> {
        self.end_container(container, Duration::ZERO).await?;
        let _operation = container.operation.lock().await;
        if known(self.pods.container(&container.id))?.is_none() {
            return Ok(());
        }
        // It may have been started meanwhile.
        self.end_container(container, Duration::ZERO).await?;
        self.tell_end(container).await;
        let _joining = self.pods.joining.read().await;
        self.container_moment_told(ContainerMoment::Remove, container).await;
        let (id, sandbox) = (container.id.clone(), container.sandbox.clone());
        let errors = self.blocking(move |engine| Ok(engine.take_pod_container_apart(&id, &sandbox))).await?;
        let failed = EngineError::collect(&format!("removing container {}", container.id), errors);
        if let Some(error) = failed {
            return Err(error);
        }
        self.pods.drop_container(&container.id);
        self.tell(&container.sandbox, &container.id, PodChange::Deleted);
        Ok(())
    }

    /// Everything but the row, then the row. Blocking.
    pub(super) fn take_pod_container_apart(&self, id: &str, sandbox: &str) -> Vec<EngineError> {
        let mut errors = Vec::new();
        errors.extend(bundle::remove(&self.pod_run_dir(sandbox, id)).err().map(EngineError::from));
        errors.extend(self.store.snapshots().remove(id).err().map(EngineError::from));
        errors.extend(crate::containers::remove_tree(&self.pod_container_dir(id)).err());
        if errors.is_empty() {
            errors.extend(self.db.delete_pod_container(id).err());
        }
        errors
    }
}

/// The record of a container of which nothing is known.
pub(super) fn lost(why: &str) -> ExitRecord {
    ExitRecord {
        code: LOST,
        signal: None,
        oom_killed: false,
        started_at: None,
        at: Timestamp::now(),
        error: Some(why.to_owned()),
    }
}

/// Ends the shim of a container that could not be made; it may have ended by itself.
async fn end_unused(shim: &Shim) {
    if let Err(error) = shim.shutdown().await {
        tracing::debug!(%error, "ending the shim of a failed start");
    }
}

fn failed_start(error: ClientError, dir: &std::path::Path) -> EngineError {
    if let Some(failure) = error.failure() {
        let kind = EngineError::from(ClientError::from(failure.clone())).kind();
        return EngineError::new(kind, format!("failed to start the container: {}", bare(&failure.message)));
    }
    // The shim is gone; the file with its last words goes with the container.
    let log = dir.join(berth_runtime_client::protocol::files::SHIM_LOG);
    let words = std::fs::read_to_string(log).unwrap_or_default();
    match words.trim() {
        "" => EngineError::from(error),
        words => EngineError::internal(format!("{error}: {words}")),
    }
}
