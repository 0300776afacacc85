//! What the parts of the store have in common: the database, the content, the places of things.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use berth_oci::DiffId;
use nix::fcntl::Flock;

use crate::content::Content;
use crate::db::Db;
use crate::error::{IoContext, Result};
use crate::locks::KeyLocks;
use crate::pins::Pins;
use crate::quota::Quota;
use crate::unpack::Limits;

/// Makes names in the trash unique; the trash is emptied before the first of a process.
static TRASHED: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) db: Arc<Db>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) content: Content,
    pub(crate) layer_locks: KeyLocks,
    /// One removal at a time: each decides by what images there are, and another would take them from under it.
    pub(crate) removals: Mutex<()>,
    pub(crate) limits: Limits,
    pub(crate) quota: Arc<Quota>,
    /// Held as long as the store is open.
    pub(crate) _lock: Flock<File>,
}

impl Shared {
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer_path(&self, diff_id: &DiffId) -> PathBuf {
        self.layers_dir().join(diff_id.hex())
    }

    /// A lower directory for trees without layers.
    pub(crate) fn empty_layer(&self) -> PathBuf {
        self.layers_dir().join("empty")
    }

    pub(crate) fn snapshot_path(&self, key: &str) -> PathBuf {
        self.root.join("snapshots").join(key)
    }

    /// A new directory for something half-made. It is removed on drop, and at the next start.
    pub(crate) fn temporary(&self, prefix: &str) -> Result<tempfile::TempDir> {
        let directory = self.root.join("tmp");
        tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&directory)
            .during("create a directory in", &directory)
    }

    /// Takes a tree out of sight at once; [`Self::empty_trash`] removes it. False if there is none.
    pub(crate) fn to_trash(&self, path: &Path) -> Result<bool> {
        // A name of its own, not a directory made for it: another thread may empty the trash at any time.
        let number = TRASHED.fetch_add(1, Ordering::Relaxed);
        let place = self.root.join("trash").join(format!("{}-{number}", std::process::id()));
        match fs::rename(path, &place) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).during("remove", path),
        }
    }

    /// Removes what is in the trash; what cannot be removed stays until the next time.
    pub(crate) fn empty_trash(&self) {
        empty_directory(&self.root.join("trash"));
    }
}

/// Removes everything in a directory of the store, as far as possible.
pub(crate) fn empty_directory(directory: &Path) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(path = %directory.display(), %error, "cannot list"),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|t| t.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove");
            }
            _ => {}
        }
    }
}

/// Opens a directory of the store.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    Ok(File::open(path).during("open", path)?.into())
}

/// Identifies this boot: what was written in another one and not synced may be damaged.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
