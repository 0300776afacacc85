//! Writable trees on top of layers, for containers and build steps.
//!
//! ```text
//! create ──▶ upper/ + work/ ──mount (any number of times, detached)──▶ …
//!                 ├──commit──▶ upper is a layer, the snapshot is gone
//!                 ├──capture─▶ a layer of a copy, the snapshot goes on
//!                 └──remove──▶ gone
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_oci::DiffId;
use berth_sys::mountfd::{self, Overlay};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{IoContext, Result, StoreError};
use crate::fixup::{Attributes, lower_directories, root_attributes};
use crate::layers::{LayerInfo, Layers, Row, canonical_digest, pack_error};
use crate::pack::{Form, names, pack_without};
use crate::pipe::{CHUNK, pipe};
use crate::shared::{Shared, open_directory};
use crate::tidy::{Retime, tidy};

/// What an upper directory may use must be understood by a plain lower one: no redirects, no metadata-only
/// copies, no index.
const OPTIONS: &[(&str, Option<&str>)] =
    &[("redirect_dir", Some("off")), ("metacopy", Some("off")), ("index", Some("off"))];

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// A writable tree on top of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub key: String,
    /// Its layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Directories of the layers, top first; never empty.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: PathBuf,
    /// overlayfs's own.
    pub work: PathBuf,
}

/// Snapshots.
#[derive(Clone)]
pub struct Snapshots {
    pub(crate) shared: Arc<Shared>,
}

impl Snapshots {
    fn layers(&self) -> Layers {
        Layers { shared: self.shared.clone() }
    }

    /// Makes one. `key` is letters, digits, `_`, `.` and `-`.
    ///
    /// # Errors
    /// If it exists, or a layer does not.
    pub fn create(&self, key: &str, layers: &[DiffId]) -> Result<Snapshot> {
        let _guard = self.shared.layer_locks.lock(&format!("snapshot {key}"));
        check_name(key)?;
        if self.exists(key)? {
            return Err(StoreError::SnapshotExists(key.to_owned()));
        }
        let snapshot = self.describe(key, layers.to_vec())?;
        let place = self.shared.snapshot_path(key);
        // A directory without a row is what a crash left.
        self.shared.to_trash(&place)?;
        // Intent first: the row keeps the layers from `gc`.
        self.shared.db.transaction("record a snapshot", |tx| {
            tx.execute("INSERT INTO snapshots (key) VALUES (?1)", [key])?;
            let mut insert = tx
                .prepare_cached("INSERT INTO snapshot_layers (key, position, diff_id) VALUES (?1, ?2, ?3)")?;
            for (position, diff_id) in layers.iter().enumerate() {
                insert.execute((key, position, diff_id.as_str()))?;
            }
            Ok(())
        })?;
        let made = fs::create_dir_all(&snapshot.upper)
            .and_then(|()| fs::create_dir(&snapshot.work))
            .during("create", &place)
            .and_then(|()| root_attributes(&self.layers(), layers)?.apply(&snapshot.upper));
        if let Err(error) = made {
            if let Err(cleanup) = self.remove(key) {
                tracing::warn!(key, error = %cleanup, "cannot remove a half-made snapshot");
            }
            return Err(error);
        }
        Ok(snapshot)
    }

    fn describe(&self, key: &str, layers: Vec<DiffId>) -> Result<Snapshot> {
        let place = self.shared.snapshot_path(key);
        Ok(Snapshot {
            key: key.to_owned(),
            lower: lower_directories(&self.layers(), &layers)?,
            layers,
            upper: place.join("upper"),
            work: place.join("work"),
        })
    }

    fn exists(&self, key: &str) -> Result<bool> {
        self.shared.db.with("look up a snapshot", |db| {
            db.prepare_cached("SELECT 1 FROM snapshots WHERE key = ?1")?.exists([key])
        })
    }

