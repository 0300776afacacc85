//! One layer's way from the registry into the store.
//!
//! ```text
//!  network ──chunks──▶ [async] ──bounded──▶ [thread: hash, write] ──bounded──▶ [thread: decompress, unpack]
//!              │ broken? resume where it broke      │ partial blob              │ half-made tree
//!              ▼                                    ▼                           ▼
//!         all bytes there ────────────▶ digest and size verified ────▶ diff-id verified: layer visible
//! ```
//!
//! When the download is given up, the partial blob stays for the next attempt and the half-made tree goes. The
//! tree becomes visible only by its diff-id, which the image's (verified) configuration names.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use berth_oci::{Descriptor, DiffId};
use berth_store::{Ingest, Store};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{interval, sleep};

use crate::error::RegistryError;
use crate::failure::Failure;
use crate::progress::LayerProgress;
use crate::retry::Patience;
use crate::session::{Session, cut_off};
use crate::types::LayerState;

/// Chunks in flight between two stages; a chunk is what one read from the network gave, 64 KiB at most.
const IN_FLIGHT: usize = 64;

/// What the writing thread gets.
enum Piece {
    Bytes(Bytes),
    /// All bytes were sent. A channel that closes without it was given up.
    End,
}

/// Downloads and unpacks a layer that the store lacks.
pub(crate) async fn fetch(
    session: &Session<'_>,
    store: &Store,
    blob: &Descriptor,
    diff_id: &DiffId,
    progress: &mut LayerProgress,
    while_pulling: impl Fn(Failure) -> RegistryError,
) -> Result<(), RegistryError> {
    let ingest = {
        let (store, digest) = (store.clone(), blob.digest.clone());
        blocking("begin a download", move || Ok(store.content().ingest_for(&digest)?)).await?
    };
    let unpacked_bytes = Arc::new(AtomicU64::new(0));
    let (to_unpacker, from_writer) = blocking::sync_channel(IN_FLIGHT);
    let begun = if ingest.offset() > 0 { Some(ingest.written()?) } else { None };
    let unpacker = {
        let (store, diff_id, blob) = (store.clone(), diff_id.clone(), blob.clone());
        let pieces = Pieces { from_writer, rest: Bytes::new(), ended: false };
        let counted = Arc::clone(&unpacked_bytes);
        spawn_blocking(move || {
            let before: Box<dyn Read + Send> =
                begun.map_or_else(|| Box::new(io::empty()) as _, |r| Box::new(r) as _);
            let stream = Counted { inner: before.chain(pieces), count: counted };
            store.layers().unpack(stream, Some(&diff_id))?;
            store.layers().remember_blob(&diff_id, &blob)?;
            Ok::<(), RegistryError>(())
        })
    };
    let offset = ingest.offset();
    let (to_writer, pieces) = mpsc::channel(IN_FLIGHT);
    let writer = {
        let (store, blob) = (store.clone(), blob.clone());
        spawn_blocking(move || write(&store, ingest, pieces, &to_unpacker, &blob))
    };
    let downloaded = download(session, blob, offset, &to_writer, progress).await;
    if downloaded.is_ok() {
        progress.tell(LayerState::VerifyingChecksum);
        // Should the writer have failed, its own error says more than the closed channel.
        to_writer.send(Piece::End).await.ok();
    }
    drop(to_writer);
    let written = joined("write a layer", writer.await);
    let unpacked =
        extract(unpacker, &unpacked_bytes, blob.size, progress, written.is_ok() && downloaded.is_ok()).await;
    match downloaded {
        // The writer closes the channel when it fails: the cause is its error.
        Err(Stopped::WriterGone) => {}
        Err(Stopped::Failed(failure)) => return Err(while_pulling(failure)),
        Ok(()) => {}
    }
    written?;
    unpacked?;
    progress.tell(LayerState::PullComplete);
    Ok(())
}

/// Waits for the unpacker; once the download is complete, tells how far it is.
async fn extract(
    mut unpacker: JoinHandle<Result<(), RegistryError>>,
    done: &AtomicU64,
    total: u64,
    progress: &mut LayerProgress,
    complete: bool,
) -> Result<(), RegistryError> {
    if complete {
        progress.tell(LayerState::DownloadComplete);
    }
    let mut tick = interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            outcome = &mut unpacker => return joined("unpack a layer", outcome),
            _ = tick.tick(), if complete => {
                let current = done.load(Ordering::Relaxed).min(total);
                progress.tell_bytes(LayerState::Extracting { current, total });
            }
        }
    }
}

