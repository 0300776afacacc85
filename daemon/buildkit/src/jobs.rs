//! Builds under way, by the name that the client gave them.
//!
//! ```text
//! Control.Solve ── opens ──▶ Job ◀── Bridge.Solve: built ─┐
//!      │ waits                ▲                            │
//!      ◀─── wanted ───────────┴──── Bridge.Return ◀────────┘
//!      exports, answers; the job is gone
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_builder::BuiltImage;
use berth_engine::Build;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::progress::Board;
use crate::protocol::control::{CacheOptionsEntry, SolveRequest};
use crate::protocol::{frontend, pb};

/// How long calls wait for a job that comes over another stream.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what a job told is kept for a client that asks late.
const MEMORY: Duration = Duration::from_secs(10);

/// An image that was built, and the way to what becomes of it.
pub(crate) struct Made {
    pub(crate) built: BuiltImage,
    pub(crate) work: Arc<Build>,
}

/// What the client wants exported: nothing, one of the job's images, or the failure that it was told.
pub(crate) type Wanted = Result<Option<Arc<Made>>, Status>;

/// A build.
pub(crate) struct Job {
    /// Name of the session that has the files.
    pub(crate) session: String,
    /// What the client allows the Dockerfile's steps.
    pub(crate) entitlements: Vec<String>,
    pub(crate) cache_exports: Vec<CacheOptionsEntry>,
    /// Whether an exporter wants nothing in new layers to be newer than `SOURCE_DATE_EPOCH`.
    pub(crate) rewrite_timestamp: bool,
    /// Inputs of the whole request.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    pub(crate) cancel: CancellationToken,
    pub(crate) board: Arc<Board>,
    made: Mutex<HashMap<String, Arc<Made>>>,
    wanted: Mutex<Option<oneshot::Sender<Wanted>>>,
}

impl Job {
    /// Keeps an image under a new name.
    pub(crate) fn keep(&self, made: Made) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::new(made));
        id
    }

    /// The image of this name.
    pub(crate) fn made(&self, id: &str) -> Option<Arc<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The client says what it wants; only the first word counts.
    pub(crate) fn want(&self, wanted: Wanted) {
        let sender = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody waits any more: the job is over.
            sender.send(wanted).ok();
        }
    }

    /// Whether a result is one of this job's.
    pub(crate) fn of_result(&self, result: Option<frontend::Result>) -> Wanted {
        use frontend::result::Result as R;
        let ids: Vec<String> = match result.and_then(|result| result.result) {
            None => Vec::new(),
            Some(R::RefDeprecated(id)) => vec![id],
            Some(R::RefsDeprecated(refs)) => refs.refs.into_values().collect(),
            Some(R::Ref(one)) => vec![one.id],
            Some(R::Refs(refs)) => refs.refs.into_values().map(|one| one.id).collect(),
        };
        let Some(id) = ids.into_iter().find(|id| !id.is_empty()) else { return Ok(None) };
        let unknown = || Status::not_found(format!("this build has no result {id}"));
        self.made(&id).map(Some).ok_or_else(unknown)
    }
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Jobs {
    open: Arc<Mutex<HashMap<String, Arc<Job>>>>,
    changed: Notify,
}

/// A job as long as its `Control.Solve` is waited for.
pub(crate) struct Opened {
    pub(crate) job: Arc<Job>,
    pub(crate) wanted: oneshot::Receiver<Wanted>,
    name: String,
    jobs: Arc<Mutex<HashMap<String, Arc<Job>>>>,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a job.
    pub(crate) fn open(&self, request: &SolveRequest) -> Result<Opened, Status> {
        let name = request.r#ref.clone();
        let (sender, wanted) = oneshot::channel();
        let job = Arc::new(Job {
            session: request.session.clone(),
            entitlements: request.entitlements.clone(),
            cache_exports: request.cache.as_ref().map(|cache| cache.exports.clone()).unwrap_or_default(),
            rewrite_timestamp: request
                .exporters
                .iter()
                .any(|exporter| exporter.attrs.get("rewrite-timestamp").is_some_and(|value| value == "true")),
            inputs: request.frontend_inputs.clone(),
            cancel: CancellationToken::new(),
            board: Board::new(&name),
            made: Mutex::default(),
            wanted: Mutex::new(Some(sender)),
        });
        {
            let mut open = self.lock();
            if open.contains_key(&name) {
                return Err(Status::already_exists(format!("a build {name} is running")));
            }
            open.insert(name.clone(), Arc::clone(&job));
        }
        self.changed.notify_waiters();
        Ok(Opened { job, wanted, name, jobs: Arc::clone(&self.open) })
    }

    /// The job of this name; waits for one that is about to come.
    pub(crate) async fn get(&self, name: &str) -> Result<Arc<Job>, Status> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(job) = self.lock().get(name) {
                    return Arc::clone(job);
                }
                changed.await;
            }
        };
        let missing = || Status::not_found(format!("no build {name} is running"));
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| missing())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.job.cancel.cancel();
        self.job.board.close();
        self.job.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let (jobs, name) = (Arc::clone(&self.jobs), self.name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(MEMORY).await;
            jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        });
    }
}
