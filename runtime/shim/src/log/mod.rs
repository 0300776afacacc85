//! The container's output, line by line: into a file, in docker's format or Kubernetes', to a log service, or both.

pub(crate) mod compress;
mod escape;
mod file;
mod forward;
mod lines;
mod message;

use std::{
    io,
    time::{Duration, Instant},
};

use berth_shim_protocol::Log as Wanted;
use jiff::Timestamp;

use crate::stdio::Stream;
use file::FileLog;
use forward::Forwarder;
use lines::Lines;

/// Where the container's output goes besides its clients. Its own failures must not stop the container: what cannot be
/// written is lost, and the first failure is told in shim.log.
#[derive(Debug)]
pub(crate) struct Log {
    lines: [Lines; 2],
    file: Option<FileLog>,
    forward: Option<Forwarder>,
}

impl Log {
    /// Open what is wanted; `None` if that is nothing.
    pub(crate) fn open(wanted: &Wanted) -> io::Result<Option<Self>> {
        let file = wanted.file.as_ref().map(FileLog::open).transpose()?;
        let forward = wanted.forward.as_ref().map(Forwarder::new);
        let any = file.is_some() || forward.is_some();
        Ok(any.then(|| Self { lines: Default::default(), file, forward }))
    }

    /// Goes on in a new file of the old name; nothing to do without one.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), FileLog::reopen)
    }

    /// How long the current file is; `None` without one.
    pub(crate) fn position(&self) -> Option<u64> {
        self.file.as_ref().map(FileLog::position)
    }

    /// What a stream has written that is not in the file yet, for its line has not ended.
    pub(crate) fn partial(&self, stream: Stream) -> &[u8] {
        self.lines[stream.index()].partial()
    }

    /// Record output. When this returns every line that it completes is in the file.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8]) {
        self.record(stream, |lines, emit| lines.feed(data, emit));
    }

    /// A stream has ended.
    pub(crate) fn end(&mut self, stream: Stream) {
        self.record(stream, |lines, emit| lines.end(emit));
    }

    fn record(&mut self, stream: Stream, take: impl FnOnce(&mut Lines, &mut dyn FnMut(&[u8], bool))) {
        let now = Timestamp::now();
        let time = now.to_string();
        let Self { lines, file, forward } = self;
        if let Some(file) = file {
            file.begin(stream, &time);
        }
        take(&mut lines[stream.index()], &mut |text, ends| {
            if let Some(file) = file {
                file.entry(stream, text, ends);
            }
            if let Some(forward) = forward {
                forward.entry(stream, text, ends, now);
            }
        });
        if let Some(file) = file {
            file.flush();
        }
        if let Some(forward) = forward {
            forward.flush();
        }
    }

    /// Whether the log service is so far behind that the container has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.forward.as_ref().is_some_and(Forwarder::is_full)
    }

    /// The process that compresses a file that was rotated away.
    pub(crate) fn helper(&self) -> Option<u32> {
        self.file.as_ref().and_then(FileLog::helper)
    }

    /// When to try again to send what waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.forward.as_ref().and_then(Forwarder::deadline)
    }

    /// Send what waits, as far as it goes; take note of a file that was compressed.
    pub(crate) fn advance(&mut self) {
        if let Some(file) = &mut self.file {
            file.advance();
        }
        if let Some(forward) = &mut self.forward {
            forward.flush();
        }
    }

    /// The end: give the service a little time for what waits.
    pub(crate) fn finish(mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let give_up = Instant::now() + PATIENCE;
        while self.deadline().is_some() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(5));
            self.advance();
        }
    }
}
