//! Compressed streams, told by their first bytes.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use berth_oci::media_type;

/// What is compressed independently of the rest; smaller ones compress worse, larger ones wait longer for a thread.
const BLOCK: usize = 1 << 20;
/// libdeflate's: within three percent of zlib's default, at six times its speed (decision 70).
const GZIP_LEVEL: i32 = 2;
const ZSTD_LEVEL: i32 = 3;

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// What a stream is that begins with these bytes.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: zstd:chunked layers may begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The OCI media type of a layer compressed so.
    pub fn layer_media_type(self) -> &'static str {
        match self {
            Self::None => media_type::OCI_LAYER,
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// How a layer of this media type is compressed.
    pub fn of_media_type(media_type: &str) -> Self {
        match () {
            () if media_type.ends_with("gzip") => Self::Gzip,
            () if media_type.ends_with("zstd") => Self::Zstd,
            () => Self::None,
        }
    }
}

/// The uncompressed bytes of a stream, whatever it is.
pub(crate) fn decompress<'a>(mut from: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::with_capacity(4);
    from.by_ref().take(4).read_to_end(&mut start)?;
    let compression = Compression::detect(&start);
    let from = BufReader::with_capacity(128 << 10, io::Cursor::new(start).chain(from));
    Ok(match compression {
        Compression::None => Box::new(from),
        // eStargz and pigz write several members.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(from)?),
    })
}

/// Compresses everything from one stream to another, on all processors; the result does not depend on their number, on
/// time or machine.
pub(crate) fn compress(from: impl Read, to: impl Write, compression: Compression) -> io::Result<()> {
    match compression {
        Compression::None => copy(from, to),
        Compression::Gzip => gzip(from, to),
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(to, ZSTD_LEVEL)?;
            encoder.multithread(u32::try_from(workers()).unwrap_or(1))?;
            copy(from, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; crate::pipe::CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A block on its way to a compressing thread, and the way back.
type Job = (Vec<u8>, SyncSender<Vec<u8>>);

/// Each block of the stream becomes one member of the gzip file (RFC 1952, 2.2), so that blocks are compressed
/// independently of each other.
fn gzip(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let workers = workers();
    let (jobs, queue) = sync_channel::<Job>(workers);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| compress_blocks(&queue));
        }
        // Owned in here, so that the workers see its end whatever happens.
        let jobs = jobs;
        let mut under_way: VecDeque<Receiver<Vec<u8>>> = VecDeque::new();
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            let length = from.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
            let (back, result) = sync_channel(1);
            jobs.send((block, back)).map_err(|_| worker_gone())?;
            under_way.push_back(result);
            if length < BLOCK {
                break;
            }
            if under_way.len() > 2 * workers {
                write_first(&mut under_way, &mut to)?;
            }
        }
        while !under_way.is_empty() {
            write_first(&mut under_way, &mut to)?;
        }
        Ok(())
    })
}

fn write_first(under_way: &mut VecDeque<Receiver<Vec<u8>>>, to: &mut impl Write) -> io::Result<()> {
    let Some(result) = under_way.pop_front() else { return Ok(()) };
    to.write_all(&result.recv().map_err(|_| worker_gone())?)
}

fn worker_gone() -> io::Error {
    io::Error::other("a compressing thread ended")
}

fn compress_blocks(queue: &Mutex<Receiver<Job>>) {
    let level = libdeflater::CompressionLvl::new(GZIP_LEVEL).expect("the level is one of libdeflate's");
    let mut compressor = libdeflater::Compressor::new(level);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((block, back)) = job else { return };
        let mut packed = vec![0; compressor.gzip_compress_bound(block.len())];
        let length = compressor.gzip_compress(&block, &mut packed).expect("the bound is large enough");
        packed.truncate(length);
        // Who gave the job has failed when nobody takes the result.
        back.send(packed).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let noise: Vec<u8> =
            (0..3 * BLOCK as u64 + 17).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 16) as u8).collect();
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, noise.len()] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let (mut once, mut twice, mut back) = (Vec::new(), Vec::new(), Vec::new());
                compress(&noise[..length], &mut once, compression).unwrap();
                compress(&noise[..length], &mut twice, compression).unwrap();
                assert!(once == twice, "{compression:?} of {length} bytes differs from itself");
                decompress(&once[..]).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == noise[..length], "{compression:?} of {length} bytes");
            }
        }
    }
}
