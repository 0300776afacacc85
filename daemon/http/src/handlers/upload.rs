//! Bodies that are archives: handed to the engine as a blocking reader or spooled to a file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use tokio::sync::mpsc;

/// Pieces of a body under way.
const BACKLOG: usize = 16;

/// A body as a blocking reader, for code that runs on a thread of its own.
pub(super) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl BodyReader {
    /// Begins to read the body. Once the reader is dropped what still comes is read and forgotten: closing the connection
    /// on a client that sends would break its pipe, and it would never read why its archive was refused.
    pub(super) fn new<B>(mut body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let (sender, pieces) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece = match frame.map(|frame| frame.into_data()) {
                    Ok(Ok(bytes)) => Ok(bytes),
                    // Trailers.
                    Ok(Err(_)) => continue,
                    Err(error) => Err(io::Error::other(error)),
                };
                let failed = piece.is_err();
                sender.send(piece).await.ok();
                if failed {
                    return;
                }
            }
        });
        Self { pieces, rest: Bytes::new() }
    }

    /// The whole body in an unnamed file in this directory, at its beginning.
    pub(super) async fn spool(mut self, directory: PathBuf) -> io::Result<File> {
        tokio::task::spawn_blocking(move || {
            let mut file = tempfile::tempfile_in(directory)?;
            while self.fill()? {
                file.write_all(&self.rest)?;
                self.rest.clear();
            }
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Makes sure that there are bytes, unless the body has ended.
    fn fill(&mut self) -> io::Result<bool> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.fill()? {
            return Ok(0);
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_a_dropped_reader_left_is_read_to_the_end() {
        let (ended, end) = oneshot::channel();
        let piece = || Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"piece")));
        let pieces = stream::iter((0..10 * BACKLOG).map(move |_| piece()));
        let last = stream::once(async move {
            ended.send(()).ok();
            piece()
        });
        let reader = BodyReader::new(StreamBody::new(pieces.chain(last).boxed()));
        drop(reader);
        end.await.expect("the whole body was read");
    }
}
