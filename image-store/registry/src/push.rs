//! Push: layers, all at once → configuration → manifest.
//!
//! An image that was pulled is pushed with the very manifest that it came with, as long as the registry has or can
//! be given every blob that it names; otherwise the store makes a manifest of its own.

use std::io;
use std::sync::Arc;

use berth_oci::{Descriptor, Document, ImageId, MAX_DOCUMENT, Manifest, Reference};
use berth_store::{Compression, Image, Store};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use oci_client::RegistryOperation;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::io::ReaderStream;

use crate::error::RegistryError;
use crate::failure::Failure;
use crate::layer::blocking;
use crate::progress::{LayerProgress, Listener};
use crate::retry::Patience;
use crate::session::Session;
use crate::transport::Transport;
use crate::types::{Credentials, Event, LayerState, Pushed};

/// Bytes of a blob read at a time.
const CHUNK: usize = 64 << 10;

/// One push.
pub(crate) struct Push<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) store: &'a Store,
    pub(crate) reference: &'a Reference,
    pub(crate) image: &'a ImageId,
    pub(crate) credentials: &'a Credentials,
    pub(crate) listener: Listener,
}

/// A manifest with the bytes that its digest is about.
struct ReadyManifest {
    descriptor: Descriptor,
    manifest: Manifest,
    bytes: Vec<u8>,
}

