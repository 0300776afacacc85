//! The manifests of an image's index: platforms and attestations (`manifests=1` of list and inspect).

use berth_api::image::{
    AttestationData, DescriptorPlatform, ImageData, ManifestSize, ManifestSummary, UnpackedSize,
};
use berth_oci::{Descriptor, Manifest, Platform};
use berth_store::Image;

use super::list::descriptor;
use crate::engine::Engine;
use crate::error::Result;

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
