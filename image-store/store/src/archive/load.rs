//! `docker load`: docker-archives (manifest.json) and OCI layouts (index.json), and archives that are both.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use berth_oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, ImageId, Index, MAX_DOCUMENT, Manifest, Platform,
    Reference, media_type,
};

use crate::archive::ahead::Unpacked;
use crate::archive::spool::Spool;
use crate::archive::{CHOSEN_FROM, IMAGE_NAME, Item};
use crate::compression::Compression;
use crate::error::{Result, StoreError};
use crate::images::NewImage;
use crate::index::REF_NAME;
use crate::store::Store;

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// What came out of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names it got; none if the archive has none.
    pub references: Vec<Reference>,
}

/// Progress of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer is being unpacked; it is there already if `exists`.
    Layer {
        /// Which.
        diff_id: DiffId,
        /// Compressed size.
        size: u64,
        /// Nothing to do.
        exists: bool,
    },
    /// A layer is done.
    LayerDone {
        /// Which.
        diff_id: DiffId,
    },
}

/// An image of the archive, before anything of it is recorded.
struct Pending {
    config: Vec<u8>,
    id: ImageId,
    layers: Vec<(DiffId, Descriptor)>,
    manifest: Option<Descriptor>,
    /// The index that the manifest was chosen from.
    index: Option<Descriptor>,
    references: Vec<Reference>,
}

/// An image manifest of the archive.
struct Found {
    descriptor: Descriptor,
    manifest: Manifest,
    index: Option<Descriptor>,
}

/// What an entry of index.json leads to.
struct Entry {
    /// The images, first the one that is meant here.
    images: Vec<Found>,
    references: Vec<Reference>,
}

pub(crate) fn load(
    store: &Store,
    from: impl Read + Send,
    platforms: &[Platform],
    progress: &(dyn Fn(LoadEvent) + Sync),
) -> Result<Vec<Loaded>> {
    let spool = Spool::read(store, from)?;
    let entries = entries(store, &spool)?;
    let pending = match spool.document("manifest.json") {
        Some(bytes) if platforms.is_empty() => from_items(store, &spool, bytes, &entries)?,
        // manifest.json has one image for each name; what else an index holds, index.json leads to.
        Some(bytes) => {
            let mut pending = from_items(store, &spool, bytes, &entries)?;
            pending.retain(|image| is_for(&image.config, platforms));
            let more = from_entries(store, &spool, entries, platforms)?;
            let new = |image: &Pending| pending.iter().all(|known| known.id != image.id);
            let more: Vec<Pending> = more.into_iter().filter(new).collect();
            pending.extend(more);
            pending
        }
        None => from_entries(store, &spool, entries, platforms)?,
    };
    if pending.is_empty() && !platforms.is_empty() {
        let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        return Err(StoreError::Archive(format!("the archive holds no image for {}", wanted.join(", "))));
    }
    if pending.is_empty() {
        return Err(StoreError::Archive(
            "the archive holds no image: it has neither a manifest.json (docker save) nor an index.json with an \
             image for this platform (OCI layout)"
                .to_owned(),
        ));
    }
    unpack_all(store, &pending, &spool.unpacked, progress)?;
    let mut loaded = Vec::with_capacity(pending.len());
    for image in pending {
        let manifest = image.manifest.filter(|m| keeps_manifest(store, m));
        let index = image.index.filter(|_| manifest.is_some());
        let id = store.images().put(NewImage { config: image.config, manifest, parent: None })?;
        if let Some(index) = &index {
            store.images().add_index(&id, index)?;
        }
        for reference in &image.references {
            store.images().tag(reference, &id)?;
        }
        loaded.push(Loaded { id, references: image.references });
    }
    Ok(loaded)
}

/// Images of manifest.json.
fn from_items(store: &Store, spool: &Spool, bytes: &[u8], entries: &[Entry]) -> Result<Vec<Pending>> {
    let items: Vec<Item> = serde_json::from_slice(bytes)
        .map_err(|source| StoreError::Json { what: "manifest.json of the archive".to_owned(), source })?;
    let mut pending = Vec::with_capacity(items.len());
    for item in items {
        let (id, size) = spool.find(&item.config)?;
        let paths = item.layers.unwrap_or_default();
        let blobs = paths.iter().map(|path| spool.find(path)).collect::<Result<Vec<_>>>()?;
        let references = item.repo_tags.unwrap_or_default();
        let references =
            references.iter().map(|name| Ok(Reference::parse(name)?)).collect::<Result<Vec<_>>>()?;
        // Which platform is meant, the item says.
        let mut images = entries.iter().flat_map(|entry| &entry.images);
        let found = images.find(|found| found.manifest.config.digest == id);
        let manifest = found.map(|found| found.descriptor.clone());
        let index = found.and_then(|found| found.index.clone());
        pending.push(Pending { manifest, index, references, ..image(store, (id, size), blobs)? });
    }
    Ok(pending)
}

