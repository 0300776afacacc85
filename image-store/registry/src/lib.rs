//! Distribution client: pull and push images between a registry and the store.
//!
//! ```text
//!   Registry ── pull ── layer     one layer: download ▶ hash and write ▶ unpack, all at the same time
//!            └─ push
//!      │        └─ upload         one blob: take over, send, resume
//!      ├─ search                   names, by what is in them
//!      ├─ download                 a file from anywhere
//!      └────────── session        one repository as one user, on the registry or a mirror
//!                   ├─ auth       challenges and tokens
//!                   ├─ hosts      mirrors, certificates (`hosts.toml`)
//!                   └─ transport  connections, plain or TLS
//! ```
//!
//! Invariants:
//! - Whatever a registry sends is verified against the digest that leads to it, and limited in size; a manifest
//!   fetched by tag is where trust begins.
//! - Credentials are sent to the registry that they belong to and to its token service, nowhere else.
//! - Dropping a future of this crate stops the work; what was downloaded is resumed by the next attempt.

mod attestation;
mod auth;
mod download;
mod error;
mod failure;
mod flights;
mod hosts;
mod layer;
mod progress;
mod pull;
mod push;
mod retry;
mod search;
mod session;
mod transport;
mod types;
mod upload;

use std::sync::Arc;

use berth_oci::{Descriptor, Document, ImageConfig, ImageId, Platform, Reference, ReferenceError};
use berth_store::Store;

pub use download::Download;
pub use error::{ErrorKind, RegistryError};
pub use search::Found;
pub use types::{Credentials, Distribution, Event, LayerState, Pulled, PushOptions, Pushed, RegistryConfig};

use failure::Failure;
use pull::Pull;
use push::Push;
use session::{Session, offered};
use transport::Transport;

/// Speaks to registries on behalf of one store.
#[derive(Clone)]
pub struct Registry {
    store: Store,
    transport: Arc<Transport>,
}

impl Registry {
    /// A client for this store.
    #[must_use]
    pub fn new(store: Store, config: RegistryConfig) -> Self {
        Self { store, transport: Arc::new(Transport::new(config)) }
    }

    /// Pulls what the reference names for the platform, tags it (unless it names a digest) and reports progress.
    /// Layers that the store has are not fetched.
    ///
    /// # Errors
    /// In Docker's words; see [`RegistryError`].
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        credentials: &Credentials,
        progress: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Pulled, RegistryError> {
        let (transport, store) = (&*self.transport, &self.store);
        let listener = Arc::new(progress);
        Pull { transport, store, reference, platform, credentials, listener }.run().await
    }

    /// Fetches what an image of the store has lost: layers, and blobs of layers that are unpacked. `reference` is one of
    /// its repository digests.
    ///
    /// # Errors
    /// In Docker's words; see [`RegistryError`].
    pub async fn fetch_again(
        &self,
        reference: &Reference,
        platform: &Platform,
        credentials: &Credentials,
    ) -> Result<Pulled, RegistryError> {
        let (transport, store) = (&*self.transport, &self.store);
        let listener = Arc::new(|_| {});
        Pull { transport, store, reference, platform, credentials, listener }.run().await
    }

    /// Pushes an image under the reference: as it was pulled where that is possible, with the whole index if all its
    /// images are here; else with layers compressed as the options say.
    ///
    /// # Errors
    /// In Docker's words; see [`RegistryError`].
    pub async fn push(
        &self,
        reference: &Reference,
        image: &ImageId,
        credentials: &Credentials,
        options: &PushOptions,
        progress: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Pushed, RegistryError> {
        let (transport, store) = (&*self.transport, &self.store);
        let listener = Arc::new(progress);
        Push { transport, store, reference, image, credentials, options, listener }.run().await
    }

    /// The tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// In Docker's words; see [`RegistryError`].
    pub async fn tags(
        &self,
        repository: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<String>, RegistryError> {
        let session = Session::open(&self.transport, repository, credentials, false, &[])?;
        let tags = session.tags().await;
        tags.map_err(|failure| failure.while_pulling(repository, *credentials == Credentials::Anonymous))
    }

    /// What the registry says about the reference (`/distribution/{name}/json`).
    ///
    /// # Errors
    /// In Docker's words; see [`RegistryError`].
    pub async fn inspect_distribution(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Distribution, RegistryError> {
        let failed =
            |failure: Failure| failure.while_pulling(reference, *credentials == Credentials::Anonymous);
        let session = Session::open(&self.transport, reference, credentials, false, &[])?;
        let name = reference.digest().map_or_else(
            || reference.tag().unwrap_or("latest").to_owned(),
            |digest| digest.as_str().to_owned(),
        );
        let served = session.manifest(&name).await.map_err(failed)?;
        let bad = |reason: String| RegistryError::BadManifest { reference: reference.familiar(), reason };
        let document =
            Document::parse(&served.bytes, served.media_type.as_deref()).map_err(|e| bad(e.to_string()))?;
        let size = served.bytes.len() as u64;
        let (media_type, platforms) = match document {
            Document::Index(index) => {
                let stated = index.media_type.clone().or(served.media_type).unwrap_or_default();
                (stated, offered(&index.manifests))
            }
            Document::Manifest(manifest) => {
                let config = session.small_blob(&manifest.config).await.map_err(failed)?;
                let config = ImageConfig::parse(&config).map_err(|e| bad(e.to_string()))?;
                (manifest.media_type().to_owned(), vec![config.platform()])
            }
        };
        Ok(Distribution { descriptor: Descriptor::new(media_type, served.digest, size), platforms })
    }

    /// Repositories of which the name has the term in it: on Docker Hub, or on the registry before the term's first slash.
    ///
    /// # Errors
    /// [`RegistryError::NoSearch`], or that the registry cannot be reached.
    pub async fn search(
        &self,
        term: &str,
        limit: usize,
        credentials: &Credentials,
    ) -> Result<Vec<Found>, RegistryError> {
        search::search(&self.transport, term, limit, credentials).await
    }

    /// The address that `docker import` takes for this text.
    ///
    /// # Errors
    /// [`RegistryError::BadUrl`].
    pub fn address(text: &str) -> Result<String, RegistryError> {
        download::address(text).map(String::from)
    }

    /// Begins to download a file. Call it from within a tokio runtime, and read from a thread outside.
    ///
    /// # Errors
    /// [`RegistryError::BadUrl`], [`RegistryError::Download`].
    pub async fn download(&self, url: &str) -> Result<Download, RegistryError> {
        download::open(&self.transport, download::address(url)?).await
    }

    /// Tries the credentials (`POST /auth`, docker login). `registry` is a host, with or without scheme and path.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`], or that the registry cannot be reached.
    pub async fn check_login(&self, registry: &str, credentials: &Credentials) -> Result<(), RegistryError> {
        let host = registry.split_once("://").map_or(registry, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        let reference = Reference::parse(&format!("{host}/berth/login"))
            .map_err(|_: ReferenceError| RegistryError::BadAddress(registry.to_owned()))?;
        let session = Session::open(&self.transport, &reference, credentials, false, &[])?;
        session.check().await.map_err(Failure::in_general)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("transport", &self.transport).finish_non_exhaustive()
    }
}
