//! The server: both services on one unix socket.

use std::pin::Pin;
use std::sync::Arc;

use berth_engine::Engine;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::deadline::Deadlines;
use crate::images::Images;
use crate::runtime::Runtime;
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;

/// The kubelet's own limit for a message.
const MAX_MESSAGE: usize = 16 << 20;

/// Items of a list that is streamed go in pieces of so many.
const CHUNK: usize = 100;

/// What a streaming call answers.
pub(crate) type Chunks<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// A list in pieces; of an empty one there is none.
pub(crate) fn chunks<I, T>(
    items: Vec<I>,
    message: impl Fn(Vec<I>) -> T + Send + 'static,
) -> Response<Chunks<T>>
where
    I: Send + 'static,
    T: Send + 'static,
{
    let mut items = items.into_iter();
    let pieces = std::iter::from_fn(move || {
        let piece: Vec<I> = items.by_ref().take(CHUNK).collect();
        (!piece.is_empty()).then(|| Ok(message(piece)))
    });
    Response::new(Box::pin(tokio_stream::iter(pieces)))
}

/// The CRI over an engine.
#[derive(Debug)]
pub struct CriServer {
    engine: Arc<Engine>,
}

/// A server that serves.
#[derive(Debug)]
pub struct Listening {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl CriServer {
    /// Over this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Serves on a socket until it is stopped. Must be called within a tokio runtime.
    #[must_use]
    pub fn listen(&self, listener: UnixListener) -> Listening {
        let stop = CancellationToken::new();
        let runtime = RuntimeServiceServer::new(Runtime::new(Arc::clone(&self.engine), stop.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(2 * MAX_MESSAGE + (1 << 20));
        let images = ImageServiceServer::new(Images::new(Arc::clone(&self.engine)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let server =
            tonic::transport::Server::builder().layer(Deadlines).add_service(runtime).add_service(images);
        let until = stop.clone();
        let serve = server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
            until.cancelled().await;
        });
        Listening { stop, task: tokio::spawn(serve) }
    }
}

impl Listening {
    /// Takes no more calls, and cuts those under way: what they began goes on in the engine.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.abort();
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "serving the CRI"),
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::warn!(%error, "serving the CRI"),
        }
    }
}
