//! What a build tells its client: vertexes, how far they are, what they print. A client that does not read holds nobody
//! up: what is printed is left out then, and the client is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use berth_api::progress::ProgressMessage;
use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc};

use crate::protocol::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use crate::protocol::pb;

/// Bytes that wait for the client: what is printed, how far parts of a task are, warnings.
const BACKLOG: usize = 16 << 20;
/// What a message costs beside its text.
const OVERHEAD: usize = 512;
/// A source file that is larger is left out of messages about it, which must stay below [`crate::MAX_MESSAGE`].
pub(crate) const MAX_SOURCE: usize = 1 << 20;
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
    news: VecDeque<News>,
    /// What of them may be left out, in bytes.
    weight: usize,
    clipped: bool,
    closed: bool,
}

#[derive(Debug)]
struct News {
    told: StatusResponse,
    /// What it adds to [`Waiting::weight`].
    weight: usize,
}

impl Board {
    pub(crate) fn new(seed: &str) -> Arc<Self> {
        Arc::new(Self { seed: seed.to_owned(), ..Self::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, told: StatusResponse, weight: usize) {
        let mut waiting = self.waiting();
        waiting.weight += weight;
        waiting.news.push_back(News { told, weight });
        drop(waiting);
        self.changed.notify_one();
    }

    /// Whether there is room for so much that may as well be left out.
    fn has_room(&self, weight: usize) -> bool {
        self.waiting().weight + weight <= BACKLOG
    }

    /// A vertex of this name, which has begun. `key` tells it from others.
    pub(crate) fn vertex(&self, key: &str, name: String) -> Vertex {
        let digest = hex::encode(Sha256::digest(format!("{} {key}", self.seed)));
        Vertex { digest: format!("sha256:{digest}"), name, started: now(), ..Vertex::default() }
    }

    /// Tells how a vertex is.
    pub(crate) fn tell(&self, vertex: &Vertex) {
        self.add(StatusResponse { vertexes: vec![vertex.clone()], ..StatusResponse::default() }, 0);
    }

    /// Tells that a vertex is done, or why it failed.
    pub(crate) fn complete(&self, mut vertex: Vertex, error: Option<String>) {
        vertex.completed = now();
        vertex.error = error.unwrap_or_default();
        self.tell(&vertex);
    }

    pub(crate) fn status(&self, status: VertexStatus) {
        let weight = OVERHEAD + status.id.len();
        if self.has_room(weight) {
            self.add(StatusResponse { statuses: vec![status], ..StatusResponse::default() }, weight);
        }
    }

    /// Tells what a vertex printed: stream 1 or 2.
    pub(crate) fn print(&self, vertex: &Vertex, stream: i64, msg: Bytes) {
        let fits = self.has_room(OVERHEAD + msg.len());
        // Once is enough.
        if std::mem::replace(&mut self.waiting().clipped, !fits) && !fits {
            return;
        }
        let msg = if fits { msg } else { Bytes::from_static(CLIPPED) };
        let weight = OVERHEAD + msg.len();
        let log = VertexLog { vertex: vertex.digest.clone(), timestamp: now(), stream, msg };
        self.add(StatusResponse { logs: vec![log], ..StatusResponse::default() }, weight);
    }

    /// Warns of a line in the Dockerfile.
    pub(crate) fn warn(&self, vertex: &Vertex, text: &str, line: Option<i32>, file: &pb::SourceInfo) {
        let weight = OVERHEAD + text.len();
        if !self.has_room(weight) {
            return;
        }
        let position = line.map(|line| pb::Position { line, character: 0 });
        let shown = position.is_some() && file.data.len() <= MAX_SOURCE;
        let warning = VertexWarning {
            vertex: vertex.digest.clone(),
            level: 1,
            short: Bytes::copy_from_slice(text.as_bytes()),
            info: shown.then(|| file.clone()),
            ranges: position.map(|at| pb::Range { start: Some(at), end: Some(at) }).into_iter().collect(),
            ..VertexWarning::default()
        };
        self.add(StatusResponse { warnings: vec![warning], ..StatusResponse::default() }, weight);
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
            let Some(News { told, weight }) = self.news.pop_front() else { break };
            self.weight -= weight;
            size += told.encoded_len();
            all.vertexes.extend(told.vertexes);
            all.statuses.extend(told.statuses);
            all.logs.extend(told.logs);
            all.warnings.extend(told.warnings);
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
        assert!(bytes > BACKLOG / 2 && bytes <= BACKLOG + CLIPPED.len(), "{bytes}");
        assert_eq!(last, CLIPPED);
    }

    #[tokio::test]
    async fn small_things_cost_memory_too() {
        let board = Board::new("x");
        let task = Task::begin(&board, "load");
        let vertex = task.vertex().clone();
        for n in 0..100_000 {
            board.print(&vertex, 1, Bytes::from_static(b"y"));
            task.part("layer", n, 0, false);
            board.warn(&vertex, "w", None, &pb::SourceInfo::default());
        }
        assert!(board.waiting().news.len() <= BACKLOG / OVERHEAD + 2);
    }

    #[tokio::test]
    async fn warnings_that_carry_their_file_go_into_messages() {
        let board = Board::new("x");
        let vertex = board.vertex("1", "load".into());
        let file = |size| pb::SourceInfo { data: vec![b'#'; size].into(), ..pb::SourceInfo::default() };
        for _ in 0..300 {
            board.warn(&vertex, "w", Some(1), &file(MAX_SOURCE));
            board.warn(&vertex, "w", Some(1), &file(crate::MAX_MESSAGE));
        }
        board.close();
        let mut told = 0;
        while let Some(news) = board.next().await {
            assert!(news.encoded_len() < crate::MAX_MESSAGE);
            told += news.warnings.len();
        }
        assert_eq!(told, 600);
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
