//! Unpacked layers, one directory per diff-id.
//!
//! ```text
//! unpack:  tmp/<random> ──diff-id right──▶ layers/<hex> ──▶ row in `layers`: visible
//! commit:  snapshots/<key>/upper ────────▶ layers/<hex> ──▶ row in `layers`: visible
//! ```
//! A directory without a row is a leftover, a row without a directory is damage; start-up and `check` see to
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_oci::{Descriptor, DiffId, Digest, Hasher, media_type};
use rusqlite::OptionalExtension;

use crate::compression::{Compression, compress, decompress};
use crate::error::{IoContext, Result, StoreError};
use crate::pack::{Form, PackError, Packed, pack};
use crate::pipe::{CHUNK, pipe};
use crate::shared::{Shared, boot_id, open_directory};
use crate::unpack::unpack;

/// A layer of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of its files, as `docker history` shows.
    pub size: u64,
    /// Length of its uncompressed tar.
    pub tar_size: u64,
    /// Whether it was there already.
    pub existed: bool,
}

/// What the database knows of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) size: u64,
    pub(crate) tar_size: u64,
    /// The canonical tar of the tree is the layer's tar.
    pub(crate) canonical: bool,
    /// Directories that the tar did not name; the empty string is the root.
    pub(crate) implicit: BTreeSet<String>,
}

impl Row {
    /// The form in which the tree gives this layer's tar, if it is canonical.
    pub(crate) fn form(&self) -> Form {
        Form::Layer { root: !self.implicit.contains("") }
    }
}

/// Unpacked layers.
#[derive(Clone)]
pub struct Layers {
    pub(crate) shared: Arc<Shared>,
}

impl Layers {
    /// Whether it is unpacked.
    pub fn contains(&self, diff_id: &DiffId) -> bool {
        matches!(self.info(diff_id), Ok(Some(_)))
    }

