//! Pull: name → manifest → configuration → layers, all at once → attestations → image, tag.

use std::collections::HashSet;
use std::time::Duration;

use berth_oci::{
    Descriptor, DiffId, Digest, Document, DocumentError, ImageConfig, ImageId, Manifest, Platform, Reference,
    media_type,
};
use berth_store::{Lease, NewImage, Store};
use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::attestation;
use crate::error::RegistryError;
use crate::failure::Failure;
use crate::flights::Role;
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
    /// The index that the reference named, if it was one.
    index: Option<(Descriptor, Vec<u8>)>,
    /// Its entries that attest something about the manifest.
    attestations: Vec<Descriptor>,
}

/// Keeps what a pull brings in; if the pull ends without success, even by being dropped, for the next attempt.
struct Keep(Option<Lease>);

impl Keep {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|lease| lease.linger(KEEP_PARTIAL)) {
            tracing::warn!(%error, "cannot keep what an unfinished pull brought in");
        }
    }
}

impl Pull<'_> {
    pub(crate) async fn run(self) -> Result<Pulled, RegistryError> {
        let name = self.reference.digest().map_or_else(|| self.tag().to_owned(), Digest::to_string);
        let keep = Keep(Some(self.store.lease()));
        let pulled = self.fetch(&name).await?;
        keep.end();
        let status = if pulled.up_to_date { "Image is up to date" } else { "Downloaded newer image" };
        self.tell(Event::Status(format!("Digest: {}", pulled.digest)));
        self.tell(Event::Status(format!("Status: {status} for {}", self.reference.familiar())));
        Ok(pulled)
    }

    /// Told once the registry has answered: until then a failure is the whole answer, with its own status.
    fn begin(&self, name: &str) {
        let status = format!("Pulling from {}", self.reference.path());
        self.tell(Event::Named { id: name.to_owned(), status });
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
        let session = Session::open(self.transport, self.reference, self.credentials, false, &[])?;
        if let Some(pulled) = self.present(&session, name).await? {
            self.begin(name);
            return Ok(pulled);
        }
        let served = session.manifest(name).await.map_err(|failure| self.failed(failure))?;
        self.begin(name);
        let chosen = self.choose(&session, served).await?;
        let config =
            session.small_blob(&chosen.manifest.config).await.map_err(|failure| self.failed(failure))?;
        let layers = self.layers(&chosen.manifest, &config)?;
        self.fetch_layers(&session, layers).await?;
        for entry in &chosen.attestations {
            // Nobody needs it to run the image.
            if let Err(failure) = attestation::fetch(&session, self.store, entry).await {
                tracing::warn!(image = %self.reference, digest = %entry.digest, ?failure, "without an attestation");
            }
        }
        self.record(chosen, config).await
    }

    /// The image, if the registry's answer to the name is what it was when it was pulled before. One HEAD request,
    /// which registries with limits do not count.
    async fn present(&self, session: &Session<'_>, name: &str) -> Result<Option<Pulled>, RegistryError> {
        let (store, wanted) = (self.store.clone(), self.reference.to_string());
        let local = blocking("look up the image", move || {
            let Ok(image) = store.images().resolve(&wanted) else { return Ok(None) };
            if !store.images().is_whole(&image.id)? {
                return Ok(None);
            }
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

    fn parse(&self, served: &Served, announced: Option<&str>) -> Result<Document, RegistryError> {
        let media_type = announced.or(served.media_type.as_deref());
        Document::parse(&served.bytes, media_type).map_err(|source| match source {
            DocumentError::Schema1 => {
                RegistryError::Unsupported { reference: self.reference.familiar(), source }
            }
            other => self.bad(other),
        })
    }

    /// Follows an index to the manifest for the platform.
    async fn choose(&self, session: &Session<'_>, served: Served) -> Result<Chosen, RegistryError> {
        let named = served.digest.clone();
        let (mut kept, mut attestations) = (None, Vec::new());
        let (manifest, served) = match self.parse(&served, None)? {
            Document::Manifest(manifest) => (manifest, served),
            Document::Index(index) => {
                let media_type = index.media_type.clone().or(served.media_type.clone());
                let media_type = media_type.unwrap_or_else(|| media_type::OCI_INDEX.to_owned());
                let descriptor = Descriptor::new(media_type, named.clone(), served.bytes.len() as u64);
                kept = Some((descriptor, served.bytes.to_vec()));
                let entry = self.platform.choose(&index.manifests).ok_or_else(|| {
                    let mut list: Vec<_> =
                        offered(&index.manifests).iter().map(Platform::to_string).collect();
                    list.dedup();
                    RegistryError::NoPlatform { wanted: self.platform.to_string(), offered: list.join(", ") }
                })?;
                let about = |other: &&Descriptor| other.is_attestation_of(&entry.digest);
                attestations = index.manifests.iter().filter(about).cloned().collect();
                let served =
                    session.manifest(entry.digest.as_str()).await.map_err(|failure| self.failed(failure))?;
                match self.parse(&served, Some(&entry.media_type))? {
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
        Ok(Chosen { manifest, descriptor, bytes: served.bytes.into(), named, index: kept, attestations })
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
        session: &Session<'_>,
        layers: Vec<(Descriptor, DiffId)>,
    ) -> Result<(), RegistryError> {
        let slots = Semaphore::new(self.transport.config().concurrency.max(1));
        let store = self.store.clone();
        let layers = blocking("look for layers", move || {
            // A layer that is here without its blob (a build's cache holds it) is fetched all the same: what was pulled
            // can be pushed byte for byte.
            let present = |(blob, diff_id): &(Descriptor, DiffId)| {
                store.layers().contains(diff_id) && store.content().contains(&blob.digest)
            };
            Ok(layers.into_iter().map(|layer| (present(&layer), layer)).collect::<Vec<_>>())
        });
        let mut fetches = FuturesUnordered::new();
        for (present, (blob, diff_id)) in layers.await? {
            let progress = LayerProgress::new(&self.listener, &blob.digest);
            if present {
                progress.tell(LayerState::AlreadyExists);
                continue;
            }
            progress.tell(LayerState::PullingFsLayer);
            let slots = &slots;
            fetches.push(async move {
                if slots.available_permits() == 0 {
                    progress.tell(LayerState::Waiting);
                }
                let _slot = slots.acquire().await.expect("the semaphore is never closed");
                self.fetch_layer(session, &blob, &diff_id, progress).await
            });
        }
        while fetches.try_next().await?.is_some() {}
        Ok(())
    }

    /// Fetches a layer, or waits for another pull that does.
    async fn fetch_layer(
        &self,
        session: &Session<'_>,
        blob: &Descriptor,
        diff_id: &DiffId,
        mut progress: LayerProgress,
    ) -> Result<(), RegistryError> {
        let mut again = false;
        loop {
            match self.transport.flights.join(diff_id) {
                Role::Follow(mut state) => {
                    while state.changed().await.is_ok() {
                        progress.tell(state.borrow_and_update().clone());
                    }
                }
                Role::Lead(lead) => {
                    progress = progress.followed(lead.teller());
                    let failed = |failure: Failure| self.failed(failure);
                    match layer::fetch(session, self.store, blob, diff_id, &mut progress, failed).await {
                        // A mirror may be wrong where the registry is right.
                        Err(RegistryError::WrongContent { .. }) if !again && session.distrust_mirrors() => {
                            again = true;
                        }
                        outcome => return outcome,
                    }
                }
            }
        }
    }

    async fn record(&self, chosen: Chosen, config: Vec<u8>) -> Result<Pulled, RegistryError> {
        let (store, reference) = (self.store.clone(), self.reference.clone());
        blocking("record the image", move || {
            store.content().put(&chosen.bytes)?;
            let images = store.images();
            let image = NewImage { config, manifest: Some(chosen.descriptor), parent: None };
            let id: ImageId = images.put(image)?;
            if let Some((descriptor, bytes)) = &chosen.index {
                store.content().put(bytes)?;
                images.add_index(&id, descriptor)?;
            }
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
