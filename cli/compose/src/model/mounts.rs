//! What a service's containers have in their file systems beside the image.

use super::{Bytes, FileMode, Pairs};

record! {
    /// A mount.
    Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe`, `cluster`.
        r#type: String,
        /// Path on the host, volume or image.
        source: String,
        /// Path in the container.
        target: String,
        /// Read-only.
        read_only: bool,
        /// Of no meaning on Linux.
        consistency: String,
        /// For `bind`.
        bind: Option<BindOptions>,
        /// For `volume`.
        volume: Option<VolumeOptions>,
        /// For `tmpfs`.
        tmpfs: Option<TmpfsOptions>,
        /// For `image`.
        image: Option<ImageOptions>,
    }

    /// Options of a bind mount.
    BindOptions {
        /// `z` or `Z`.
        selinux: String,
        /// Propagation.
        propagation: String,
        /// Whether to make a missing source.
        create_host_path: bool,
        /// `enabled`, `disabled`, `writable`, `readonly`.
        recursive: String,
    }

    /// Options of a volume mount.
    VolumeOptions {
        /// Labels.
        labels: Pairs,
        /// Whether not to copy the image's files into it.
        nocopy: bool,
        /// Path in the volume.
        subpath: String,
    }

    /// Options of a tmpfs mount.
    TmpfsOptions {
        /// Size.
        size: Bytes,
        /// Permission bits.
        mode: u32,
    }

    /// Options of an image mount.
    ImageOptions {
        /// Path in the image.
        subpath: String,
    }

    /// A config or secret a service is granted.
    FileReference {
        /// Its key.
        source: String,
        /// Path in the container.
        target: String,
        /// Owner.
        uid: String,
        /// Group.
        gid: String,
        /// Permission bits.
        mode: Option<FileMode>,
    }
}
