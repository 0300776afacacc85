//! Kill: send a signal.

use std::sync::Arc;
use std::time::Duration;

use super::Container;
use berth_runtime_client::ClientError;

use super::machine::Phase;
use super::signal::{self, SIGKILL, SIGTERM};
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};

/// How long a killed process may take to be gone; longer means that the kernel holds it (a hung mount, say).
const DEATH: Duration = Duration::from_secs(10);

impl Engine {
    /// Sends a signal; an empty one is SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When it does not run, or the signal is none.
    pub async fn kill_container(self: &Arc<Self>, name: &str, signal: &str) -> Result<()> {
        let failed = |error: EngineError| error.context(format!("cannot kill container: {name}"));
        let container = self.containers.find(name)?;
        let number = if signal.is_empty() { SIGKILL } else { signal::parse(signal).map_err(failed)? };
        if !container.phase().is_running() {
            return Err(failed(container.not_running()));
        }
        let engine = Arc::clone(self);
        let result = self
            .detached(async move {
                if number == SIGKILL {
                    engine.disarm(&container);
                    return engine.kill_and_wait(&container).await;
                }
                engine.send_signal(&container, number).await
            })
            .await;
        result.map_err(failed)
    }

    /// Sends a signal. The stop signal and SIGKILL disarm the restart policy, every signal does where the container
    /// has no stop signal of its own.
    pub(crate) async fn send_signal(self: &Arc<Self>, container: &Arc<Container>, number: i32) -> Result<()> {
        let own = container.definition().config.stop_signal.clone();
        let stops = number == SIGKILL || own.is_empty() || signal::parse(&own).is_ok_and(|own| own == number);
        if stops {
            self.disarm(container);
        }
        if container.phase() == Phase::Restarting {
            // There is no process; that the policy is disarmed is all there is to do.
            return self.end_restarting(container).await;
        }
        let shim = container.shim()?;
        shim.kill(number).await.map_err(|error| match error {
            // It ends this very moment.
            ClientError::Gone { .. } | ClientError::Send { .. } => container.not_running(),
            error => match EngineError::from(error) {
                error if error.kind() == Kind::Conflict => container.not_running(),
                error => error,
            },
        })?;
        let attributes = container.attributes(&[("signal", number.to_string())]);
        self.events.publish("container", "kill", &container.id, attributes);
        if stops && container.phase() == Phase::Paused {
            // A frozen process cannot take the signal.
            if let Err(error) = shim.resume().await {
                tracing::debug!(container = container.id, %error, "thawing a container that was sent a signal");
            } else {
                self.note(container.change(&self.db, super::machine::Change::Resumed, |_| {}));
            }
        }
        Ok(())
    }

    /// The restart policy rests until the next start. That it cannot be written down (on a full disk, which the container
    /// may have filled) keeps nobody from ending the container.
    pub(crate) fn disarm(&self, container: &Container) {
        self.note(container.note(&self.db, |status| status.manually_stopped = true));
    }

    /// SIGKILL, and the end.
    pub(crate) async fn kill_and_wait(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let mut status = container.watch();
        if container.phase() == Phase::Restarting {
            return self.end_restarting(container).await;
        }
        match self.send_signal(container, SIGKILL).await {
            Ok(()) => {}
            // It ended by itself meanwhile.
            Err(error) if error.kind() == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
        let ended = status.wait_for(|status| status.removed || !status.phase.is_alive());
        match tokio::time::timeout(DEATH, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::internal(format!(
                "container {} did not exit within {} s of SIGKILL: its process hangs in the kernel",
                container.id,
                DEATH.as_secs()
            ))),
        }
    }

    /// Calls a restart off that is due.
    pub(crate) async fn end_restarting(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        container.call_off_restart();
        if container.phase() == Phase::Restarting {
            self.note(container.change(&self.db, super::machine::Change::Ended, |status| status.ends += 1));
        }
        Ok(())
    }

    /// The signal that asks a container to end.
    pub(crate) fn stop_signal(container: &Container) -> i32 {
        let own = &container.definition().config.stop_signal;
        if own.is_empty() { SIGTERM } else { signal::parse(own).unwrap_or(SIGTERM) }
    }
}
