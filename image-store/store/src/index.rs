//! index.json of the layout, kept in step with the tagged images that have manifests.

use berth_oci::{Descriptor, Index};

use crate::content::{Content, write_atomically};
use crate::db::Db;
use crate::error::Result;

pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(crate) fn empty() -> Vec<u8> {
    serde_json::to_vec(&Index::oci(Vec::new())).expect("an index is JSON")
}

/// Writes index.json from the database.
pub(crate) fn refresh(db: &Db, content: &Content) -> Result<()> {
    let rows: Vec<(String, String)> = db.with("list tagged manifests", |db| {
        db.prepare_cached(
            "SELECT tags.reference, images.manifest FROM tags JOIN images USING (id)
             WHERE images.manifest IS NOT NULL ORDER BY tags.reference",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
    })?;
    let entries = rows.into_iter().filter_map(|(reference, descriptor)| {
        let mut descriptor: Descriptor = serde_json::from_str(&descriptor).ok()?;
        descriptor.annotate(REF_NAME, reference);
        Some(descriptor)
    });
    let index = serde_json::to_vec(&Index::oci(entries.collect())).expect("an index is JSON");
    let path = content.layout().join("index.json");
    if std::fs::read(&path).is_ok_and(|old| old == index) {
        return Ok(());
    }
    write_atomically(&path, &index)
}
