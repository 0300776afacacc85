//! Tar archives that are made while they are sent: build contexts, files copied into containers.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use berth_client::Upload;
use berth_dockerfile_parser::ignore::{DirState, Matcher};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::output::copied::Count;

/// Bytes that are collected before they are sent.
const PIECE: usize = 64 * 1024;

/// Who owns the files in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// As on disk.
    Kept,
    /// Root: a build does not depend on who has checked its context out.
    Root,
}

/// The other end of a body that is being sent.
pub(crate) struct Pipe {
    to: mpsc::Sender<io::Result<Bytes>>,
    sent: Count,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.to.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        // The daemon has answered before it read everything.
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive that a thread makes.
#[derive(Debug)]
pub(crate) struct Making {
    task: JoinHandle<Result<()>>,
    sent: Count,
}

/// What writes into the archive.
pub(crate) type Archive = Builder<Body>;

/// How an archive goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As it is.
    Plain,
    /// Compressed.
    Gzip,
}

/// The bytes of an archive, on their way into the pipe.
pub(crate) enum Body {
    Plain(io::BufWriter<Pipe>),
    Gzip(Box<GzEncoder<io::BufWriter<Pipe>>>),
}

impl Body {
    fn new(packing: Packing, pipe: Pipe) -> Self {
        let pipe = io::BufWriter::with_capacity(PIECE, pipe);
        match packing {
            Packing::Plain => Self::Plain(pipe),
            Packing::Gzip => Self::Gzip(Box::new(GzEncoder::new(pipe, Compression::default()))),
        }
    }

    /// Sends what is left.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Plain(mut pipe) => pipe.flush(),
            Self::Gzip(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(pipe) => pipe.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(pipe) => pipe.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}

/// Starts to make an archive, and gives the body that carries it.
pub(crate) fn make(fill: impl FnOnce(&mut Archive) -> Result<()> + Send + 'static) -> (Upload, Making) {
    pack(Packing::Plain, fill)
}

/// The same, maybe compressed.
pub(crate) fn pack(
    packing: Packing,
    fill: impl FnOnce(&mut Archive) -> Result<()> + Send + 'static,
) -> (Upload, Making) {
    let (to, mut receiver) = mpsc::channel(4);
    let sent = Count::default();
    let pipe = Pipe { to, sent: Count::clone(&sent) };
    let task = tokio::task::spawn_blocking(move || {
        let broken = pipe.to.clone();
        let mut builder = Builder::new(Body::new(packing, pipe));
        let made = fill(&mut builder)
            .and_then(|()| builder.into_inner().context("cannot end the archive"))
            .and_then(|out| out.end().context("cannot end the archive"));
        if made.is_err() {
            // Half an archive must not look like a whole one. A daemon that is gone needs no telling.
            broken.blocking_send(Err(io::ErrorKind::InvalidData.into())).ok();
        }
        made
    });
    let upload = Upload::from_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    (upload, Making { task, sent })
}

impl Making {
    /// The bytes that have gone so far.
    pub(crate) fn sent(&self) -> Count {
        Count::clone(&self.sent)
    }

