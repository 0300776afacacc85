//! All pods and their containers, live; and what is being made right now, so that a retry joins it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use berth_runtime_client::Shim;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{OnceCell, broadcast, watch};
use tokio_util::task::TaskTracker;

use super::events::PodEvent;
use super::hooks::PodPlugins;
use super::namespaces::Pin;
use super::record::{
    ContainerPhase, ContainerRecord, ContainerStatus, ContainerView, SandboxPhase, SandboxRecord, SandboxView,
};
use crate::db::Db;
use crate::error::{EngineError, Result};

/// So many events may wait for a slow reader; it misses what is older.
const EVENTS: usize = 1024;

/// All pods and their containers.
#[derive(Debug)]
pub(crate) struct Pods {
    sandboxes: RwLock<BTreeMap<String, Arc<Sandbox>>>,
    containers: RwLock<BTreeMap<String, Arc<PodContainer>>>,
    making: Mutex<HashMap<String, Making>>,
    /// Held by whoever looks whether the directory of all pods is a mount.
    directory: Mutex<()>,
    pub(super) events: broadcast::Sender<PodEvent>,
    pub(super) plugins: OnceLock<Arc<dyn PodPlugins>>,
    /// Shared by whoever makes, starts or removes something; held alone while a plugin is shown all there is.
    pub(super) joining: Arc<tokio::sync::RwLock<()>>,
}

type Making = Shared<BoxFuture<'static, Result<String>>>;

/// A live sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    record: Mutex<SandboxRecord>,
    /// Its init, if it has one.
    pub(super) holder: Mutex<Option<Shim>>,
    /// Held by whoever stops or removes it.
    pub(super) operation: tokio::sync::Mutex<()>,
}

/// A live container.
#[derive(Debug)]
pub(crate) struct PodContainer {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    /// A watch, so that nobody can come too late for a change.
    record: watch::Sender<ContainerRecord>,
    shim: Mutex<Option<Shim>>,
    /// Held by whoever starts or removes it. Neither its end nor whoever asks for it waits for this.
    pub(super) operation: tokio::sync::Mutex<()>,
    /// It was sent its stop signal.
    pub(super) asked_to_end: std::sync::atomic::AtomicBool,
    /// Plugins know that it has ended.
    pub(super) end_told: OnceCell<()>,
    /// Bytes and files of its writable layer, and when they were counted.
    measured: Mutex<Option<(Instant, (u64, u64))>>,
}

impl Default for Pods {
    fn default() -> Self {
        Self {
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            making: Mutex::default(),
            directory: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            plugins: OnceLock::new(),
            joining: Arc::default(),
        }
    }
}

