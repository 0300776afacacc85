//! state.json of one container.

use std::path::PathBuf;

use berth_cgroup::Unit;
use berth_cgroup::resctrl::Place;
use berth_spec::oci;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::Status;

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// 0 until the container's first process exists.
    pub(crate) pid: i32,
    /// Start of that process in clock ticks since boot: tells it from a later one of the same number.
    pub(crate) start_time: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    /// This was written when that process existed, and not only when it was ready: until it runs a program, the container is
    /// being created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) early: bool,
    /// The cgroup below each hierarchy's root.
    pub(crate) cgroup: PathBuf,
    /// The systemd unit whose cgroup it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    /// Its share of caches and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<Place>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// config.json has hooks for after the creation; without any, it need not be read again for them.
    #[serde(default = "assume_so")]
    pub(crate) later_hooks: bool,
    /// It has a mount namespace, which takes its mounts with it.
    #[serde(default = "assume_so")]
    pub(crate) own_mounts: bool,
    /// The limits since the last `update`; before the first they are those of config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<oci::LinuxResources>,
}

/// For a record of a version that did not note it.
fn assume_so() -> bool {
    true
}

/// A container as `state` and `list` show it; the field names are runc's.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a PathBuf,
    rootfs: &'a PathBuf,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

impl Record {
    /// For people and programs. The owner is told by `list` only, as runc does.
    pub(crate) fn shown(&self, status: Status, owner: String) -> Shown<'_> {
        Shown {
            oci_version: &self.oci_version,
            id: &self.id,
            // runc shows no pid of a process that has ended.
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status: status.name(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner,
        }
    }
}
