//! What is promised, on disk.
//!
//! ```text
//! <state_dir>/networks.json          all networks: synced, because users made them
//! <state_dir>/endpoints/<id>.json    one file per endpoint: atomic but not synced, because no container
//!                                    survives what loses it (a power cut)
//! ```
//!
//! Every write goes to a temporary name, then is renamed: a reader sees the old text or the new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{Endpoint, Network};

/// Version of both formats; a reader refuses a higher one.
const VERSION: u32 = 1;

/// The record on disk could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file system failed.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not what this version writes.
    #[error("cannot understand {path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A newer version wrote it.
    #[error(
        "{path} has format {found}, this version knows up to {VERSION}: upgrade Berth or move the file away"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Serialize, Deserialize)]
struct Networks {
    networks: Vec<Network>,
}

#[derive(Serialize, Deserialize)]
struct One {
    endpoint: Endpoint,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    networks: PathBuf,
    endpoints: PathBuf,
}

impl StateDir {
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let endpoints = dir.join("endpoints");
        fs::create_dir_all(&endpoints).map_err(failed("create directory", &endpoints))?;
        Ok(Self { networks: dir.join("networks.json"), endpoints })
    }

    /// The networks; none when there is no record yet.
    pub(crate) fn read_networks(&self) -> Result<Vec<Network>, StateError> {
        match fs::read(&self.networks) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(failed("read", &self.networks)(e)),
            Ok(text) => Ok(parse::<Networks>(&self.networks, &text)?.networks),
        }
    }

    /// On disk when this returns, also across a power cut.
    pub(crate) fn write_networks<'a>(
        &self,
        networks: impl Iterator<Item = &'a Network>,
    ) -> Result<(), StateError> {
        write(&self.networks, &Networks { networks: networks.cloned().collect() }, true)
    }

    /// The endpoints. A file that makes no sense is dropped with a warning: it cannot belong to a live container
    /// unless somebody wrote into it.
    pub(crate) fn read_endpoints(&self) -> Result<Vec<Endpoint>, StateError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.endpoints).map_err(failed("list", &self.endpoints))? {
            let path = entry.map_err(failed("list", &self.endpoints))?.path();
            let record = if path.extension().is_some_and(|e| e == "json") {
                fs::read(&path).map_err(failed("read", &path)).and_then(|text| parse::<One>(&path, &text))
            } else {
                // A temporary file of a write that never finished.
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                continue;
            };
            match record {
                Ok(one) => found.push(one.endpoint),
                Err(error) => {
                    tracing::warn!(%error, "dropping an endpoint record");
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn write_endpoint(&self, endpoint: &Endpoint) -> Result<(), StateError> {
        write(&self.endpoint_path(&endpoint.id), &One { endpoint: endpoint.clone() }, false)
    }

    /// Strikes an endpoint off; that it is not there is fine.
    pub(crate) fn remove_endpoint(&self, id: &str) -> Result<(), StateError> {
        let path = self.endpoint_path(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    fn endpoint_path(&self, id: &str) -> PathBuf {
        self.endpoints.join(format!("{id}.json"))
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { operation, path, source }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, StateError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let format = |source| StateError::Format { path: path.to_owned(), source };
    let head: Head = serde_json::from_slice(text).map_err(format)?;
    if head.version > VERSION {
        return Err(StateError::Version { path: path.to_owned(), found: head.version });
    }
    serde_json::from_slice::<Versioned<T>>(text).map(|v| v.content).map_err(format)
}

fn write<T: Serialize>(path: &Path, content: &T, durable: bool) -> Result<(), StateError> {
    let text = serde_json::to_vec(&Versioned { version: VERSION, content })
        .map_err(|source| StateError::Format { path: path.to_owned(), source })?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(failed("create", &temporary))?;
    file.write_all(&text).map_err(failed("write", &temporary))?;
    if durable {
        file.sync_all().map_err(failed("sync", &temporary))?;
    }
    drop(file);
    fs::rename(&temporary, path).map_err(failed("rename into place", path))?;
    if durable {
        let dir = path.parent().unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync directory", dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_endpoint_record_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("endpoints/abc.json"), b"").unwrap();
        fs::write(dir.path().join("endpoints/def.tmp"), b"{").unwrap();
        assert!(state.read_endpoints().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("endpoints")).unwrap().count(), 0);
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let text = br#"{"version":2,"networks":[]}"#;
        fs::write(dir.path().join("networks.json"), text).unwrap();
        assert!(matches!(state.read_networks(), Err(StateError::Version { found: 2, .. })));
        assert_eq!(fs::read(dir.path().join("networks.json")).unwrap(), text);
    }
}
