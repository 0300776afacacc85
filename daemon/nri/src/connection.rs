//! A plugin's connection: calls to it, and its requests to us.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::wire::{self, Assembler, Kind, PLUGIN_SERVICE, RUNTIME_SERVICE, Status, WireError};

const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";

/// So many requests of a plugin may wait to be answered; more hold it up.
const WAITING: usize = 16;

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The plugin's own words; all is well with it otherwise.
    #[error("{0}")]
    Refused(String),
    #[error("it has gone")]
    Gone,
    #[error("it did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("its answer is no message: {0}")]
    Answer(prost::DecodeError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("writing to it: {0}")]
    Write(std::io::Error),
}

impl CallError {
    /// A plugin that answered so is of no use any more.
    pub(crate) fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Wire(WireError::TooLong(_)))
    }
}

/// A request of the plugin's.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: u32,
    pub(crate) request: wire::Request,
}

type Waiting = HashMap<u32, oneshot::Sender<wire::Response>>;

/// The connection. It is closed when nobody has it any more.
#[derive(Debug)]
pub(crate) struct Connection {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Mutex<Waiting>,
    next: AtomicU32,
    closed: CancellationToken,
}

impl Connection {
    /// The connection over a socket, and the plugin's requests.
    pub(crate) fn over(stream: UnixStream) -> (Arc<Self>, mpsc::Receiver<Incoming>) {
        let (reader, writer) = stream.into_split();
        let connection = Arc::new(Self {
            writer: tokio::sync::Mutex::new(writer),
            waiting: Mutex::default(),
            next: AtomicU32::new(1),
            closed: CancellationToken::new(),
        });
        let (requests, incoming) = mpsc::channel(WAITING);
        tokio::spawn(read(reader, Arc::clone(&connection), requests));
        (connection, incoming)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it; calls under way fail.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Returns when it was closed, by either side.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Calls a method of the plugin.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Duration,
    ) -> Result<A, CallError> {
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        let request = wire::Request {
            service: PLUGIN.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
        };
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(stream, answer);
        let call = async {
            self.write(PLUGIN_SERVICE, Kind::Request, stream, &request.encode_to_vec()).await?;
            tokio::select! {
                answer = answered => answer.map_err(|_| CallError::Gone),
                () = self.closed() => Err(CallError::Gone),
            }
        };
        let answer = tokio::time::timeout(limit, call).await;
        self.waiting().remove(&stream);
        let answer = answer.map_err(|_| CallError::Late(limit))??;
        match answer.status {
            Some(status) if status.code != 0 => Err(CallError::Refused(status.message)),
            _ => A::decode(answer.payload.as_slice()).map_err(CallError::Answer),
        }
    }

    /// Answers a request of the plugin.
    pub(crate) async fn answer<A: Message>(
        &self,
        stream: u32,
        answer: Result<A, Status>,
    ) -> Result<(), CallError> {
        let response = match answer {
            Ok(message) => wire::Response { status: None, payload: message.encode_to_vec() },
            Err(status) => wire::Response { status: Some(status), payload: Vec::new() },
        };
        self.write(RUNTIME_SERVICE, Kind::Response, stream, &response.encode_to_vec()).await
    }

    async fn write(&self, connection: u32, kind: Kind, stream: u32, body: &[u8]) -> Result<(), CallError> {
        let frames = wire::encode(connection, kind, stream, body)?;
        let mut writer = self.writer.lock().await;
        // A frame that was written in part would spoil the trunk: whoever gives up meanwhile closes it.
        let guard = self.closed.clone().drop_guard();
        let written = tokio::select! {
            written = writer.write_all(&frames) => written.map_err(CallError::Write),
            () = self.closed() => Err(CallError::Gone),
        };
        if written.is_ok() {
            guard.disarm();
        }
        written
    }
}

async fn read(mut reader: OwnedReadHalf, connection: Arc<Connection>, requests: mpsc::Sender<Incoming>) {
    let closed = connection.closed.clone();
    tokio::select! {
        () = closed.cancelled() => {}
        ended = read_frames(&mut reader, &connection, &requests) => {
            if let Err(problem) = ended {
                tracing::warn!(problem, "a plugin's connection is of no use");
            }
            closed.cancel();
        }
    }
    connection.waiting().clear();
    // So that the other side sees the end even while somebody still holds the connection.
    if let Err(error) = connection.writer.lock().await.shutdown().await {
        tracing::trace!(%error, "closing a plugin's connection");
    }
}

async fn read_frames(
    reader: &mut OwnedReadHalf,
    connection: &Connection,
    requests: &mpsc::Sender<Incoming>,
) -> Result<(), String> {
    let (mut answers, mut asked) = (Assembler::default(), Assembler::default());
    let mut head = [0; 8];
    loop {
        if reader.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let (of, length) = wire::frame_head(head).map_err(|error| error.to_string())?;
        let mut frame = vec![0; length];
        if reader.read_exact(&mut frame).await.is_err() {
            return Ok(());
        }
        let assembler = if of == PLUGIN_SERVICE { &mut answers } else { &mut asked };
        assembler.push(&frame);
        while let Some(packet) = assembler.next().map_err(|error| error.to_string())? {
            match packet.kind {
                Kind::Response if of == PLUGIN_SERVICE => {
                    let answer = wire::Response::decode(packet.body.as_slice()).map_err(|e| e.to_string())?;
                    if let Some(waits) = connection.waiting().remove(&packet.stream) {
                        // Nobody waits any more: it came too late.
                        drop(waits.send(answer));
                    }
                }
                Kind::Request if of == RUNTIME_SERVICE => {
                    let request = wire::Request::decode(packet.body.as_slice()).map_err(|e| e.to_string())?;
                    if requests.send(Incoming { stream: packet.stream, request }).await.is_err() {
                        return Ok(());
                    }
                }
                kind => return Err(format!("a {kind:?} on connection {of}")),
            }
        }
    }
}
