//! The manifests of an image's index: platforms and attestations (`manifests=1` of list and inspect).

use std::sync::Arc;

use berth_api::image::{
    AttestationData, AttestationStatement, DescriptorPlatform, ImageData, ManifestSize, ManifestSummary,
    UnpackedSize,
};
use berth_oci::{Descriptor, Manifest, Platform};
use berth_store::Image;

use super::list::descriptor;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// Media type of in-toto statements.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// The annotation that says what is stated.
const PREDICATE: &str = "in-toto.io/predicate-type";
/// The longest statement that is read.
const MAX_STATEMENT: u64 = 64 << 20;
/// The annotation that says which manifest an attestation is about.
const ABOUT: &str = "vnd.docker.reference.digest";

pub(super) fn shown(platform: &Platform) -> DescriptorPlatform {
    DescriptorPlatform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

impl Engine {
    /// The in-toto statements about an image: those of these kinds, if any are named, with their texts if `whole`.
    ///
    /// # Errors
    /// When there is no such image, it is for another platform than the one given, or a statement cannot be read.
    pub async fn image_attestations(
        self: &Arc<Self>,
        name: &str,
        platform: &str,
        kinds: Vec<String>,
        whole: bool,
    ) -> Result<Vec<AttestationStatement>> {
        let (name, platform) = (name.to_owned(), platform.to_owned());
        self.blocking(move |engine| {
            let image = engine.image_for(&name, &platform)?;
            let manifests = engine.store.images().attestations(&image.id)?;
            let blobs = manifests.into_iter().flat_map(|(_, manifest)| manifest.layers);
            let mut statements = Vec::new();
            for blob in blobs.filter(|blob| blob.media_type == STATEMENT) {
                let predicate_type = blob.annotation(PREDICATE).unwrap_or_default().to_owned();
                if !kinds.is_empty() && !kinds.contains(&predicate_type) {
                    continue;
                }
                let statement = match whole {
                    true => {
                        let text = engine.store.content().read(&blob.digest, MAX_STATEMENT)?;
                        let statement = serde_json::from_slice(&text).map_err(|error| {
                            EngineError::internal(format!(
                                "the statement {} is no JSON: {error}",
                                blob.digest
                            ))
                        })?;
                        Some(statement)
                    }
                    false => None,
                };
                statements.push(AttestationStatement {
                    descriptor: descriptor(&blob),
                    predicate_type,
                    statement,
                });
            }
            Ok(statements)
        })
        .await
    }

    pub(super) fn manifests(&self, image: &Image) -> Result<Vec<ManifestSummary>> {
        let offered = self.store.images().offered(&image.id)?;
        offered.iter().map(|(entry, manifest)| self.manifest(image, entry, manifest.as_ref())).collect()
    }

    fn manifest(
        &self,
        image: &Image,
        entry: &Descriptor,
        manifest: Option<&Manifest>,
    ) -> Result<ManifestSummary> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let blobs = |manifest: &Manifest| {
            manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.size).sum::<u64>() + entry.size
        };
        let content = manifest.map_or(0, blobs);
        let mut summary = ManifestSummary {
            id: entry.digest.to_string(),
            descriptor: descriptor(entry),
            available: manifest.is_some(),
            size: ManifestSize { total: number(content), content: number(content) },
            kind: "unknown".to_owned(),
            ..ManifestSummary::default()
        };
        if entry.is_attestation() {
            summary.kind = "attestation".to_owned();
            let about = entry.annotation(ABOUT).unwrap_or_default().to_owned();
            summary.attestation_data = Some(AttestationData { about });
        } else if manifest.is_none_or(Manifest::is_image) {
            let this = image.manifest.as_ref().is_some_and(|own| own.digest == entry.digest);
            let unpacked = if this { image.size } else { 0 };
            let platform = match (&entry.platform, this) {
                (Some(platform), _) => shown(platform),
                (None, true) => shown(&self.store.images().config_of(&image.id)?.platform()),
                (None, false) => DescriptorPlatform::default(),
            };
            let mut containers = Vec::new();
            if this {
                containers = self.images_in_use().remove(image.id.as_str()).unwrap_or_default();
            }
            summary.kind = "image".to_owned();
            summary.size.total = number(content + unpacked);
            let size = UnpackedSize { unpacked: number(unpacked) };
            summary.image_data = Some(ImageData { platform, containers, size });
        }
        Ok(summary)
    }
}
