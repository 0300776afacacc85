//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::unpack::UnpackError;

/// Result of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The database refused.
    #[error("image database: {operation}: {source}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database is none, or damaged.
    #[error(
        "{}: {source}; bring it back from a backup, or start on an empty --root and pull, load and build the images again",
        .path.display()
    )]
    Damaged {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Another process has this store open.
    #[error("the image store {} is in use by another process; stop it, or choose another --root", .0.display())]
    Busy(PathBuf),
    /// A newer Berth made this store.
    #[error(
        "the image store has format {found}, but this Berth knows only up to {known}; use the newer Berth"
    )]
    Format {
        /// Format of the store.
        found: i64,
        /// Newest known.
        known: i64,
    },
    /// No image has this name or id (docker's wording: `No such image: x:latest`).
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// What the user typed is no image reference.
    #[error(transparent)]
    Reference(#[from] berth_oci::ReferenceError),
    /// More than one image id begins so.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// The image has several tags (docker: 409 unless force).
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    )]
    MultipleReferences {
        /// Short id.
        id: String,
    },
    /// The image has children that were built on it.
    #[error("conflict: unable to delete {id} (cannot be forced) - image has dependent child images")]
    HasChildren {
        /// Short id.
        id: String,
    },
    /// A blob, layer or snapshot that is not there.
    #[error("{kind} {key} is not in the store")]
    NotFound {
        /// `blob`, `layer`, `snapshot`…
        kind: &'static str,
        /// Which one.
        key: String,
    },
    /// A snapshot of this name exists.
    #[error("snapshot {0} already exists")]
    SnapshotExists(String),
    /// A name that is not fit for a directory.
    #[error("{0:?} cannot be the name of a snapshot: use letters, digits, '_', '.' and '-'")]
    SnapshotName(String),
    /// Content is not what its digest says.
    #[error("{what}: expected {expected}, got {actual}")]
    Mismatch {
        /// What was checked: `digest of …`, `size of …`, `diff-id of layer …`.
        what: String,
        /// As announced.
        expected: String,
        /// As found.
        actual: String,
    },
    /// A document of an image is malformed.
    #[error("{what} is malformed: {source}")]
    Json {
        /// Which one.
        what: String,
        /// Where.
        source: serde_json::Error,
    },
    /// A manifest was refused.
    #[error(transparent)]
    Document(#[from] berth_oci::DocumentError),
    /// A layer was refused.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Its diff-id, or what else is known of it.
        layer: String,
        /// Why.
        source: UnpackError,
    },
    /// The store's cap would be passed.
    #[error(transparent)]
    OverCap(#[from] crate::quota::OverCap),
    /// An archive was refused.
    #[error("{0}")]
    Archive(String),
    /// Reading or writing the caller's stream failed.
    #[error("{operation}: {source}")]
    Stream {
        /// Which stream.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Attaches operation and path to an I/O error.
pub(crate) trait IoContext<T> {
    fn during(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn during(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| StoreError::Io {
            operation,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}

/// Attaches the operation to a database error.
pub(crate) trait DbContext<T> {
    fn during_db(self, operation: &'static str) -> Result<T>;
}

impl<T> DbContext<T> for rusqlite::Result<T> {
    fn during_db(self, operation: &'static str) -> Result<T> {
        self.map_err(|source| StoreError::Database { operation, source })
    }
}
