//! Provenance and lists of contents that an index has beside an image (BuildKit, docs/attestations): fetched with the image,
//! so that they can be looked at, saved and pushed again.

use std::io::Write;

use berth_oci::{Descriptor, Document};
use berth_store::{Store, StoreError};

use crate::error::RegistryError;
use crate::failure::Failure;
use crate::layer::blocking;
use crate::session::{Session, cut_off};

/// A statement is a JSON document; the largest lists of contents have some ten megabytes.
const MAX_STATEMENT: u64 = 64 << 20;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unattested {
    #[error("{0:?}")]
    Registry(Failure),
    #[error(transparent)]
    Store(#[from] RegistryError),
    #[error("{0}")]
    Refused(String),
}

impl From<Failure> for Unattested {
    fn from(failure: Failure) -> Self {
        Self::Registry(failure)
    }
}

/// Brings an attestation manifest and what it names into the store.
pub(crate) async fn fetch(
    session: &Session<'_>,
    store: &Store,
    entry: &Descriptor,
) -> Result<(), Unattested> {
    let served = session.manifest(entry.digest.as_str()).await?;
    let manifest = match Document::parse(&served.bytes, Some(&entry.media_type)) {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => return Err(Unattested::Refused("it is an index".to_owned())),
        Err(error) => return Err(Unattested::Refused(error.to_string())),
    };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        statement(session, store, blob).await?;
    }
    // Last: whoever finds it finds what it names.
    let content = store.content().clone();
    blocking("keep an attestation", move || Ok(content.put(&served.bytes)?)).await?;
    Ok(())
}

async fn statement(session: &Session<'_>, store: &Store, blob: &Descriptor) -> Result<(), Unattested> {
    if blob.size > MAX_STATEMENT {
        return Err(Unattested::Refused(format!("{} has {} bytes", blob.digest, blob.size)));
    }
    if store.content().contains(&blob.digest) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    let mut stream = session.blob(blob, 0).await?;
    while (bytes.len() as u64) < blob.size {
        let chunk = stream.next().await?.ok_or_else(|| cut_off(&blob.digest))?;
        bytes.extend(chunk);
    }
    let (content, blob) = (store.content().clone(), blob.clone());
    let keep = move || {
        let mut ingest = content.ingest()?;
        let written = ingest.write_all(&bytes);
        written.map_err(|source| StoreError::Stream { operation: "write an attestation", source })?;
        Ok(ingest.commit(Some(&blob.digest), Some(blob.size))?)
    };
    blocking("keep an attestation", keep).await?;
    Ok(())
}