enum Stopped {
    WriterGone,
    Failed(Failure),
}

/// Sends the blob's bytes from `offset` on, over as many connections as it takes.
async fn download(
    session: &Session<'_>,
    blob: &Descriptor,
    mut offset: u64,
    to_writer: &mpsc::Sender<Piece>,
    progress: &mut LayerProgress,
) -> Result<(), Stopped> {
    let total = blob.size;
    let mut patience = Patience::new(session.config());
    while offset < total {
        let before = offset;
        let failure = match stream_from(session, blob, &mut offset, to_writer, progress).await {
            Ok(()) => return Ok(()),
            Err(Stopped::WriterGone) => return Err(Stopped::WriterGone),
            Err(Stopped::Failed(failure)) => failure,
        };
        if offset > before {
            // Whoever makes headway has all retries again.
            patience = Patience::new(session.config());
        }
        let pause = patience.after(failure).map_err(Stopped::Failed)?;
        progress.tell(LayerState::Retrying { seconds: pause.as_secs().max(1) });
        sleep(pause).await;
    }
    Ok(())
}

async fn stream_from(
    session: &Session<'_>,
    blob: &Descriptor,
    offset: &mut u64,
    to_writer: &mpsc::Sender<Piece>,
    progress: &mut LayerProgress,
) -> Result<(), Stopped> {
    let mut stream = session.blob(blob, *offset).await.map_err(Stopped::Failed)?;
    // A server that ignores ranges begins anew: what is there already is let pass.
    let mut skip = *offset - stream.offset;
    while *offset < blob.size {
        let next = stream.next().await.and_then(|chunk| chunk.ok_or_else(|| cut_off(&blob.digest)));
        let mut chunk = match next {
            Ok(chunk) => chunk,
            Err(failure) => {
                stream.give_up(session);
                return Err(Stopped::Failed(failure));
            }
        };
        let passed = skip.min(chunk.len() as u64);
        chunk.advance(passed as usize);
        skip -= passed;
        // More than was announced is not even looked at; the digest decides about the rest.
        chunk.truncate((blob.size - *offset).min(chunk.len() as u64) as usize);
        *offset += chunk.len() as u64;
        if !chunk.is_empty() {
            to_writer.send(Piece::Bytes(chunk)).await.map_err(|_| Stopped::WriterGone)?;
        }
        progress.tell_bytes(LayerState::Downloading { current: *offset, total: blob.size });
    }
    Ok(())
}

/// The writing thread: hashes, writes, passes on, and verifies at the end.
fn write(
    store: &Store,
    mut ingest: Ingest,
    mut pieces: mpsc::Receiver<Piece>,
    to_unpacker: &blocking::SyncSender<Piece>,
    blob: &Descriptor,
) -> Result<(), RegistryError> {
    let mut unpacking = true;
    while let Some(piece) = pieces.blocking_recv() {
        let Piece::Bytes(bytes) = piece else {
            if unpacking {
                to_unpacker.send(Piece::End).ok(); // the unpacker may have what it needs already
            }
            let size = ingest.offset();
            return match ingest.commit(Some(&blob.digest), Some(blob.size)) {
                Err(berth_store::StoreError::Mismatch { actual, .. }) => Err(RegistryError::WrongContent {
                    wanted: blob.digest.clone(),
                    got: if size == blob.size { actual } else { format!("{size} bytes") },
                }),
                // While the rest is unpacked the disk has time.
                other => Ok(other.and_then(|digest| store.content().settle(&digest))?),
            };
        };
        ingest
            .write_all(&bytes)
            .map_err(|source| berth_store::StoreError::Stream { operation: "write a layer", source })?;
        // An unpacker that found the layer present, or failed, takes no more; the blob is worth having all the same.
        unpacking = unpacking && to_unpacker.send(Piece::Bytes(bytes)).is_ok();
    }
    Ok(())
}

/// The pieces as a stream for the unpacker.
struct Pieces {
    from_writer: blocking::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.from_writer.recv() {
                Ok(Piece::Bytes(bytes)) => self.rest = bytes,
                Ok(Piece::End) => self.ended = true,
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download was given up"));
                }
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Runs store work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    joined(operation, spawn_blocking(work).await)
}

fn joined<T>(
    operation: &'static str,
    outcome: Result<Result<T, RegistryError>, tokio::task::JoinError>,
) -> Result<T, RegistryError> {
    outcome.map_err(|source| RegistryError::Task { operation, source })?
}
