//! Images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    container::{ContainerConfig, GraphDriver},
    wire::Time,
};

/// An OCI descriptor as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// Places to fetch it from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
}

/// Platform of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DescriptorPlatform {
    /// Architecture, `amd64`.
    pub architecture: String,
    /// Operating system, `linux`.
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of the operating system.
    #[serde(rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// Variant of the architecture, `v7`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

wire! {
    /// Answer of `GET /images/{name}/json`.
    pub struct ImageInspect {
        /// Image id, `sha256:…`.
        pub id: String,
        /// Tags, `busybox:latest`.
        pub repo_tags: Vec<String>,
        /// Digests in registries, `busybox@sha256:…`.
        pub repo_digests: Vec<String>,
        /// Image this one was built on; empty if unknown.
        pub parent: String,
        /// Comment of the commit or import.
        pub comment: String,
        /// When it was made; absent if unknown.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub created: Option<Time>,
        /// Docker that made it.
        pub docker_version: String,
        /// Author.
        pub author: String,
        /// What a container of it gets.
        pub config: Option<ContainerConfig>,
        /// Architecture.
        pub architecture: String,
        /// Variant of the architecture.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub variant: String,
        /// Operating system.
        pub os: String,
        /// Version of the operating system.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub os_version: String,
        /// Bytes of all layers.
        pub size: i64,
        /// Where the file system comes from.
        pub graph_driver: GraphDriver,
        /// The layers.
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        /// What is not in the image's config.
        pub metadata: ImageMetadata,
        /// The image's manifest or index (API 1.48).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub descriptor: Option<Descriptor>,
        /// What stands beside it in its index, if asked for (API 1.48).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub manifests: Option<Vec<ManifestSummary>>,
    }

    /// The layers of an image.
    pub struct RootFs {
        /// `layers`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Diff ids, lowest first.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub layers: Vec<String>,
    }

    /// What is known of an image beside its config.
    pub struct ImageMetadata {
        /// When it last got a tag.
        pub last_tag_time: Time,
    }

    /// One line of `docker images`.
    pub struct ImageSummary {
        /// Containers that use it; -1 when not counted.
        pub containers: i64,
        /// Unix seconds.
        pub created: i64,
        /// Image id.
        pub id: String,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Image this one was built on; empty if unknown.
        pub parent_id: String,
        /// The image's manifest or index (API 1.48).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub descriptor: Option<Descriptor>,
        /// Digests in registries.
        pub repo_digests: Vec<String>,
        /// Tags.
        pub repo_tags: Vec<String>,
        /// Bytes shared with other images; -1 when not counted.
        pub shared_size: i64,
        /// Bytes of all layers.
        pub size: i64,
        /// What stands beside it in its index, if asked for (API 1.47).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub manifests: Option<Vec<ManifestSummary>>,
    }

    /// A manifest of an image's index: an image for some platform, or an attestation about one.
    pub struct ManifestSummary {
        /// Its digest.
        #[serde(rename = "ID")]
        pub id: String,
        /// As the index names it.
        pub descriptor: Descriptor,
        /// Whether everything that it names is here.
        pub available: bool,
        /// What it takes.
        pub size: ManifestSize,
        /// `image`, `attestation` or `unknown`.
        pub kind: String,
        /// Of an image.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_data: Option<ImageData>,
        /// Of an attestation.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub attestation_data: Option<AttestationData>,
    }

    /// What a manifest takes.
    pub struct ManifestSize {
        /// Blobs and what is unpacked.
        pub total: i64,
        /// Blobs.
        pub content: i64,
    }

    /// An image of an index.
    pub struct ImageData {
        /// What it runs on.
        pub platform: DescriptorPlatform,
        /// Ids of its containers.
        pub containers: Vec<String>,
        /// What it takes unpacked.
        pub size: UnpackedSize,
    }

    /// What an image takes unpacked.
    pub struct UnpackedSize {
        /// Bytes.
        pub unpacked: i64,
    }

    /// An in-toto statement about an image (API 1.55).
    pub struct AttestationStatement {
        /// The blob that holds it.
        pub descriptor: Descriptor,
        /// What is stated, as a URI.
        pub predicate_type: String,
        /// The statement itself, if asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub statement: Option<serde_json::Value>,
    }

    /// What an attestation is about.
    pub struct AttestationData {
        /// Digest of a manifest.
        #[serde(rename = "For")]
        pub about: String,
    }

    /// One line of `docker history`, the newest first.
    pub struct HistoryItem {
        /// Comment.
        pub comment: String,
        /// Unix seconds.
        pub created: i64,
        /// Instruction.
        pub created_by: String,
        /// Image after the instruction, `<missing>` if unknown.
        pub id: String,
        /// Bytes it added.
        pub size: i64,
        /// Tags of that image.
        pub tags: Option<Vec<String>>,
    }

    /// One line of the answer to `DELETE /images/{name}`.
    pub struct ImageDeleteItem {
        /// A tag that was taken away.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub untagged: String,
        /// An image that was deleted.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub deleted: String,
    }

    /// Answer of `POST /images/prune`.
    pub struct PruneImagesResponse {
        /// What went.
        pub images_deleted: Option<Vec<ImageDeleteItem>>,
        /// Bytes freed.
        pub space_reclaimed: u64,
    }

    /// One line of a registry search.
    pub struct SearchResult {
        /// Stars.
        #[serde(rename = "star_count")]
        pub star_count: i64,
        /// Whether docker keeps it.
        #[serde(rename = "is_official")]
        pub is_official: bool,
        /// Name.
        #[serde(rename = "name")]
        pub name: String,
        /// Always false.
        #[serde(rename = "is_automated")]
        pub is_automated: bool,
        /// Description.
        #[serde(rename = "description")]
        pub description: String,
    }

    /// Answer of `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        /// The manifest or index in the registry.
        pub descriptor: Descriptor,
        /// Platforms it is for.
        pub platforms: Vec<DescriptorPlatform>,
    }
}
