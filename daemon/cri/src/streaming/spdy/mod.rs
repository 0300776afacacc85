//! SPDY/3.1, as much of it as Kubernetes' streaming uses: streams that the client opens, with headers, data both ways,
//! half-closing and resets. <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>
//!
//! Flow control is left out, as in the library that all clients use: there a stream's data waits for its reader, and
//! so does everything behind it.

mod dictionary;
mod frame;

use std::collections::HashMap;
use std::time::Duration;

use berth_engine::Streams;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::session::{Ends, Outgoing, expected, size};
use frame::{Frame, Reader, Writer};

/// So many pieces may be on their way.
const QUEUE: usize = 32;

/// Streams that nobody has taken yet.
const UNTAKEN: usize = 64;

/// How long the client may take to hang up after everything was said.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Streams as the client opens them; ends with the connection.
    pub(super) streams: mpsc::Receiver<Stream>,
    writer: mpsc::Sender<Frame>,
}

/// A stream that the client opened.
#[derive(Debug)]
pub(super) struct Stream {
    /// In lower case.
    pub(super) headers: HashMap<String, String>,
    /// Data; ends when the client closes its side.
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: Output,
}

/// Our side of a stream.
#[derive(Debug, Clone)]
pub(super) struct Output {
    id: u32,
    writer: mpsc::Sender<Frame>,
}

impl Output {
    /// Sends data; false when the connection has gone.
    pub(super) async fn send(&self, data: Bytes) -> bool {
        self.writer.send(Frame::Data { stream: self.id, data, last: false }).await.is_ok()
    }

    /// Closes our side.
    pub(super) async fn close(&self) {
        // The connection may have gone, and the stream with it.
        self.writer.send(Frame::Data { stream: self.id, data: Bytes::new(), last: true }).await.ok();
    }

    /// Gives the stream up, both sides of it.
    pub(super) async fn reset(&self) {
        // As above.
        self.writer.send(Frame::Reset { stream: self.id }).await.ok();
    }
}

impl Connection {
    /// Speaks SPDY on a connection until it is closed or dropped.
    pub(crate) fn over(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(io);
        let (new, streams) = mpsc::channel(UNTAKEN);
        let (frames, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write(Writer::new(writer), queue));
        let replies = frames.clone();
        tokio::spawn(async move {
            if let Err(error) = read(Reader::new(reader), new, replies).await {
                tracing::debug!(%error, "a SPDY client");
            }
        });
        Self { streams, writer: frames }
    }

    /// The next stream that the client opens; none when it has gone.
    pub(super) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Waits for the streams of a session; none when the client has gone.
    pub(super) async fn session(mut self, streams: Streams, tty: bool) -> Option<Session> {
        let mut missing = expected(streams, tty);
        let mut session = Session { connection: None, named: HashMap::new() };
        while !missing.is_empty() {
            let stream = self.accept().await?;
            let name = stream.headers.get("streamtype").cloned().unwrap_or_default();
            match missing.iter().position(|expected| *expected == name) {
                Some(at) => {
                    let name = missing.swap_remove(at);
                    session.named.insert(name, stream);
                }
                None => stream.output.reset().await,
            }
        }
        session.connection = Some(self);
        Some(session)
    }
}

/// All streams of a client of a process.
pub(crate) struct Session {
    connection: Option<Connection>,
    named: HashMap<&'static str, Stream>,
}

impl Session {
    /// Carries a session's data until its end or the client's.
    pub(super) async fn run(mut self, ends: Ends) {
        let Ends { stdin, sizes, mut output } = ends;
        let mut named = std::mem::take(&mut self.named);
        if let Some(mut stream) = named.remove("stdin") {
            tokio::spawn(async move {
                while let Some(data) = stream.input.recv().await {
                    if stdin.send(data).await.is_err() {
                        // The process reads no more; the client may write on.
                        while stream.input.recv().await.is_some() {}
                        return;
                    }
                }
            });
        }
        if let Some(mut stream) = named.remove("resize") {
            tokio::spawn(async move {
                let mut text = Vec::new();
                while let Some(data) = stream.input.recv().await {
                    text.extend_from_slice(&data);
                    // One JSON value a line, or none of it yet.
                    while let Some(end) = text.iter().position(|byte| *byte == b'\n' || *byte == b'}') {
                        let one: Vec<u8> = text.drain(..=end).collect();
                        if let Some(size) = size(&one)
                            && sizes.send(size).await.is_err()
                        {
                            return;
                        }
                    }
                }
            });
        }
        let out = |name: &str| named.get(name).map(|stream| stream.output.clone());
        let (stdout, stderr, error) = (out("stdout"), out("stderr"), out("error"));
        while let Some(item) = output.recv().await {
            let (target, data, last) = match item {
                Outgoing::Stdout(data) => (&stdout, data, false),
                Outgoing::Stderr(data) => (&stderr, data, false),
                Outgoing::End(data) => (&error, data, true),
            };
            if last {
                for output in [&stdout, &stderr].into_iter().flatten() {
                    output.close().await;
                }
            }
            if let Some(target) = target
                && !data.is_empty()
                && !target.send(data).await
            {
                return;
            }
            if last {
                break;
            }
        }
        if let Some(error) = error {
            error.close().await;
        }
        if let Some(connection) = self.connection {
            connection.farewell().await;
        }
    }
}

impl Connection {
    /// Says that nothing follows, and waits for the client to hang up: to hang up first could cost it what is on its way.
    pub(super) async fn farewell(mut self) {
        // It may have gone already.
        self.writer.send(Frame::GoAway).await.ok();
        drop(self.writer);
        let gone = async { while self.streams.recv().await.is_some() {} };
        tokio::time::timeout(FAREWELL, gone).await.ok();
    }
}

async fn write<W: AsyncWrite + Unpin>(mut writer: Writer<W>, mut queue: mpsc::Receiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        let mut flush = writer.put(&frame);
        // What waits goes in the same write.
        while flush && writer.has_room() {
            match queue.try_recv() {
                Ok(frame) => flush = writer.put(&frame),
                Err(_) => break,
            }
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
    // The client may have hung up first.
    writer.io.shutdown().await.ok();
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    new: mpsc::Sender<Stream>,
    writer: mpsc::Sender<Frame>,
) -> std::io::Result<()> {
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    while let Some(frame) = reader.next().await? {
        match frame {
            Frame::Open { stream, headers, last } => {
                let (sender, input) = mpsc::channel(QUEUE);
                if !last {
                    open.insert(stream, sender);
                }
                if writer.send(Frame::Reply { stream }).await.is_err() {
                    return Ok(());
                }
                let output = Output { id: stream, writer: writer.clone() };
                if new.send(Stream { headers, input, output }).await.is_err() {
                    return Ok(());
                }
            }
            Frame::Data { stream, data, last } => {
                if let Some(sender) = open.get(&stream)
                    && !data.is_empty()
                    && sender.send(data).await.is_err()
                {
                    open.remove(&stream);
                }
                if last {
                    open.remove(&stream);
                }
            }
            Frame::Reset { stream } => {
                open.remove(&stream);
            }
            Frame::Ping { id } => {
                if writer.send(Frame::Ping { id }).await.is_err() {
                    return Ok(());
                }
            }
            Frame::GoAway | Frame::Reply { .. } => {}
        }
    }
    Ok(())
}
