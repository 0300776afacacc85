//! A client and a process: what is typed goes in, what is written comes out, and at the end a status.

use std::sync::Arc;
use std::time::Duration;

use berth_engine::{Engine, EngineError, PodProcess, Streams};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::socket::{self, Socket, Subprotocol};
use super::{Task, spdy};

/// So many pieces may be on their way in each direction.
const QUEUE: usize = 16;

/// A client must open all its streams within this time.
const CREATION: Duration = Duration::from_secs(30);

/// A session on which nothing happens is closed.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// How the end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// From v4 on: a Status of Kubernetes, as JSON.
    Status,
    /// Before: a text, and only of a failure.
    Text,
}

impl Dialect {
    /// Versions of the protocol over SPDY, the best first.
    pub(super) const SPDY: &[&str] =
        &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    pub(super) fn of(name: &str) -> Self {
        if name.starts_with("v4.") || name.starts_with("v5.") { Self::Status } else { Self::Text }
    }
}

/// A connection that has become something else than HTTP.
pub(super) enum Opened {
    Spdy(spdy::Connection),
    Socket(Box<Socket>, Subprotocol),
}

/// What goes to the client.
#[derive(Debug)]
pub(super) enum Outgoing {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended; nothing follows.
    End(Bytes),
}

/// The client, whatever it speaks.
#[derive(Debug)]
pub(super) struct Client {
    /// What it types; ends when it closes its side.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    /// Sizes of its terminal: rows and columns.
    pub(super) sizes: mpsc::Receiver<(u16, u16)>,
    pub(super) output: mpsc::Sender<Outgoing>,
}

/// The transport's ends of [`Client`].
pub(super) struct Ends {
    pub(super) stdin: mpsc::Sender<Bytes>,
    pub(super) sizes: mpsc::Sender<(u16, u16)>,
    pub(super) output: mpsc::Receiver<Outgoing>,
}

fn client() -> (Client, Ends) {
    let (stdin, stdin_end) = mpsc::channel(QUEUE);
    let (sizes, sizes_end) = mpsc::channel(QUEUE);
    let (output_end, output) = mpsc::channel(QUEUE);
    let client = Client { stdin: stdin_end, sizes: sizes_end, output: output_end };
    (client, Ends { stdin, sizes, output })
}

/// `{"Width":80,"Height":24}` as rows and columns.
pub(super) fn size(text: &[u8]) -> Option<(u16, u16)> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let number = |key: &str| size.get(key)?.as_u64().and_then(|value| u16::try_from(value).ok());
    Some((number("Height")?, number("Width")?))
}

/// Runs a session to its end.
pub(super) async fn run(engine: &Arc<Engine>, task: Task, opened: Opened, dialect: Dialect) {
    let (streams, tty) = match &task {
        Task::Exec { streams, tty, .. } | Task::Attach { streams, tty, .. } => (*streams, *tty),
        Task::Forward { .. } => return,
    };
    let (client, ends) = client();
    let transport = async {
        match opened {
            Opened::Socket(socket, protocol) => socket::session(*socket, protocol, ends, streams).await,
            Opened::Spdy(connection) => {
                match tokio::time::timeout(CREATION, connection.session(streams, tty)).await {
                    Ok(Some(session)) => session.run(ends).await,
                    Ok(None) => tracing::debug!("a streaming client has gone before its streams were open"),
                    Err(_) => tracing::debug!("a streaming client did not open its streams in time"),
                }
            }
        }
    };
    let process = async {
        let output = client.output.clone();
        let ended = converse(engine, task, client).await;
        let end = Outgoing::End(words(&ended, dialect));
        // The client may have gone.
        output.send(end).await.ok();
    };
    tokio::join!(transport, process);
}

async fn converse(engine: &Arc<Engine>, task: Task, client: Client) -> Result<i32, EngineError> {
    let process = match task {
        Task::Exec { container, command, tty, streams } => {
            engine.exec_in_pod(&container, command, tty, streams).await?
        }
        Task::Attach { container, streams, .. } => engine.attach_to_pod(&container, streams).await?,
        Task::Forward { .. } => return Ok(0),
    };
    carry(process, client).await
}

/// Carries bytes both ways until the output ends.
async fn carry(process: PodProcess, client: Client) -> Result<i32, EngineError> {
    let Client { stdin, mut sizes, output } = client;
    let stream = process.connect()?;
    let (reader, writer) = stream.into_split();
    let resize = async {
        while let Some((rows, columns)) = sizes.recv().await {
            if let Err(error) = process.resize(rows, columns).await {
                tracing::debug!(%error, "setting the size of a terminal");
            }
        }
        std::future::pending::<()>().await;
    };
    let typed = tokio::spawn(forward_stdin(stdin, writer));
    tokio::select! {
        () = forward_output(reader, output, process.tty) => {}
        () = resize => {}
    }
    typed.abort();
    process.wait().await
}