    /// What came of it, given what the daemon answered: a mistake of ours explains the daemon's complaint.
    pub(crate) async fn judge<T>(self, answer: berth_client::Result<T>) -> Result<T> {
        match answer {
            Ok(value) => Ok(value),
            Err(error @ berth_client::Error::Daemon { .. }) => Err(error.into()),
            Err(error) => {
                let made = self.task.await.context("the archive's thread broke down")?;
                let of_pipe = |e: &anyhow::Error| {
                    e.chain().any(|c| {
                        c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
                    })
                };
                match made {
                    Err(ours) if !of_pipe(&ours) => Err(ours),
                    _ => Err(error.into()),
                }
            }
        }
    }
}

/// Appends a file, link or directory (without what is in it) as `name`. Sockets and the like are left out.
pub(crate) fn append(archive: &mut Archive, path: &Path, name: &Path, owners: Owners) -> Result<()> {
    let failed = || format!("cannot pack {}", path.display());
    let metadata = path.symlink_metadata().with_context(failed)?;
    let mut header = header(&metadata, owners);
    if metadata.is_symlink() {
        let target = path.read_link().with_context(failed)?;
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        return archive.append_link(&mut header, name, target).with_context(failed);
    }
    if metadata.is_dir() {
        header.set_size(0);
        return archive.append_data(&mut header, name, io::empty()).with_context(failed);
    }
    if !metadata.is_file() {
        return Ok(());
    }
    let file = File::open(path).with_context(failed)?;
    let length = file.metadata().with_context(failed)?.len();
    header.set_size(length);
    // A file that shrinks meanwhile is filled up, as GNU tar does: the header has gone already.
    let content = file.take(length).chain(io::repeat(0)).take(length);
    archive.append_data(&mut header, name, content).with_context(failed)
}

/// Appends bytes as a file of root's.
pub(crate) fn append_bytes(archive: &mut Archive, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes).with_context(|| format!("cannot pack {name}"))
}

fn header(metadata: &Metadata, owners: Owners) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    if owners == Owners::Root {
        header.set_uid(0);
        header.set_gid(0);
    }
    header
}

/// A directory's content, each entry before what is below it, in the order of names.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    /// The directory.
    pub(crate) root: &'a Path,
    /// What names in the archive begin with.
    pub(crate) prefix: &'a Path,
    /// What to leave out.
    pub(crate) ignore: &'a Matcher,
    /// Who owns it.
    pub(crate) owners: Owners,
}

impl Tree<'_> {
    /// Appends all of it.
    pub(crate) fn append(&self, archive: &mut Archive) -> Result<()> {
        self.directory(archive, Path::new(""), &DirState::default()).map(drop)
    }

    fn directory(&self, archive: &mut Archive, relative: &Path, state: &DirState) -> Result<()> {
        let dir = self.root.join(relative);
        let failed = || format!("cannot read the directory {}", dir.display());
        let entries = std::fs::read_dir(&dir).with_context(failed)?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .with_context(failed)?;
        names.sort();
        for name in names {
            let relative = relative.join(name);
            let path = self.root.join(&relative);
            let (ignored, state) = self.ignore.step(&relative.to_string_lossy(), state)?;
            if !ignored {
                append(archive, &path, &self.prefix.join(&relative), self.owners)?;
            }
            let is_dir = path.symlink_metadata().with_context(failed)?.is_dir();
            // Below a directory that is left out there may be what a `!` takes back in.
            if is_dir && (!ignored || self.ignore.has_exceptions()) {
                self.directory(archive, &relative, &state)?;
            }
        }
        Ok(())
    }
}

/// Takes what a daemon sends as a reader for a thread.
pub(crate) fn reader(stream: berth_client::ByteStream) -> impl Read + Send + 'static {
    tokio_util::io::SyncIoBridge::new(tokio_util::io::StreamReader::new(stream))
}

/// Writes what a daemon sends to a file, which appears whole or not at all, or to standard output.
pub(crate) async fn save(mut stream: berth_client::ByteStream, to: Option<&PathBuf>) -> Result<()> {
    let Some(path) = to else {
        let mut out = io::stdout().lock();
        while let Some(bytes) = stream.next_bytes().await? {
            out.write_all(&bytes).context("cannot write to standard output")?;
        }
        return out.flush().context("cannot write to standard output");
    };
    let failed = || format!("cannot write {}", path.display());
    // A device or a pipe is written to, not replaced.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = File::options().write(true).open(path).with_context(failed)?;
        while let Some(bytes) = stream.next_bytes().await? {
            file.write_all(&bytes).with_context(failed)?;
        }
        return Ok(());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).with_context(failed)?;
    while let Some(bytes) = stream.next_bytes().await? {
        file.write_all(&bytes).with_context(failed)?;
    }
    file.persist(path).with_context(failed)?;
    Ok(())
}