    /// Finds one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<Snapshot>> {
        if !self.exists(key)? {
            return Ok(None);
        }
        let texts: Vec<String> = self.shared.db.with("look up a snapshot", |db| {
            db.prepare_cached("SELECT diff_id FROM snapshot_layers WHERE key = ?1 ORDER BY position")?
                .query_map([key], |row| row.get(0))?
                .collect()
        })?;
        let layers = texts.iter().filter_map(|text| DiffId::parse(text).ok()).collect();
        self.describe(key, layers).map(Some)
    }

    pub(crate) fn required(&self, key: &str) -> Result<Snapshot> {
        self.get(key)?.ok_or_else(|| StoreError::NotFound { kind: "snapshot", key: key.to_owned() })
    }

    /// All keys.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        self.shared.db.with("list snapshots", |db| {
            db.prepare_cached("SELECT key FROM snapshots ORDER BY key")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Removes one; it is no error if there is none.
    ///
    /// # Errors
    /// If it cannot be moved away.
    pub fn remove(&self, key: &str) -> Result<()> {
        check_name(key)?;
        self.shared.to_trash(&self.shared.snapshot_path(key))?;
        let forgotten = self.forget(key);
        self.shared.empty_trash();
        // On a disk that was full it can be written down now.
        forgotten.or_else(|_| self.forget(key))
    }

    fn forget(&self, key: &str) -> Result<()> {
        self.shared
            .db
            .with("forget a snapshot", |db| db.execute("DELETE FROM snapshots WHERE key = ?1", [key]))?;
        Ok(())
    }

    /// A detached writable mount of it. It lives as long as the descriptor.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mount(&self, key: &str) -> Result<OwnedFd> {
        self.mount_with(key, OPTIONS)
    }

    /// The same for a snapshot that nobody wants after a crash: when the mount ends nothing is written to the disk.
    /// (The kernel would flush the whole file system.) Such a snapshot can be mounted only once.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mount_volatile(&self, key: &str) -> Result<OwnedFd> {
        let options: Vec<_> = OPTIONS.iter().copied().chain([("volatile", None)]).collect();
        self.mount_with(key, &options)
    }

    fn mount_with(&self, key: &str, options: &[(&str, Option<&str>)]) -> Result<OwnedFd> {
        let snapshot = self.required(key)?;
        let lower: Vec<&Path> = snapshot.lower.iter().map(PathBuf::as_path).collect();
        let overlay = Overlay {
            lower: &lower,
            upper: Some(&snapshot.upper),
            work: Some(&snapshot.work),
            options,
            attrs: 0,
        };
        mountfd::overlay(&overlay).during("mount", &snapshot.upper)
    }

    /// A detached read-only mount of some layers.
    ///
    /// # Errors
    /// If a layer is not there or the kernel refuses.
    pub fn mount_ro(&self, layers: &[DiffId]) -> Result<OwnedFd> {
        let mut lower = lower_directories(&self.layers(), layers)?;
        // Without an upper directory the kernel wants two lower ones.
        if lower.len() == 1 {
            lower.push(match layers.is_empty() {
                true => self.shared.root.join("layers/empty2"),
                false => self.shared.empty_layer(),
            });
        }
        let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
        let attrs = mountfd::attr::RDONLY;
        let overlay = Overlay { lower: &lower, upper: None, work: None, options: OPTIONS, attrs };
        mountfd::overlay(&overlay).during("mount", lower[0])
    }

    /// Upper becomes a layer, without copying; the snapshot is gone. Nothing may have it mounted any more. What upper
    /// holds is first reduced to what differs from the layers below, and what has a time that `retime` speaks of
    /// gets the one that it names.
    ///
    /// # Errors
    /// If upper cannot be read or moved; the snapshot is then still there.
    pub fn commit(&self, key: &str, retime: Option<Retime>) -> Result<LayerInfo> {
        let snapshot = self.required(key)?;
        let upper = open_directory(&snapshot.upper)?;
        let form = self.form(&snapshot)?;
        let base = if snapshot.layers.is_empty() || names(&upper).during("list", &snapshot.upper)?.is_empty()
        {
            None
        } else {
            let mount = self.mount_ro(&snapshot.layers)?;
            Some(openat(&mount, ".", DIRECTORY, Mode::empty()).during("open", &snapshot.upper)?)
        };
        tidy(&upper, base.as_ref(), retime, &snapshot.upper)?;
        let (digest, packed) = canonical_digest(&snapshot.upper, form)?;
        let row = row_of(form, packed.size, packed.tar_size);
        // It is on the disk already; from now on it counts.
        self.shared.quota.found(packed.size);
        let info = self.layers().adopt(&snapshot.upper, DiffId(digest), &row)?;
        self.remove(key)?;
        Ok(info)
    }

    /// A layer of what upper holds now, by copying; the snapshot goes on (`docker commit`). Empty files and directories
    /// at `places` (relative paths) are left out: they were only made to mount something on.
    ///
    /// # Errors
    /// If upper cannot be read or the copy not be written.
    pub fn capture(&self, key: &str, places: &[&Path]) -> Result<LayerInfo> {
        let snapshot = self.required(key)?;
        let form = self.form(&snapshot)?;
        let upper = open_directory(&snapshot.upper)?;
        let (to, from) = pipe();
        let (packed, unpacked) = std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let mut to = std::io::BufWriter::with_capacity(CHUNK, to);
                let packed = pack_without(upper.as_fd(), form, places, &mut to);
                if packed.is_err() {
                    let (to, _) = to.into_parts();
                    to.fail(std::io::Error::other("the tree could not be read"));
                }
                packed
            });
            let unpacked = self.layers().unpack(from, None);
            (packing.join().expect("the packing thread does not panic"), unpacked)
        });
        // The reader's failure is the cause of the writer's, and the other way round: the first tells more.
        let info = match (packed, unpacked) {
            (_, Ok(info)) => info,
            (Err(error), _) if error.source.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(pack_error(error, &snapshot.upper));
            }
            (_, Err(error)) => return Err(error),
        };
        self.layers().try_canonical(&info.diff_id)?;
        Ok(info)
    }

    /// The root is part of the layer only if its owner, mode or attributes were changed.
    fn form(&self, snapshot: &Snapshot) -> Result<Form> {
        let below = root_attributes(&self.layers(), &snapshot.layers)?;
        let now = Attributes::of(&open_directory(&snapshot.upper)?, &snapshot.upper)?;
        Ok(Form::Layer { root: !now.same_but_time(&below) })
    }

    /// Bytes of the files in all writable trees, found by a walk.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn total_size(&self) -> Result<u64> {
        crate::usage::file_bytes(&self.shared.root.join("snapshots"))
    }

    /// Bytes of the files in upper, each inode once.
    ///
    /// # Errors
    /// If upper cannot be read.
    pub fn size(&self, key: &str) -> Result<u64> {
        let snapshot = self.required(key)?;
        crate::usage::file_bytes(&snapshot.upper)
    }
}

fn row_of(form: Form, size: u64, tar_size: u64) -> Row {
    let root_is_named = form == Form::Layer { root: true };
    let implicit = if root_is_named { BTreeSet::new() } else { BTreeSet::from([String::new()]) };
    Row { size, tar_size, canonical: true, implicit }
}

fn check_name(key: &str) -> Result<()> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if key.is_empty() || key.len() > 128 || key.starts_with('.') || !key.bytes().all(sound) {
        return Err(StoreError::SnapshotName(key.to_owned()));
    }
    Ok(())
}
