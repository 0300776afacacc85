//! Stop and restart.

use std::sync::Arc;
use std::time::Duration;

use berth_api::options::StopContainer;

use super::machine::Phase;
use super::{Container, signal};
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};

/// Seconds between the stop signal and SIGKILL where nothing is said.
const PATIENCE: i64 = 10;

impl Engine {
    /// Asks a container to end, and kills it when it does not.
    ///
    /// # Errors
    /// `NotModified` when it does not run; a signal that is none; a process that cannot be killed.
    pub async fn stop_container(self: &Arc<Self>, name: &str, options: &StopContainer) -> Result<()> {
        let container = self.containers.find(name)?;
        let (engine, options, name) = (Arc::clone(self), options.clone(), name.to_owned());
        self.detached(async move {
            let _operation = container.operation.lock().await;
            if !container.phase().is_running() {
                return Err(EngineError::not_modified(""));
            }
            let stopped = engine.stop_locked(&container, &options).await;
            stopped.map_err(|error| error.context(format!("cannot stop container: {name}")))
        })
        .await
    }

    /// Stops it; the caller holds the operation lock.
    async fn stop_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: &StopContainer,
    ) -> Result<()> {
        let number = match &options.signal {
            Some(signal) => signal::parse(signal)?,
            None => Self::stop_signal(container),
        };
        self.disarm(container);
        if container.phase() == Phase::Restarting {
            self.end_restarting(container).await?;
        } else {
            self.end_process(container, number, options.timeout).await?;
        }
        self.events.publish("container", "stop", &container.id, container.attributes(&[]));
        Ok(())
    }

    async fn end_process(
        self: &Arc<Self>,
        container: &Arc<Container>,
        number: i32,
        timeout: Option<i64>,
    ) -> Result<()> {
        let mut status = container.watch();
        match self.send_signal(container, number).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Conflict && !container.phase().is_alive() => return Ok(()),
            Err(error) => tracing::debug!(container = container.id, %error, "the stop signal was not taken"),
        }
        let seconds = timeout.or(container.definition().config.stop_timeout).unwrap_or(PATIENCE);
        let ended = status.wait_for(|status| status.removed || !status.phase.is_alive());
        let ended = match u64::try_from(seconds) {
            // Negative: for ever.
            Err(_) => ended.await.is_ok(),
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
        };
        if ended { Ok(()) } else { self.kill_and_wait(container).await }
    }

    /// Stops a container, if it runs, and starts it.
    ///
    /// # Errors
    /// See [`Self::stop_container`] and [`Self::start_container`].
    pub async fn restart_container(self: &Arc<Self>, name: &str, options: &StopContainer) -> Result<()> {
        let container = self.containers.find(name)?;
        let (engine, options, name) = (Arc::clone(self), options.clone(), name.to_owned());
        self.detached(async move {
            let _operation = container.operation.lock().await;
            let failed = |error: EngineError| error.context(format!("Cannot restart container {name}"));
            if matches!(container.phase(), Phase::Removing | Phase::Dead) {
                let message = "container is marked for removal and cannot be started";
                return Err(failed(EngineError::conflict(message)));
            }
            if container.phase().is_running() {
                // The end must not take the container away.
                let keeps = container.definition().host.auto_remove;
                engine.set_auto_remove(&container, false)?;
                let stopped = engine.stop_locked(&container, &options).await;
                engine.set_auto_remove(&container, keeps)?;
                stopped.map_err(failed)?;
            }
            engine.start_by_user(&container).await.map_err(failed)?;
            engine.events.publish("container", "restart", &container.id, container.attributes(&[]));
            Ok(())
        })
        .await
    }

    fn set_auto_remove(&self, container: &Container, on: bool) -> Result<()> {
        if container.definition().host.auto_remove == on {
            return Ok(());
        }
        container.redefine(&self.db, |definition| definition.host.auto_remove = on)
    }

    /// Stops every container, all at once.
    pub(crate) async fn stop_all(self: &Arc<Self>) -> Vec<EngineError> {
        let running = self.containers.all().into_iter().filter(|container| container.phase().is_running());
        let stops = running.map(|container| {
            let engine = Arc::clone(self);
            async move {
                let _operation = container.operation.lock().await;
                if !container.phase().is_running() {
                    return None;
                }
                // The user did not stop it: `unless-stopped` starts it with the next daemon.
                let before = container.status().manually_stopped;
                let stopped = engine.stop_locked(&container, &StopContainer::default()).await;
                engine.note(container.note(&engine.db, |status| status.manually_stopped = before));
                stopped.err()
            }
        });
        futures_util::future::join_all(stops).await.into_iter().flatten().collect()
    }
}
