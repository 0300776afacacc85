//! Files in the run directory. It is on a tmpfs: a record is there or not, but never half; it need not outlive the
//! host, for the container does not either, and so nothing is synced.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use berth_cgroup::Unit;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What is needed to clean up after a shim that was killed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leftovers {
    /// The container's cgroup, below each hierarchy's root.
    pub(crate) cgroup: PathBuf,
    /// The systemd unit whose cgroup it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
}

/// A file of the run directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", .path.display())]
pub(crate) struct RecordError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl RecordError {
    fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// Put a record in its place.
pub(crate) fn write<T: Serialize>(dir: &Path, name: &str, record: &T) -> Result<(), RecordError> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.tmp"));
    let text =
        serde_json::to_vec(record).map_err(|error| RecordError::new("serialise", &path, error.into()))?;
    fs::write(&temporary, text).map_err(|error| RecordError::new("write", &temporary, error))?;
    fs::rename(&temporary, &path).map_err(|error| RecordError::new("put in place", &path, error))
}

/// Read a record; none if there is none.
pub(crate) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, RecordError> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| RecordError::new("understand", &path, error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecordError::new("read", &path, error)),
    }
}

/// Remove a file; that there is none is no error.
pub(crate) fn remove(dir: &Path, name: &str) -> Result<(), RecordError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(RecordError::new("remove", &path, error)),
        _ => Ok(()),
    }
}

/// Remove a file if nothing was written to it.
pub(crate) fn remove_empty(dir: &Path, name: &str) -> Result<(), RecordError> {
    match fs::metadata(dir.join(name)) {
        Ok(metadata) if metadata.len() == 0 => remove(dir, name),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_and_go_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let leftovers = Leftovers { cgroup: "/berth/x".into(), unit: None };
        write(dir.path(), "r.json", &leftovers).unwrap();
        assert_eq!(read(dir.path(), "r.json").unwrap(), Some(leftovers));
        fs::write(dir.path().join("r.json"), "{").unwrap();
        let error = read::<Leftovers>(dir.path(), "r.json").unwrap_err().to_string();
        assert!(error.contains("r.json"), "{error}");
        remove(dir.path(), "r.json").unwrap();
        remove(dir.path(), "r.json").unwrap();
        assert_eq!(read::<Leftovers>(dir.path(), "r.json").unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
