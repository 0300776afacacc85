//! The manifest under which an image is pushed.

use berth_oci::{Descriptor, Digest, ImageId, Index, Manifest, Reference, media_type};

use crate::compression::Compression;
use crate::error::Result;
use crate::images::{Images, NewImage};

impl Images {
    /// The manifest to push: the one with which it was pulled or loaded, or one made now (layers are compressed
    /// as needed) and remembered. All blobs that it names are in the store.
    ///
    /// # Errors
    /// If the image or one of its layers is not there.
    pub fn manifest(&self, id: &ImageId, compression: Compression) -> Result<Descriptor> {
        let image = self.required(id)?;
        if let Some(manifest) = image.manifest
            && self.is_complete(id)?
        {
            return Ok(manifest);
        }
        let layers = self.layers();
        let mut blobs = Vec::with_capacity(image.layers.len());
        for diff_id in &image.layers {
            let mut blob = layers.compressed(diff_id, compression)?;
            // A blob may have come with a Docker manifest; an OCI one names it in OCI's words.
            blob.media_type = Compression::of_media_type(&blob.media_type).layer_media_type().to_owned();
            blob.urls = None;
            blobs.push(blob);
        }
        let config = self.config_bytes(id)?;
        let config = Descriptor::new(media_type::OCI_CONFIG, id.clone(), config.len() as u64);
        let bytes = serde_json::to_vec(&Manifest::oci(config, blobs)).expect("a manifest is JSON");
        let digest = self.shared.content.put(&bytes)?;
        let descriptor = Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64);
        self.shared.db.with("forget a manifest", |db| {
            db.execute("UPDATE images SET manifest = NULL WHERE id = ?1", [id.as_str()])
        })?;
        let config = self.config_bytes(id)?;
        self.put(NewImage { config, manifest: Some(descriptor.clone()), parent: None })?;
        Ok(descriptor)
    }

    /// Makes an index of one program's images for several platforms, and remembers it with each of them: a push of one
    /// is then a push of all.
    ///
    /// # Errors
    /// If an image or one of its layers is not there.
    pub fn join(&self, ids: &[ImageId], compression: Compression) -> Result<Descriptor> {
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            let mut entry = self.manifest(id, compression)?;
            entry.platform = Some(self.config_of(id)?.platform());
            entries.push(entry);
        }
        let bytes = serde_json::to_vec(&Index::oci(entries)).expect("an index is JSON");
        let digest = self.shared.content.put(&bytes)?;
        let descriptor = Descriptor::new(media_type::OCI_INDEX, digest, bytes.len() as u64);
        for id in ids {
            self.add_index(id, &descriptor)?;
        }
        Ok(descriptor)
    }

    /// The repositories (with a digest) that are known to have this blob: some image with it came from there or went
    /// there.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn repositories_of(&self, blob: &Digest) -> Result<Vec<Reference>> {
        let query = "SELECT min(reference) FROM repo_digests WHERE id IN (SELECT id FROM image_blobs WHERE digest = ?1)
            GROUP BY substr(reference, 1, instr(reference, '@')) ORDER BY 1";
        let texts = self.strings(query, blob.as_str())?;
        Ok(texts.iter().filter_map(|text| Reference::parse_name(text).ok()).collect())
    }

    /// Whether the image's configuration, its layers and all that its manifest names are in the store.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_whole(&self, id: &ImageId) -> Result<bool> {
        let image = self.required(id)?;
        let layers = self.layers();
        Ok(self.shared.content.contains(id)
            && image.layers.iter().all(|diff_id| layers.contains(diff_id))
            && (image.manifest.is_none() || self.is_complete(id)?))
    }

    /// Whether every blob that the image's manifest names is in the store.
    pub(crate) fn is_complete(&self, id: &ImageId) -> Result<bool> {
        let blobs = self.strings("SELECT digest FROM image_blobs WHERE id = ?1", id.as_str())?;
        let present = |text: &String| {
            berth_oci::Digest::parse(text).is_ok_and(|digest| self.shared.content.contains(&digest))
        };
        Ok(!blobs.is_empty() && blobs.iter().all(present))
    }
}
