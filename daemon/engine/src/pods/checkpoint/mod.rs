//! Checkpoints of pods' containers, and containers that are made of them.
//!
//! ```text
//!  running container ─freeze─▶ CRIU ─▶ layer of what it wrote ─thaw─▶ archive at the place that was named   `take`
//!  archive, or an image of one ─▶ base image + layer ─▶ created ─start─▶ CRIU brings the processes back      `restore`
//! ```
//!
//! CRIU is driven by berth-runtime, a program beside the shim. The archive is what containerd writes and checkpointctl
//! reads: the files below, and `checkpoint/` with CRIU's images. It holds the container's memory, so it is root's alone.

mod restore;
mod take;

use serde::{Deserialize, Serialize};

/// What the container was made of ([`Config`]).
const CONFIG_DUMP: &str = "config.dump";
/// Its config.json.
const SPEC_DUMP: &str = "spec.dump";
/// What the CRI said of it.
const STATUS_DUMP: &str = "status.dump";
/// What it has written, as a layer.
const ROOTFS_DIFF: &str = "rootfs-diff.tar";
/// Its log until then.
const LOG: &str = "container.log";
/// The directory of CRIU's images.
const IMAGES: &str = "checkpoint";

/// The annotation of an image that is a checkpoint: the container's name. CRI-O has its own.
const IMAGE_ANNOTATIONS: [&str; 2] =
    ["org.criu.checkpoint.container.name", "io.kubernetes.cri-o.annotations.checkpoint.name"];

/// `config.dump`; the names are podman's.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    id: String,
    name: String,
    rootfs_image: String,
    /// The base image's tag.
    rootfs_image_name: String,
    /// The base image's name with its digest, or its id.
    rootfs_image_ref: String,
    runtime: String,
    created_time: String,
    checkpointed_at: String,
}
