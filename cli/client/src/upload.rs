//! Request bodies.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// What is sent to the daemon: a context, an archive, an image.
pub struct Upload(Content);

enum Content {
    Bytes(Bytes),
    Stream(RequestBody),
}

impl Upload {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_bytes(Bytes::new())
    }

    /// Bytes in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Content::Bytes(bytes.into()))
    }

    /// Whatever comes out of a reader, chunked.
    pub fn from_reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::from_stream(ReaderStream::with_capacity(reader, 64 << 10))
    }

    /// Whatever comes out of a stream, chunked. An error breaks the connection off.
    pub fn from_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Content::Stream(StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()))
    }

    /// The same again; none if it is a stream.
    pub(crate) fn again(&self) -> Option<Self> {
        match &self.0 {
            Content::Bytes(bytes) => Some(Self(Content::Bytes(bytes.clone()))),
            Content::Stream(_) => None,
        }
    }

    pub(crate) fn into_body(self) -> RequestBody {
        match self.0 {
            Content::Bytes(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Content::Stream(body) => body,
        }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upload")
    }
}
