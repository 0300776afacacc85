//! What a build tells its client: vertexes, how far they are, what they print. A client that does not read holds nobody
//! up: what is printed is left out then, and the client is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use berth_api::progress::ProgressMessage;
use bytes::Bytes;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc};

use crate::protocol::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use crate::protocol::pb;

/// Printed bytes that wait for the client.
const BACKLOG: usize = 16 << 20;
/// Told instead of what is left out.
const CLIPPED: &[u8] = b"[output clipped: the client does not read]\n";

pub(crate) fn now() -> Option<Timestamp> {
    Some(SystemTime::now().into())
}

/// What is to be told.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Makes the vertexes of one build others than those of the next.
    seed: String,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    news: VecDeque<StatusResponse>,
    printed: usize,
    clipped: bool,
    closed: bool,
}

impl Board {
    pub(crate) fn new(seed: &str) -> Arc<Self> {
        Arc::new(Self { seed: seed.to_owned(), ..Self::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, news: StatusResponse) {
        self.waiting().news.push_back(news);
        self.changed.notify_one();
    }

    /// A vertex of this name, which has begun. `key` tells it from others.
    pub(crate) fn vertex(&self, key: &str, name: String) -> Vertex {
        let digest = hex::encode(Sha256::digest(format!("{} {key}", self.seed)));
        Vertex { digest: format!("sha256:{digest}"), name, started: now(), ..Vertex::default() }
    }

    /// Tells how a vertex is.
    pub(crate) fn tell(&self, vertex: &Vertex) {
        self.add(StatusResponse { vertexes: vec![vertex.clone()], ..StatusResponse::default() });
    }

    /// Tells that a vertex is done, or why it failed.
    pub(crate) fn complete(&self, mut vertex: Vertex, error: Option<String>) {
        vertex.completed = now();
        vertex.error = error.unwrap_or_default();
        self.tell(&vertex);
    }

    pub(crate) fn status(&self, status: VertexStatus) {
        self.add(StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    /// Tells what a vertex printed: stream 1 or 2.
    pub(crate) fn print(&self, vertex: &Vertex, stream: i64, msg: Bytes) {
        let msg = {
            let mut waiting = self.waiting();
            if waiting.printed + msg.len() <= BACKLOG {
                waiting.printed += msg.len();
                waiting.clipped = false;
                msg
            } else if waiting.clipped {
                return;
            } else {
                waiting.clipped = true;
                Bytes::from_static(CLIPPED)
            }
        };
        let log = VertexLog { vertex: vertex.digest.clone(), timestamp: now(), stream, msg };
        self.add(StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// Warns of a line in the Dockerfile.
    pub(crate) fn warn(&self, vertex: &Vertex, text: &str, line: Option<i32>, file: &pb::SourceInfo) {
        let position = line.map(|line| pb::Position { line, character: 0 });
        let warning = VertexWarning {
            vertex: vertex.digest.clone(),
            level: 1,
            short: Bytes::copy_from_slice(text.as_bytes()),
            info: position.is_some().then(|| file.clone()),
            ranges: position.map(|at| pb::Range { start: Some(at), end: Some(at) }).into_iter().collect(),
            ..VertexWarning::default()
        };
        self.add(StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_one();
    }

    /// What is new; none at the end. For one reader.
    pub(crate) async fn next(&self) -> Option<StatusResponse> {
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.news.is_empty() {
                    return Some(waiting.take());
                }
                if waiting.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

impl Waiting {
    /// As much as goes well into a message.
    fn take(&mut self) -> StatusResponse {
        const MANY: usize = 256;
        const LARGE: usize = 1 << 20;
        let (mut all, mut size) = (StatusResponse::default(), 0);
        for _ in 0..MANY {
            let Some(news) = self.news.pop_front() else { break };
            let printed: usize = news.logs.iter().map(|log| log.msg.len()).sum();
            self.printed = self.printed.saturating_sub(printed);
            size += printed;
            all.vertexes.extend(news.vertexes);
            all.statuses.extend(news.statuses);
            all.logs.extend(news.logs);
            all.warnings.extend(news.warnings);
            if size >= LARGE {
                break;
            }
        }
        all
    }
}

/// Something that is done beside the Dockerfile's steps. Dropped before its end it has been cancelled.
#[derive(Debug)]
pub(crate) struct Task {
    board: Arc<Board>,
    vertex: Option<Vertex>,
}

impl Task {
    pub(crate) fn begin(board: &Arc<Board>, name: impl Into<String>) -> Self {
        let name = name.into();
        let vertex = board.vertex(&name, name.clone());
        board.tell(&vertex);
        Self { board: Arc::clone(board), vertex: Some(vertex) }
    }

    pub(crate) fn vertex(&self) -> &Vertex {
        self.vertex.as_ref().expect("it has not ended")
    }

    /// Tells how far a part of it is.
    pub(crate) fn part(&self, name: &str, current: u64, total: u64, done: bool) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.board.status(VertexStatus {
            id: name.to_owned(),
            vertex: self.vertex().digest.clone(),
            current: number(current),
            total: number(total),
            timestamp: now(),
            started: self.vertex().started,
            completed: done.then(now).flatten(),
            ..VertexStatus::default()
        });
    }

    pub(crate) fn end<T, E: std::fmt::Display>(mut self, result: Result<T, E>) -> Result<T, E> {
        let error = result.as_ref().err().map(ToString::to_string);
        if let Some(vertex) = self.vertex.take() {
            self.board.complete(vertex, error);
        }
        result
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(vertex) = self.vertex.take() {
            self.board.complete(vertex, Some("context canceled".to_owned()));
        }
    }
}

/// Tells of layers that are pulled and pushed, as long as somebody says something.
pub(crate) async fn transfers(board: Arc<Board>, mut said: mpsc::Receiver<ProgressMessage>) {
    let mut task = None;
    while let Some(message) = said.recv().await {
        let (Some(status), Some(id)) = (message.status, message.id) else { continue };
        let task = task.get_or_insert_with(|| Task::begin(&board, "[internal] transfer of images"));
        let detail = message.progress_detail.unwrap_or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let done = status.ends_with("complete") || status.starts_with("Pushed") || status.contains("exists");
        task.part(&format!("{id} {status}"), number(detail.current), number(detail.total), done);
    }
    if let Some(task) = task {
        task.end(Ok::<(), String>(())).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_costs_no_memory() {
        let board = Board::new("x");
        let vertex = board.vertex("1", "RUN yes".into());
        let piece = Bytes::from(vec![b'y'; 1 << 20]);
        for _ in 0..100 {
            board.print(&vertex, 1, piece.clone());
        }
        board.close();
        let (mut bytes, mut last) = (0, Bytes::new());
        while let Some(news) = board.next().await {
            for log in news.logs {
                bytes += log.msg.len();
                last = log.msg;
            }
        }
        assert_eq!(bytes, BACKLOG + CLIPPED.len());
        assert_eq!(last, CLIPPED);
    }

    #[tokio::test]
    async fn what_is_not_ended_was_cancelled() {
        let board = Board::new("x");
        drop(Task::begin(&board, "load"));
        Task::begin(&board, "store").end(Ok::<(), String>(())).unwrap();
        board.close();
        let mut vertexes = Vec::new();
        while let Some(news) = board.next().await {
            vertexes.extend(news.vertexes);
        }
        let ends: Vec<_> = vertexes.iter().filter(|vertex| vertex.completed.is_some()).collect();
        assert_eq!(ends[0].error, "context canceled");
        assert_eq!(ends[1].error, "");
        assert_ne!(ends[0].digest, ends[1].digest);
    }
}
