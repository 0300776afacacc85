//! The log's files: appending and rotation.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, IoSlice, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use berth_shim_protocol::LogFile;

use super::compress::{self, compressed};

/// A file and those that were rotated away.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    max_file: u32,
    compress: bool,
    /// Compresses the file that was rotated away last; until it has, the names stay as they are.
    compressor: Option<Compressor>,
    /// How long a compression had that was too slow: only a file that took longer to fill is worth another.
    too_slow: Duration,
    /// When the current file was begun.
    begun: Instant,
    complained: bool,
}

#[derive(Debug)]
struct Compressor {
    process: Child,
    since: Instant,
}

impl Files {
    /// Open, and go on behind what is there.
    pub(super) fn open(wanted: &LogFile) -> io::Result<Self> {
        let (file, size) = open(&wanted.path)?;
        Ok(Self {
            path: wanted.path.clone(),
            file,
            size,
            max_size: wanted.max_size,
            max_file: wanted.max_file,
            compress: wanted.compress,
            compressor: None,
            too_slow: Duration::ZERO,
            begun: Instant::now(),
            complained: false,
        })
    }

    /// Somebody has moved the file away: go on in a new one of the old name. After a failure all is as before.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open(&self.path)?;
        Ok(())
    }

    /// How long the current file is.
    pub(super) fn position(&self) -> u64 {
        self.size
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How much more the current file takes before it is rotated away.
    pub(super) fn room(&self) -> u64 {
        match (self.max_size, &self.compressor) {
            (0, _) => u64::MAX,
            (size, None) => size.saturating_sub(self.size),
            (size, Some(_)) => size.saturating_mul(2).saturating_sub(self.size),
        }
    }

    /// Takes away what stands behind this length.
    pub(super) fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.size = length;
        Ok(())
    }

    /// Append one piece. If that fails midway, what was written of it is taken back.
    pub(super) fn append(&mut self, pieces: &mut [IoSlice<'_>]) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        match self.write_all(pieces) {
            Ok(()) => self.size += length as u64,
            failed => {
                self.file.set_len(self.size).ok();
                self.complain("write", failed);
            }
        }
    }

    fn write_all(&mut self, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match self.file.write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut pieces, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the file is full, with so much that is still to be appended, and another may be begun. While the last file is
    /// being compressed this one grows, up to twice its size; then the other stays as it is.
    pub(super) fn is_full(&mut self, waiting: u64) -> bool {
        let size = self.size + waiting;
        if self.max_size == 0 || size < self.max_size {
            return false;
        }
        let Some(Compressor { process, since }) = &mut self.compressor else { return true };
        if size < self.max_size.saturating_mul(2) {
            return false;
        }
        // Whoever reaps orphans reaps it: it may take a while to die, at its priority.
        let ended = process.kill();
        self.too_slow = since.elapsed();
        self.compressor = None;
        let cleaned = ended.and_then(|()| gone(compress::clean(&self.numbered(1))));
        self.complain("stop compressing", cleaned);
        true
    }

    /// The process that compresses the last file.
    pub(super) fn helper(&self) -> Option<u32> {
        self.compressor.as_ref().map(|compressor| compressor.process.id())
    }

    /// Takes note when the last file was compressed.
    pub(super) fn advance(&mut self) {
        if let Some(compressor) = &mut self.compressor
            && !matches!(compressor.process.try_wait(), Ok(None))
        {
            // Why it failed stands in shim.log, and the file stays readable.
            self.compressor = None;
            self.too_slow = Duration::ZERO;
        }
    }

    /// Begin another file.
    pub(super) fn rotate(&mut self) {
        let rotated = self.try_rotate();
        self.complain("rotate", rotated);
    }

    fn try_rotate(&mut self) -> io::Result<()> {
        if self.max_file <= 1 {
            return self.truncate(0);
        }
        // Not replaced by its successor, which ext4 would write to the disk first.
        let last = self.numbered(self.max_file - 1);
        gone(fs::remove_file(compressed(&last)))?;
        gone(fs::remove_file(last))?;
        for number in (1..self.max_file - 1).rev() {
            let (from, to) = (self.numbered(number), self.numbered(number + 1));
            gone(fs::rename(compressed(&from), compressed(&to)))?;
            gone(fs::rename(from, to))?;
        }
        let newest = self.numbered(1);
        fs::rename(&self.path, &newest)?;
        (self.file, self.size) = open(&self.path)?;
        let begun = std::mem::replace(&mut self.begun, Instant::now());
        if self.compress && self.begun - begun > self.too_slow {
            let process = compress::begin(&newest)?;
            self.compressor = Some(Compressor { process, since: self.begun });
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// The first failure is told.
    fn complain(&mut self, operation: &str, result: io::Result<()>) {
        if let Err(error) = result
            && !self.complained
        {
            eprintln!("cannot {operation} the log {}: {error}", self.path.display());
            self.complained = true;
        }
    }
}

/// That there is no such file is no failure.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The file of this name, and how long it is.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options().append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(path: &Path, max_size: u64, max_file: u32) -> Files {
        let wanted = LogFile { path: path.to_owned(), max_size, max_file, ..LogFile::default() };
        Files::open(&wanted).unwrap()
    }

    #[test]
    fn pieces_go_into_the_file_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = files(&path, 10, 2);
        log.append(&mut [IoSlice::new(b""), IoSlice::new(b"one "), IoSlice::new(b"two")]);
        assert_eq!((log.position(), log.room(), log.is_full(2), log.is_full(3)), (7, 3, false, true));
        log.rotate();
        assert_eq!((log.position(), fs::read(dir.path().join("log.1")).unwrap()), (0, b"one two".to_vec()));
    }

    #[test]
    fn a_compression_that_is_outrun_is_given_up_and_not_tried_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = files(&path, 10, 3);
        log.append(&mut [IoSlice::new(b"0123456789")]);
        log.rotate();
        let sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let since = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        log.compressor = Some(Compressor { process: sleeper, since });
        log.compress = true;
        assert!(!log.is_full(10), "it waits for the compression");
        assert!(log.is_full(20), "no longer");
        assert_eq!(log.helper(), None);
        log.append(&mut [IoSlice::new(b"0123456789")]);
        log.rotate();
        assert_eq!(log.helper(), None, "this file was filled in less than an hour");
    }
}
