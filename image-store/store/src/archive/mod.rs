//! Images as files: save, load, import, export.

mod ahead;
mod export;
mod load;
mod names;
mod save;
mod spool;

use std::collections::BTreeMap;

use berth_oci::Descriptor;
use serde::{Deserialize, Serialize};

pub(crate) use export::{export, import};
pub(crate) use load::load;
pub use load::{LoadEvent, Loaded};
pub(crate) use save::{save, save_as};

/// Annotation with an image's full name, as containerd and docker write it.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// Annotation with the digest of the index that an image was chosen from, where the archive has not all that this names.
/// (An entry that led to such an index would stop tools that look for the missing images.)
pub(crate) const CHOSEN_FROM: &str = "berth.chosen-from";

/// One image of manifest.json (docker-archive, v1.2).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer_sources: Option<BTreeMap<String, Descriptor>>,
}
