//! Putting images into the database and getting them out.

use berth_oci::{Descriptor, DiffId, Digest, Document, ImageConfig, ImageId, MAX_DOCUMENT, Reference};
use jiff::Timestamp;
use rusqlite::OptionalExtension;

use crate::error::{Result, StoreError};
use crate::images::{Image, Images, NewImage};
use crate::index;
use crate::pins::RELEASE;

impl Images {
    /// Records an image; idempotent: an image that is there gets the manifest and the parent if it had none.
    ///
    /// # Errors
    /// If the config is malformed, a layer is not unpacked, or the manifest is not there.
    pub fn put(&self, image: NewImage) -> Result<ImageId> {
        let config = parse_config(&image.config)?;
        let layers = self.layers();
        let mut size = 0;
        for diff_id in config.diff_ids() {
            size += layers.required(diff_id)?.size;
        }
        let id = self.shared.content.put(&image.config)?;
        if image.manifest.is_none() && image.parent.is_none() && self.exists(&id)? {
            return Ok(id);
        }
        let blobs = image.manifest.as_ref().map(|manifest| self.manifest_blobs(manifest)).transpose()?;
        let manifest =
            image.manifest.as_ref().map(|m| serde_json::to_string(m).expect("a descriptor is JSON"));
        let created = config.created.unwrap_or_default().to_string();
        let parent = image.parent.as_ref().map(Digest::as_str);
        self.shared.db.transaction("record an image", |tx| {
            tx.execute(
                "INSERT INTO images (id, created, size, parent, manifest) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET parent = coalesce(parent, excluded.parent),
                                                manifest = coalesce(manifest, excluded.manifest)",
                (id.as_str(), &created, size, parent, &manifest),
            )?;
            for (position, diff_id) in config.diff_ids().iter().enumerate() {
                tx.execute(
                    "INSERT OR IGNORE INTO image_layers (id, position, diff_id) VALUES (?1, ?2, ?3)",
                    (id.as_str(), position, diff_id.as_str()),
                )?;
            }
            for digest in blobs.iter().flatten() {
                tx.execute(
                    "INSERT OR IGNORE INTO image_blobs (id, digest) VALUES (?1, ?2)",
                    (id.as_str(), digest.as_str()),
                )?;
            }
            // What an interrupted pull had left for this one: from now on the image alone keeps it.
            tx.execute(RELEASE, [id.as_str()])?;
            Ok(())
        })?;
        if manifest.is_some() {
            index::refresh(&self.shared.db, &self.shared.content)?;
        }
        Ok(id)
    }

    /// The manifest and all that it names.
    fn manifest_blobs(&self, descriptor: &Descriptor) -> Result<Vec<Digest>> {
        let bytes = self.shared.content.read(&descriptor.digest, MAX_DOCUMENT as u64)?;
        let mut blobs = vec![descriptor.digest.clone()];
        if let Document::Manifest(manifest) = Document::parse(&bytes, Some(&descriptor.media_type))? {
            blobs.push(manifest.config.digest);
            blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
        Ok(blobs)
    }

    /// One image.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn get(&self, id: &ImageId) -> Result<Option<Image>> {
        let row = self.shared.db.with("look up an image", |db| {
            db.prepare_cached("SELECT created, tagged, size, parent, manifest FROM images WHERE id = ?1")?
                .query_row([id.as_str()], |row| {
                    let text = |i| row.get::<_, Option<String>>(i);
                    Ok((text(0)?, text(1)?, row.get::<_, u64>(2)?, text(3)?, text(4)?))
                })
                .optional()
        })?;
        let Some((created, tagged, size, parent, manifest)) = row else { return Ok(None) };
        let time = |text: Option<String>| text.and_then(|t| t.parse::<Timestamp>().ok());
        Ok(Some(Image {
            id: id.clone(),
            created: time(created).unwrap_or_default(),
            tagged: time(tagged),
            size,
            parent: parent.and_then(|p| Digest::parse(&p).ok()),
            layers: self
                .strings("SELECT diff_id FROM image_layers WHERE id = ?1 ORDER BY position", id.as_str())?
                .iter()
                .filter_map(|text| DiffId::parse(text).ok())
                .collect(),
            manifest: manifest.and_then(|text| serde_json::from_str(&text).ok()),
            tags: self.references("SELECT reference FROM tags WHERE id = ?1 ORDER BY reference", id)?,
            repo_digests: self
                .references("SELECT reference FROM repo_digests WHERE id = ?1 ORDER BY reference", id)?,
        }))
    }

    pub(crate) fn required(&self, id: &ImageId) -> Result<Image> {
        self.get(id)?.ok_or_else(|| StoreError::NoSuchImage(id.to_string()))
    }

    pub(crate) fn references(&self, query: &'static str, id: &ImageId) -> Result<Vec<Reference>> {
        let texts = self.strings(query, id.as_str())?;
        Ok(texts.iter().filter_map(|text| Reference::parse_name(text).ok()).collect())
    }

    pub(crate) fn strings(&self, query: &'static str, argument: &str) -> Result<Vec<String>> {
        self.shared.db.with("look up an image", |db| {
            db.prepare_cached(query)?.query_map([argument], |row| row.get(0))?.collect()
        })
    }

    /// The config's bytes.
    ///
    /// # Errors
    /// If the blob is not there.
    pub fn config_bytes(&self, id: &ImageId) -> Result<Vec<u8>> {
        match self.shared.content.read(id, MAX_DOCUMENT as u64) {
            Err(StoreError::NotFound { .. }) => Err(StoreError::NoSuchImage(id.to_string())),
            other => other,
        }
    }

    /// The config.
    ///
    /// # Errors
    /// If the blob is not there or malformed.
    pub fn config_of(&self, id: &ImageId) -> Result<ImageConfig> {
        parse_config(&self.config_bytes(id)?)
    }

    /// All images, newest first. Images that are only the parent of others (steps of a build) are left out
    /// unless `all`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn list(&self, all: bool) -> Result<Vec<Image>> {
        let ids: Vec<String> = self.shared.db.with("list images", |db| {
            db.prepare_cached(
                "SELECT id FROM images i WHERE ?1 OR EXISTS (SELECT 1 FROM tags t WHERE t.id = i.id)
                    OR EXISTS (SELECT 1 FROM repo_digests r WHERE r.id = i.id)
                    OR NOT EXISTS (SELECT 1 FROM images c WHERE c.parent = i.id)",
            )?
            .query_map([all], |row| row.get(0))?
            .collect()
        })?;
        let mut images = Vec::with_capacity(ids.len());
        for id in ids.iter().filter_map(|id| Digest::parse(id).ok()) {
            // One that was removed meanwhile is no error.
            images.extend(self.get(&id)?);
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Images that were built on this one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn children(&self, id: &ImageId) -> Result<Vec<ImageId>> {
        let texts = self.strings("SELECT id FROM images WHERE parent = ?1 ORDER BY id", id.as_str())?;
        Ok(texts.iter().filter_map(|text| Digest::parse(text).ok()).collect())
    }
}

pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfig> {
    ImageConfig::parse(bytes).map_err(|source| StoreError::Json { what: "image config".to_owned(), source })
}
