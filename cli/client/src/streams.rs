//! Answers that are read piece by piece. Dropping one closes the connection: that cancels.

use std::{
    io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use berth_api::stdcopy::{Decoder, Stream as Channel};
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;

use crate::{Error, Result, request::Answer};

/// Raw bytes: an archive, an exported image.
///
/// As a [`Stream`] it fits `tokio_util::io::StreamReader`.
#[derive(Debug)]
pub struct ByteStream {
    operation: String,
    body: Incoming,
}

impl ByteStream {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { operation: answer.operation, body: answer.response.into_body() }
    }

    /// The next piece; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Transport`] if the connection breaks.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(Error::Transport { operation: self.operation.clone(), source });
                }
                // Trailers carry nothing here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_) => continue,
                },
            }
        }
    }

    fn protocol(&self, reason: impl ToString) -> Error {
        Error::Protocol { operation: self.operation.clone(), reason: reason.to_string() }
    }
}

impl Stream for ByteStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    Err(_) => continue,
                },
            }
        }
    }
}

/// JSON objects one after another: progress, events, statistics.
#[derive(Debug)]
pub struct JsonStream<T> {
    bytes: ByteStream,
    buffer: Vec<u8>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonStream<T> {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { bytes: ByteStream::new(answer), buffer: Vec::new(), item: PhantomData }
    }

    /// The next object; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Transport`] if the connection breaks, [`Error::Protocol`] if what comes is not such an object.
    pub async fn next(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(item) = self.take()? {
                return Ok(Some(item));
            }
            match self.bytes.next_bytes().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(self.bytes.protocol("the stream ended within an object")),
            }
        }
    }

    /// Takes the first whole object out of the buffer.
    fn take(&mut self) -> Result<Option<T>> {
        let mut objects = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
        match objects.next() {
            None => Ok(None),
            Some(Ok(item)) => {
                let end = objects.byte_offset();
                self.buffer.drain(..end);
                Ok(Some(item))
            }
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(error)) => Err(self.bytes.protocol(error)),
        }
    }
}

/// A container's output: logs.
#[derive(Debug)]
pub struct OutputStream {
    bytes: ByteStream,
    decoder: Option<Decoder>,
}

impl OutputStream {
    /// `tty` tells that the bytes are not framed.
    pub(crate) fn new(answer: Answer, tty: bool) -> Self {
        Self { bytes: ByteStream::new(answer), decoder: (!tty).then(Decoder::new) }
    }

    /// The next piece with its channel (a terminal has but stdout); `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Transport`] if the connection breaks, [`Error::Protocol`] if the frames are none.
    pub async fn next_output(&mut self) -> Result<Option<(Channel, Bytes)>> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.next_frame() {
                    Ok(Some((channel, bytes))) => return Ok(Some((channel, bytes.into()))),
                    Ok(None) => {}
                    Err(error) => return Err(self.bytes.protocol(error)),
                }
            }
            let Some(bytes) = self.bytes.next_bytes().await? else { return Ok(None) };
            match &mut self.decoder {
                Some(decoder) => decoder.push(&bytes),
                None => return Ok(Some((Channel::Stdout, bytes))),
            }
        }
    }
}