    /// What is known of it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn info(&self, diff_id: &DiffId) -> Result<Option<LayerInfo>> {
        let row = self.row(diff_id)?;
        Ok(row.map(|row| LayerInfo {
            diff_id: diff_id.clone(),
            size: row.size,
            tar_size: row.tar_size,
            existed: true,
        }))
    }

    pub(crate) fn row(&self, diff_id: &DiffId) -> Result<Option<Row>> {
        let row = self.shared.pins.touch(diff_id.digest(), || {
            self.shared.db.with("look up a layer", |db| {
                db.prepare_cached(
                    "SELECT size, tar_size, canonical, implicit FROM layers WHERE diff_id = ?1",
                )?
                .query_row([diff_id.as_str()], |row| {
                    let implicit: String = row.get(3)?;
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, implicit))
                })
                .optional()
            })
        })?;
        row.map(|(size, tar_size, canonical, implicit)| {
            let implicit = serde_json::from_str(&implicit)
                .map_err(|source| StoreError::Json { what: format!("record of layer {diff_id}"), source })?;
            Ok(Row { size, tar_size, canonical, implicit })
        })
        .transpose()
    }

    pub(crate) fn required(&self, diff_id: &DiffId) -> Result<Row> {
        self.row(diff_id)?.ok_or_else(|| StoreError::NotFound { kind: "layer", key: diff_id.to_string() })
    }

    /// Keeps a layer from [`crate::Store::gc`], whether or not an image has it, until [`Self::let_go`].
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn keep(&self, diff_id: &DiffId) -> Result<()> {
        self.shared.db.with("keep a layer", |db| {
            db.prepare_cached(crate::pins::HOLD)?.execute((diff_id.as_str(), i64::MAX))
        })?;
        Ok(())
    }

    /// Ends [`Self::keep`].
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn let_go(&self, diff_id: &DiffId) -> Result<()> {
        self.shared.db.with("let a layer go", |db| {
            db.execute("DELETE FROM held WHERE digest = ?1", [diff_id.as_str()])
        })?;
        Ok(())
    }

    /// Its directory.
    pub fn path(&self, diff_id: &DiffId) -> PathBuf {
        self.shared.layer_path(diff_id)
    }

    /// Unpacks a layer (gzip, zstd or plain, told by its first bytes). With `expected`, a layer that is there
    /// is returned without reading, and one that another thread is unpacking is waited for.
    ///
    /// # Errors
    /// If the archive is damaged, hostile, or has another diff-id; nothing stays behind.
    pub fn unpack(&self, from: impl Read + Send, expected: Option<&DiffId>) -> Result<LayerInfo> {
        let _guard = expected.map(|diff_id| self.shared.layer_locks.lock(diff_id.as_str()));
        if let Some(diff_id) = expected
            && let Some(info) = self.info(diff_id)?
        {
            return Ok(info);
        }
        let named = || expected.map_or_else(|| "(unnamed)".to_owned(), DiffId::to_string);
        let refuse = |source| StoreError::Layer { layer: named(), source };
        let temporary = self.shared.temporary("layer-")?;
        let tree = new_tree(&temporary)?;
        let (limits, quota) = (self.shared.limits, &*self.shared.quota);
        let unpacked = unpack(open_directory(&tree)?, from, limits, quota).map_err(refuse)?;
        let diff_id = DiffId(unpacked.diff_id);
        if let Some(expected) = expected
            && *expected != diff_id
        {
            quota.give(unpacked.size);
            let (expected, actual) = (expected.0.clone(), diff_id.0);
            return Err(refuse(crate::unpack::UnpackError::DiffId { expected, actual }));
        }
        let row = Row {
            size: unpacked.size,
            tar_size: unpacked.tar_size,
            canonical: false,
            implicit: unpacked.implicit,
        };
        self.adopt(&tree, diff_id, &row)
    }

    /// Unpacks an archive that is nobody's layer yet: its diff-id is that of its canonical form, so no copy of
    /// the archive is kept.
    pub(crate) fn unpack_canonically(&self, from: impl Read + Send) -> Result<LayerInfo> {
        let refuse = |source| StoreError::Layer { layer: "(imported)".to_owned(), source };
        let temporary = self.shared.temporary("layer-")?;
        let tree = new_tree(&temporary)?;
        let (limits, quota) = (self.shared.limits, &*self.shared.quota);
        let unpacked = unpack(open_directory(&tree)?, from, limits, quota).map_err(refuse)?;
        // Directories that it did not name are real ones from now on, but for the root.
        let mut row = Row { size: 0, tar_size: 0, canonical: true, implicit: unpacked.implicit };
        row.implicit.retain(String::is_empty);
        let (digest, packed) = canonical_digest(&tree, row.form())?;
        (row.size, row.tar_size) = (packed.size, packed.tar_size);
        // A hard link counts once from now on.
        quota.give(unpacked.size.saturating_sub(row.size));
        self.adopt(&tree, DiffId(digest), &row)
    }

    /// Moves a finished tree, which was counted against the cap, to its place. An equal layer that came first wins.
    pub(crate) fn adopt(&self, tree: &Path, diff_id: DiffId, row: &Row) -> Result<LayerInfo> {
        let _adopting = self.shared.layer_locks.lock(&format!("adopt {diff_id}"));
        if let Some(info) = self.info(&diff_id)? {
            self.shared.quota.give(row.size);
            return Ok(info);
        }
        let place = self.path(&diff_id);
        // A directory without a row is what a crash left.
        self.shared.to_trash(&place)?;
        fs::rename(tree, &place).during("rename to", &place)?;
        let implicit = serde_json::to_string(&row.implicit).expect("strings are JSON");
        self.shared.db.with("record a layer", |db| {
            db.prepare_cached(
                "INSERT INTO layers (diff_id, size, tar_size, canonical, implicit, boot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                diff_id.as_str(),
                row.size,
                row.tar_size,
                row.canonical,
                &implicit,
                boot_id(),
            ))
        })?;
        Ok(LayerInfo { diff_id, size: row.size, tar_size: row.tar_size, existed: false })
    }

    /// Unpacks a blob of the store and remembers that it is this layer's.
    ///
    /// # Errors
    /// As [`Self::unpack`], or if the blob is not there.
    pub fn unpack_blob(&self, blob: &Descriptor, expected: &DiffId) -> Result<LayerInfo> {
        let file = self.shared.content.open(&blob.digest)?;
        let info = self.unpack(file, Some(expected))?;
        self.remember_blob(expected, blob)?;
        Ok(info)
    }

    /// Remembers that this blob is the layer, compressed. Call it when blob and layer were both verified
    /// against the same stream.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn remember_blob(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<()> {
        let descriptor = serde_json::to_string(blob).expect("a descriptor is JSON");
        self.shared.db.with("record a layer's blob", |db| {
            db.execute(
                "INSERT OR IGNORE INTO layer_blobs (diff_id, digest, descriptor) VALUES (?1, ?2, ?3)",
                (diff_id.as_str(), blob.digest.as_str(), descriptor),
            )
        })?;
        Ok(())
    }

    /// The blobs of this layer that are present, in the order in which they became known.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn blobs(&self, diff_id: &DiffId) -> Result<Vec<Descriptor>> {
        let mut known = self.known_blobs(diff_id)?;
        known.retain(|blob| self.shared.content.contains(&blob.digest));
        Ok(known)
    }

    /// All blobs that were ever seen to be this layer, present or not.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn known_blobs(&self, diff_id: &DiffId) -> Result<Vec<Descriptor>> {
        let texts: Vec<String> = self.shared.db.with("look up a layer's blobs", |db| {
            db.prepare_cached("SELECT descriptor FROM layer_blobs WHERE diff_id = ?1 ORDER BY rowid")?
                .query_map([diff_id.as_str()], |row| row.get(0))?
                .collect()
        })?;
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    /// The layer that is unpacked here and of which the blob is known to be a form.
    pub(crate) fn of_blob(&self, blob: &Digest) -> Result<Option<DiffId>> {
        let texts: Vec<String> = self.shared.db.with("look up a blob's layer", |db| {
            db.prepare_cached("SELECT diff_id FROM layer_blobs WHERE digest = ?1")?
                .query_map([blob.as_str()], |row| row.get(0))?
                .collect()
        })?;
        Ok(texts.iter().filter_map(|text| DiffId::parse(text).ok()).find(|diff_id| self.contains(diff_id)))
    }

    /// The layer's uncompressed tar; its digest is the diff-id.
    ///
    /// # Errors
    /// If the layer is not there, or came from a blob that is gone.
    pub fn tar(&self, diff_id: &DiffId) -> Result<Box<dyn Read + Send>> {
        let row = self.required(diff_id)?;
        let blob = if row.canonical { None } else { self.blobs(diff_id)?.into_iter().next() };
        let Some(blob) = blob else {
            // A layer that came by a build's cache has no blob here, but it was packed by us.
            if !self.try_canonical(diff_id)? {
                return Err(StoreError::NotFound { kind: "blob of layer", key: diff_id.to_string() });
            }
            let root = open_directory(&self.path(diff_id))?;
            let (to, from) = pipe();
            std::thread::spawn(move || {
                let mut to = std::io::BufWriter::with_capacity(CHUNK, to);
                if let Err(error) = pack(root.as_fd(), row.form(), &mut to) {
                    let (to, _) = to.into_parts();
                    to.fail(std::io::Error::other(error));
                }
            });
            return Ok(Box::new(from));
        };
        let file = self.shared.content.open(&blob.digest)?;
        decompress(file).during("read", self.shared.content.blob_path(&blob.digest))
    }

    /// A compressed blob of the layer: one that it was pulled as or that was made before, else made now and
    /// remembered. The bytes do not depend on time or machine.
    ///
    /// # Errors
    /// If the layer is not there or the blob cannot be written.
    pub fn compressed(&self, diff_id: &DiffId, compression: Compression) -> Result<Descriptor> {
        self.compressed_while(diff_id, compression, |_| {})
    }

    /// The same; if the blob has to be made, `made` sees its bytes, in order, while it grows. Nobody may trust them before
    /// this returns.
    ///
    /// # Errors
    /// As [`Self::compressed`].
    pub fn compressed_while(
        &self,
        diff_id: &DiffId,
        compression: Compression,
        made: impl FnMut(&[u8]),
    ) -> Result<Descriptor> {
        let _guard = self.shared.layer_locks.lock(&format!("compress {diff_id}"));
        if let Some(blob) = self.compressed_before(diff_id, compression)? {
            return Ok(blob);
        }
        let mut shown = Shown { ingest: self.shared.content.ingest()?, made };
        let tar = self.tar(diff_id)?;
        compress(tar, &mut shown, compression).during("compress layer", self.path(diff_id))?;
        let size = shown.ingest.offset();
        let digest = shown.ingest.commit(None, None)?;
        let descriptor = Descriptor::new(compression.layer_media_type(), digest, size);
        self.remember_blob(diff_id, &descriptor)?;
        Ok(descriptor)
    }

    /// What [`Self::compressed`] gives without compressing anything, if the store has it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn compressed_before(
        &self,
        diff_id: &DiffId,
        compression: Compression,
    ) -> Result<Option<Descriptor>> {
        let known = self.blobs(diff_id)?;
        let of = |blob: &Descriptor| Compression::of_media_type(&blob.media_type);
        let wanted = known.iter().find(|blob| of(blob) == compression);
        // What was pulled is pushed as it was, whichever way it is compressed.
        let pulled =
            known.iter().find(|blob| compression == Compression::Gzip && of(blob) != Compression::None);
        Ok(wanted.or(pulled).cloned())
    }

    /// Finds out whether the tree alone gives the layer's tar again, so that no blob of it is needed.
    pub(crate) fn try_canonical(&self, diff_id: &DiffId) -> Result<bool> {
        let row = self.required(diff_id)?;
        if row.canonical {
            return Ok(true);
        }
        let tree = open_directory(&self.path(diff_id))?;
        let same = match self.shared.content.open(diff_id.digest()) {
            // The tar itself is here: a difference, which is often in the first header, ends the comparison.
            Ok(tar) => same_tar(tree.as_fd(), row.form(), tar),
            Err(_) => canonical_digest(&self.path(diff_id), row.form())?.0 == *diff_id.digest(),
        };
        if !same {
            return Ok(false);
        }
        self.shared.db.with("record a layer", |db| {
            db.execute("UPDATE layers SET canonical = 1 WHERE diff_id = ?1", [diff_id.as_str()])
        })?;
        Ok(true)
    }

    /// A descriptor for the uncompressed tar, which need not exist as a blob.
    pub(crate) fn tar_descriptor(&self, diff_id: &DiffId) -> Result<Descriptor> {
        let row = self.required(diff_id)?;
        Ok(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), row.tar_size))
    }
}

