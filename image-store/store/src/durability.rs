//! What survives a power cut.
//!
//! Nothing is synced file by file while layers unpack, and blobs are renamed into place unsynced: a kill of the
//! process loses nothing (the page cache lives on), and a power cut loses only what was not reported as done.
//! The point of no return is a name: [`crate::Images::tag`] and [`crate::Images::add_repo_digest`] first
//!
//! 1. `fdatasync` the image's blobs (the compressed bytes; clean inodes cost nothing),
//! 2. and, if a layer has no blob from which it could be unpacked again, `syncfs` once,
//! 3. then commit and flush the database.
//!
//! The other way round for what is removed: the database forgets it and is flushed before the files go
//! ([`crate::Store::gc`]), so that nothing is referred to whose files are gone.
//!
//! Layers that do have a blob are left to the kernel's own write-back. Each layer's row says in which boot it
//! was written and whether it was synced since; at the first start after another boot, unsynced trees are
//! unpacked again from their blobs (see [`crate::recovery`]). [`crate::Store::sync`] settles everything, and leaves a
//! mark of when it did: of the blobs, those that came later are read and compared with their digests at the first start
//! after another boot.

use std::fs::{self, File};

use berth_oci::{DiffId, Digest};
use jiff::Timestamp;
use rusqlite::OptionalExtension;

use crate::content::write_atomically;
use crate::error::{IoContext, Result};
use crate::images::{Image, Images};
use crate::layers::Layers;
use crate::shared::{Shared, boot_id};

/// File with the boot and the time of the last sync.
const MARK: &str = "synced";

/// Makes sure that the image can be had again after a power cut.
pub(crate) fn settle(shared: &std::sync::Arc<Shared>, image: &Image) -> Result<()> {
    let layers = Layers { shared: shared.clone() };
    let mut blobs: Vec<Digest> = vec![image.id.clone()];
    blobs.extend(image.manifest.as_ref().map(|manifest| manifest.digest.clone()));
    // Its index, and attestations beside it.
    let others = Images { shared: shared.clone() }.strings(
        "SELECT digest FROM image_blobs WHERE id = ?1 UNION SELECT digest FROM image_indexes WHERE id = ?1",
        image.id.as_str(),
    )?;
    blobs.extend(others.iter().filter_map(|text| Digest::parse(text).ok()));
    let mut trees = false;
    for diff_id in &image.layers {
        let of_layer = layers.blobs(diff_id)?;
        trees |= of_layer.is_empty() && !is_synced(shared, diff_id)?;
        blobs.extend(of_layer.into_iter().map(|blob| blob.digest));
    }
    if trees {
        return sync_all(shared);
    }
    shared.content.sync(blobs.iter())
}

fn is_synced(shared: &Shared, diff_id: &DiffId) -> Result<bool> {
    let synced = shared.db.with("look up a layer", |db| {
        db.prepare_cached("SELECT synced FROM layers WHERE diff_id = ?1")?
            .query_row([diff_id.as_str()], |row| row.get(0))
            .optional()
    })?;
    Ok(synced.unwrap_or(false))
}

/// Makes everything durable that is in the store now.
pub(crate) fn sync_all(shared: &Shared) -> Result<()> {
    // Taken before: a layer that arrives while the kernel writes is not counted as synced.
    let last: Option<i64> = shared
        .db
        .with("look up layers", |db| db.query_row("SELECT max(rowid) FROM layers", [], |row| row.get(0)))?;
    let begun = Timestamp::now();
    let root = File::open(&shared.root).during("open", &shared.root)?;
    nix::unistd::syncfs(&root).during("sync the file system of", &shared.root)?;
    leave_mark(shared, begun)?;
    shared.db.with("record the sync", |db| {
        db.execute("UPDATE layers SET synced = 1 WHERE synced = 0 AND rowid <= ?1", [last.unwrap_or(0)])
    })?;
    shared.db.flush()
}

/// Says that whatever was there at this time is durable.
pub(crate) fn leave_mark(shared: &Shared, time: Timestamp) -> Result<()> {
    let mark = format!("{} {}", boot_id(), time.as_second());
    write_atomically(&shared.root.join(MARK), mark.as_bytes())
}

/// Up to when everything is durable (Unix seconds), if this is the first start after another boot: what came later may be
/// damaged. `None` in the boot of the mark: then only the process ended, and nothing is lost.
pub(crate) fn durable_before_boot(shared: &Shared) -> Option<i64> {
    let mark = fs::read_to_string(shared.root.join(MARK)).unwrap_or_default();
    match mark.split_once(' ') {
        Some((boot, _)) if boot == boot_id() => None,
        Some((_, time)) => Some(time.parse().unwrap_or(i64::MIN)),
        None => Some(i64::MIN),
    }
}
