//! The container's output, line by line: into a file, in docker's format or Kubernetes', to a log service, or both.

mod blocks;
pub(crate) mod compress;
mod entries;
mod escape;
mod files;
mod forward;
mod lines;
mod message;

use std::{
    io,
    time::{Duration, Instant},
};

use berth_shim_protocol::{Log as Wanted, LogFile, LogFormat};
use jiff::Timestamp;

use crate::stdio::Stream;
use blocks::BlockLog;
use entries::EntryLog;
use files::Files;
use forward::Forwarder;
use lines::Lines;

/// Where the container's output goes besides its clients. Its own failures must not stop the container: what cannot be
/// written is lost, and the first failure is told in shim.log.
#[derive(Debug)]
pub(crate) struct Log {
    kept: Option<Kept>,
    /// What is kept or sent line by line.
    lines: [Lines; 2],
    forward: Option<Forwarder>,
}

/// What `docker logs` reads.
#[derive(Debug)]
enum Kept {
    Entries(EntryLog),
    Blocks(BlockLog),
}

impl Kept {
    fn open(wanted: &LogFile) -> io::Result<Self> {
        Ok(match wanted.format {
            LogFormat::Json | LogFormat::Cri => Self::Entries(EntryLog::open(wanted)?),
            LogFormat::Local => Self::Blocks(BlockLog::open(wanted)?),
        })
    }

    fn files(&self) -> &Files {
        match self {
            Self::Entries(log) => &log.files,
            Self::Blocks(log) => &log.files,
        }
    }

    fn files_mut(&mut self) -> &mut Files {
        match self {
            Self::Entries(log) => &mut log.files,
            Self::Blocks(log) => &mut log.files,
        }
    }
}

impl Log {
    /// Open what is wanted; `None` if that is nothing.
    pub(crate) fn open(wanted: &Wanted) -> io::Result<Option<Self>> {
        let kept = wanted.file.as_ref().map(Kept::open).transpose()?;
        let forward = wanted.forward.as_ref().map(Forwarder::new);
        let any = kept.is_some() || forward.is_some();
        Ok(any.then(|| Self { kept, lines: Default::default(), forward }))
    }

    /// Goes on in a new file of the old name; nothing to do without one.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.kept.as_mut().map_or(Ok(()), |kept| kept.files_mut().reopen())
    }

    /// How long the current file is; `None` without one.
    pub(crate) fn position(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.files().position())
    }

    /// What a stream has written that is not in the file yet, for its line has not ended.
    pub(crate) fn partial(&self, stream: Stream) -> &[u8] {
        match &self.kept {
            Some(Kept::Blocks(log)) => log.partial(stream),
            _ => self.lines[stream.index()].partial(),
        }
    }

    /// Record output. When this returns every line that it completes is in the file.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8]) {
        let now = Timestamp::now();
        if let Some(Kept::Blocks(log)) = &mut self.kept {
            log.write(stream, data, now);
        }
        self.record(stream, data, now, |lines, emit| lines.feed(data, emit));
    }

    /// A stream has ended.
    pub(crate) fn end(&mut self, stream: Stream) {
        let now = Timestamp::now();
        if let Some(Kept::Blocks(log)) = &mut self.kept {
            log.end(stream, now);
        }
        self.record(stream, b"", now, |lines, emit| lines.end(emit));
    }

    fn record(
        &mut self,
        stream: Stream,
        data: &[u8],
        now: Timestamp,
        take: impl FnOnce(&mut Lines, &mut dyn FnMut(&[u8], bool)),
    ) {
        let Self { kept, lines, forward } = self;
        let lines = &mut lines[stream.index()];
        let mut entries = match kept {
            Some(Kept::Entries(log)) => Some(log),
            _ if forward.is_none() => return,
            _ => None,
        };
        if let Some(log) = &mut entries {
            log.begin(stream, &now.to_string(), [lines.partial(), data]);
        }
        take(lines, &mut |text, ends| {
            if let Some(log) = &mut entries {
                log.entry(stream, text, ends);
            }
            if let Some(forward) = forward {
                forward.entry(stream, text, ends, now);
            }
        });
        if let Some(log) = entries {
            log.flush();
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
        self.kept.as_ref().and_then(|kept| kept.files().helper())
    }

    /// When to try again to send what waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.forward.as_ref().and_then(Forwarder::deadline)
    }

    /// Send what waits, as far as it goes; take note of a file that was compressed.
    pub(crate) fn advance(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.files_mut().advance();
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
