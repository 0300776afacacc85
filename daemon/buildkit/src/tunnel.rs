//! A session inside of a call: bytes in messages, for clients that have no second connection.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::protocol::control::BytesMessage;

/// Bytes under way in one direction.
const BUFFER: usize = 256 << 10;
/// Bytes in a message.
const PIECE: usize = 32 << 10;

/// Messages for the client.
pub(crate) type Outgoing = ReceiverStream<Result<BytesMessage, Status>>;

/// Makes a connection of messages: its end here, and what goes to the client. Either side's end is the other's.
pub(crate) fn open(mut incoming: Streaming<BytesMessage>) -> (DuplexStream, Outgoing) {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    let (sender, receiver) = mpsc::channel(BUFFER / PIECE);
    tokio::spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            if writer.write_all(&message.data).await.is_err() {
                return;
            }
        }
        writer.shutdown().await.ok();
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..length]);
            if sender.send(Ok(BytesMessage { data })).await.is_err() {
                return;
            }
        }
    });
    (ours, ReceiverStream::new(receiver))
}
