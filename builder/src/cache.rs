//! The build cache: one small file per key, that says which layer the step made.
//!
//! A record is written to a temporary file and renamed, so that readers see all of it or nothing. A record whose layer
//! is gone from the store is a miss; nothing depends on a record being there. A record's layer is kept from the
//! store's garbage collection until the record is pruned.
//!
//! A use adds one blank at the end of the file, which JSON allows: their number says how often the record was used, and
//! the file's modification time when. Writing the record anew would cost a cached build most of its time.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_oci::{DiffId, Digest};
use berth_store::Store;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::fault::{At, store};
use crate::key::KeyInputs;

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The layer.
    pub(crate) layer: DiffId,
    /// The time of what was made, which does not depend on when it was made; goes into the history of every image
    /// that uses it.
    pub(crate) created: Timestamp,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The step, for people.
    #[serde(default)]
    pub(crate) description: String,
    /// When the step ran.
    #[serde(default)]
    pub(crate) made: Timestamp,
    /// When the record was used last.
    #[serde(default)]
    pub(crate) used: Timestamp,
    /// How often.
    #[serde(default)]
    pub(crate) uses: u64,
    /// What the key was made of.
    pub(crate) inputs: Vec<(String, String)>,
}

/// Records of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheRecords {
    pub(crate) records: Vec<(Digest, Record)>,
    /// Names of cache mounts.
    pub(crate) mounts: Vec<String>,
}

impl CacheRecords {
    /// All records of several builds, each once.
    pub(crate) fn join(all: Vec<Self>) -> Self {
        let mut joined = Self::default();
        for one in all {
            joined.records.extend(one.records);
            joined.mounts.extend(one.mounts);
        }
        joined.records.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        joined.records.dedup_by(|(a, _), (b, _)| a == b);
        joined.mounts.sort();
        joined.mounts.dedup();
        joined
    }
}

/// The cache in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(crate) fn new(builds: &Path) -> Self {
        Self { dir: builds.join("cache") }
    }

    pub(crate) fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(format!("{}.json", key.hex()))
    }

    /// A record that cannot be read is a miss.
    pub(crate) fn get(&self, key: &Digest) -> Option<Record> {
        let bytes = fs::read(self.path(key)).ok()?;
        match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) => {
                let uses = bytes.iter().rev().take_while(|byte| **byte == b' ').count() as u64;
                Some(Record { uses: record.uses + uses, ..record })
            }
            Err(error) => {
                tracing::warn!(%key, %error, "unreadable build cache record");
                None
            }
        }
    }

    /// Counts a use.
    pub(crate) fn touch(&self, key: &Digest) {
        let file = fs::OpenOptions::new().append(true).open(self.path(key));
        if let Err(error) = file.and_then(|mut file| file.write_all(b" ")) {
            tracing::debug!(%error, "the use of a cache record cannot be noted");
        }
    }

    /// Records what a step made.
    pub(crate) fn put(&self, images: &Store, key: &KeyInputs, record: Record) -> Result<Record, BuildError> {
        let now = Timestamp::now();
        let record = Record { inputs: key.inputs.clone(), made: now, used: now, ..record };
        self.adopt(images, &key.digest(), &record)?;
        Ok(record)
    }

    /// Takes a record as it is.
    pub(crate) fn adopt(&self, images: &Store, key: &Digest, record: &Record) -> Result<(), BuildError> {
        images.layers().keep(&record.layer).map_err(store)?;
        self.write(key, record)
    }

    fn write(&self, key: &Digest, record: &Record) -> Result<(), BuildError> {
        let path = self.path(key);
        fs::create_dir_all(&self.dir).at("create directory", &self.dir)?;
        let bytes = serde_json::to_vec(record).map_err(std::io::Error::from).at("write", &path)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).at("create a file in", &self.dir)?;
        file.write_all(&bytes).at("write", &path)?;
        file.persist(&path).map_err(|e| e.error).at("write", &path)?;
        Ok(())
    }

    /// All records with their keys and the bytes that each record itself takes.
    pub(crate) fn list(&self) -> Result<Vec<(Digest, Record, u64)>, BuildError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            entries => entries.at("list", &self.dir)?,
        };
        for entry in entries {
            let entry = entry.at("list", &self.dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(key) = name.strip_suffix(".json") else { continue };
            let Ok(key) = Digest::parse(&format!("sha256:{key}")) else { continue };
            let Some(mut record) = self.get(&key) else { continue };
            let Ok(meta) = entry.metadata() else { continue };
            let touched = meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
            record.used = touched.map_or(record.used, |time| record.used.max(time));
            found.push((key, record, meta.len()));
        }
        Ok(found)
    }

    /// Forgets a record. Its layer is let go unless another record has it.
    pub(crate) fn remove(
        &self,
        images: &Store,
        key: &Digest,
        layer_is_shared: bool,
    ) -> Result<(), BuildError> {
        let Some(record) = self.get(key) else { return Ok(()) };
        let path = self.path(key);
        fs::remove_file(&path).at("remove", &path)?;
        if !layer_is_shared {
            images.layers().let_go(&record.layer).map_err(store)?;
        }
        Ok(())
    }
}

/// What somebody selected from a tree that never changes, by what was asked for: the digest of the files, so that the
/// tree needs no look.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    dir: PathBuf,
}

impl Selected {
    pub(crate) fn new(builds: &Path) -> Self {
        Self { dir: builds.join("selected") }
    }

    /// Digest of the files, and their newest modification time.
    pub(crate) fn get(&self, question: &Digest) -> Option<(String, i64)> {
        let text = fs::read_to_string(self.dir.join(question.hex())).ok()?;
        let (digest, newest) = text.split_once(' ')?;
        Some((digest.to_owned(), newest.parse().ok()?))
    }

    pub(crate) fn put(&self, question: &Digest, digest: &str, newest: i64) {
        let path = self.dir.join(question.hex());
        let saved =
            fs::create_dir_all(&self.dir).and_then(|()| fs::write(path, format!("{digest} {newest}")));
        if let Err(error) = saved {
            tracing::debug!(%error, "a selection cannot be remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let images = Store::open(dir.path().join("store")).unwrap();
        let cache = Cache::new(dir.path());
        let mut key = KeyInputs::new("RUN", "p");
        key.add("command", "true");
        assert!(cache.get(&key.digest()).is_none());
        let record = Record {
            layer: DiffId(Digest::of(b"x")),
            created: Timestamp::UNIX_EPOCH,
            size: 7,
            description: "RUN true".into(),
            made: Timestamp::UNIX_EPOCH,
            used: Timestamp::UNIX_EPOCH,
            uses: 0,
            inputs: Vec::new(),
        };
        cache.put(&images, &key, record).unwrap();
        let record = cache.get(&key.digest()).unwrap();
        assert_eq!((&record.layer, record.size), (&DiffId(Digest::of(b"x")), 7));
        assert_eq!(record.inputs.last().unwrap().1, "true");
        for uses in 1..=3 {
            cache.touch(&key.digest());
            let (_, listed, _) = cache.list().unwrap().remove(0);
            assert_eq!((listed.uses, &listed.layer), (uses, &record.layer));
            assert!(listed.used > record.used);
        }
        fs::write(cache.path(&key.digest()), "{").unwrap();
        assert!(cache.get(&key.digest()).is_none());
    }
}