async fn forward_stdin(mut stdin: mpsc::Receiver<Bytes>, mut writer: OwnedWriteHalf) {
    while let Some(bytes) = stdin.recv().await {
        // The process may have closed its standard input.
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // Half-closing the stream ends the process' standard input; that it has ended is no failure.
    writer.shutdown().await.ok();
    // Dropping the half would do the same again.
    writer.forget();
}

async fn forward_output(mut reader: OwnedReadHalf, output: mpsc::Sender<Outgoing>, tty: bool) {
    let mut header = [0; 8];
    let mut piece = vec![0; 32 << 10];
    loop {
        let (wrap, mut left): (fn(Bytes) -> Outgoing, usize) = if tty {
            (Outgoing::Stdout, usize::MAX)
        } else {
            if reader.read_exact(&mut header).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            (if header[0] == 2 { Outgoing::Stderr } else { Outgoing::Stdout }, length)
        };
        while left > 0 {
            let space = left.min(piece.len());
            let read = match tokio::time::timeout(IDLE, reader.read(&mut piece[..space])).await {
                Ok(Ok(read)) if read > 0 => read,
                _ => return,
            };
            if output.send(wrap(Bytes::copy_from_slice(&piece[..read]))).await.is_err() {
                return;
            }
            left = left.saturating_sub(read);
        }
    }
}

/// How a session ended, as the client wants to read it.
fn words(ended: &Result<i32, EngineError>, dialect: Dialect) -> Bytes {
    let failure = |reason: &str, message: String, cause: Value, code: i32| {
        json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "details": {"causes": [cause]}, "code": code})
    };
    match (ended, dialect) {
        (Ok(0), Dialect::Status) => json!({"metadata": {}, "status": "Success"}).to_string().into(),
        (Ok(0), Dialect::Text) => Bytes::new(),
        (Ok(code), Dialect::Text) => format!("command terminated with exit code {code}").into(),
        (Ok(code), Dialect::Status) => {
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            let cause = json!({"reason": "ExitCode", "message": code.to_string()});
            failure("NonZeroExitCode", message, cause, 0).to_string().into()
        }
        (Err(error), Dialect::Text) => error.to_string().into(),
        (Err(error), Dialect::Status) => {
            let message = format!("Internal error occurred: {error}");
            failure("InternalError", message, json!({"message": error.to_string()}), 500).to_string().into()
        }
    }
}

/// A stream of a process as tokio has it.
trait Connect {
    fn connect(&self) -> Result<UnixStream, EngineError>;
}

impl Connect for PodProcess {
    fn connect(&self) -> Result<UnixStream, EngineError> {
        let stream = self.stream.try_clone().map(std::os::unix::net::UnixStream::from);
        stream.and_then(UnixStream::from_std).map_err(|error| {
            EngineError::new(berth_engine::Kind::Internal, format!("taking the stream of a process: {error}"))
        })
    }
}

/// What is there of [`Streams`], in the interface's names.
pub(super) fn expected(streams: Streams, tty: bool) -> Vec<&'static str> {
    let all = [("error", true), ("stdin", streams.stdin), ("stdout", streams.stdout)];
    let more = [("stderr", streams.stderr && !tty), ("resize", tty)];
    all.into_iter().chain(more).filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_as_the_client_reads_it() {
        let status = |ended: Result<i32, EngineError>| -> Value {
            serde_json::from_slice(&words(&ended, Dialect::Status)).unwrap()
        };
        assert_eq!(status(Ok(0))["status"], "Success");
        let failed = status(Ok(7));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        let error = EngineError::new(berth_engine::Kind::Conflict, "no");
        assert_eq!(status(Err(error))["code"], 500);
        assert!(words(&Ok(0), Dialect::Text).is_empty());
    }

    #[test]
    fn sizes() {
        assert_eq!(size(br#"{"Width":80,"Height":24}"#), Some((24, 80)));
        assert_eq!(size(b"{}"), None);
        assert_eq!(size(br#"{"Width":-1,"Height":24}"#), None);
    }

    #[test]
    fn streams_by_name() {
        let all = Streams { stdin: true, stdout: true, stderr: true };
        assert_eq!(expected(all, false), ["error", "stdin", "stdout", "stderr"]);
        assert_eq!(expected(all, true), ["error", "stdin", "stdout", "resize"]);
    }
}
