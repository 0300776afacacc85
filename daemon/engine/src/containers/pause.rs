//! Pause, unpause, resize.

use std::sync::Arc;

use berth_runtime_client::protocol::{FailureKind, WindowSize};

use super::machine::{Change, Phase};
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// Freezes a container.
    ///
    /// # Errors
    /// When it does not run, or is frozen.
    pub async fn pause_container(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            let id = &container.id;
            match container.phase() {
                Phase::Paused => {
                    return Err(EngineError::conflict(format!("container {id} is already paused")));
                }
                Phase::Restarting => {
                    return Err(EngineError::conflict(format!(
                        "container {id} is restarting, wait until the container is running"
                    )));
                }
                Phase::Running => {}
                _ => return Err(container.not_running()),
            }
            container
                .shim()?
                .pause()
                .await
                .map_err(|error| EngineError::internal(format!("cannot pause container {id}: {error}")))?;
            container.change(&engine.db, Change::Paused, |_| {})?;
            engine.events.publish("container", "pause", id, container.attributes(&[]));
            Ok(())
        })
        .await
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When it is not frozen (which docker calls an internal error).
    pub async fn unpause_container(self: &Arc<Self>, name: &str) -> Result<()> {
        let container = self.containers.find(name)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            let id = &container.id;
            if container.phase() != Phase::Paused {
                return Err(EngineError::internal(format!("Container {id} is not paused")));
            }
            container
                .shim()?
                .resume()
                .await
                .map_err(|error| EngineError::internal(format!("cannot unpause container {id}: {error}")))?;
            container.change(&engine.db, Change::Resumed, |_| {})?;
            engine.events.publish("container", "unpause", id, container.attributes(&[]));
            Ok(())
        })
        .await
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn resize_container(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.containers.find(name)?;
        let resized = container.shim()?.resize(WindowSize { rows, cols: columns }).await;
        match resized {
            // Docker takes no notice of a container without terminal.
            Err(error) if error.kind() == Some(FailureKind::NoTerminal) => {}
            Err(error) if error.kind() == Some(FailureKind::NotRunning) => {
                return Err(container.not_running());
            }
            other => other?,
        }
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.events.publish("container", "resize", &container.id, container.attributes(&size));
        Ok(())
    }
}