/// Whether an image of this configuration is for one of the platforms.
fn is_for(config: &[u8], platforms: &[Platform]) -> bool {
    let offered = ImageConfig::parse(config).map(|config| config.platform());
    offered.is_ok_and(|offered| platforms.iter().any(|wanted| wanted.matches(&offered)))
}

/// The images that are meant by an entry: the one for this machine, or all for the platforms that are named. The first of
/// them has the names.
fn meant(store: &Store, entry: Entry, platforms: &[Platform]) -> Result<Vec<(Found, Vec<Reference>)>> {
    let Entry { images, references } = entry;
    let mut meant = Vec::new();
    for found in images {
        if platforms.is_empty() {
            return Ok(vec![(found, references)]);
        }
        // A configuration that is not in the archive is of an image that is not.
        let config = &found.manifest.config.digest;
        if !store.content().contains(config) {
            continue;
        }
        if is_for(&store.content().read(config, MAX_DOCUMENT as u64)?, platforms) {
            let names = if meant.is_empty() { references.clone() } else { Vec::new() };
            meant.push((found, names));
        }
    }
    Ok(meant)
}

/// Images of index.json, those that each entry means; several names of one image are joined.
fn from_entries(
    store: &Store,
    spool: &Spool,
    entries: Vec<Entry>,
    platforms: &[Platform],
) -> Result<Vec<Pending>> {
    let mut pending: Vec<Pending> = Vec::new();
    let mut all = Vec::new();
    for entry in entries {
        all.extend(meant(store, entry, platforms)?);
    }
    for (Found { descriptor, manifest, index }, references) in all {
        if let Some(known) = pending.iter_mut().find(|p| p.id == manifest.config.digest) {
            known.references.extend(references);
            continue;
        }
        let find = |blob: &Descriptor| -> Result<(Digest, u64)> {
            let path = format!("blobs/{}/{}", blob.digest.algorithm().name(), blob.digest.hex());
            let (_, size) = spool.find(&path)?;
            if size != blob.size {
                let what = format!("{path} has {size} bytes, but the manifest says {}", blob.size);
                return Err(StoreError::Archive(what));
            }
            Ok((blob.digest.clone(), size))
        };
        let blobs = manifest.layers.iter().map(find).collect::<Result<Vec<_>>>()?;
        let image = image(store, find(&manifest.config)?, blobs)?;
        pending.push(Pending { manifest: Some(descriptor), index, references, ..image });
    }
    Ok(pending)
}

fn image(store: &Store, (config_digest, size): (Digest, u64), blobs: Vec<(Digest, u64)>) -> Result<Pending> {
    if size > MAX_DOCUMENT as u64 {
        return Err(StoreError::Archive(format!("the config of an image has {size} bytes")));
    }
    let config = store.content().read(&config_digest, MAX_DOCUMENT as u64)?;
    let parsed = ImageConfig::parse(&config)
        .map_err(|source| StoreError::Json { what: format!("config {config_digest}"), source })?;
    let diff_ids = parsed.diff_ids();
    if diff_ids.len() != blobs.len() {
        return Err(StoreError::Archive(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            diff_ids.len(),
            blobs.len()
        )));
    }
    let layers = diff_ids.iter().zip(blobs).map(|(diff_id, (digest, size))| {
        let compression = compression_of(store, &digest)?;
        Ok((diff_id.clone(), Descriptor::new(compression.layer_media_type(), digest, size)))
    });
    Ok(Pending {
        layers: layers.collect::<Result<_>>()?,
        id: Digest::of(&config),
        config,
        manifest: None,
        index: None,
        references: Vec::new(),
    })
}

fn compression_of(store: &Store, blob: &Digest) -> Result<Compression> {
    let mut start = Vec::new();
    let file = store.content().open(blob)?;
    file.take(4)
        .read_to_end(&mut start)
        .map_err(|source| StoreError::Stream { operation: "read a blob", source })?;
    Ok(Compression::detect(&start))
}

/// Sees to it that every layer is unpacked, each once, as many at a time as there are processors.
fn unpack_all(
    store: &Store,
    pending: &[Pending],
    unpacked: &Unpacked,
    progress: &(dyn Fn(LoadEvent) + Sync),
) -> Result<()> {
    let layers: BTreeMap<&DiffId, &Descriptor> =
        pending.iter().flat_map(|image| image.layers.iter().map(|(diff_id, blob)| (diff_id, blob))).collect();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(layers.len());
    let queue = Mutex::new(layers.into_iter());
    let work = || -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((diff_id, blob)) = next else { return Ok(()) };
            if let Err(error) = unpack_one(store, diff_id, blob, unpacked, progress) {
                // The others need not begin anything more.
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().expect("an unpacking thread does not panic"))
            .collect();
        results.into_iter().collect()
    })
}

