//! Push: layers, all at once → configuration → manifest → index.
//!
//! ```text
//!  pulled, and every blob here or there ──▶ the very manifest that it came with
//!  pulled by an index, and all its images here ──▶ these, and the index
//!  else ──▶ each layer: compress (once, remembered) and upload at once;  then a manifest of our own
//! ```

use std::collections::HashMap;

use berth_oci::{
    Descriptor, DiffId, Digest, Document, ImageId, MAX_DOCUMENT, Manifest, Reference, media_type,
};
use berth_store::{Image, Ready, Store, WholeIndex};
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::error::RegistryError;
use crate::failure::Failure;
use crate::layer::blocking;
use crate::progress::{LayerProgress, Listener};
use crate::session::Session;
use crate::transport::Transport;
use crate::types::{Credentials, Event, LayerState, PushOptions, Pushed};
use crate::upload::{self, Sent};

/// Repositories that are asked for one blob: each costs a request.
const MAX_SOURCES: usize = 3;
/// Compressed pieces of a layer (a megabyte at most each) on their way to the network.
const PIECES: usize = 4;

/// One push.
pub(crate) struct Push<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) store: &'a Store,
    pub(crate) reference: &'a Reference,
    pub(crate) image: &'a ImageId,
    pub(crate) credentials: &'a Credentials,
    pub(crate) options: &'a PushOptions,
    pub(crate) listener: Listener,
}

/// Repositories of the registry that have a blob.
type Sources = HashMap<Digest, Vec<Reference>>;

impl Push<'_> {
    pub(crate) async fn run(self) -> Result<Pushed, RegistryError> {
        let (store, id) = (self.store.clone(), self.image.clone());
        let image = blocking("look up the image", move || Ok(store.images().get(&id)?)).await?;
        let image = image.ok_or_else(|| RegistryError::NotLocal(self.reference.familiar()))?;
        self.tell(Event::Status(format!("The push refers to repository [{}]", self.reference.name())));
        let _lease = self.store.lease();
        let sources = self.sources(&image).await?;
        let mut repositories: Vec<Reference> = sources.values().flatten().cloned().collect();
        repositories.sort();
        repositories.dedup();
        let session = Session::open(self.transport, self.reference, self.credentials, true, &repositories)?;
        let slots = Semaphore::new(self.transport.config().concurrency.max(1));
        let way = Way { push: &self, session: &session, slots, sources };
        if self.options.platform.is_none() {
            let (store, id) = (self.store.clone(), image.id.clone());
            let whole = blocking("read the index", move || Ok(store.images().whole_index(&id)?));
            if let Some(whole) = whole.await? {
                return way.index(whole).await;
            }
        }
        let pulled = match image.manifest.clone() {
            Some(descriptor) => self.read(descriptor).await.ok().flatten(),
            None => None,
        };
        let ready = match pulled {
            Some(ready) if way.layers(&ready).await? => ready,
            _ => way.own_layers(&image).await?,
        };
        way.config(&ready).await?;
        let name = self.tag_or(&ready.descriptor.digest);
        way.put(&name, &ready.descriptor, ready.bytes).await?;
        self.finish(name, &ready.descriptor).await
    }

    fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    fn failed(&self, failure: Failure) -> RegistryError {
        failure.while_pushing(self.reference, *self.credentials == Credentials::Anonymous)
    }

    fn tag_or(&self, digest: &Digest) -> String {
        self.reference.tag().map_or_else(|| digest.to_string(), str::to_owned)
    }

    /// Where the registry has the image's blobs already, as far as we know.
    async fn sources(&self, image: &Image) -> Result<Sources, RegistryError> {
        let (store, target, layers) = (self.store.clone(), self.reference.clone(), image.layers.clone());
        blocking("look for the layers' repositories", move || {
            let mut sources = Sources::new();
            for diff_id in &layers {
                for blob in store.layers().known_blobs(diff_id)? {
                    let mut found = store.images().repositories_of(&blob.digest)?;
                    found.retain(|known| known.domain() == target.domain() && known.path() != target.path());
                    found.truncate(MAX_SOURCES);
                    sources.insert(blob.digest, found);
                }
            }
            Ok(sources)
        })
        .await
    }

    async fn read(&self, descriptor: Descriptor) -> Result<Option<Ready<Manifest>>, RegistryError> {
        let store = self.store.clone();
        blocking("read the manifest", move || {
            let bytes = store.content().read(&descriptor.digest, MAX_DOCUMENT as u64)?;
            Ok(match Document::parse(&bytes, Some(&descriptor.media_type)) {
                Ok(Document::Manifest(document)) => Some(Ready { descriptor, document, bytes }),
                _ => None,
            })
        })
        .await
    }

    async fn finish(&self, name: String, descriptor: &Descriptor) -> Result<Pushed, RegistryError> {
        let (digest, size) = (descriptor.digest.clone(), descriptor.size);
        let (store, reference, id) = (self.store.clone(), self.reference.clone(), self.image.clone());
        let known = digest.clone();
        blocking("record the digest", move || Ok(store.images().add_repo_digest(&reference, &known, &id)?))
            .await?;
        self.tell(Event::Status(format!("{name}: digest: {digest} size: {size}")));
        self.tell(Event::Pushed { tag: name, digest: digest.clone(), size });
        Ok(Pushed { digest, size })
    }
}

