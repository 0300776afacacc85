//! Sessions: clients that offer their files, credentials and secrets to the builds that name them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::channel::{self, Channel};

/// How long a build waits for its session, which comes over another connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client says of itself when it opens a session.
#[derive(Debug, Clone)]
pub struct Hello {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
}

impl Hello {
    /// Reads it from `X-Docker-Expose-Session-*`; none if the session has no id.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        let id = text("x-docker-expose-session-uuid").filter(|id| !id.is_empty())?;
        let methods = headers.get_all("x-docker-expose-session-grpc-method");
        let methods = methods.iter().filter_map(|method| method.to_str().ok()).map(str::to_lowercase);
        let shared_key = text("x-docker-expose-session-sharedkey").unwrap_or_default();
        Some(Self { id, shared_key, methods: methods.collect() })
    }
}

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    hello: Hello,
    pub(crate) channel: Channel,
    /// Set when the client has gone.
    pub(crate) gone: CancellationToken,
}

impl Session {
    /// What the client calls its context, from one build to the next.
    pub(crate) fn shared_key(&self) -> &str {
        &self.hello.shared_key
    }

    /// Whether the client offers this method (`/service/Method`).
    pub(crate) fn offers(&self, method: &str) -> bool {
        self.hello.methods.contains(&method.to_lowercase())
    }

    /// What the URLs of calls begin with.
    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    changed: Notify,
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a session until its connection ends.
    pub(crate) async fn run<IO>(&self, io: IO, hello: Hello, stop: CancellationToken)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (channel, connection) = match channel::connect(io).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(%error, "a session has not begun");
                return;
            }
        };
        let id = hello.id.clone();
        let gone = CancellationToken::new();
        let session = Arc::new(Session { hello, channel, gone: gone.clone() });
        let _gone = gone.drop_guard();
        {
            let mut open = self.open();
            if open.contains_key(&id) {
                tracing::debug!(id, "a second session of the same name is refused");
                return;
            }
            open.insert(id.clone(), session);
        }
        let _closed = Closed { sessions: self, id };
        self.changed.notify_waiters();
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a session has ended");
                }
            }
            () = stop.cancelled() => {}
        }
    }

    /// The session of this id; waits for one that is about to come.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Session>, Status> {
        // A prefix tells contexts of one session apart; it is not part of the name.
        let id = id.split_once(':').map_or(id, |(_, id)| id);
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(session) = self.open().get(id) {
                    return Arc::clone(session);
                }
                changed.await;
            }
        };
        let missing = || Status::not_found(format!("no active session for {id}: the client has gone"));
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| missing())
    }
}

/// Takes a session off the list.
struct Closed<'a> {
    sessions: &'a Sessions,
    id: String,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.sessions.open().remove(&self.id);
    }
}
