//! Garbage collection: one reference graph, from images, snapshots and leases.
//!
//! ```text
//! tag, repo digest ─▶ image ─▶ config, manifest, the manifest's blobs, indexes
//!                       └────▶ layers ─▶ their blobs
//! snapshot ────────────────────▶ layers ─▶ their blobs
//! lease ──▶ what was touched while it lives (and what it left lingering)
//! ```
//! Images themselves are never collected here: an image without a name is the user's until it is pruned.

use std::collections::HashSet;
use std::fs;

use berth_oci::{DiffId, Digest};
use jiff::Timestamp;

use crate::error::{IoContext, Result};
use crate::recovery::diff_ids;
use crate::shared::Shared;

/// What [`crate::Store::gc`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Layers.
    pub layers: Vec<DiffId>,
    /// Bytes of both.
    pub bytes: u64,
}

/// Everything that an image refers to: what its removal may set free.
const OF_IMAGE: &str = "SELECT ?1 UNION SELECT diff_id FROM image_layers WHERE id = ?1
    UNION SELECT digest FROM image_blobs WHERE id = ?1
    UNION SELECT digest FROM image_indexes WHERE id = ?1
    UNION SELECT digest FROM layer_blobs WHERE diff_id IN (SELECT diff_id FROM image_layers WHERE id = ?1)";

/// The scope of an image's removal.
pub(crate) fn scope_of(shared: &Shared, id: &Digest) -> Result<HashSet<Digest>> {
    let texts: Vec<String> = shared.db.with("list what an image refers to", |db| {
        db.prepare_cached(OF_IMAGE)?.query_map([id.as_str()], |row| row.get(0))?.collect()
    })?;
    Ok(texts.iter().filter_map(|text| Digest::parse(text).ok()).collect())
}

const LIVE_LAYERS: &str = "SELECT diff_id FROM image_layers UNION SELECT diff_id FROM snapshot_layers";
const LIVE_BLOBS: &str = "SELECT id FROM images UNION SELECT digest FROM image_blobs
    UNION SELECT digest FROM image_indexes
    UNION SELECT digest FROM layer_blobs WHERE diff_id IN
        (SELECT diff_id FROM image_layers UNION SELECT diff_id FROM snapshot_layers)";

/// Removes what nothing refers to. With a scope only what is in it: an operation cleans up after itself and
/// does not touch what others, perhaps without a lease, are about to refer to.
pub(crate) fn collect(shared: &Shared, scope: Option<&HashSet<Digest>>) -> Result<Reclaimed> {
    let mut reclaimed = Reclaimed::default();
    {
        let pinned = shared.pins.freeze();
        let held = held(shared)?;
        let keeps = |digest: &Digest| {
            pinned.holds(digest)
                || held.contains(digest)
                || scope.is_some_and(|scope| !scope.contains(digest))
        };
        let layers = forget_layers(shared, &keeps)?;
        let blobs = unneeded_blobs(shared, &keeps)?;
        if !layers.is_empty() || !blobs.is_empty() {
            // What referred to them is gone for good, also after a power cut, before they go.
            shared.db.flush()?;
        }
        for (diff_id, size) in layers {
            shared.to_trash(&shared.layer_path(&diff_id))?;
            shared.quota.give(size);
            reclaimed.bytes += size;
            reclaimed.layers.push(diff_id);
        }
        for digest in blobs {
            let size = fs::metadata(shared.content.blob_path(&digest)).map_or(0, |m| m.len());
            shared.content.remove(&digest)?;
            shared.quota.give(size);
            reclaimed.bytes += size;
            reclaimed.blobs.push(digest);
        }
        if scope.is_none() && !pinned.any() {
            sweep_fixups(shared)?;
        }
    }
    shared.empty_trash();
    Ok(reclaimed)
}

/// What ended leases left lingering.
fn held(shared: &Shared) -> Result<HashSet<Digest>> {
    let now = Timestamp::now().as_second();
    let texts: Vec<String> = shared.db.transaction("expire leases", |tx| {
        tx.execute("DELETE FROM held WHERE until <= ?1", [now])?;
        tx.prepare("SELECT digest FROM held")?.query_map([], |row| row.get(0))?.collect()
    })?;
    Ok(texts.iter().filter_map(|text| Digest::parse(text).ok()).collect())
}

/// Takes the rows of layers away that nothing needs; the layers with their sizes.
fn forget_layers(shared: &Shared, keeps: &dyn Fn(&Digest) -> bool) -> Result<Vec<(DiffId, u64)>> {
    let live: HashSet<DiffId> = diff_ids(shared, LIVE_LAYERS, "")?.into_iter().collect();
    let mut forgotten = Vec::new();
    for diff_id in diff_ids(shared, "SELECT diff_id FROM layers", "")? {
        if live.contains(&diff_id) || keeps(diff_id.digest()) {
            continue;
        }
        let size: u64 = shared.db.transaction("forget a layer", |tx| {
            let size =
                tx.query_row("SELECT size FROM layers WHERE diff_id = ?1", [diff_id.as_str()], |row| {
                    row.get(0)
                })?;
            tx.execute("DELETE FROM layers WHERE diff_id = ?1", [diff_id.as_str()])?;
            tx.execute("DELETE FROM layer_blobs WHERE diff_id = ?1", [diff_id.as_str()])?;
            Ok(size)
        })?;
        forgotten.push((diff_id, size));
    }
    Ok(forgotten)
}

fn unneeded_blobs(shared: &Shared, keeps: &dyn Fn(&Digest) -> bool) -> Result<Vec<Digest>> {
    let texts: Vec<String> = shared
        .db
        .with("list blobs", |db| db.prepare(LIVE_BLOBS)?.query_map([], |row| row.get(0))?.collect())?;
    let live: HashSet<Digest> = texts.iter().filter_map(|text| Digest::parse(text).ok()).collect();
    let mut blobs = shared.content.list()?;
    blobs.retain(|digest| !live.contains(digest) && !keeps(digest));
    Ok(blobs)
}

/// Corrections of stacks cost little and are made again when needed; those that nothing mounts go.
fn sweep_fixups(shared: &Shared) -> Result<()> {
    let in_use: i64 = shared
        .db
        .with("count snapshots", |db| db.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0)))?;
    if in_use > 0 {
        return Ok(());
    }
    let directory = shared.layers_dir();
    for entry in fs::read_dir(&directory).during("list", &directory)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("fix-") {
            shared.to_trash(&entry.path())?;
        }
    }
    Ok(())
}

/// Takes the protection from what ended leases left.
pub(crate) fn release_held(shared: &Shared) -> Result<()> {
    shared.db.with("end leases", |db| db.execute("DELETE FROM held", [])).map(drop)
}

/// What counts against the cap, found by looking.
pub(crate) fn counted(shared: &Shared) -> Result<u64> {
    let mut bytes: u64 = shared.db.with("sum layers", |db| {
        db.query_row("SELECT coalesce(sum(size), 0) FROM layers", [], |row| row.get(0))
    })?;
    for digest in shared.content.list()? {
        bytes += fs::metadata(shared.content.blob_path(&digest)).map_or(0, |m| m.len());
    }
    let partial = shared.content.ingest_dir();
    for entry in fs::read_dir(&partial).during("list", &partial)?.flatten() {
        bytes += entry.metadata().map_or(0, |m| m.len());
    }
    Ok(bytes)
}
