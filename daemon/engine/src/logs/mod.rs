//! Logs of containers, written by the shims, read here.
//!
//! The current file is `<id>-json.log`, older ones `….1` (the newest of them), `….2` and so on,
//! or `….1.gz` where they are compressed. Each is a json-file or, of the `local` driver, one of blocks.

mod blocks;
mod drivers;
mod entry;
mod files;
mod options;
mod reader;
mod relay;
mod tail;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_api::options::{Logs, Tail};
use berth_api::stdcopy;
use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::containers::{Container, Status};
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};
use crate::items::Items;
use entry::Entry;
pub(crate) use options::{DRIVERS, plan, size};
use reader::{Reader, Step};
pub use relay::{SYSLOG_ROLE, SyslogTls, Trust};

/// A piece of output: which stream, and its bytes.
pub type LogItem = (stdcopy::Stream, Bytes);

/// How often a follower looks for more: at first, and when nothing comes.
const SHORT_PAUSE: Duration = Duration::from_millis(5);
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// The log of a container. An error ends it.
#[derive(Debug)]
pub struct LogStream {
    items: Items<Result<LogItem>>,
    tty: bool,
}

impl LogStream {
    /// Whether the container has a terminal, so that its output is not framed.
    #[must_use]
    pub fn tty(&self) -> bool {
        self.tty
    }
}

impl Stream for LogStream {
    type Item = Result<LogItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.items).poll_next(cx)
    }
}

impl Engine {
    /// The log of a container.
    ///
    /// # Errors
    /// When there is no such container, no stream is asked for, or it keeps no log.
    pub async fn container_logs(self: &Arc<Self>, name: &str, options: Logs) -> Result<LogStream> {
        let container = self.containers.find(name)?;
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid("must specify at least one of 'stdout' or 'stderr'"));
        }
        if plan(&container.definition().host.log_config)?.keep.is_none() {
            return Err(EngineError::new(
                Kind::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        self.read_log(&container, options, None)
    }

    /// The log for a client that attaches, up to a length of the current file.
    pub(crate) async fn replay(
        &self,
        container: &Container,
        options: &Logs,
        end: Option<u64>,
    ) -> Result<LogStream> {
        self.read_log(container, options.clone(), end)
    }

    fn read_log(&self, container: &Container, options: Logs, end: Option<u64>) -> Result<LogStream> {
        let (sender, items) = Items::channel(256);
        let tty = container.definition().config.tty;
        let path = self.log_path(&container.id);
        let start = match options.tail {
            Tail::All => tail::oldest(&path),
            Tail::Lines(lines) => tail::start(&path, lines),
        };
        let start = start.map_err(|error| EngineError::io("read the log", &path, error))?;
        let reader = Reader::new(path.clone(), start, end)
            .map_err(|error| EngineError::io("open the log", &path, error))?;
        let follow = if options.follow { Run::of(container.watch()) } else { None };
        tokio::spawn(async move {
            if let Err(error) = copy(reader, &options, follow, &sender).await {
                // That the client has gone is no concern of ours.
                sender.send(Err(EngineError::io("read the log", &path, error))).await.ok();
            }
        });
        Ok(LogStream { items, tty })
    }
}

/// The run whose log is followed.
struct Run {
    status: watch::Receiver<Status>,
    /// Ends before its own.
    ends: u64,
}

impl Run {
    /// The present run, if there is one. That it goes on and which it is are one look: an end in between would never be
    /// told.
    fn of(status: watch::Receiver<Status>) -> Option<Self> {
        let now = status.borrow();
        let ends = now.phase.is_alive().then_some(now.ends);
        drop(now);
        ends.map(|ends| Self { status, ends })
    }

    /// Whether it is over, as of now.
    fn is_over(&mut self) -> bool {
        let now = self.status.borrow_and_update();
        now.ends > self.ends || now.removed
    }
}

/// What an entry is to the client.
enum Verdict {
    Show,
    Skip,
    /// It and all that follow are too late.
    End,
}

fn judge(entry: &Entry, options: &Logs) -> Verdict {
    if options.until.is_some_and(|until| entry.time > until) {
        return Verdict::End;
    }
    let wanted = match entry.stream {
        stdcopy::Stream::Stderr => options.stderr,
        _ => options.stdout,
    };
    if !wanted || options.since.is_some_and(|since| entry.time < since) {
        return Verdict::Skip;
    }
    Verdict::Show
}

async fn copy(
    mut reader: Reader,
    options: &Logs,
    follow: Option<Run>,
    sender: &mpsc::Sender<Result<LogItem>>,
) -> std::io::Result<()> {
    let Some(mut run) = follow else {
        copy_rest(&mut reader, options, sender).await?;
        return Ok(());
    };
    let mut pause = SHORT_PAUSE;
    loop {
        // Looked at before reading: a log is complete when its container's end is told.
        let last = run.is_over();
        let Some(copied) = copy_rest(&mut reader, options, sender).await? else { return Ok(()) };
        if last || sender.is_closed() || options.until.is_some_and(|until| Timestamp::now() > until) {
            return Ok(());
        }
        pause = if copied > 0 { SHORT_PAUSE } else { (pause * 2).min(LONG_PAUSE) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = run.status.changed() => if changed.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Copies what there is; how many entries were shown, or `None` when nobody wants more.
async fn copy_rest(
    reader: &mut Reader,
    options: &Logs,
    sender: &mpsc::Sender<Result<LogItem>>,
) -> std::io::Result<Option<usize>> {
    let mut copied = 0;
    loop {
        match reader.step()? {
            Step::Entry(entry) => match judge(&entry, options) {
                Verdict::Show => {
                    copied += 1;
                    for item in entry.show(options.timestamps, options.details) {
                        if sender.send(Ok(item)).await.is_err() {
                            return Ok(None);
                        }
                    }
                }
                Verdict::Skip => {}
                Verdict::End => return Ok(None),
            },
            Step::Again => tokio::task::yield_now().await,
            Step::End => return Ok(Some(copied)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: &str, ends: u64) -> Status {
        serde_json::from_value(serde_json::json!({"phase": phase, "ends": ends})).unwrap()
    }

    #[tokio::test]
    async fn a_run_that_ends_before_its_follower_is_scheduled_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T02:56:14Z\"}\n")
            .unwrap();
        let start = tail::oldest(&path).unwrap();
        let (change, now) = watch::channel(status("running", 3));
        let run = Run::of(now);
        change.send(status("exited", 4)).unwrap();
        let (sender, mut items) = mpsc::channel(8);
        let options = Logs { follow: true, stdout: true, ..Logs::default() };
        let copied = copy(Reader::new(path, start, None).unwrap(), &options, run, &sender);
        tokio::time::timeout(Duration::from_secs(10), copied).await.expect("it ends").unwrap();
        assert_eq!(items.recv().await.unwrap().unwrap().1, "a\n");
        assert!(Run::of(change.subscribe()).is_none());
    }
}
