//! `docker save`: one tar which is both an OCI layout and a docker-archive, as docker writes it since 25.
//!
//! An image that was pulled keeps its manifest and its compressed layers byte for byte. A local one gets its
//! layers as plain tars, streamed from their trees, and a manifest that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use berth_oci::{
    Descriptor, Digest, Document, ImageId, Index, MAX_DOCUMENT, Manifest, Reference, media_type,
};

use crate::archive::names::choose;
use crate::archive::{CHOSEN_FROM, IMAGE_NAME, Item};
use crate::error::{Result, StoreError};
use crate::images::Image;
use crate::index::REF_NAME;
use crate::store::Store;
use crate::tarball::{Entry, Kind, Writer};

/// Where the bytes of a blob come from.
enum Source {
    Bytes(Vec<u8>),
    Blob,
    Layer(berth_oci::DiffId),
}

#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, (u64, Option<Source>)>,
    items: Vec<Item>,
    index: Vec<Descriptor>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

pub(crate) fn save<S: AsRef<str>>(store: &Store, names: &[S], to: impl Write) -> Result<()> {
    let mut plan = Plan::default();
    for (id, references) in choose(store, names)? {
        plan.add(store, &id, &references)?;
    }
    plan.write(store, to)
}

pub(crate) fn save_as(store: &Store, id: &ImageId, names: &[Reference], to: impl Write) -> Result<()> {
    let mut plan = Plan::default();
    plan.add(store, id, names)?;
    plan.write(store, to)
}

impl Plan {
    fn add(&mut self, store: &Store, id: &ImageId, references: &[Reference]) -> Result<()> {
        let image = store.images().required(id)?;
        let (descriptor, manifest) = self.manifest(store, &image)?;
        let descriptor = self.index(store, &image, descriptor)?;
        let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let sources = image.layers.iter().zip(&manifest.layers);
        self.items.push(Item {
            config: path(&manifest.config.digest),
            repo_tags: (!references.is_empty()).then(|| references.iter().map(Reference::familiar).collect()),
            layers: Some(manifest.layers.iter().map(|layer| path(&layer.digest)).collect()),
            layer_sources: Some(
                sources.map(|(diff_id, layer)| (diff_id.to_string(), layer.clone())).collect(),
            ),
        });
        if references.is_empty() {
            self.index.push(descriptor.clone());
        }
        for reference in references {
            let mut entry = descriptor.clone();
            entry.annotate(IMAGE_NAME, reference.to_string());
            let tag = reference.tag().unwrap_or_default();
            entry.annotate(REF_NAME, tag);
            self.index.push(entry);
            let top = image.layers.last().map_or_else(|| id.hex().to_owned(), |layer| layer.hex().to_owned());
            self.repositories.entry(reference.familiar_name()).or_default().insert(tag.to_owned(), top);
        }
        Ok(())
    }

    /// An index whose images are all here goes along, with its attestations; readers choose from it as we did. Of
    /// another one its own bytes go along, and the manifest tells of it.
    fn index(&mut self, store: &Store, image: &Image, mut manifest: Descriptor) -> Result<Descriptor> {
        let Some(whole) = store.images().whole_index(&image.id)? else {
            if let Some(index) = store.images().original_index(&image.id)?
                && index.document.manifests.iter().any(|entry| entry.digest == manifest.digest)
            {
                manifest.annotate(CHOSEN_FROM, index.descriptor.digest.to_string());
                self.document(&index.descriptor, index.bytes);
            }
            return Ok(manifest);
        };
        for child in whole.children {
            for blob in child.document.layers.iter().chain([&child.document.config]) {
                if store.content().contains(&blob.digest) {
                    self.blobs.insert(blob.digest.clone(), (blob.size, Some(Source::Blob)));
                }
            }
            self.document(&child.descriptor, child.bytes);
        }
        self.document(&whole.index.descriptor, whole.index.bytes);
        Ok(whole.index.descriptor)
    }

    fn document(&mut self, descriptor: &Descriptor, bytes: Vec<u8>) {
        self.blobs.insert(descriptor.digest.clone(), (bytes.len() as u64, Some(Source::Bytes(bytes))));
    }

    /// The manifest to save an image with; notes where its blobs come from.
    fn manifest(&mut self, store: &Store, image: &Image) -> Result<(Descriptor, Manifest)> {
        if let Some(descriptor) = &image.manifest
            && store.images().is_complete(&image.id)?
        {
            let bytes = store.content().read(&descriptor.digest, MAX_DOCUMENT as u64)?;
            if let Document::Manifest(manifest) = Document::parse(&bytes, Some(&descriptor.media_type))? {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    self.blobs.insert(blob.digest.clone(), (blob.size, Some(Source::Blob)));
                }
                self.document(descriptor, bytes);
                return Ok((descriptor.clone(), manifest));
            }
        }
        let mut layers = Vec::with_capacity(image.layers.len());
        for diff_id in &image.layers {
            let layer = store.layers().tar_descriptor(diff_id)?;
            self.blobs.insert(layer.digest.clone(), (layer.size, Some(Source::Layer(diff_id.clone()))));
            layers.push(layer);
        }
        let config = store.images().config_bytes(&image.id)?;
        let descriptor = Descriptor::new(media_type::OCI_CONFIG, image.id.clone(), config.len() as u64);
        self.blobs.insert(image.id.clone(), (config.len() as u64, Some(Source::Bytes(config))));
        let manifest = Manifest::oci(descriptor, layers);
        let bytes = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        self.blobs.insert(digest.clone(), (size, Some(Source::Bytes(bytes))));
        Ok((Descriptor::new(media_type::OCI_MANIFEST, digest, size), manifest))
    }

    fn write(mut self, store: &Store, to: impl Write) -> Result<()> {
        let failed = |source| StoreError::Stream { operation: "write the archive", source };
        let mut tar = Writer::new(to);
        let algorithms: BTreeSet<&str> = self.blobs.keys().map(|d| d.algorithm().name()).collect();
        for directory in
            std::iter::once("blobs".to_owned()).chain(algorithms.iter().map(|a| format!("blobs/{a}")))
        {
            tar.member(&member(&directory, Kind::Directory, 0)).map_err(failed)?;
        }
        for (digest, (size, source)) in &mut self.blobs {
            let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
            let source: Box<dyn Read> = match source.take().expect("each blob is written once") {
                Source::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
                Source::Blob => Box::new(store.content().open(digest)?),
                Source::Layer(diff_id) => store.layers().tar(&diff_id)?,
            };
            tar.member(&member(&path, Kind::File, *size)).map_err(failed)?;
            tar.data(source, *size).map_err(failed)?;
        }
        for (name, bytes) in [
            ("index.json", to_json(&Index::oci(std::mem::take(&mut self.index)))),
            ("manifest.json", to_json(&self.items)),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("repositories", to_json(&self.repositories)),
        ] {
            if name == "repositories" && self.repositories.is_empty() {
                continue;
            }
            tar.member(&member(name, Kind::File, bytes.len() as u64)).map_err(failed)?;
            tar.data(&bytes[..], bytes.len() as u64).map_err(failed)?;
        }
        tar.finish().map_err(failed)?;
        Ok(())
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the documents of an archive are JSON")
}

fn member(path: &str, kind: Kind, size: u64) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        link: Vec::new(),
        kind,
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size,
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}