/// The data behind these locks is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pods {
    /// The sandbox of an id, or of a unique beginning of one.
    pub(crate) fn sandbox(&self, wanted: &str) -> Result<Arc<Sandbox>> {
        let all = self.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        find(&all, wanted).ok_or_else(|| {
            EngineError::not_found(format!(
                "an error occurred when try to find sandbox {wanted:?}: not found"
            ))
        })
    }

    /// The container of an id, or of a unique beginning of one.
    pub(crate) fn container(&self, wanted: &str) -> Result<Arc<PodContainer>> {
        let all = self.containers.read().unwrap_or_else(PoisonError::into_inner);
        find(&all, wanted).ok_or_else(|| {
            EngineError::not_found(format!(
                "an error occurred when try to find container {wanted:?}: not found"
            ))
        })
    }

    pub(super) fn directory(&self) -> MutexGuard<'_, ()> {
        lock(&self.directory)
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<PodContainer>> {
        self.containers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn containers_of(&self, sandbox: &str) -> Vec<Arc<PodContainer>> {
        self.containers().into_iter().filter(|container| container.sandbox == sandbox).collect()
    }

    pub(super) fn add_sandbox(&self, sandbox: Arc<Sandbox>) {
        let mut all = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(sandbox.id.clone(), sandbox);
    }

    pub(super) fn add_container(&self, container: Arc<PodContainer>) {
        let mut all = self.containers.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(container.id.clone(), container);
    }

    pub(super) fn drop_sandbox(&self, id: &str) {
        self.sandboxes.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(super) fn drop_container(&self, id: &str) {
        self.containers.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Makes what has this name, or waits for whoever is making it: a retry gets the answer of the first attempt. It is
    /// made to its end, whatever becomes of those who wait.
    pub(super) async fn make_once<F>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        name: String,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<String>
    where
        F: Future<Output = Result<String>> + Send,
    {
        let start = || {
            let (pods, name) = (Arc::clone(self), name.clone());
            let task = tasks.spawn(async move {
                let made = make().await;
                lock(&pods.making).remove(&name);
                made
            });
            async move { task.await? }.boxed().shared()
        };
        // The task cannot be over before it is entered: it needs the same lock for that.
        let making = lock(&self.making).entry(name.clone()).or_insert_with(start).clone();
        making.await
    }
}

fn find<T>(all: &BTreeMap<String, Arc<T>>, wanted: &str) -> Option<Arc<T>> {
    if wanted.is_empty() {
        return None;
    }
    let mut matching = all.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
    let first = matching.next()?;
    (first.0 == wanted || matching.next().is_none()).then(|| Arc::clone(first.1))
}

impl Sandbox {
    pub(super) fn new(record: SandboxRecord) -> Self {
        Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            holder: Mutex::default(),
            operation: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> SandboxRecord {
        lock(&self.record).clone()
    }

    pub(super) fn is_ready(&self) -> bool {
        lock(&self.record).phase == SandboxPhase::Ready
    }

    /// Changes the record and writes it down.
    pub(super) fn change(&self, db: &Db, change: impl FnOnce(&mut SandboxRecord)) -> Result<()> {
        let mut record = lock(&self.record);
        change(&mut record);
        db.put_sandbox(&record)
    }

    pub(super) fn holder(&self) -> Option<Shim> {
        lock(&self.holder).clone()
    }

    pub(super) fn set_holder(&self, shim: Option<Shim>) {
        *lock(&self.holder) = shim;
    }
}

impl PodContainer {
    pub(super) fn new(record: ContainerRecord) -> Self {
        // One that ended under an earlier daemon was told by that one.
        let ended = record.status.phase == ContainerPhase::Exited;
        Self {
            end_told: OnceCell::new_with(ended.then_some(())),
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            record: watch::Sender::new(record),
            shim: Mutex::default(),
            operation: tokio::sync::Mutex::default(),
            asked_to_end: std::sync::atomic::AtomicBool::new(false),
            measured: Mutex::default(),
        }
    }

    /// What was counted of its writable layer, if that was not long ago.
    pub(super) fn measured(&self, at_most: Duration) -> Option<(u64, u64)> {
        lock(&self.measured).filter(|(at, _)| at.elapsed() < at_most).map(|(_, found)| found)
    }

    pub(super) fn measure(&self, found: (u64, u64)) {
        *lock(&self.measured) = Some((Instant::now(), found));
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        self.record.borrow().clone()
    }

    pub(super) fn phase(&self) -> ContainerPhase {
        self.record.borrow().status.phase
    }

    pub(super) fn watch(&self) -> watch::Receiver<ContainerRecord> {
        self.record.subscribe()
    }

    /// Changes the record and writes it down.
    pub(super) fn change(&self, db: &Db, change: impl FnOnce(&mut ContainerRecord)) -> Result<()> {
        let mut result = Ok(());
        self.record.send_modify(|record| {
            change(record);
            result = db.put_pod_container(record);
        });
        result
    }

    pub(super) fn change_status(&self, db: &Db, change: impl FnOnce(&mut ContainerStatus)) -> Result<()> {
        self.change(db, |record| change(&mut record.status))
    }

    pub(super) fn set_shim(&self, shim: Option<Shim>) {
        *lock(&self.shim) = shim;
    }

    /// The shim of a container that runs.
    pub(super) fn shim(&self) -> Result<Shim> {
        let shim = lock(&self.shim).clone();
        shim.filter(|_| self.phase() == ContainerPhase::Running).ok_or_else(|| {
            let state = match self.phase() {
                ContainerPhase::Created => "CONTAINER_CREATED",
                ContainerPhase::Running => "CONTAINER_UNKNOWN",
                ContainerPhase::Exited => "CONTAINER_EXITED",
            };
            EngineError::conflict(format!("container {} is not running: it is in {state} state", self.id))
        })
    }
}

impl crate::engine::Engine {
    /// All sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<SandboxView> {
        self.pods.sandboxes().iter().map(|sandbox| self.sandbox_view(sandbox)).collect()
    }

    /// One sandbox.
    ///
    /// # Errors
    /// When there is none.
    pub fn sandbox(&self, id: &str) -> Result<SandboxView> {
        self.pods.sandbox(id).map(|sandbox| self.sandbox_view(&sandbox))
    }

    pub(super) fn sandbox_view(&self, sandbox: &Sandbox) -> SandboxView {
        let record = sandbox.record();
        let own = !record.spec.namespaces.host_network;
        SandboxView {
            network: own.then(|| self.pins(&record.id).path(Pin::Network)),
            ready: record.phase == SandboxPhase::Ready,
            id: record.id,
            spec: record.spec,
            created: record.created,
            addresses: record.addresses,
        }
    }

    /// All containers of pods.
    #[must_use]
    pub fn pod_containers(&self) -> Vec<ContainerView> {
        self.pods.containers().iter().map(|container| (&*container.record.borrow()).into()).collect()
    }

    /// One container of a pod.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod_container(&self, id: &str) -> Result<ContainerView> {
        self.pods.container(id).map(|container| (&*container.record.borrow()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_retry_joins_what_is_being_made() {
        let (pods, tasks) = (Arc::new(Pods::default()), TaskTracker::new());
        let (release, waits) = tokio::sync::oneshot::channel::<()>();
        let first = pods.make_once(&tasks, "a".into(), || async move {
            waits.await.ok();
            Ok("first".to_owned())
        });
        let second = async {
            let second = pods.make_once(&tasks, "a".into(), || async { Ok("second".to_owned()) });
            release.send(()).unwrap();
            second.await
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.unwrap(), second.unwrap()), ("first".to_owned(), "first".to_owned()));
        let third = pods.make_once(&tasks, "a".into(), || async { Ok("third".to_owned()) }).await;
        assert_eq!(third.unwrap(), "third");
    }
}
