//! What every start does before anything else.
//!
//! * `tmp/` and `trash/` are emptied, anonymous partial blobs removed; keyed partials stay for a day.
//! * Layer directories without a row, rows without a directory, snapshots of one without the other: removed.
//! * After another boot: blobs that were not synced and are damaged are removed, and partial ones with them; trees that
//!   were not synced are dropped and unpacked again from their blobs; images that were not named yet go with trees that
//!   have no blob.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_oci::DiffId;
use jiff::Timestamp;
use rusqlite::OptionalExtension;

use crate::durability;
use crate::error::{IoContext, Result};
use crate::layers::Layers;
use crate::shared::{Shared, boot_id, empty_directory};

/// How long a partial blob waits to be resumed.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn recover(shared: &Arc<Shared>) -> Result<()> {
    empty_directory(&shared.root.join("tmp"));
    shared.empty_trash();
    let durable = durability::durable_before_boot(shared);
    old_partials(shared, durable.is_some())?;
    if let Some(time) = durable {
        let begun = Timestamp::now();
        unsynced_blobs(shared, time)?;
        durability::leave_mark(shared, begun)?;
    }
    unsynced_layers(shared)?;
    stray_layers(shared)?;
    stray_snapshots(shared)
}

fn old_partials(shared: &Shared, all: bool) -> Result<()> {
    let directory = shared.content.ingest_dir();
    for entry in fs::read_dir(&directory).during("list", &directory)?.flatten() {
        let anonymous = entry.file_name().to_string_lossy().starts_with("tmp-");
        let modified = entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let old = modified.elapsed().is_ok_and(|age| age > PARTIAL_LIFE);
        if anonymous || old || all {
            let size = entry.metadata().map_or(0, |m| m.len());
            fs::remove_file(entry.path()).during("remove", entry.path())?;
            shared.quota.give(size);
        }
    }
    Ok(())
}

/// A blob appears by being renamed; without a sync its name may outlive its content.
fn unsynced_blobs(shared: &Shared, durable: i64) -> Result<()> {
    for digest in shared.content.list()? {
        let path = shared.content.blob_path(&digest);
        let metadata = fs::metadata(&path).during("stat", &path)?;
        if metadata.ctime() >= durable && shared.content.digest_of(&digest)? != digest {
            tracing::warn!(%digest, "removed a blob that was lost in an unclean end");
            fs::remove_file(&path).during("remove", &path)?;
            shared.quota.give(metadata.len());
        }
    }
    Ok(())
}

/// Rows of layers whose directory is gone are damage; `check` reports and mends those that an image needs.
fn stray_layers(shared: &Shared) -> Result<()> {
    let known: BTreeSet<String> =
        diff_ids(shared, "SELECT diff_id FROM layers", "")?.iter().map(|d| d.hex().to_owned()).collect();
    let directory = shared.layers_dir();
    for entry in fs::read_dir(&directory).during("list", &directory)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = matches!(name.as_str(), "empty" | "empty2") || name.starts_with("fix-");
        if !ours && !known.contains(&name) {
            shared.to_trash(&entry.path())?;
        }
    }
    shared.empty_trash();
    Ok(())
}

fn stray_snapshots(shared: &Shared) -> Result<()> {
    let known: Vec<String> = shared.db.with("list snapshots", |db| {
        db.prepare("SELECT key FROM snapshots")?.query_map([], |row| row.get(0))?.collect()
    })?;
    for key in &known {
        if !shared.snapshot_path(key).join("work").is_dir() {
            shared
                .db
                .with("forget a snapshot", |db| db.execute("DELETE FROM snapshots WHERE key = ?1", [key]))?;
        }
    }
    let directory = shared.root.join("snapshots");
    for entry in fs::read_dir(&directory).during("list", &directory)?.flatten() {
        if !known.iter().any(|key| entry.file_name() == key.as_str()) {
            shared.to_trash(&entry.path())?;
        }
    }
    shared.empty_trash();
    Ok(())
}

fn unsynced_layers(shared: &Arc<Shared>) -> Result<()> {
    let suspects =
        diff_ids(shared, "SELECT diff_id FROM layers WHERE synced = 0 AND boot != ?1", &boot_id())?;
    let layers = Layers { shared: shared.clone() };
    for diff_id in &suspects {
        let blobs = layers.blobs(diff_id)?;
        if blobs.is_empty() {
            // Before the layer: what is left of a recovery that is cut short is found by the next one.
            drop_unnamed(shared, diff_id)?;
        }
        forget(shared, diff_id)?;
        let again = blobs.first().map(|blob| layers.unpack_blob(blob, diff_id));
        match again {
            Some(Ok(_)) => tracing::info!(%diff_id, "unpacked again after an unclean end"),
            Some(Err(error)) => {
                tracing::warn!(%diff_id, %error, "a layer was lost in an unclean end; pull again")
            }
            None => tracing::info!(%diff_id, "dropped a layer that was not yet part of a tagged image"),
        }
    }
    if suspects.is_empty() { Ok(()) } else { durability::sync_all(shared) }
}

/// An image is durable once it has a name. Before that the database may have kept it, and the file system not this layer.
fn drop_unnamed(shared: &Shared, diff_id: &DiffId) -> Result<()> {
    const UNNAMED: &str = "DELETE FROM images WHERE id IN (SELECT id FROM image_layers WHERE diff_id = ?1)
        AND id NOT IN (SELECT id FROM tags UNION SELECT id FROM repo_digests) RETURNING id";
    let gone: Vec<String> = shared.db.with("drop images that were not named yet", |db| {
        db.prepare(UNNAMED)?.query_map([diff_id.as_str()], |row| row.get(0))?.collect()
    })?;
    for id in gone {
        tracing::info!(%id, "dropped an image that was not yet named before an unclean end");
    }
    Ok(())
}

/// Takes a layer's tree and row away; what is known of its blobs stays.
pub(crate) fn forget(shared: &Shared, diff_id: &DiffId) -> Result<()> {
    let size: Option<u64> = shared.db.with("forget a layer", |db| {
        db.query_row("DELETE FROM layers WHERE diff_id = ?1 RETURNING size", [diff_id.as_str()], |row| {
            row.get(0)
        })
        .optional()
    })?;
    shared.quota.give(size.unwrap_or(0));
    shared.db.flush()?;
    shared.to_trash(&shared.layer_path(diff_id))?;
    shared.empty_trash();
    Ok(())
}

pub(crate) fn diff_ids(shared: &Shared, query: &'static str, argument: &str) -> Result<Vec<DiffId>> {
    let texts: Vec<String> = shared.db.with("list layers", |db| {
        let mut statement = db.prepare(query)?;
        let arguments: &[&dyn rusqlite::ToSql] = if query.contains("?1") { &[&argument] } else { &[] };
        statement.query_map(arguments, |row| row.get(0))?.collect()
    })?;
    Ok(texts.iter().filter_map(|text| DiffId::parse(text).ok()).collect())
}
