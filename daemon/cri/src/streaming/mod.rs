//! The streaming server: exec, attach and port-forward.
//!
//! ```text
//!   Exec, Attach, PortForward (gRPC) ─▶ a token, good for one request within a minute ─▶ URL on the loopback
//!   GET/POST /exec/TOKEN + Upgrade: SPDY/3.1   ─▶ spdy ──┐
//!                        + Upgrade: websocket  ─▶ socket ┴▶ session (process), forward (ports)
//! ```
//!
//! The kubelet dials the URL itself, so the server listens on the loopback only, and not before the first URL is asked
//! for. Whoever knows the token may use it once.

mod forward;
mod http;
mod session;
mod socket;
mod spdy;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_engine::{Engine, Streams};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A URL that is not used for so long is void.
const VALID: Duration = Duration::from_secs(60);

/// So many URLs may wait to be used.
const WAITING: usize = 1000;

/// What a token stands for.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// A further process of a container.
    Exec { container: String, command: Vec<String>, tty: bool, streams: Streams },
    /// The container's own process.
    Attach { container: String, tty: bool, streams: Streams },
    /// Connections into a pod.
    Forward { sandbox: String },
}

impl Task {
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::Forward { .. } => "portforward",
        }
    }
}

/// The streaming server.
#[derive(Debug)]
pub(crate) struct Streaming {
    engine: Arc<Engine>,
    waiting: Mutex<HashMap<String, (Instant, Task)>>,
    address: OnceCell<SocketAddr>,
    /// Ends the server and every session.
    stop: CancellationToken,
}

impl Streaming {
    pub(crate) fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        Self { engine, waiting: Mutex::default(), address: OnceCell::new(), stop }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, (Instant, Task)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL at which a client gets this.
    pub(crate) async fn url(self: &Arc<Self>, task: Task) -> Result<String, Status> {
        let listening = self.address.get_or_try_init(|| self.listen()).await;
        let address = listening
            .map_err(|error| Status::internal(format!("the streaming server finds no port: {error}")))?;
        let token = format!("{:032x}", rand::random::<u128>());
        let kind = task.kind();
        {
            let mut waiting = self.waiting();
            waiting.retain(|_, (since, _)| since.elapsed() < VALID);
            if waiting.len() >= WAITING {
                return Err(Status::resource_exhausted("too many streaming requests wait for their clients"));
            }
            waiting.insert(token.clone(), (Instant::now(), task));
        }
        Ok(format!("http://{address}/{kind}/{token}"))
    }

    /// What a path asks for; a token is good once.
    fn take(&self, path: &str) -> Option<Task> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut waiting = self.waiting();
        let fits = waiting.get(token).is_some_and(|(_, task)| task.kind() == kind);
        let (since, task) = if fits { waiting.remove(token)? } else { return None };
        (since.elapsed() < VALID).then_some(task)
    }

    async fn listen(self: &Arc<Self>) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = server.stop.cancelled() => return,
                };
                match accepted {
                    Ok((stream, _)) => http::serve(Arc::clone(&server), stream),
                    // Out of descriptors, most likely: others are closed meanwhile.
                    Err(error) => {
                        tracing::warn!(%error, "accepting a streaming client");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(address)
    }
}
