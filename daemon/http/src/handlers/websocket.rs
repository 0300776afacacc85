//! Attach over a WebSocket: for browsers, which cannot take a connection over.
//!
//! Output is sent in binary messages as it comes, both streams in one; what the client sends is the container's input.

use std::{io, os::unix::net::UnixStream as StdUnixStream};

use berth_api::options::Attach;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    handlers::{Reply, attach::client_gone},
    takeover::Socket,
};

/// How much output goes into one message at most.
const PIECE: usize = 32 * 1024;

pub(super) async fn attach(context: Context) -> ApiResult<Reply> {
    let key = context.header("sec-websocket-key").to_owned();
    if key.is_empty() || !context.header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request(
            "not a websocket: the headers Upgrade: websocket and Sec-WebSocket-Key are expected",
        ));
    }
    let query = &context.query;
    let keys = query.get("detachKeys");
    let options = Attach {
        detach_keys: (!keys.is_empty()).then(|| keys.to_owned()),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag_or("stdin", true),
        stdout: query.flag_or("stdout", true),
        stderr: query.flag_or("stderr", true),
    };
    let prepared = context.engine().prepare_attach(context.name(), options).await?.unframed();
    let mut taken = context.take_over.clone().take().await.map_err(client_gone)?;
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    taken.write(head.as_bytes()).await.map_err(client_gone)?;
    let (ours, theirs) = StdUnixStream::pair().map_err(client_gone)?;
    ours.set_nonblocking(true).map_err(client_gone)?;
    theirs.set_nonblocking(true).map_err(client_gone)?;
    let ours = UnixStream::from_std(ours).map_err(client_gone)?;
    let stream =
        WebSocketStream::from_partially_read(taken.socket, taken.ahead.to_vec(), Role::Server, None).await;
    tokio::spawn(async move {
        if let Err(error) = pump(stream, ours).await {
            tracing::debug!(%error, "an attached websocket has ended");
        }
    });
    if let Err(error) = prepared.attach(theirs.into(), Vec::new(), Vec::new()).await {
        tracing::debug!(%error, "attaching a websocket");
    }
    Ok(Reply::TakenOver)
}

/// Carries bytes between the messages and the container, until either ends.
async fn pump(mut client: WebSocketStream<Socket>, mut container: UnixStream) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        tokio::select! {
            read = container.read(&mut piece) => match read? {
                0 => return client.close(None).await.map_err(io::Error::other),
                length => {
                    let message = Message::Binary(Bytes::copy_from_slice(&piece[..length]));
                    client.send(message).await.map_err(io::Error::other)?;
                }
            },
            message = client.next() => match message {
                None => return Ok(()),
                Some(Ok(Message::Text(text))) => container.write_all(text.as_bytes()).await?,
                Some(Ok(Message::Binary(bytes))) => container.write_all(&bytes).await?,
                Some(Ok(Message::Close(_))) => container.shutdown().await?,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(io::Error::other(error)),
            },
        }
    }
}
