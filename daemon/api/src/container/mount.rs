//! Mounts: the long form of a request and what inspect shows.

use std::collections::BTreeMap;

use crate::wire::is_default;

wire! {
    /// A mount as `--mount` asks for it.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`; Berth's own: `secret`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Host path, volume name or image.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub source: String,
        /// Path in the container.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub target: String,
        /// Whether it is read-only.
        #[serde(skip_serializing_if = "is_default")]
        pub read_only: bool,
        /// Of no meaning on Linux.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub consistency: String,
        /// For `bind`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind_options: Option<BindOptions>,
        /// For `volume`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_options: Option<VolumeMountOptions>,
        /// For `image`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_options: Option<ImageMountOptions>,
        /// For `tmpfs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs_options: Option<TmpfsOptions>,
        /// For `secret`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub secret_options: Option<SecretOptions>,
    }

    /// A file in memory that is there before the program is. Berth's own.
    pub struct SecretOptions {
        /// Its content in base64; never told again.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub data: String,
        /// Owner.
        #[serde(rename = "UID", skip_serializing_if = "is_default")]
        pub uid: u32,
        /// Group.
        #[serde(rename = "GID", skip_serializing_if = "is_default")]
        pub gid: u32,
        /// Permission bits.
        #[serde(skip_serializing_if = "is_default")]
        pub mode: u32,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub propagation: String,
        /// Whether to leave out the mounts below the source.
        #[serde(skip_serializing_if = "is_default")]
        pub non_recursive: bool,
        /// Whether to make a missing source.
        #[serde(skip_serializing_if = "is_default")]
        pub create_mountpoint: bool,
        /// Whether read-only stops at the mounts below.
        #[serde(skip_serializing_if = "is_default")]
        pub read_only_non_recursive: bool,
        /// Whether to fail when read-only cannot reach the mounts below.
        #[serde(skip_serializing_if = "is_default")]
        pub read_only_force_recursive: bool,
        /// Berth's own: whose files the source's are (`caller`, `UID` or `UID/GID`); to the container they are its
        /// user's.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub idmap: String,
    }

    /// Options of a volume mount.
    pub struct VolumeMountOptions {
        /// Whether not to copy the image's content into an empty volume.
        #[serde(skip_serializing_if = "is_default")]
        pub no_copy: bool,
        /// Labels of a volume that has to be made.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub labels: Option<BTreeMap<String, String>>,
        /// Path within the volume.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subpath: String,
        /// Driver of a volume that has to be made.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver_config: Option<VolumeDriverConfig>,
    }

    /// Volume driver and its options.
    pub struct VolumeDriverConfig {
        /// Driver.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// Options.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub options: Option<BTreeMap<String, String>>,
    }

    /// Options of an image mount.
    pub struct ImageMountOptions {
        /// Path within the image.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subpath: String,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Size in bytes; 0 is no limit.
        #[serde(skip_serializing_if = "is_default")]
        pub size_bytes: i64,
        /// Permission bits; 0 takes 1777.
        #[serde(skip_serializing_if = "is_default")]
        pub mode: u32,
        /// Further mount options, each `[name]` or `[name, value]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub options: Option<Vec<Vec<String>>>,
    }

    /// A mount as inspect and list show it.
    pub struct MountPoint {
        /// `bind`, `volume`, `tmpfs`, `image`.
        #[serde(rename = "Type", skip_serializing_if = "String::is_empty")]
        pub kind: String,
        /// Volume's name.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// Path on the host.
        pub source: String,
        /// Path in the container.
        pub destination: String,
        /// Volume's driver.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub driver: String,
        /// Options as typed, `ro`, `z`.
        pub mode: String,
        /// Whether it is writable.
        #[serde(rename = "RW")]
        pub rw: bool,
        /// Propagation of a bind mount.
        pub propagation: String,
    }
}
