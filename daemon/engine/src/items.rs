//! Streams in and out of the engine: items from a task's channel, bytes from a client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use berth_api::progress::ProgressMessage;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

/// Bytes for a client. An error ends it.
pub type ByteStream = Items<io::Result<Bytes>>;
/// Where a long operation tells how far it is. Its failure is its result, not a message.
pub type Progress = mpsc::Sender<ProgressMessage>;

/// What a task of the engine produces. Dropping it ends the task, unless the task does something that has to be
/// finished.
#[derive(Debug)]
pub struct Items<T>(mpsc::Receiver<T>);

impl<T> Items<T> {
    pub(crate) fn channel(capacity: usize) -> (mpsc::Sender<T>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self(receiver))
    }
}

impl<T> Stream for Items<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

/// The blocking end of a [`ByteStream`]: a writer for archives. Writing fails when the client has gone.
pub(crate) struct ByteSink {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// How much is gathered before it is sent.
const PIECE: usize = 64 * 1024;

impl ByteSink {
    pub(crate) fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { sender, buffer: Vec::with_capacity(PIECE) }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)));
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }

    /// Sends the rest, or the error that ended the writing.
    pub(crate) fn finish(mut self, result: io::Result<()>) {
        let result = result.and_then(|()| self.send());
        if let Err(error) = result
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            // That the client has gone is no concern of ours.
            self.sender.blocking_send(Err(error)).ok();
        }
    }
}

impl io::Write for ByteSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Runs a blocking writer in a thread of its own; what it writes is the stream.
pub(crate) fn stream_from(
    write: impl FnOnce(&mut ByteSink) -> io::Result<()> + Send + 'static,
) -> ByteStream {
    let (sender, items) = Items::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut sink = ByteSink::new(sender);
        let result = write(&mut sink);
        sink.finish(result);
    });
    items
}