fn unpack_one(
    store: &Store,
    diff_id: &DiffId,
    blob: &Descriptor,
    unpacked: &Unpacked,
    progress: &dyn Fn(LoadEvent),
) -> Result<()> {
    let layers = store.layers();
    let on_the_way = unpacked.get(&blob.digest) == Some(diff_id);
    let there = layers.contains(diff_id);
    let exists = there && !on_the_way;
    progress(LoadEvent::Layer { diff_id: diff_id.clone(), size: blob.size, exists });
    if !there {
        layers.unpack(store.content().open(&blob.digest)?, Some(diff_id))?;
    }
    // A plain tar that the tree can give again is not kept twice.
    let plain = Compression::of_media_type(&blob.media_type) == Compression::None;
    let known = !layers.blobs(diff_id)?.is_empty();
    // Of a layer that was there before, only the blob's digest was verified, not that it is this layer.
    let proven = !exists || plain && blob.digest == diff_id.0;
    if !known && proven && !(plain && layers.try_canonical(diff_id)?) {
        layers.remember_blob(diff_id, blob)?;
    }
    progress(LoadEvent::LayerDone { diff_id: diff_id.clone() });
    Ok(())
}

/// A manifest of uncompressed layers is of no use to anybody: a push makes a better one.
fn keeps_manifest(store: &Store, descriptor: &Descriptor) -> bool {
    let Ok(bytes) = store.content().read(&descriptor.digest, MAX_DOCUMENT as u64) else { return false };
    match Document::parse(&bytes, Some(&descriptor.media_type)) {
        Ok(Document::Manifest(manifest)) => manifest.layers.iter().all(|layer| {
            Compression::of_media_type(&layer.media_type) != Compression::None
                && store.content().contains(&layer.digest)
        }),
        _ => false,
    }
}

/// All that index.json leads to, with the names it gives.
fn entries(store: &Store, spool: &Spool) -> Result<Vec<Entry>> {
    let Some(bytes) = spool.document("index.json") else { return Ok(Vec::new()) };
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|source| StoreError::Json { what: "index.json of the archive".to_owned(), source })?;
    let mut found = Vec::new();
    for entry in &index.manifests {
        let images = follow(store, entry, 0, &mut HashSet::new())?;
        found.push(Entry { images, references: names(entry) });
    }
    Ok(found)
}

/// The images of the archive that an entry leads to, first the one for this platform if it is there. An archive without
/// one is of another platform because somebody chose it. What was `seen` is not followed again.
fn follow(store: &Store, entry: &Descriptor, depth: usize, seen: &mut HashSet<Digest>) -> Result<Vec<Found>> {
    let passed_over = entry.is_attestation() || depth > MAX_DEPTH || !store.content().contains(&entry.digest);
    if passed_over || !seen.insert(entry.digest.clone()) {
        return Ok(Vec::new());
    }
    let bytes = store.content().read(&entry.digest, MAX_DOCUMENT as u64)?;
    let document = Document::parse(&bytes, Some(&entry.media_type))?;
    let described = |media_type: &str| Descriptor::new(media_type, entry.digest.clone(), bytes.len() as u64);
    let index = match document {
        Document::Manifest(manifest) if manifest.is_image() => {
            let index = chosen_from(store, entry)?;
            return Ok(vec![Found { descriptor: described(manifest.media_type()), manifest, index }]);
        }
        Document::Manifest(_) => return Ok(Vec::new()),
        Document::Index(index) => index,
    };
    let mut offered: Vec<&Descriptor> = index.manifests.iter().collect();
    if let Some(best) = Platform::host().choose(&index.manifests) {
        offered.sort_by_key(|entry| !std::ptr::eq(*entry, best));
    }
    let mut images = Vec::new();
    for child in offered {
        images.extend(follow(store, child, depth + 1, seen)?.into_iter().map(|image| Found {
            index: image.index.or_else(|| Some(described(&entry.media_type))),
            ..image
        }));
    }
    Ok(images)
}

/// The index that the annotation of a manifest tells of, if it is here and names the manifest.
fn chosen_from(store: &Store, manifest: &Descriptor) -> Result<Option<Descriptor>> {
    let stated = manifest.annotation(CHOSEN_FROM).and_then(|text| Digest::parse(text).ok());
    let Some(digest) = stated.filter(|digest| store.content().contains(digest)) else { return Ok(None) };
    let bytes = store.content().read(&digest, MAX_DOCUMENT as u64)?;
    Ok(match Document::parse(&bytes, None) {
        Ok(Document::Index(index)) if index.manifests.iter().any(|entry| entry.digest == manifest.digest) => {
            let media_type = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
            Some(Descriptor::new(media_type, digest, bytes.len() as u64))
        }
        _ => None,
    })
}

/// Names in the annotations; a lone tag (`latest`) names nothing.
fn names(entry: &Descriptor) -> Vec<Reference> {
    let short = entry.annotation(REF_NAME).filter(|name| name.contains(['/', ':']));
    let name = entry.annotation(IMAGE_NAME).or(short);
    name.and_then(|name| Reference::parse(name).ok()).filter(|r| r.digest().is_none()).into_iter().collect()
}
