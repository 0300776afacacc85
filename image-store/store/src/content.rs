//! Blobs, in an OCI image layout (OCI image spec, image-layout.md).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::{Digest, Hasher};

use crate::error::{IoContext, Result, StoreError};
use crate::ingest::{Ingest, hash_all};
use crate::locks::KeyLocks;
use crate::pins::Pins;
use crate::quota::Quota;

/// Blobs by digest. What is visible here was verified.
#[derive(Clone)]
pub struct Content {
    root: PathBuf,
    pins: Arc<Pins>,
    quota: Arc<Quota>,
    locks: KeyLocks,
    /// Blobs that were made durable, by what tells their files from others of the same name.
    synced: Arc<Mutex<HashMap<Digest, Identity>>>,
}

/// Inode, and time of its last change.
type Identity = (u64, i64, i64);

fn identity(file: &File) -> std::io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

impl Content {
    pub(crate) fn new(root: PathBuf, pins: Arc<Pins>, quota: Arc<Quota>) -> Result<Self> {
        for directory in ["blobs/sha256", "ingest"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).during("create", &path)?;
        }
        let layout = root.join("oci-layout");
        if !layout.exists() {
            write_atomically(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        let index = root.join("index.json");
        if !index.exists() {
            write_atomically(&index, &crate::index::empty())?;
        }
        Ok(Self { root, pins, quota, locks: KeyLocks::default(), synced: Arc::default() })
    }

    /// The directory of the layout, for tools that read it in place.
    pub fn layout(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    pub(crate) fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Whether the blob is there, complete.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.pins.touch(digest, || self.blob_path(digest).is_file())
    }

    /// Its size.
    ///
    /// # Errors
    /// If it is not there.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        let path = self.blob_path(digest);
        let metadata = self.pins.touch(digest, || fs::metadata(&path));
        metadata.map(|m| m.len()).map_err(|e| missing(e, digest, path))
    }

    /// Opens it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        let file = self.pins.touch(digest, || File::open(&path));
        file.map_err(|e| missing(e, digest, path))
    }

    /// Reads it whole, at most `max` bytes.
    ///
    /// # Errors
    /// If it is not there or larger.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open(digest)?;
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).during("read", self.blob_path(digest))?;
        if bytes.len() as u64 > max {
            let actual = self.size(digest)?.to_string();
            return Err(StoreError::Mismatch {
                what: format!("size of blob {digest}"),
                expected: format!("at most {max}"),
                actual,
            });
        }
        Ok(bytes)
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.contains(&digest) {
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).during("write", self.blob_path(&digest))?;
        ingest.commit(Some(&digest), Some(bytes.len() as u64))
    }

    /// Begins a blob of which the digest is not known. If dropped before commit it is gone.
    ///
    /// # Errors
    /// If no file can be made.
    pub fn ingest(&self) -> Result<Ingest> {
        Ingest::anonymous(self.clone())
    }

    /// Begins or resumes a blob: [`Ingest::offset`] bytes are there already. If dropped before commit the
    /// partial stays for the next attempt. Blocks while another thread ingests the same digest; if that one
    /// completed it, all bytes are "there already" and `commit` has nothing to do.
    ///
    /// # Errors
    /// If the partial cannot be opened.
    pub fn ingest_for(&self, digest: &Digest) -> Result<Ingest> {
        let guard = self.locks.lock(digest.as_str());
        Ingest::resume(self.clone(), digest, guard)
    }

    /// Makes a blob durable now, so that nobody has to wait for it at the end.
    ///
    /// # Errors
    /// If it is not there or the disk refuses.
    pub fn settle(&self, digest: &Digest) -> Result<()> {
        self.open(digest)?.sync_data().during("sync", self.blob_path(digest))
    }

    /// Makes blobs durable. What was made so before costs nothing: even of a clean inode a sync empties the disk's cache.
    pub(crate) fn sync<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Result<()> {
        let mut fresh = Vec::new();
        for digest in digests {
            let file = match self.open(digest) {
                Ok(file) => file,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let identity = identity(&file).during("stat", self.blob_path(digest))?;
            if self.synced().get(digest) != Some(&identity) {
                file.sync_data().during("sync", self.blob_path(digest))?;
                fresh.push((digest.clone(), identity));
            }
        }
        if !fresh.is_empty() {
            let directory = self.root.join("blobs/sha256");
            File::open(&directory).and_then(|d| d.sync_all()).during("sync", &directory)?;
        }
        self.synced().extend(fresh);
        Ok(())
    }

    fn synced(&self) -> MutexGuard<'_, HashMap<Digest, Identity>> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a blob away that nothing refers to any more.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        fs::remove_file(&path).during("remove", &path)?;
        self.synced().remove(digest);
        Ok(())
    }

    /// The digest of what a blob holds now.
    pub(crate) fn digest_of(&self, digest: &Digest) -> Result<Digest> {
        let mut hasher = Hasher::new(digest.algorithm());
        hash_all(&mut self.open(digest)?, &mut hasher).during("read", self.blob_path(digest))?;
        Ok(hasher.finish())
    }

    /// All blobs that are there.
    pub(crate) fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in ["sha256", "sha384", "sha512"] {
            let directory = self.root.join("blobs").join(algorithm);
            if !directory.exists() {
                continue;
            }
            for entry in fs::read_dir(&directory).during("list", &directory)? {
                let name = entry.during("list", &directory)?.file_name();
                let digest = name.to_str().and_then(|n| Digest::parse(&format!("{algorithm}:{n}")).ok());
                found.extend(digest);
            }
        }
        Ok(found)
    }
}

fn missing(error: std::io::Error, digest: &Digest, path: PathBuf) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::NotFound { kind: "blob", key: digest.to_string() },
        _ => StoreError::Io { operation: "open", path, source: error },
    }
}

/// Writes a file so that it has either its old or its new content, also after a power cut.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().expect("a file of the store has a directory");
    let mut temporary = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)
        .during("create a file in", directory)?;
    temporary.write_all(bytes).during("write", temporary.path())?;
    let file = temporary.as_file();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).during("chmod", path)?;
    file.sync_data().during("sync", path)?;
    temporary.persist(path).map_err(|e| e.error).during("rename to", path)?;
    Ok(())
}
