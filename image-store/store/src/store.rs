//! The store as a whole.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use berth_oci::{ImageConfig, ImageId, Platform, Reference};
use nix::fcntl::{Flock, FlockArg};

use crate::archive::{LoadEvent, Loaded};
use crate::check::{CheckOptions, CheckReport};
use crate::content::Content;
use crate::db::Db;
use crate::error::{IoContext, Result, StoreError};
use crate::gc::Reclaimed;
use crate::images::Images;
use crate::layers::Layers;
use crate::pins::{Lease, Pins};
use crate::quota::Quota;
use crate::shared::Shared;
use crate::snapshots::Snapshots;
use crate::unpack::Limits;
use crate::{archive, check, durability, gc, recovery};

/// The store. Cheap to clone; all methods block and may be called from many threads.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    layers: Layers,
    snapshots: Snapshots,
    images: Images,
}

impl Store {
    /// Opens or creates the store and recovers from whatever happened before.
    ///
    /// # Errors
    /// If another process has it open, a newer Berth made it, or the disk refuses.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(root.as_ref(), Limits::default())
    }

    pub(crate) fn open_with(root: &Path, limits: Limits) -> Result<Self> {
        fs::create_dir_all(root).during("create", root)?;
        let root = fs::canonicalize(root).during("find", root)?;
        for (directory, mode) in
            [("layers", 0o710), ("snapshots", 0o710), ("tmp", 0o700), ("trash", 0o700), ("content", 0o755)]
        {
            let path = root.join(directory);
            fs::create_dir_all(&path).during("create", &path)?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .during("chmod", &path)?;
        }
        for directory in ["layers/empty", "layers/empty2"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).during("create", &path)?;
            // Not subject to the umask: it may be the root of a container.
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .during("chmod", &path)?;
        }
        let lock_path = root.join("store.lock");
        let file = File::create(&lock_path).during("create", &lock_path)?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| StoreError::Busy(root.clone()))?;
        let pins = Arc::new(Pins::default());
        let db = Arc::new(Db::open(&root.join("store.db"))?);
        let quota = Arc::new(Quota::default());
        let content = Content::new(root.join("content"), pins.clone(), quota.clone())?;
        let shared = Arc::new(Shared {
            root,
            db,
            pins,
            content,
            layer_locks: Default::default(),
            removals: Default::default(),
            limits,
            quota,
            _lock: lock,
        });
        shared.quota.found(gc::counted(&shared)?);
        recovery::recover(&shared)?;
        Ok(Self {
            layers: Layers { shared: shared.clone() },
            snapshots: Snapshots { shared: shared.clone() },
            images: Images { shared: shared.clone() },
            shared,
        })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Blobs.
    pub fn content(&self) -> &Content {
        &self.shared.content
    }

    /// Unpacked layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Writable trees of containers and build steps.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Image metadata.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Keeps everything that is touched from now on out of the hands of [`Self::gc`], until dropped. Hold one
    /// during pull, load, build, commit.
    pub fn lease(&self) -> Lease {
        Lease::new(self.shared.pins.clone(), self.shared.db.clone())
    }

    /// Writes `docker save`'s archive: an OCI layout with manifest.json and repositories. `names` as typed by
    /// the user: each is an image's name or id, or the name of a repository, which means all its tags.
    ///
    /// # Errors
    /// If a name is unknown or the stream fails.
    pub fn save<S: AsRef<str>>(&self, names: &[S], to: impl Write) -> Result<()> {
        let _lease = self.lease();
        archive::save(self, names, to)
    }

    /// The same for one image, under names that it need not have here.
    ///
    /// # Errors
    /// If there is no such image or the stream fails.
    pub fn save_as(&self, id: &ImageId, names: &[Reference], to: impl Write) -> Result<()> {
        let _lease = self.lease();
        archive::save_as(self, id, names, to)
    }

    /// Loads a docker-archive or an OCI layout, compressed or not. Several layers are unpacked at once.
    ///
    /// # Errors
    /// If the archive is damaged or hostile; nothing stays behind.
    pub fn load(&self, from: impl Read + Send, progress: &(dyn Fn(LoadEvent) + Sync)) -> Result<Vec<Loaded>> {
        self.load_platforms(from, &[], progress)
    }

    /// The same, of these platforms alone, if any are named.
    ///
    /// # Errors
    /// As [`Self::load`]; [`StoreError::Archive`] when no image of the archive is for one of them.
    pub fn load_platforms(
        &self,
        from: impl Read + Send,
        platforms: &[Platform],
        progress: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<Vec<Loaded>> {
        let lease = self.lease();
        let loaded = archive::load(self, from, platforms, progress);
        let touched = lease.touched();
        drop(lease);
        // Blobs that no image took (also after a failure) go at once.
        gc::collect(&self.shared, Some(&touched))?;
        loaded
    }

    /// `docker import`: an image of one layer from a root file system's tar. `config` gets its rootfs, history
    /// and, if it has none, its time filled in.
    ///
    /// # Errors
    /// As [`Layers::unpack`].
    pub fn import(
        &self,
        from: impl Read + Send,
        config: ImageConfig,
        message: Option<&str>,
        reference: Option<&Reference>,
    ) -> Result<ImageId> {
        let _lease = self.lease();
        archive::import(self, from, config, message, reference)
    }

    /// `docker export`: the merged tree of a snapshot as a tar stream.
    ///
    /// # Errors
    /// If there is no such snapshot or the stream fails.
    pub fn export(&self, snapshot: &str, to: impl Write) -> Result<()> {
        archive::export(self, snapshot, to)
    }

    /// Removes what nothing refers to.
    ///
    /// # Errors
    /// If the disk or the database refuses; what was removed until then stays removed.
    pub fn gc(&self) -> Result<Reclaimed> {
        gc::collect(&self.shared, None)
    }

    /// Sets a cap on the bytes of blobs and layers, which is never passed: before a write that would pass it `reclaim`
    /// is asked to free some bytes (at least what it is given), down to nine tenths of the cap; if that does not suffice
    /// the write fails with [`StoreError::OverCap`]. Only the first cap counts.
    pub fn limit(&self, cap: u64, reclaim: impl Fn(u64) + Send + Sync + 'static) {
        self.shared.quota.limit(cap, Box::new(reclaim));
    }

    /// Bytes of blobs (partial ones too) and layers: what the store takes, and what counts against the cap. Known without
    /// looking.
    pub fn counted(&self) -> u64 {
        self.shared.quota.used()
    }

    /// Bytes of layers that images have, each layer once.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn image_layers_size(&self) -> Result<u64> {
        self.shared.db.with("sum layers", |db| {
            let query = "SELECT coalesce(sum(size), 0) FROM layers WHERE diff_id IN (SELECT diff_id FROM image_layers)";
            db.query_row(query, [], |row| row.get(0))
        })
    }

    /// Bytes of blobs, partial ones too: the compressed layers that pulls and pushes keep, and documents.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn blobs_size(&self) -> Result<u64> {
        let layers: u64 = self.shared.db.with("sum layers", |db| {
            db.query_row("SELECT coalesce(sum(size), 0) FROM layers", [], |row| row.get(0))
        })?;
        Ok(self.counted().saturating_sub(layers))
    }

    /// Removes what unfinished pulls left, also if it was kept for another attempt, and what nothing refers to.
    ///
    /// # Errors
    /// As [`Self::gc`].
    pub fn gc_leftovers(&self) -> Result<Reclaimed> {
        gc::release_held(&self.shared)?;
        self.gc()
    }

    /// Proves that everything which is referred to is there; with `deep`, that it is right; with `repair`,
    /// mends what can be mended.
    ///
    /// # Errors
    /// If the disk or the database refuses.
    pub fn check(&self, options: CheckOptions) -> Result<CheckReport> {
        let _lease = self.lease();
        check::check(&self.shared, options)
    }

    /// Makes everything durable: one `syncfs`, one flush of the database. Call it in idle moments and at the
    /// end of the daemon; see [`crate::durability`] for what is durable without it.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<()> {
        durability::sync_all(&self.shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Compression, compress};

    #[test]
    fn bombs_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let entry = |name: &str, size| crate::tarball::Entry {
            path: name.into(),
            link: Vec::new(),
            kind: crate::tarball::Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        };
        let mut tar = crate::tarball::Writer::new(Vec::new());
        for name in ["a", "b", "c"] {
            tar.member(&entry(name, 1 << 20)).unwrap();
            tar.data(std::io::repeat(0), 1 << 20).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let mut bomb = Vec::new();
        compress(&tar[..], &mut bomb, Compression::Gzip).unwrap();
        let usual = Limits::default();
        for (limits, message) in [
            (Limits { bytes: 3 << 19, ..usual }, "entry \"b\": it unpacks to more than 1572864 bytes"),
            (Limits { entries: 2, ..usual }, "entry \"c\": it unpacks to more than 2 entries"),
            (Limits { reserve: 1 << 60, ..usual }, "entry \"a\": no space left"),
        ] {
            let store = Store::open_with(directory.path(), limits).unwrap();
            let error = store.layers().unpack(&bomb[..], None).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
        }
    }
}
