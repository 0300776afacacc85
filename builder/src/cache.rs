//! The build cache: one small file per key, that says which layer the step made.
//!
//! A record is written to a temporary file and renamed, so that readers see all of it or nothing. A record whose layer
//! is gone from the store is a miss; nothing depends on a record being there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_oci::{DiffId, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::fault::At;
use crate::key::KeyInputs;

/// What a step made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The layer.
    pub(crate) layer: DiffId,
    /// When it was made; goes into the history of every image that uses it.
    pub(crate) created: Timestamp,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// What the key was made of.
    pub(crate) inputs: Vec<(String, String)>,
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

    fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(format!("{}.json", key.hex()))
    }

    /// A record that cannot be read is a miss.
    pub(crate) fn get(&self, key: &Digest) -> Option<Record> {
        let bytes = fs::read(self.path(key)).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(%key, %error, "unreadable build cache record");
                None
            }
        }
    }

    pub(crate) fn put(
        &self,
        key: &KeyInputs,
        layer: &DiffId,
        size: u64,
        created: Timestamp,
    ) -> Result<(), BuildError> {
        fs::create_dir_all(&self.dir).at("create directory", &self.dir)?;
        let digest = key.digest();
        let record = Record { layer: layer.clone(), created, size, inputs: key.inputs.clone() };
        let path = self.path(&digest);
        let bytes = serde_json::to_vec(&record).map_err(std::io::Error::from).at("write", &path)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).at("create a file in", &self.dir)?;
        file.write_all(&bytes).at("write", &path)?;
        file.persist(&path).map_err(|e| e.error).at("write", &path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let mut key = KeyInputs::new("RUN", "p");
        key.add("command", "true");
        assert!(cache.get(&key.digest()).is_none());
        let layer = DiffId(Digest::of(b"x"));
        cache.put(&key, &layer, 7, Timestamp::UNIX_EPOCH).unwrap();
        let record = cache.get(&key.digest()).unwrap();
        assert_eq!((record.layer, record.size), (layer, 7));
        assert_eq!(record.inputs.last().unwrap().1, "true");
        fs::write(cache.path(&key.digest()), "{").unwrap();
        assert!(cache.get(&key.digest()).is_none());
    }
}
