//! The OCI bundle of a container: its run directory with config.json.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use berth_shim_protocol::{files, oci};

use crate::ClientError;

/// Make the directory (0700, with its parents) unless it exists, and write config.json into it.
///
/// # Errors
/// When the directory or the file cannot be made.
pub fn write(dir: &Path, spec: &oci::Spec) -> Result<(), ClientError> {
    let failed = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |source| ClientError::File { operation, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create the directory", dir))?;
    let path = dir.join(files::CONFIG);
    let text = serde_json::to_vec(spec).map_err(io::Error::from).map_err(failed("serialise", &path))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("create", &path))?;
    file.write_all(&text).map_err(failed("write", &path))
}

/// Remove the run directory of a container that has ended or never was, with all records in it.
///
/// # Errors
/// When something in it cannot be removed; that it does not exist is none.
pub fn remove(dir: &Path) -> Result<(), ClientError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ClientError::File { operation: "remove", path: dir.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}
