//! Long operations that tell how far they are: pull, push, build, load, import.
//!
//! ```text
//! operation ── messages (channel) ──▶ answer's body ──▶ client
//!    fails before its first message   → an ordinary error with its status
//!    fails later                      → the status has gone out; the error is the last message
//!    client goes                      → hyper drops the body, that cancels the operation
//! ```

use berth_api::progress::ProgressMessage;
use berth_engine::EngineError;
use futures_util::{StreamExt, stream};
use http::Response;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    body::{self, Body},
    error::{ApiError, ApiResult},
};

/// Messages under way; an operation waits for a client that does not read.
const BACKLOG: usize = 64;

/// Where an operation tells how far it is.
pub(super) type Sender = mpsc::Sender<ProgressMessage>;

struct Running {
    messages: mpsc::Receiver<ProgressMessage>,
    operation: tokio::task::JoinHandle<Result<(), EngineError>>,
    _cancel: DropGuard,
}

/// Runs the operation and answers with its messages.
pub(super) async fn run<F, Fut>(operation: F) -> ApiResult<Response<Body>>
where
    F: FnOnce(Sender, CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), EngineError>> + Send + 'static,
{
    let mut running = Running::start(operation);
    let first = running.messages.recv().await;
    if first.is_none() {
        // The channel closes with the operation: it ended without a word.
        match running.operation.await {
            Ok(Ok(())) => return Ok(body::json_stream(b"\r\n", stream::empty::<ProgressMessage>())),
            Ok(Err(error)) => return Err(error.into()),
            Err(panic) => return Err(ApiError::internal(format!("internal error: {panic}"))),
        }
    }
    Ok(answer(first, running))
}

/// Runs the operation and answers at once: a failure is always its last message.
pub(super) fn run_in_band<F, Fut>(operation: F) -> Response<Body>
where
    F: FnOnce(Sender, CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), EngineError>> + Send + 'static,
{
    answer(None, Running::start(operation))
}

fn answer(first: Option<ProgressMessage>, running: Running) -> Response<Body> {
    let rest = stream::unfold(Some(running), |running| async {
        let mut running = running?;
        match running.messages.recv().await {
            Some(message) => Some((message, Some(running))),
            None => running.failure().await.map(|message| (message, None)),
        }
    });
    body::json_stream(b"\r\n", stream::iter(first).chain(rest))
}

impl Running {
    fn start<F, Fut>(operation: F) -> Self
    where
        F: FnOnce(Sender, CancellationToken) -> Fut,
        Fut: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let (sender, messages) = mpsc::channel(BACKLOG);
        let cancel = CancellationToken::new();
        let operation = tokio::spawn(operation(sender, cancel.clone()));
        Self { messages, operation, _cancel: cancel.drop_guard() }
    }

    /// The last message of an operation that failed.
    async fn failure(self) -> Option<ProgressMessage> {
        match self.operation.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                let code = error.exit_code();
                Some(ProgressMessage::failure(error.to_string(), code))
            }
            Err(panic) => Some(ProgressMessage::failure(format!("internal error: {panic}"), None)),
        }
    }
}
