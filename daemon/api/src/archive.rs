//! `X-Docker-Container-Path-Stat`: a path in a container, as base64 JSON in a header.

use serde::{Deserialize, Serialize};

use crate::Time;

/// What a path in a container is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PathStat {
    /// Last component.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Type and permission as bits of Go's `os.FileMode`; see [`go_file_mode`].
    pub mode: u32,
    /// Last change.
    pub mtime: Time,
    /// Target of a symbolic link, resolved in the container's root.
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// `os.FileMode` of a file with the mode bits `st_mode` of stat(2).
///
/// Go keeps the permission bits and puts the rest at the top: <https://pkg.go.dev/io/fs#FileMode>.
#[must_use]
pub fn go_file_mode(st_mode: u32) -> u32 {
    const KINDS: [(u32, u32); 6] = [
        (0o040_000, 1 << 31),           // directory
        (0o120_000, 1 << 27),           // symbolic link
        (0o060_000, 1 << 26),           // block device
        (0o020_000, 1 << 26 | 1 << 21), // character device
        (0o010_000, 1 << 25),           // fifo
        (0o140_000, 1 << 24),           // socket
    ];
    const FLAGS: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let kind = KINDS.iter().find(|(unix, _)| st_mode & 0o170_000 == *unix).map_or(0, |(_, go)| *go);
    let flags = FLAGS.iter().filter(|(unix, _)| st_mode & unix != 0).fold(0, |all, (_, go)| all | go);
    kind | flags | st_mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_file_mode(0o040_755), 0x8000_0000 | 0o755);
        assert_eq!(go_file_mode(0o100_644), 0o644);
        assert_eq!(go_file_mode(0o120_777), 1 << 27 | 0o777);
        assert_eq!(go_file_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_file_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_file_mode(0o020_666), 1 << 26 | 1 << 21 | 0o666);
    }
}
