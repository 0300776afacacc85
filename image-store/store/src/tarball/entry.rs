//! One member of an archive, with every extension applied.

use std::io;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// A stretch of a sparse file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds (possibly before 1970) and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// The size of the file, holes included.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<Vec<Segment>>,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream ends in the middle of a member.
    #[error("the archive ends too early")]
    Truncated,
    /// The stream could not be read or decompressed.
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    /// A header does not add up.
    #[error("not a tar archive, or a damaged one: the checksum of a header is wrong")]
    Checksum,
    /// A field makes no sense.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// An extension that nobody writes in good faith.
    #[error("{what} has {size} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// Which extension.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A type of member that cannot be unpacked.
    #[error("unsupported type {0:?} of member")]
    Type(char),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}
