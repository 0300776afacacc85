//! The files of the Container Device Interface (specification 1.0), JSON or YAML, as they lie in /etc/cdi.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One file: a kind of devices.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct File {
    pub(crate) cdi_version: String,
    /// `vendor.com/class`
    pub(crate) kind: String,
    pub(crate) devices: Vec<Device>,
    /// What every container gets that has one of the devices.
    pub(crate) container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) container_edits: Edits,
}

/// What is done to a container's config.json.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    pub(crate) device_nodes: Vec<Node>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) mounts: Vec<Mount>,
    #[serde(rename = "additionalGids", alias = "additionalGIDs")]
    pub(crate) additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    /// Where it is on the host; empty: at `path`.
    pub(crate) host_path: PathBuf,
    /// `c`, `b`, `u` or `p`; empty: as on the host.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    /// Any of `rwm`; empty: all.
    pub(crate) permissions: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    /// Seconds.
    pub(crate) timeout: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub(crate) host_path: PathBuf,
    pub(crate) container_path: PathBuf,
    /// Empty: a bind mount.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) options: Vec<String>,
}

/// Reads one file.
pub(crate) fn read(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file: File = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        _ => serde_saphyr::from_str(&text).map_err(|error| error.to_string())?,
    };
    if file.cdi_version.is_empty() {
        return Err("cdiVersion is missing".to_owned());
    }
    match file.kind.split_once('/') {
        Some((vendor, class)) if !vendor.is_empty() && !class.is_empty() => Ok(file),
        _ => Err(format!("kind {:?} is not of the form vendor.com/class", file.kind)),
    }
}
