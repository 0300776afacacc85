//! The indexes that images were chosen from, and the attestations that stand in them beside an image.
//!
//! ```text
//!  index ─▶ manifest of this platform          the image
//!        ─▶ attestation-manifest ─ about ─▶ that manifest: kept with the image, as the image's own blobs are
//!        ─▶ manifests of other platforms       kept if they were pulled too
//! ```

use berth_oci::{Descriptor, Document, ImageId, Index, MAX_DOCUMENT, Manifest, media_type};

use crate::error::Result;
use crate::images::Images;

/// A manifest or index with the bytes that its digest is about.
#[derive(Clone, Debug)]
pub struct Ready<T> {
    /// As whoever names it says it is.
    pub descriptor: Descriptor,
    /// What it says.
    pub document: T,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An index of which everything is in the store.
#[derive(Clone, Debug)]
pub struct WholeIndex {
    /// The index.
    pub index: Ready<Index>,
    /// All that it names, in its order.
    pub children: Vec<Ready<Manifest>>,
}

impl Images {
    /// Remembers the index from which the image was chosen; its blob is in the content store. Attestations about the
    /// image that are there whole are kept with it.
    ///
    /// # Errors
    /// If there is no such image.
    pub fn add_index(&self, id: &ImageId, index: &Descriptor) -> Result<()> {
        let descriptor = serde_json::to_string(index).expect("a descriptor is JSON");
        let mut blobs = Vec::new();
        for (entry, manifest) in self.attestations_in(id, index)? {
            blobs.push(entry.digest);
            blobs.extend([&manifest.config].into_iter().chain(&manifest.layers).map(|b| b.digest.clone()));
        }
        self.shared.db.transaction("record an index", |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO image_indexes (id, digest, descriptor) VALUES (?1, ?2, ?3)",
                (id.as_str(), index.digest.as_str(), descriptor),
            )?;
            for digest in &blobs {
                tx.execute(
                    "INSERT OR IGNORE INTO image_blobs (id, digest) VALUES (?1, ?2)",
                    (id.as_str(), digest.as_str()),
                )?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The index from which the image was chosen, the latest if there are several.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn index_of(&self, id: &ImageId) -> Result<Option<Descriptor>> {
        let query = "SELECT descriptor FROM image_indexes WHERE id = ?1 ORDER BY rowid DESC";
        let texts = self.strings(query, id.as_str())?;
        Ok(texts.first().and_then(|text| serde_json::from_str(text).ok()))
    }

    /// The attestations about the image that are here, each as its index names it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn attestations(&self, id: &ImageId) -> Result<Vec<(Descriptor, Manifest)>> {
        match self.index_of(id)? {
            Some(index) => self.attestations_in(id, &index),
            None => Ok(Vec::new()),
        }
    }

    fn attestations_in(&self, id: &ImageId, index: &Descriptor) -> Result<Vec<(Descriptor, Manifest)>> {
        let manifest = self.required(id)?.manifest;
        let (Some(manifest), Some(index)) = (manifest, self.index(index)?) else { return Ok(Vec::new()) };
        let about = index.document.manifests.iter().filter(|e| e.is_attestation_of(&manifest.digest));
        let mut found = Vec::new();
        for entry in about {
            found.extend(self.child(entry)?.map(|child| (entry.clone(), child.document)));
        }
        Ok(found)
    }

    /// The index that the image was chosen from, if every image of it is here.
    ///
    /// # Errors
    /// If a blob cannot be read.
    pub fn whole_index(&self, id: &ImageId) -> Result<Option<WholeIndex>> {
        let Some(index) = self.original_index(id)? else { return Ok(None) };
        let mut children = Vec::with_capacity(index.document.manifests.len());
        for entry in &index.document.manifests {
            let Some(child) = self.child(entry)? else { return Ok(None) };
            children.push(child);
        }
        Ok(Some(WholeIndex { index, children }))
    }

    /// All that stands in the index which the image was chosen from; with its manifest, what is here whole. An image
    /// without an index has its own manifest alone.
    ///
    /// # Errors
    /// If there is no such image, or a blob cannot be read.
    pub fn offered(&self, id: &ImageId) -> Result<Vec<(Descriptor, Option<Manifest>)>> {
        let entries = match self.original_index(id)? {
            Some(index) => index.document.manifests,
            None => self.required(id)?.manifest.into_iter().collect(),
        };
        let mut offered = Vec::with_capacity(entries.len());
        for entry in entries {
            let manifest = self.child(&entry)?.map(|child| child.document);
            offered.push((entry, manifest));
        }
        Ok(offered)
    }

    /// The index that the image was chosen from, with its bytes; what it names need not be here.
    ///
    /// # Errors
    /// If a blob cannot be read.
    pub(crate) fn original_index(&self, id: &ImageId) -> Result<Option<Ready<Index>>> {
        Ok(self.index_of(id)?.map(|descriptor| self.index(&descriptor)).transpose()?.flatten())
    }

    fn index(&self, descriptor: &Descriptor) -> Result<Option<Ready<Index>>> {
        let Some(bytes) = self.document(descriptor)? else { return Ok(None) };
        Ok(match Document::parse(&bytes, Some(&descriptor.media_type)) {
            Ok(Document::Index(document)) => Some(Ready { descriptor: descriptor.clone(), document, bytes }),
            _ => None,
        })
    }

    /// A manifest of which all blobs are here.
    fn child(&self, entry: &Descriptor) -> Result<Option<Ready<Manifest>>> {
        let Some(bytes) = self.document(entry)? else { return Ok(None) };
        let Ok(Document::Manifest(document)) = Document::parse(&bytes, Some(&entry.media_type)) else {
            return Ok(None);
        };
        let here = |blob: &Descriptor| {
            media_type::is_nondistributable(&blob.media_type) || self.shared.content.contains(&blob.digest)
        };
        let whole = document.layers.iter().chain([&document.config]).all(here);
        Ok(whole.then(|| Ready { descriptor: entry.clone(), document, bytes }))
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let content = &self.shared.content;
        let here = content.contains(&descriptor.digest);
        here.then(|| content.read(&descriptor.digest, MAX_DOCUMENT as u64)).transpose()
    }
}
