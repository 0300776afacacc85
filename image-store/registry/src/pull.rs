//! Pull: name → manifest → configuration → layers, all at once → image, tag.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use berth_oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, ImageId, Manifest, Platform, Reference, media_type,
};
use berth_store::{NewImage, Store};
use oci_client::RegistryOperation;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::RegistryError;
use crate::failure::Failure;
use crate::layer::{self, blocking};
use crate::progress::{LayerProgress, Listener};
use crate::session::{Served, Session, offered};
use crate::transport::Transport;
use crate::types::{Credentials, Event, LayerState, Pulled};

/// What a failed pull brought in is kept so long for the next attempt.
const KEEP_PARTIAL: Duration = Duration::from_secs(24 * 60 * 60);

/// One pull.
pub(crate) struct Pull<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) store: &'a Store,
    pub(crate) reference: &'a Reference,
    pub(crate) platform: &'a Platform,
    pub(crate) credentials: &'a Credentials,
    pub(crate) listener: Listener,
}

/// The manifest that was chosen, and what the reference named.
struct Chosen {
    manifest: Manifest,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    named: Digest,
}

impl Pull<'_> {
    pub(crate) async fn run(self) -> Result<Pulled, RegistryError> {
        let name = self.reference.digest().map_or_else(|| self.tag().to_owned(), Digest::to_string);
        self.tell(Event::Named {
            id: name.clone(),
            status: format!("Pulling from {}", self.reference.path()),
        });
        let lease = self.store.lease();
        match self.fetch(&name).await {
            Ok(pulled) => {
                let status = if pulled.up_to_date { "Image is up to date" } else { "Downloaded newer image" };
                self.tell(Event::Status(format!("Digest: {}", pulled.digest)));
                self.tell(Event::Status(format!("Status: {status} for {}", self.reference.familiar())));
                Ok(pulled)
            }
            Err(error) => {
                if let Err(error) = lease.linger(KEEP_PARTIAL) {
                    tracing::warn!(%error, "cannot keep what a failed pull brought in");
                }
                Err(error)
            }
        }
    }

    fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    fn tag(&self) -> &str {
        self.reference.tag().unwrap_or("latest")
    }

    fn anonymous(&self) -> bool {
        *self.credentials == Credentials::Anonymous
    }

    fn failed(&self, failure: Failure) -> RegistryError {
        failure.while_pulling(self.reference, self.anonymous())
    }

    async fn fetch(&self, name: &str) -> Result<Pulled, RegistryError> {
        let session =
            Session::open(self.transport, self.reference, self.credentials, RegistryOperation::Pull).await;
        let session = Arc::new(session.map_err(|failure| self.failed(failure))?);
        if let Some(pulled) = self.present(&session, name).await? {
            return Ok(pulled);
        }
        let served = session.manifest(name).await.map_err(|failure| self.failed(failure))?;
        let chosen = self.choose(&session, served).await?;
        let config =
            session.small_blob(&chosen.manifest.config).await.map_err(|failure| self.failed(failure))?;
        let layers = self.layers(&chosen.manifest, &config)?;
        self.fetch_layers(&session, layers).await?;
        self.record(chosen, config).await
    }

    /// The image, if the registry's answer to the name is what it was when it was pulled before. One HEAD request,
    /// which registries with limits do not count.
    async fn present(&self, session: &Session, name: &str) -> Result<Option<Pulled>, RegistryError> {
        let (store, wanted) = (self.store.clone(), self.reference.to_string());
        let local = blocking("look up the image", move || {
            let Ok(image) = store.images().resolve(&wanted) else { return Ok(None) };
            let platform = store.images().config_of(&image.id)?.platform();
            Ok(Some((image, platform)))
        });
        let Some((image, platform)) = local.await? else { return Ok(None) };
        if !self.platform.matches(&platform) {
            return Ok(None);
        }
        let now = session.manifest_descriptor(name).await.map_err(|failure| self.failed(failure))?;
        let Some(now) = now else { return Ok(None) };
        let as_pulled = self.reference.with_digest(now.digest.clone());
        let unchanged = image.repo_digests.contains(&as_pulled);
        Ok(unchanged.then_some(Pulled { id: image.id, digest: now.digest, up_to_date: true }))
    }

    fn bad(&self, reason: impl ToString) -> RegistryError {
        RegistryError::BadManifest { reference: self.reference.familiar(), reason: reason.to_string() }
    }

    /// Follows an index to the manifest for the platform.
    async fn choose(&self, session: &Session, served: Served) -> Result<Chosen, RegistryError> {
        let named = served.digest.clone();
        let document =
            Document::parse(&served.bytes, served.media_type.as_deref()).map_err(|e| self.bad(e))?;
        let (manifest, served) = match document {
            Document::Manifest(manifest) => (manifest, served),
            Document::Index(index) => {
                let entry = self.platform.choose(&index.manifests).ok_or_else(|| {
                    let mut list: Vec<_> =
                        offered(&index.manifests).iter().map(Platform::to_string).collect();
                    list.dedup();
                    RegistryError::NoPlatform { wanted: self.platform.to_string(), offered: list.join(", ") }
                })?;
                let served =
                    session.manifest(entry.digest.as_str()).await.map_err(|failure| self.failed(failure))?;
                match Document::parse(&served.bytes, Some(&entry.media_type)).map_err(|e| self.bad(e))? {
                    Document::Manifest(manifest) => (manifest, served),
                    Document::Index(_) => return Err(self.bad("an index inside an index")),
                }
            }
        };
        if !manifest.is_image() {
            let media_type = manifest.artifact_type.clone().unwrap_or(manifest.config.media_type);
            return Err(RegistryError::NotAnImage { reference: self.reference.familiar(), media_type });
        }
        let size = served.bytes.len() as u64;
        let descriptor = Descriptor::new(manifest.media_type(), served.digest, size);
        Ok(Chosen { manifest, descriptor, bytes: served.bytes.into(), named })
    }

    /// The layers with their diff-ids, each once.
    fn layers(&self, manifest: &Manifest, config: &[u8]) -> Result<Vec<(Descriptor, DiffId)>, RegistryError> {
        let config = ImageConfig::parse(config).map_err(|e| self.bad(format!("image configuration: {e}")))?;
        let (blobs, diff_ids) = (&manifest.layers, config.diff_ids());
        if blobs.len() != diff_ids.len() {
            let (blobs, diff_ids) = (blobs.len(), diff_ids.len());
            return Err(self.bad(format!("the manifest has {blobs} layers, the configuration {diff_ids}")));
        }
        let mut seen = HashSet::new();
        let pairs = blobs.iter().cloned().zip(diff_ids.iter().cloned());
        Ok(pairs.filter(|(_, diff_id)| seen.insert(diff_id.clone())).collect())
    }

    /// Fetches what is missing; the first failure stops the others.
    async fn fetch_layers(
        &self,
        session: &Arc<Session>,
        layers: Vec<(Descriptor, DiffId)>,
    ) -> Result<(), RegistryError> {
        let slots = Arc::new(Semaphore::new(self.transport.config().concurrency.max(1)));
        let mut tasks = JoinSet::new();
        let store = self.store.clone();
        let layers = blocking("look for layers", move || {
            Ok(layers.into_iter().map(|layer| (store.layers().contains(&layer.1), layer)).collect::<Vec<_>>())
        });
        for (present, (blob, diff_id)) in layers.await? {
            let mut progress = LayerProgress::new(&self.listener, &blob.digest);
            if present {
                progress.tell(LayerState::AlreadyExists);
                continue;
            }
            if media_type::is_nondistributable(&blob.media_type) {
                return Err(self.bad(format!(
                    "layer {} lies outside the registry, which is not supported",
                    blob.digest
                )));
            }
            progress.tell(LayerState::PullingFsLayer);
            let (session, store, slots) = (Arc::clone(session), self.store.clone(), Arc::clone(&slots));
            let (reference, anonymous) = (self.reference.clone(), self.anonymous());
            tasks.spawn(async move {
                if slots.available_permits() == 0 {
                    progress.tell(LayerState::Waiting);
                }
                let _slot = slots.acquire().await.expect("the semaphore is never closed");
                let failed = |failure: Failure| failure.while_pulling(&reference, anonymous);
                layer::fetch(&session, &store, &blob, &diff_id, &mut progress, failed).await
            });
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.map_err(|source| RegistryError::Task { operation: "fetch a layer", source })??;
        }
        Ok(())
    }

    async fn record(&self, chosen: Chosen, config: Vec<u8>) -> Result<Pulled, RegistryError> {
        let (store, reference) = (self.store.clone(), self.reference.clone());
        blocking("record the image", move || {
            store.content().put(&chosen.bytes)?;
            let images = store.images();
            let image = NewImage { config, manifest: Some(chosen.descriptor), parent: None };
            let id: ImageId = images.put(image)?;
            let tagged = reference.tag().is_some() && reference.digest().is_none();
            let before = images.resolve(&reference.to_string()).ok().map(|image| image.id);
            images.add_repo_digest(&reference, &chosen.named, &id)?;
            if tagged {
                images.tag(&reference, &id)?;
            }
            let up_to_date = before.as_ref() == Some(&id);
            Ok(Pulled { id, digest: chosen.named, up_to_date })
        })
        .await
    }
}
