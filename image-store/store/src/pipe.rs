//! A pipe between two threads, of whole buffers: decompression and hashing run beside unpacking.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Buffers in flight; together a few megabytes.
const DEPTH: usize = 8;
/// The size of one.
pub(crate) const CHUNK: usize = 256 << 10;

type Chunk = io::Result<Vec<u8>>;

/// The writing end. Dropped without [`Self::fail`], it means the end of the stream.
pub(crate) struct PipeWriter(SyncSender<Chunk>);

/// The reading end.
pub(crate) struct PipeReader {
    from: Receiver<Chunk>,
    chunk: Vec<u8>,
    position: usize,
}

pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (to, from) = sync_channel(DEPTH);
    (PipeWriter(to), PipeReader { from, chunk: Vec::new(), position: 0 })
}

impl PipeWriter {
    /// Hands a whole buffer over; false if nobody reads any more.
    pub(crate) fn send(&self, chunk: Vec<u8>) -> bool {
        self.0.send(Ok(chunk)).is_ok()
    }

    /// Lets the reader see an error.
    pub(crate) fn fail(self, error: io::Error) {
        // The reader is gone when it failed itself; it then has its own error.
        self.0.send(Err(error)).ok();
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.send(buffer.to_vec()) {
            true => Ok(buffer.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.chunk.len() {
            match self.from.recv() {
                Ok(chunk) => {
                    self.chunk = chunk?;
                    self.position = 0;
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        buffer[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}
