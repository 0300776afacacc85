//! What a pull costs the machine itself, whoever pulls: `pull_floor LAYOUT OUT` reads each layer of an OCI layout, takes its
//! sha256, decompresses it, takes the sha256 of that, and writes it, as many layers at a time as there are processors. No
//! network, no file of a layer is made: one file gets all of its bytes. For `tests/support/bench-images.sh`.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use berth_oci::Hasher;

const CHUNK: usize = 256 << 10;

/// Hashes what passes.
struct Hashed<T> {
    inner: T,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

fn layer(blob: &Path, out: &Path) -> io::Result<u64> {
    let compressed = Hashed { inner: File::open(blob)?, hasher: Hasher::default() };
    let tar = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK, compressed));
    let mut tar = Hashed { inner: tar, hasher: Hasher::default() };
    let mut file = File::create(out)?;
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        let length = tar.read(&mut buffer)?;
        if length == 0 {
            return Ok(total);
        }
        file.write_all(&buffer[..length])?;
        total += length as u64;
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(layout), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: pull_floor LAYOUT OUT"));
    };
    fs::create_dir_all(&out)?;
    let mut layers = Vec::new();
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        let path = entry?.path();
        let mut start = [0; 2];
        // Documents are no gzip.
        if File::open(&path)?.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b] {
            layers.push(path);
        }
    }
    let (queue, total) = (Mutex::new(layers), Mutex::new(0));
    let work = || -> io::Result<()> {
        loop {
            let next = queue.lock().expect("nobody panics with it").pop();
            let Some(blob) = next else { return Ok(()) };
            let name = blob.file_name().expect("a blob has a name");
            let bytes = layer(&blob, &out.join(name))?;
            *total.lock().expect("nobody panics with it") += bytes;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..std::thread::available_parallelism()?.get()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    println!("{} bytes", total.lock().expect("nobody panics with it"));
    Ok(())
}
