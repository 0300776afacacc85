//! How a blob comes in: temporary file, hash while writing, verification, rename.
//!
//! ```text
//! begin ──write*──▶ partial ──commit: digest and size agree──▶ rename ──▶ blob
//!            ▲          │ └──commit: they do not──▶ removed
//!            └─resume───┘ (keyed by digest; survives the process)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use berth_oci::{Algorithm, Digest, Hasher};

use crate::content::Content;
use crate::error::{IoContext, Result, StoreError};
use crate::locks::KeyGuard;

/// A blob that is being written.
pub struct Ingest {
    content: Content,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    algorithm: Algorithm,
    offset: u64,
    /// For a blob of known digest: what it is, and the right to write it.
    key: Option<(Digest, KeyGuard)>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Writing,
    /// The blob was complete before we began.
    Complete,
    Finished,
}

impl Ingest {
    pub(crate) fn anonymous(content: Content) -> Result<Self> {
        let directory = content.ingest_dir();
        let temporary = tempfile::Builder::new()
            .prefix("tmp-")
            .tempfile_in(&directory)
            .during("create a file in", &directory)?;
        let (file, path) = temporary.keep().map_err(|e| e.error).during("create a file in", &directory)?;
        let algorithm = Algorithm::Sha256;
        let hasher = Hasher::new(algorithm);
        Ok(Self { content, path, file, hasher, algorithm, offset: 0, key: None, state: State::Writing })
    }

    pub(crate) fn resume(content: Content, digest: &Digest, guard: KeyGuard) -> Result<Self> {
        let algorithm = digest.algorithm();
        let complete = content.contains(digest);
        let path = if complete {
            content.blob_path(digest)
        } else {
            content.ingest_dir().join(format!("{}-{}", algorithm.name(), digest.hex()))
        };
        let mut options = OpenOptions::new();
        options.read(true);
        if !complete {
            options.write(true).create(true).truncate(false);
        }
        let mut file = options.open(&path).during("open", &path)?;
        let mut hasher = Hasher::new(algorithm);
        let offset = if complete {
            file.metadata().during("stat", &path)?.len()
        } else {
            hash_all(&mut file, &mut hasher).during("read", &path)?
        };
        let state = if complete { State::Complete } else { State::Writing };
        Ok(Self { content, path, file, hasher, algorithm, offset, key: Some((digest.clone(), guard)), state })
    }

    /// How many bytes are there.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes from 0 to `offset()` again, to feed an unpacker on resume.
    ///
    /// # Errors
    /// If the partial cannot be opened.
    pub fn written(&self) -> Result<impl Read + Send + use<>> {
        Ok(File::open(&self.path).during("open", &self.path)?.take(self.offset))
    }

    /// Forgets what was written and begins at 0 (the server ignored the range).
    ///
    /// # Errors
    /// If the partial cannot be truncated.
    pub fn restart(&mut self) -> Result<()> {
        if self.state == State::Complete {
            return Ok(());
        }
        self.file.set_len(0).during("truncate", &self.path)?;
        self.file.seek(SeekFrom::Start(0)).during("seek", &self.path)?;
        self.hasher = Hasher::new(self.algorithm);
        self.content.quota().give(self.offset);
        self.offset = 0;
        Ok(())
    }

    /// Verifies digest and size and makes the blob visible. If they are wrong the partial is removed.
    ///
    /// # Errors
    /// If digest or size are wrong, or the rename fails.
    pub fn commit(mut self, expected: Option<&Digest>, size: Option<u64>) -> Result<Digest> {
        let keyed = self.key.as_ref().map(|(digest, _)| digest.clone());
        let expected = expected.cloned().or(keyed);
        if self.state == State::Complete {
            return expected.ok_or_else(|| unreachable!("a complete ingest has a key"));
        }
        let verified = self.verify(expected.as_ref(), size);
        if verified.is_err() {
            self.remove();
        }
        let digest = verified?;
        let target = self.content.blob_path(&digest);
        if digest.algorithm() != Algorithm::Sha256 {
            let directory = target.parent().expect("a blob has a directory");
            fs::create_dir_all(directory).during("create", directory)?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        self.file.set_permissions(mode).during("chmod", &self.path)?;
        let there = target.metadata().map_or(0, |there| there.len());
        let renamed = self.content.pins().touch(&digest, || fs::rename(&self.path, &target));
        renamed.during("rename to", &target)?;
        self.content.quota().give(there);
        self.state = State::Finished;
        Ok(digest)
    }

    fn verify(&mut self, expected: Option<&Digest>, size: Option<u64>) -> Result<Digest> {
        if let Some(size) = size
            && size != self.offset
        {
            return Err(StoreError::Mismatch {
                what: format!("size of blob {}", expected.map_or("(unnamed)", Digest::as_str)),
                expected: size.to_string(),
                actual: self.offset.to_string(),
            });
        }
        let mut actual = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected {
            if expected.algorithm() != self.algorithm {
                let mut hasher = Hasher::new(expected.algorithm());
                let mut file = File::open(&self.path).during("open", &self.path)?;
                hash_all(&mut file, &mut hasher).during("read", &self.path)?;
                actual = hasher.finish();
            }
            if actual != *expected {
                return Err(StoreError::Mismatch {
                    what: "digest of blob".to_owned(),
                    expected: expected.to_string(),
                    actual: actual.to_string(),
                });
            }
        }
        Ok(actual)
    }

    /// Removes the partial.
    pub fn discard(mut self) {
        self.remove();
    }

    fn remove(&mut self) {
        if self.state == State::Writing {
            self.state = State::Finished;
            self.content.quota().give(self.offset);
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a partial blob");
            }
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.state == State::Complete {
            return Err(io::Error::other("the blob is complete already"));
        }
        self.content.quota().take(buffer.len() as u64).map_err(io::Error::other)?;
        let written = self.file.write(buffer);
        let n = *written.as_ref().unwrap_or(&0);
        self.content.quota().give((buffer.len() - n) as u64);
        written?;
        self.hasher.update(&buffer[..n]);
        self.offset += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Only what is worth resuming stays.
        if self.key.is_none() || self.offset == 0 {
            self.remove();
        }
    }
}

/// Hashes a file from its position to its end.
pub(crate) fn hash_all(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 17];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            n => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
        }
    }
}