/// A push with a session, on its way.
struct Way<'a> {
    push: &'a Push<'a>,
    session: &'a Session<'a>,
    slots: Semaphore,
    sources: Sources,
}

impl Way<'_> {
    fn failed(&self, failure: Failure) -> RegistryError {
        self.push.failed(failure)
    }

    fn progress(&self, digest: &Digest) -> LayerProgress {
        let progress = LayerProgress::new(&self.push.listener, digest);
        progress.tell(LayerState::Preparing);
        progress
    }

    /// Sees to it that the registry has the layers of a manifest; false if one is neither here nor there.
    async fn layers(&self, ready: &Ready<Manifest>) -> Result<bool, RegistryError> {
        let mut unique: Vec<&Descriptor> = Vec::new();
        // Foreign layers stay where they are; the manifest says where.
        let ours = |layer: &&Descriptor| !media_type::is_nondistributable(&layer.media_type);
        for layer in ready.document.layers.iter().filter(ours) {
            if !unique.iter().any(|known| known.digest == layer.digest) {
                unique.push(layer);
            }
        }
        let sends = unique.into_iter().map(|blob| async move {
            let progress = self.progress(&blob.digest);
            self.blob(blob, Some(&progress)).await
        });
        Ok(try_join_all(sends).await?.into_iter().all(|there| there))
    }

    /// Compresses and sends each layer of a local image, then makes the manifest.
    async fn own_layers(&self, image: &Image) -> Result<Ready<Manifest>, RegistryError> {
        let mut unique = image.layers.clone();
        unique.sort();
        unique.dedup();
        try_join_all(unique.iter().map(|diff_id| self.own_layer(diff_id))).await?;
        let compression = self.push.options.compression;
        let (store, id) = (self.push.store.clone(), self.push.image.clone());
        let descriptor =
            blocking("make the manifest", move || Ok(store.images().manifest(&id, compression)?)).await?;
        let ready = self.push.read(descriptor).await?;
        ready.ok_or_else(|| RegistryError::NotLocal(self.push.reference.familiar()))
    }

    async fn own_layer(&self, diff_id: &DiffId) -> Result<(), RegistryError> {
        let progress = self.progress(diff_id.digest());
        // Held while compressing too: the blocks under way of a hundred layers would fill the memory.
        let _slot = self.slot(Some(&progress)).await;
        let compression = self.push.options.compression;
        let (store, id) = (self.push.store.clone(), diff_id.clone());
        let known = blocking("look for a layer's blob", move || {
            Ok(store.layers().compressed_before(&id, compression)?)
        });
        match known.await? {
            Some(blob) => self.blob_in_slot(&blob, Some(&progress)).await.map(drop),
            None => self.new_layer(diff_id, &progress).await,
        }
    }

    /// Compresses a layer and sends it at the same time. Its digest, which the registry is told at the end, is known then.
    async fn new_layer(&self, diff_id: &DiffId, progress: &LayerProgress) -> Result<(), RegistryError> {
        let (pieces, made) = mpsc::channel(PIECES);
        let (store, id, compression) =
            (self.push.store.clone(), diff_id.clone(), self.push.options.compression);
        let total = self.push.store.layers().info(diff_id)?.map_or(0, |info| info.tar_size);
        let compressing = blocking("compress a layer", move || {
            // An upload that failed takes no more; the blob is made all the same, and sent again from the store.
            let show = |piece: &[u8]| drop(pieces.blocking_send(Bytes::copy_from_slice(piece)));
            Ok(store.layers().compressed_while(&id, compression, show)?)
        });
        let (blob, sent) = tokio::join!(compressing, upload::grow(self.session, made, total, progress));
        let blob = blob?;
        let finished = match sent {
            Ok(upload) => upload.finish(&blob).await,
            Err(failure) => Err(failure),
        };
        match finished {
            Ok(()) => progress.tell(LayerState::Pushed),
            Err(failure) => {
                tracing::debug!(digest = %blob.digest, ?failure, "sending the layer once more, from the store");
                self.blob_in_slot(&blob, Some(progress)).await?;
            }
        }
        Ok(())
    }

    async fn config(&self, ready: &Ready<Manifest>) -> Result<(), RegistryError> {
        self.blob(&ready.document.config, None).await.map(drop)
    }

    /// The right to transfer something.
    async fn slot(&self, progress: Option<&LayerProgress>) -> SemaphorePermit<'_> {
        if self.slots.available_permits() == 0
            && let Some(progress) = progress
        {
            progress.tell(LayerState::Waiting);
        }
        self.slots.acquire().await.expect("the semaphore is never closed")
    }

    /// Sees to it that the registry has the blob; false if nobody has it.
    async fn blob(&self, blob: &Descriptor, progress: Option<&LayerProgress>) -> Result<bool, RegistryError> {
        let _slot = self.slot(progress).await;
        self.blob_in_slot(blob, progress).await
    }

    async fn blob_in_slot(
        &self,
        blob: &Descriptor,
        progress: Option<&LayerProgress>,
    ) -> Result<bool, RegistryError> {
        let tell = |state| {
            if let Some(progress) = progress {
                progress.tell(state);
            }
        };
        if self.session.has_blob(&blob.digest).await.map_err(|failure| self.failed(failure))? {
            tell(LayerState::LayerAlreadyExists);
            return Ok(true);
        }
        let sources = self.sources.get(&blob.digest).map_or(&[][..], Vec::as_slice);
        let (store, digest) = (self.push.store.clone(), blob.digest.clone());
        let here = blocking("look for a blob", move || Ok(store.content().contains(&digest))).await?;
        if !here {
            let mounted = upload::mount(self.session, blob, sources).await;
            let mounted = mounted.map_err(|failure| self.failed(failure))?;
            if let Some(source) = &mounted {
                tell(LayerState::MountedFrom(source.path().to_owned()));
            }
            return Ok(mounted.is_some());
        }
        let sent = upload::send(self.session, self.push.store, blob, sources, progress).await;
        match sent.map_err(|failure| self.failed(failure))? {
            Sent::Uploaded => tell(LayerState::Pushed),
            Sent::Mounted(source) => tell(LayerState::MountedFrom(source.path().to_owned())),
        }
        Ok(true)
    }

    async fn put(&self, name: &str, descriptor: &Descriptor, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let put = self.session.put_manifest(name, &descriptor.media_type, bytes).await;
        put.map_err(|failure| self.failed(failure))
    }

    /// Sends an index with all its images.
    async fn index(&self, whole: WholeIndex) -> Result<Pushed, RegistryError> {
        let WholeIndex { index, children } = whole;
        for child in children {
            let digest = &child.descriptor.digest;
            if self.session.has_manifest(digest).await.map_err(|failure| self.failed(failure))? {
                continue;
            }
            if !self.layers(&child).await? {
                return Err(RegistryError::NotLocal(self.push.reference.familiar()));
            }
            self.config(&child).await?;
            self.put(digest.as_str(), &child.descriptor, child.bytes).await?;
        }
        let name = self.push.tag_or(&index.descriptor.digest);
        self.put(&name, &index.descriptor, index.bytes).await?;
        self.push.finish(name, &index.descriptor).await
    }
}
