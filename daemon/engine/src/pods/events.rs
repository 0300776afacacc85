//! What happens to pods and containers, for those who listen.

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::record::{ContainerView, SandboxView};
use crate::engine::Engine;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodChange {
    /// It was made.
    Created,
    /// It runs.
    Started,
    /// It ended.
    Stopped,
    /// It is gone.
    Deleted,
}

/// A change of a sandbox or of a container, and the whole pod after it.
#[derive(Debug, Clone)]
pub struct PodEvent {
    /// The container, or the sandbox.
    pub id: String,
    /// What happened.
    pub change: PodChange,
    /// When; later than every event before.
    pub at: Timestamp,
    /// The pod; none when it is gone.
    pub sandbox: Option<SandboxView>,
    /// All containers of the pod.
    pub containers: Vec<ContainerView>,
}

impl Engine {
    /// Every change from now on. A reader that is too slow misses the oldest.
    #[must_use]
    pub fn pod_events(&self) -> broadcast::Receiver<PodEvent> {
        self.pods.events.subscribe()
    }

    pub(super) fn tell(&self, sandbox: &str, id: &str, change: PodChange) {
        if self.pods.events.receiver_count() == 0 {
            return;
        }
        let gone = change == PodChange::Deleted && sandbox == id;
        let event = PodEvent {
            id: id.to_owned(),
            change,
            at: Timestamp::now(),
            sandbox: self.sandbox(sandbox).ok().filter(|_| !gone),
            containers: self.pods.containers_of(sandbox).iter().map(|one| (&one.record()).into()).collect(),
        };
        // That the last reader has just gone is no failure.
        drop(self.pods.events.send(event));
    }
}