impl Push<'_> {
    pub(crate) async fn run(self) -> Result<Pushed, RegistryError> {
        let (store, id) = (self.store.clone(), self.image.clone());
        let image = blocking("look up the image", move || Ok(store.images().get(&id)?)).await?;
        let image = image.ok_or_else(|| RegistryError::NotLocal(self.reference.familiar()))?;
        self.tell(Event::Status(format!("The push refers to repository [{}]", self.reference.name())));
        let _lease = self.store.lease();
        let session =
            Session::open(self.transport, self.reference, self.credentials, RegistryOperation::Push).await;
        let session = Arc::new(session.map_err(|failure| self.failed(failure))?);
        let sources: Vec<Reference> = image
            .repo_digests
            .iter()
            .filter(|known| {
                known.domain() == self.reference.domain() && known.path() != self.reference.path()
            })
            .cloned()
            .collect();
        let document = match self.as_pulled(&session, &image, &sources).await? {
            Some(document) => document,
            None => self.as_stored().await?,
        };
        self.send_layers(&session, &document.manifest.layers, &sources).await?;
        self.send(&session, &document.manifest.config, None, &[]).await?;
        self.finish(&session, document).await
    }

    fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    fn failed(&self, failure: Failure) -> RegistryError {
        failure.while_pushing(self.reference, *self.credentials == Credentials::Anonymous)
    }

    /// The manifest that the image came with, if no blob is missing both here and there.
    async fn as_pulled(
        &self,
        session: &Session,
        image: &Image,
        sources: &[Reference],
    ) -> Result<Option<ReadyManifest>, RegistryError> {
        let Some(descriptor) = image.manifest.clone() else { return Ok(None) };
        let Ok(document) = self.read(descriptor).await else { return Ok(None) };
        for blob in &document.manifest.layers {
            if self.store.content().contains(&blob.digest) {
                continue;
            }
            let there = session.has_blob(&blob.digest).await.map_err(|failure| self.failed(failure))?;
            if !there && !mounted(session, blob, sources).await {
                return Ok(None);
            }
        }
        Ok(Some(document))
    }

    /// A manifest of which the store has every blob; layers of local builds are compressed now, in parallel.
    async fn as_stored(&self) -> Result<ReadyManifest, RegistryError> {
        let (store, id) = (self.store.clone(), self.image.clone());
        let layers = blocking("look up the image", move || {
            Ok(store.images().get(&id)?.map(|image| image.layers).unwrap_or_default())
        });
        let mut tasks = JoinSet::new();
        for diff_id in layers.await? {
            let progress = LayerProgress::new(&self.listener, diff_id.digest());
            progress.tell(LayerState::Preparing);
            let store = self.store.clone();
            tasks.spawn(blocking("compress a layer", move || {
                Ok(store.layers().compressed(&diff_id, Compression::Gzip)?)
            }));
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.map_err(|source| RegistryError::Task { operation: "compress a layer", source })??;
        }
        let (store, id) = (self.store.clone(), self.image.clone());
        let descriptor =
            blocking("make the manifest", move || Ok(store.images().manifest(&id, Compression::Gzip)?))
                .await?;
        self.read(descriptor).await
    }

    async fn read(&self, descriptor: Descriptor) -> Result<ReadyManifest, RegistryError> {
        let (store, reference) = (self.store.clone(), self.reference.familiar());
        blocking("read the manifest", move || {
            let bytes = store.content().read(&descriptor.digest, MAX_DOCUMENT as u64)?;
            match Document::parse(&bytes, Some(&descriptor.media_type)) {
                Ok(Document::Manifest(manifest)) => Ok(ReadyManifest { descriptor, manifest, bytes }),
                Ok(Document::Index(_)) => {
                    Err(RegistryError::BadManifest { reference, reason: "it is an index".to_owned() })
                }
                Err(error) => Err(RegistryError::BadManifest { reference, reason: error.to_string() }),
            }
        })
        .await
    }

    async fn send_layers(
        &self,
        session: &Arc<Session>,
        layers: &[Descriptor],
        sources: &[Reference],
    ) -> Result<(), RegistryError> {
        let slots = Semaphore::new(self.transport.config().concurrency.max(1));
        let mut unique: Vec<&Descriptor> = Vec::new();
        for layer in layers {
            if !unique.iter().any(|known| known.digest == layer.digest) {
                unique.push(layer);
            }
        }
        let sends = unique.into_iter().map(|blob| {
            let slots = &slots;
            async move {
                let progress = LayerProgress::new(&self.listener, &blob.digest);
                progress.tell(LayerState::Preparing);
                if slots.available_permits() == 0 {
                    progress.tell(LayerState::Waiting);
                }
                let _slot = slots.acquire().await.expect("the semaphore is never closed");
                self.send(session, blob, Some(progress), sources).await
            }
        });
        futures_util::future::try_join_all(sends).await.map(drop)
    }

    /// Sees to it that the registry has the blob.
    async fn send(
        &self,
        session: &Session,
        blob: &Descriptor,
        progress: Option<LayerProgress>,
        sources: &[Reference],
    ) -> Result<(), RegistryError> {
        let tell = |state| {
            if let Some(progress) = &progress {
                progress.tell(state);
            }
        };
        if session.has_blob(&blob.digest).await.map_err(|failure| self.failed(failure))? {
            tell(LayerState::LayerAlreadyExists);
            return Ok(());
        }
        for source in sources {
            if session.mount(&blob.digest, source).await {
                tell(LayerState::MountedFrom(source.path().to_owned()));
                return Ok(());
            }
        }
        let mut patience = Patience::new(session.config());
        loop {
            let bytes = self.stream(blob, progress.clone()).await?;
            let Err(failure) = session.upload(blob, bytes).await else { break };
            let pause = patience.after(failure).map_err(|failure| self.failed(failure))?;
            tell(LayerState::Retrying { seconds: pause.as_secs().max(1) });
            sleep(pause).await;
        }
        tell(LayerState::Pushed);
        Ok(())
    }

    /// The blob's bytes, told of as they leave.
    async fn stream(
        &self,
        blob: &Descriptor,
        mut progress: Option<LayerProgress>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, RegistryError> {
        let (store, digest) = (self.store.clone(), blob.digest.clone());
        let file = blocking("open a blob", move || Ok(store.content().open(&digest)?)).await?;
        let (mut current, total) = (0, blob.size);
        let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK);
        Ok(chunks.inspect(move |chunk| {
            current += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            if let Some(progress) = &mut progress {
                progress.tell_bytes(LayerState::Pushing { current, total });
            }
        }))
    }

    async fn finish(&self, session: &Session, document: ReadyManifest) -> Result<Pushed, RegistryError> {
        let ReadyManifest { descriptor, bytes, .. } = document;
        let (digest, size) = (descriptor.digest.clone(), bytes.len() as u64);
        let tag = self.reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        session.put_manifest(&tag, &descriptor, bytes).await.map_err(|failure| self.failed(failure))?;
        let (store, reference, id) = (self.store.clone(), self.reference.clone(), self.image.clone());
        let known = digest.clone();
        blocking("record the digest", move || Ok(store.images().add_repo_digest(&reference, &known, &id)?))
            .await?;
        self.tell(Event::Status(format!("{tag}: digest: {digest} size: {size}")));
        self.tell(Event::Pushed { tag, digest: digest.clone(), size });
        Ok(Pushed { digest, size })
    }
}

async fn mounted(session: &Session, blob: &Descriptor, sources: &[Reference]) -> bool {
    for source in sources {
        if session.mount(&blob.digest, source).await {
            return true;
        }
    }
    false
}
