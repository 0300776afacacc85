//! The records that shims leave in the run directory.

use std::{collections::BTreeMap, fs, io, path::Path};

use berth_shim_protocol::{ExecRecord, ExitRecord, files};
use serde::de::DeserializeOwned;

use crate::ClientError;

/// How the container of this run directory ended; none if it has not, or if its shim was killed first.
///
/// # Errors
/// When there is a record that cannot be read.
pub fn read_exit(dir: &Path) -> Result<Option<ExitRecord>, ClientError> {
    read(&dir.join(files::EXIT))
}

/// The execs whose end is recorded in this run directory.
pub(crate) fn read_execs(dir: &Path) -> Result<BTreeMap<String, ExecRecord>, ClientError> {
    let mut execs = BTreeMap::new();
    for name in names(dir)? {
        if let Some(exec_id) = files::exec_id_of(&name)
            && let Some(record) = read::<ExecRecord>(&dir.join(&name))?
        {
            execs.insert(exec_id.to_owned(), record);
        }
    }
    Ok(execs)
}

/// Remove one exec's record; that there is none is no error.
pub(crate) fn remove_exec(dir: &Path, exec_id: &str) -> Result<(), ClientError> {
    if !files::valid_exec_id(exec_id) {
        return Ok(());
    }
    remove(&dir.join(files::exec_record(exec_id)))
}

/// Remove what an earlier container of the same directory left: a new shim must not be taken for it.
pub(crate) fn remove_all(dir: &Path) -> Result<(), ClientError> {
    for name in names(dir)? {
        if name == files::EXIT || name == files::SHIM_LOG || files::exec_id_of(&name).is_some() {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, ClientError> {
    let failed = |source| ClientError::File { operation: "list", path: dir.to_path_buf(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn remove(path: &Path) -> Result<(), ClientError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ClientError::File { operation: "remove", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ClientError> {
    let failed = |source| ClientError::File { operation: "read", path: path.to_path_buf(), source };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::from).map_err(failed),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(source)),
    }
}
