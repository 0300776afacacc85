//! How a service's image is built.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Bytes, FileReference, Hosts, Pairs, Strings, Ulimit, Variables, omit::Omit};

record! {
    /// How a service's image is built.
    Build {
        /// Directory, archive or repository.
        context: String,
        /// Dockerfile within it.
        dockerfile: String,
        /// The Dockerfile itself.
        dockerfile_inline: String,
        /// Privileges of the builder.
        entitlements: Vec<String>,
        /// Build arguments.
        args: Variables,
        /// Provenance attestation.
        provenance: String,
        /// Bill of materials.
        sbom: String,
        /// SSH agents and keys.
        ssh: SshKeys,
        /// Labels of the image.
        labels: Pairs,
        /// Where to take cache from.
        cache_from: Strings,
        /// Where to put cache.
        cache_to: Strings,
        /// Whether to use no cache.
        no_cache: bool,
        /// Further contexts by name.
        additional_contexts: Pairs,
        /// Whether to pull base images that are there.
        pull: bool,
        /// Additional names.
        extra_hosts: Hosts,
        /// Isolation (Windows).
        isolation: String,
        /// Network of RUN.
        network: String,
        /// Stage.
        target: String,
        /// Secrets.
        secrets: Vec<FileReference>,
        /// Size of /dev/shm.
        shm_size: Bytes,
        /// Further names of the image.
        tags: Strings,
        /// Resource limits.
        ulimits: BTreeMap<String, Ulimit>,
        /// Platforms.
        platforms: Strings,
        /// All privileges.
        privileged: bool,
    }
}

/// SSH agents and keys: id → path, or nothing for the agent. Written as a list of `id=path`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshKeys(pub BTreeMap<String, Option<String>>);

impl Omit for SshKeys {
    fn omit(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for SshKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(id, path)| match path {
            Some(path) => format!("{id}={path}"),
            None => id.clone(),
        }))
    }
}

impl<'de> Deserialize<'de> for SshKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self)
    }
}
