//! Tags, repository digests, and what a user's word for an image means.

use berth_oci::{Digest, ImageId, Reference};
use jiff::Timestamp;
use rusqlite::OptionalExtension;

use crate::error::{Result, StoreError};
use crate::images::{Image, Images};
use crate::{durability, index};

const TAGGED: &str = "UPDATE images SET tagged = ?1 WHERE id = ?2";

fn now() -> String {
    Timestamp::now().to_string()
}

impl Images {
    /// What the user means: an id, `name[:tag]`, `name@digest`, or the unique beginning of an id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::AmbiguousId`], [`StoreError::Reference`].
    pub fn resolve(&self, user: &str) -> Result<Image> {
        let id = self.resolve_id(user)?;
        self.required(&id)
    }

    pub(crate) fn resolve_id(&self, user: &str) -> Result<ImageId> {
        let digits = user.strip_prefix("sha256:").unwrap_or(user);
        if let Ok(id) = Digest::from_sha256_hex(digits) {
            return match self.exists(&id)? {
                true => Ok(id),
                false => Err(StoreError::NoSuchImage(user.to_owned())),
            };
        }
        let parsed = Reference::parse(user);
        if let Ok(reference) = &parsed
            && let Some(id) = self.by_reference(reference)?
        {
            return Ok(id);
        }
        if let Some(id) = self.by_prefix(user, digits)? {
            return Ok(id);
        }
        // docker's wording names the reference in full: `No such image: busybox:latest`.
        Err(match parsed {
            Ok(reference) => StoreError::NoSuchImage(reference.familiar()),
            Err(error) => error.into(),
        })
    }

    pub(crate) fn exists(&self, id: &ImageId) -> Result<bool> {
        self.shared.db.with("look up an image", |db| {
            db.prepare_cached("SELECT 1 FROM images WHERE id = ?1")?.exists([id.as_str()])
        })
    }

    /// The image of a full reference. With a digest the digest decides.
    pub(crate) fn by_reference(&self, reference: &Reference) -> Result<Option<ImageId>> {
        let (query, key) = match reference.digest() {
            Some(digest) => (
                "SELECT id FROM repo_digests WHERE reference = ?1 LIMIT 1",
                reference.with_digest(digest.clone()).to_string(),
            ),
            None => ("SELECT id FROM tags WHERE reference = ?1", reference.to_string()),
        };
        Ok(self.strings(query, &key)?.first().and_then(|id| Digest::parse(id).ok()))
    }

    fn by_prefix(&self, user: &str, digits: &str) -> Result<Option<ImageId>> {
        let sound = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !sound || digits.len() >= 64 {
            return Ok(None);
        }
        let found = self.strings(
            "SELECT id FROM images WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 2",
            &format!("sha256:{digits}"),
        )?;
        match found.as_slice() {
            [] => Ok(None),
            [id] => Ok(Digest::parse(id).ok()),
            _ => Err(StoreError::AmbiguousId(user.to_owned())),
        }
    }

    /// Points a tag at an image; returns the image at which it pointed before, if that was another.
    /// When this returns, the image survives a power cut.
    ///
    /// # Errors
    /// If there is no such image, or the reference has a digest.
    pub fn tag(&self, reference: &Reference, id: &ImageId) -> Result<Option<ImageId>> {
        let image = self.required(id)?;
        if reference.tag().is_none() || reference.digest().is_some() {
            return Err(StoreError::Reference(berth_oci::ReferenceError::Format));
        }
        durability::settle(&self.shared, &image)?;
        let key = reference.to_string();
        if image.tags.contains(reference) {
            // Whoever set it may not have flushed it yet.
            self.shared.db.flush()?;
            self.shared.db.note("tag an image", |db| db.execute(TAGGED, (now(), id.as_str())))?;
            return Ok(None);
        }
        let before = self.shared.db.transaction("tag an image", |tx| {
            let before: Option<String> = tx
                .query_row("SELECT id FROM tags WHERE reference = ?1", [&key], |row| row.get(0))
                .optional()?;
            tx.execute("INSERT OR REPLACE INTO tags (reference, id) VALUES (?1, ?2)", (&key, id.as_str()))?;
            tx.execute(TAGGED, (now(), id.as_str()))?;
            Ok(before)
        })?;
        self.shared.db.flush()?;
        index::refresh(&self.shared.db, &self.shared.content)?;
        Ok(before.and_then(|text| Digest::parse(&text).ok()).filter(|before| before != id))
    }

    /// Takes a tag away; the image stays. False if there was no such tag.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        let removed = self.shared.db.with("untag an image", |db| {
            db.execute("DELETE FROM tags WHERE reference = ?1", [reference.to_string()])
        })?;
        index::refresh(&self.shared.db, &self.shared.content)?;
        Ok(removed > 0)
    }

    /// Records that the repository (a tag is ignored) knows this image by this manifest digest.
    /// When this returns, the image survives a power cut.
    ///
    /// # Errors
    /// If there is no such image.
    pub fn add_repo_digest(&self, reference: &Reference, digest: &Digest, id: &ImageId) -> Result<()> {
        durability::settle(&self.shared, &self.required(id)?)?;
        let key = reference.with_digest(digest.clone()).to_string();
        self.shared.db.with("record a repository digest", |db| {
            db.execute(
                "INSERT OR IGNORE INTO repo_digests (reference, id) VALUES (?1, ?2)",
                (key, id.as_str()),
            )
        })?;
        self.shared.db.flush()
    }
}
