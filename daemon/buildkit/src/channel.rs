//! The daemon as a client: gRPC calls over one connection that was taken over from HTTP/1.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::Service;

/// What a client may send ahead of us, for each stream: whole trees come over one.
const STREAM_WINDOW: u32 = 2 << 20;
/// And over the whole connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Calls over a connection.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    sender: SendRequest<Body>,
}

/// Makes the channel, and the connection that must be polled for it to work.
pub(crate) async fn connect<IO>(
    io: IO,
) -> hyper::Result<(Channel, Connection<TokioIo<IO>, Body, TokioExecutor>)>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(io))
        .await?;
    Ok((Channel { sender }, connection))
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut sender = self.sender.clone();
        Box::pin(async move {
            sender.ready().await?;
            sender.send_request(request).await
        })
    }
}
