//! Manifests and indexes, OCI and Docker schema 2 (OCI image spec, manifest.md and image-index.md).

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Descriptor, media_type};

/// Deeper or larger documents than this are refused; registries have the same limit.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// The manifest of one image: its config and its layers, bottom first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Which kind of manifest; OCI leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What this manifest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<IndexMap<String, String>>,
    /// Fields that Berth does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// An OCI manifest of an image.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: None,
            other: Map::new(),
        }
    }

    /// A Docker schema 2 manifest of an image.
    pub fn docker(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { media_type: Some(media_type::DOCKER_MANIFEST.to_owned()), ..Self::oci(config, layers) }
    }

    /// Its media type, guessed from the config's where it does not say.
    pub fn media_type(&self) -> &str {
        match self.media_type.as_deref() {
            Some(stated) => stated,
            None if self.config.media_type == media_type::DOCKER_CONFIG => media_type::DOCKER_MANIFEST,
            None => media_type::OCI_MANIFEST,
        }
    }

    /// Whether it describes an image that can be run, not an artifact.
    pub fn is_image(&self) -> bool {
        media_type::is_config(&self.config.media_type)
            && self.layers.iter().all(|layer| media_type::is_layer(&layer.media_type))
    }
}

/// An index of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Which kind of index; OCI leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// What this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<IndexMap<String, String>>,
    /// Fields that Berth does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Index {
    /// An OCI index.
    pub fn oci(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: None,
            other: Map::new(),
        }
    }
}

/// Either kind of document that a reference can lead to.
#[expect(clippy::large_enum_variant, reason = "one at a time exists, and is taken apart at once")]
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Larger than anything that is meant well.
    #[error("the manifest has {size} bytes, more than the {MAX_DOCUMENT} that are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not JSON, or not of the shape that its media type says.
    #[error("the manifest is malformed: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Docker's old schema.
    #[error(
        "the image has only a manifest of Docker's old schema 1, which is no longer supported; \
         push it again with a current docker, podman or berth"
    )]
    Schema1,
    /// Something else.
    #[error("{media_type:?} is neither an image manifest nor an image index")]
    Unknown {
        /// What it says it is.
        media_type: String,
    },
    /// It says of itself another type than the one it was served with.
    #[error("the manifest says that it is {stated:?}, but it was served as {served:?}")]
    Disagreement {
        /// The document's own `mediaType`.
        stated: String,
        /// The descriptor's or the server's.
        served: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index. `served` is the media type of the descriptor or the server, if known.
    ///
    /// A document that could be read both ways is refused (CVE-2021-41190).
    ///
    /// # Errors
    /// If it is malformed, too large, schema 1, or another thing than it was said to be.
    pub fn parse(bytes: &[u8], served: Option<&str>) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge { size: bytes.len() });
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(DocumentError::Malformed)?;
        if probe.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        let served = served.filter(|t| media_type::is_index(t) || media_type::is_manifest(t));
        if let (Some(stated), Some(served)) = (&probe.media_type, served)
            && stated != served
        {
            return Err(DocumentError::Disagreement { stated: stated.clone(), served: served.to_owned() });
        }
        let (as_index, as_manifest) =
            (probe.manifests.is_some(), probe.layers.is_some() || probe.config.is_some());
        let stated = probe.media_type.as_deref().or(served);
        let unknown = || DocumentError::Unknown { media_type: stated.unwrap_or("(no mediaType)").to_owned() };
        match stated {
            Some(media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED) => {
                Err(DocumentError::Schema1)
            }
            _ if as_index && as_manifest => Err(unknown()),
            Some(t) if media_type::is_index(t) && !as_manifest => Self::index(bytes),
            Some(t) if media_type::is_manifest(t) && !as_index => Self::manifest(bytes),
            None if as_index => Self::index(bytes),
            None if as_manifest => Self::manifest(bytes),
            _ => Err(unknown()),
        }
    }

    fn index(bytes: &[u8]) -> Result<Self, DocumentError> {
        serde_json::from_slice(bytes).map(Self::Index).map_err(DocumentError::Malformed)
    }

    fn manifest(bytes: &[u8]) -> Result<Self, DocumentError> {
        serde_json::from_slice(bytes).map(Self::Manifest).map_err(DocumentError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    #[test]
    fn tells_manifest_and_index_apart() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"future":{{"x":1}}}}"#);
        let Document::Manifest(read) = Document::parse(manifest.as_bytes(), None).unwrap() else { panic!() };
        assert_eq!(read.media_type(), media_type::OCI_MANIFEST);
        assert_eq!(serde_json::to_string(&read).unwrap(), manifest, "unknown fields are kept");
        assert!(read.is_image());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{CONFIG}]}}"#);
        assert!(matches!(Document::parse(index.as_bytes(), None), Ok(Document::Index(_))));
    }

    #[test]
    fn refuses_the_dubious() {
        let both = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#);
        type Expected = fn(&DocumentError) -> bool;
        let cases: [(&str, Option<&str>, Expected); 6] = [
            (&both, Some(media_type::OCI_INDEX), |e| matches!(e, DocumentError::Unknown { .. })),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, |e| matches!(e, DocumentError::Schema1)),
            ("[]", None, |e| matches!(e, DocumentError::Malformed(_))),
            ("{}", None, |e| matches!(e, DocumentError::Unknown { .. })),
            (r#"{"schemaVersion":2,"mediaType":"text/plain","layers":[]}"#, None, |e| {
                matches!(e, DocumentError::Unknown { .. })
            }),
            (
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
                Some(media_type::OCI_MANIFEST),
                |e| matches!(e, DocumentError::Disagreement { .. }),
            ),
        ];
        for (text, served, expected) in cases {
            let error = Document::parse(text.as_bytes(), served).unwrap_err();
            assert!(expected(&error), "{text}: {error:?}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(Document::parse(deep.as_bytes(), None).is_err());
    }
}