fn new_tree(temporary: &tempfile::TempDir) -> Result<PathBuf> {
    let tree = temporary.path().join("tree");
    fs::create_dir(&tree).during("create", &tree)?;
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).during("chmod", &tree)?;
    Ok(tree)
}

/// The digest of a tree's canonical tar.
pub(crate) fn canonical_digest(tree: &Path, form: Form) -> Result<(Digest, Packed)> {
    let mut hasher = HashWriter(Hasher::default());
    let packed = pack(open_directory(tree)?.as_fd(), form, &mut hasher).map_err(|e| pack_error(e, tree))?;
    Ok((hasher.0.finish(), packed))
}

pub(crate) fn pack_error(error: PackError, tree: &Path) -> StoreError {
    StoreError::Io { operation: error.operation, path: tree.join(error.path), source: error.source }
}

/// Whether the canonical tar of a tree is this one.
fn same_tar(tree: std::os::fd::BorrowedFd<'_>, form: Form, tar: fs::File) -> bool {
    let mut compared = Compared { other: std::io::BufReader::with_capacity(CHUNK, tar), scratch: Vec::new() };
    pack(tree, form, &mut compared).is_ok() && compared.other.fill_buf().is_ok_and(<[u8]>::is_empty)
}

/// Fails at the first byte that is not as in `other`.
struct Compared<R> {
    other: R,
    scratch: Vec<u8>,
}

impl<R: Read> std::io::Write for Compared<R> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.scratch.resize(buffer.len(), 0);
        self.other.read_exact(&mut self.scratch)?;
        match self.scratch == buffer {
            true => Ok(buffer.len()),
            false => Err(std::io::Error::other("another tar")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A blob that somebody watches.
struct Shown<F> {
    ingest: crate::ingest::Ingest,
    made: F,
}

impl<F: FnMut(&[u8])> std::io::Write for Shown<F> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.ingest.write(buffer)?;
        (self.made)(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct HashWriter(Hasher);

impl std::io::Write for HashWriter {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
