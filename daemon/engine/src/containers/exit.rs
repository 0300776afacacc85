//! The end of a container: noticed, written down, answered.
//!
//! One task per run listens to the shim. When the process has ended it frees the network, writes the end down, tells
//! those who wait, and does what restart policy and AutoRemove say. It does not take the operation lock: whoever
//! stops the container holds that one and waits for the end.

use std::sync::Arc;
use std::time::Duration;

use berth_runtime_client::EventStream;
use berth_runtime_client::protocol::{Event, ExitRecord};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Container;
use super::machine::{Change, Phase};
use super::mounts::MountKind;
use super::restart::{self, End};
use crate::engine::Engine;
use crate::error::Result;

/// What docker says of a container whose process vanished without a trace.
const LOST_CODE: i32 = 137;

impl Engine {
    /// Follows a run to its end.
    pub(crate) fn watch(self: &Arc<Self>, container: Arc<Container>, mut events: EventStream) {
        let Some(shim) = container.live().shim.clone() else { return };
        let engine = Arc::clone(self);
        // Not among the tasks that a shutdown waits for: it lasts as long as the container.
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = engine.closed.cancelled() => return,
                };
                let Some(event) = event else { break };
                match event {
                    Event::Oom => {
                        engine.note(container.note(&engine.db, |status| status.oom_killed = true));
                        engine.events.publish("container", "oom", &container.id, container.attributes(&[]));
                    }
                    Event::Detached { exec_id: None } => {
                        let attributes = container.attributes(&[]);
                        engine.events.publish("container", "detach", &container.id, attributes);
                    }
                    Event::Detached { exec_id: Some(exec_id) } => {
                        engine.exec_detached(&container, &exec_id);
                    }
                    Event::ExecExited(record) => engine.exec_ended(&container, &shim, record),
                    Event::Exited(record) => {
                        engine.ended(&container, record).await;
                        return;
                    }
                    Event::Started { .. } | Event::Paused | Event::Resumed | Event::ExecStarted { .. } => {}
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
            engine.ended(&container, record).await;
        });
    }

    /// A failure of which nobody else can be told.
    pub(crate) fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "writing a container's state down");
        }
    }

    /// Writes the end of a run down and answers it.
    pub(crate) async fn ended(self: &Arc<Self>, container: &Arc<Container>, record: ExitRecord) {
        if let Err(error) = self.leave_networks(container).await {
            tracing::warn!(container = container.id, %error, "leaving the networks");
        }
        self.forget_execs(&container.id, false);
        self.volumes.unmount_for(&container.id);
        let definition = container.definition();
        for plan in definition.mounts.iter().filter(|plan| plan.kind == MountKind::Volume) {
            let attributes = [("container", container.id.clone()), ("driver", "local".to_owned())];
            let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            self.events.publish("volume", "unmount", &plan.source, attributes);
        }
        container.live().shim = None;
        let before = container.status();
        let ran_for = before.started_at.map_or(Duration::ZERO, |started| elapsed(started, record.at));
        let end = End {
            exit_code: record.code,
            ran_for,
            restarts: before.restart_count,
            quick_failures: before.quick_failures,
            stopped: before.manually_stopped || self.ending.is_cancelled(),
        };
        let pause = restart::pause(&definition.host.restart_policy, &end);
        // The die event comes before anyone who waits goes on; `stop` follows it.
        let attributes =
            [("exitCode", record.code.to_string()), ("execDuration", ran_for.as_secs().to_string())];
        self.events.publish("container", "die", &container.id, container.attributes(&attributes));
        let change = if pause.is_some() { Change::EndedToRestart } else { Change::Ended };
        let calls_off = CancellationToken::new();
        if pause.is_some() {
            container.live().restart = Some(calls_off.clone());
        }
        self.note(container.change(&self.db, change, |status| {
            status.exit_code = record.code;
            status.oom_killed |= record.oom_killed;
            status.finished_at = Some(record.at);
            status.pid = 0;
            status.endpoints.clear();
            status.ends += 1;
            if let Some(error) = record.error {
                status.error = error;
            }
            status.quick_failures = if restart::is_quick(ran_for) { before.quick_failures + 1 } else { 0 };
        }));
        match pause {
            Some(pause) => self.restart_later(Arc::clone(container), pause, calls_off),
            None if definition.host.auto_remove => self.remove_after_end(container).await,
            None => {}
        }
    }

    /// Starts the container again after a pause, unless that is called off.
    fn restart_later(
        self: &Arc<Self>,
        container: Arc<Container>,
        pause: Duration,
        called_off: CancellationToken,
    ) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = called_off.cancelled() => return,
                () = engine.ending.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let _operation = container.operation.lock().await;
            if called_off.is_cancelled() || container.phase() != Phase::Restarting {
                return;
            }
            engine.note(container.note(&engine.db, |status| status.restart_count += 1));
            if let Err(error) = engine.start_locked(&container).await {
                tracing::warn!(container = container.id, %error, "restarting by policy");
                engine.restart_failed(&container);
            }
        });
    }

    /// A restart that failed is an end as well.
    fn restart_failed(self: &Arc<Self>, container: &Arc<Container>) {
        let (definition, status) = (container.definition(), container.status());
        let end = End {
            exit_code: status.exit_code,
            ran_for: Duration::ZERO,
            restarts: status.restart_count,
            quick_failures: status.quick_failures,
            stopped: status.manually_stopped || self.ending.is_cancelled(),
        };
        match restart::pause(&definition.host.restart_policy, &end) {
            Some(pause) => {
                self.note(container.note(&self.db, |status| status.quick_failures += 1));
                let calls_off = CancellationToken::new();
                container.live().restart = Some(calls_off.clone());
                self.restart_later(Arc::clone(container), pause, calls_off);
            }
            None => self.note(container.change(&self.db, Change::Ended, |status| status.ends += 1)),
        }
    }
}

impl Container {
    /// Calls off the restart that is due. The caller holds the operation lock.
    pub(crate) fn call_off_restart(&self) {
        if let Some(restart) = self.live().restart.take() {
            restart.cancel();
        }
    }
}

/// The record of a container of which nothing is known.
pub(crate) fn lost(why: &str) -> ExitRecord {
    ExitRecord {
        code: LOST_CODE,
        signal: Some(nix::libc::SIGKILL),
        oom_killed: false,
        started_at: None,
        at: Timestamp::now(),
        error: Some(why.to_owned()),
    }
}

pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
