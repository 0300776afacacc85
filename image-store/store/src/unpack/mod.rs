//! Unpacks a layer's tar into overlay-native form, in one pass, below one directory descriptor.
//!
//! Archives are hostile. The rules:
//! * A member's name is relative and has no `..`; `./` and repeated slashes are dropped.
//! * The directory of a member is found by `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`. Only when
//!   that meets a symbolic link does [`tree`] walk by hand: links of this very layer that stay within it are
//!   followed, as a container would; one that leaves it, or leads to nothing, ends the unpack.
//! * The last component is never followed: everything is made with `O_EXCL | O_NOFOLLOW` or an `*at` call.
//! * A name occurs once; only a directory may be named again, and a whiteout may stand beside what replaces it.
//!   Who scans an archive and who unpacks it would otherwise see different files.
//! * Sizes of names and records are bounded; the disk's last reserve is not touched; see [`Limits`].
//! * `trusted.overlay.*` attributes of the archive are dropped: they would steer the kernel.
//!
//! Nothing is synced here; see [`crate::Store::sync`].

mod entry;
mod name;
mod tree;

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read as _, Write};
use std::os::fd::OwnedFd;

use berth_oci::{Digest, Hasher};

use crate::compression::decompress;
use crate::pipe::{CHUNK, PipeReader, PipeWriter, pipe};
use crate::quota::{OverCap, Quota};
pub use crate::tarball::TarError;
use crate::tarball::{Entry, Kind, Reader};
use tree::Tree;
pub(crate) use tree::{OPAQUE, is_whiteout};

/// How far an archive may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Uncompressed bytes of one layer.
    pub(crate) bytes: u64,
    /// Members of one layer.
    pub(crate) entries: u64,
    /// Bytes of the file system that stay free.
    pub(crate) reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 40, entries: 20_000_000, reserve: 64 << 20 }
    }
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive itself is wrong.
    #[error("{place}: {source}")]
    Archive {
        /// The member that is wrong, or the last one that was whole.
        place: String,
        /// What is wrong.
        source: TarError,
    },
    /// One member is wrong.
    #[error("entry {entry:?}: {problem}")]
    Entry {
        /// Its name.
        entry: String,
        /// What is wrong.
        problem: EntryProblem,
    },
    /// The layer is too large.
    #[error("{place}: it unpacks to more than {limit} {unit}; refusing to go on")]
    Bomb {
        /// The member at which the limit was passed.
        place: String,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The disk is full.
    #[error("entry {entry:?}: no space left: unpacking stopped to keep {reserve} bytes of the disk free")]
    NoSpace {
        /// The member that did not fit.
        entry: String,
        /// What stays free.
        reserve: u64,
    },
    /// The store's cap would be passed.
    #[error(transparent)]
    OverCap(#[from] OverCap),
    /// The digest of the uncompressed archive is another.
    #[error("diff-id mismatch: expected {expected}, got {actual}")]
    DiffId {
        /// As announced.
        expected: Digest,
        /// As found.
        actual: Digest,
    },
}

/// What is wrong with a member.
#[derive(Debug, thiserror::Error)]
pub enum EntryProblem {
    /// An absolute name.
    #[error("absolute names are not allowed in a layer")]
    Absolute,
    /// A name with `..`.
    #[error("names with \"..\" are not allowed in a layer")]
    DotDot,
    /// No name.
    #[error("it has no name")]
    NoName,
    /// A second member of one name.
    #[error("the layer has this name twice")]
    Duplicate,
    /// A whiteout of nothing.
    #[error("a whiteout must name one file")]
    Whiteout,
    /// A symbolic link on the way leads out.
    #[error("its directory {link:?} is a symbolic link to {target:?}, which leads out of the layer")]
    Escape {
        /// The link.
        link: String,
        /// Where it leads.
        target: String,
    },
    /// Something on the way is no directory.
    #[error("{0:?} is not a directory")]
    NotADirectory(String),
    /// The root cannot be anything else.
    #[error("the root of a layer can only be a directory")]
    Root,
    /// A hard link to something that is not there.
    #[error("the target {0:?} of the hard link is not in the layer")]
    LinkTarget(String),
    /// A system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// Which.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Reading its data failed.
    #[error(transparent)]
    Data(TarError),
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) diff_id: Digest,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Length of the uncompressed archive.
    pub(crate) tar_size: u64,
    /// Directories that it did not name.
    pub(crate) implicit: BTreeSet<String>,
}

/// Unpacks `from` (compressed or not) below `root`, and hashes it in the same pass. On success the bytes of its files are
/// counted against the cap.
pub(crate) fn unpack(
    root: OwnedFd,
    from: impl io::Read + Send,
    limits: Limits,
    quota: &Quota,
) -> Result<Unpacked, UnpackError> {
    let mut taken = 0;
    let unpacked = unpack_counting(root, from, limits, quota, &mut taken);
    if unpacked.is_err() {
        quota.give(taken);
    }
    unpacked
}

/// The same; `taken` is what it counted, also when it failed.
fn unpack_counting(
    root: OwnedFd,
    from: impl io::Read + Send,
    limits: Limits,
    quota: &Quota,
    taken: &mut u64,
) -> Result<Unpacked, UnpackError> {
    let (to, reader) = pipe();
    std::thread::scope(|scope| {
        let source = scope.spawn(move || inflate(from, to, limits.bytes));
        let mut unpacker =
            Unpacker { tree: Tree::new(root, limits.reserve), limits, current: None, last: None };
        let result = unpacker.run(reader, quota, taken);
        let (digest, tar_size, exceeded) = source.join().expect("the inflating thread does not panic");
        if exceeded {
            let place = unpacker.place();
            return Err(UnpackError::Bomb { place, limit: limits.bytes, unit: "bytes" });
        }
        result?;
        let (size, implicit) =
            unpacker.tree.finish().map_err(|(entry, problem)| UnpackError::Entry { entry, problem })?;
        Ok(Unpacked { diff_id: digest, size, tar_size, implicit })
    })
}

/// Decompresses and hashes; returns digest, length, and whether the limit was passed.
fn inflate(from: impl io::Read + Send, to: PipeWriter, limit: u64) -> (Digest, u64, bool) {
    let mut hasher = Hasher::default();
    let mut total = 0;
    let mut from = match decompress(from) {
        Ok(from) => from,
        Err(error) => {
            to.fail(error);
            return (hasher.finish(), 0, false);
        }
    };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        if let Err(error) = from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
            to.fail(error);
            return (hasher.finish(), total, false);
        }
        if chunk.is_empty() {
            return (hasher.finish(), total, false);
        }
        total += chunk.len() as u64;
        if total > limit {
            to.fail(io::Error::other("too large"));
            return (hasher.finish(), total, true);
        }
        hasher.update(&chunk);
        if !to.send(chunk) {
            return (hasher.finish(), total, false);
        }
    }
}

struct Unpacker {
    tree: Tree,
    limits: Limits,
    /// The member that is being unpacked.
    current: Option<String>,
    /// The last member that was whole.
    last: Option<String>,
}

impl Unpacker {
    fn run(&mut self, from: PipeReader, quota: &Quota, taken: &mut u64) -> Result<(), UnpackError> {
        let mut archive = Reader::new(from);
        let mut count = 0;
        loop {
            let next = archive.next();
            self.current = archive.name().map(|name| String::from_utf8_lossy(name).into_owned());
            let Some(entry) = next.map_err(|source| self.archive_error(source))? else { break };
            count += 1;
            if count > self.limits.entries {
                return Err(self.bomb(self.limits.entries, "entries"));
            }
            if entry.kind == Kind::File {
                quota.take(entry.size)?;
                *taken += entry.size;
            }
            let placed = self.tree.place(&entry, &mut archive.data());
            if self.tree.size > self.limits.bytes {
                return Err(self.bomb(self.limits.bytes, "bytes"));
            }
            match placed {
                Ok(()) => self.last = self.current.take(),
                Err(EntryProblem::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                    return Err(UnpackError::NoSpace { entry: shown(&entry), reserve: self.limits.reserve });
                }
                Err(problem) => return Err(UnpackError::Entry { entry: shown(&entry), problem }),
            }
        }
        self.drain(archive.into_inner())
    }

    /// What follows the end of the archive belongs to its digest.
    fn drain(&self, mut from: PipeReader) -> Result<(), UnpackError> {
        loop {
            let n = from.fill_buf().map_err(|e| self.archive_error(TarError::Read(e)))?.len();
            if n == 0 {
                return Ok(());
            }
            from.consume(n);
        }
    }

    fn place(&self) -> String {
        match (&self.current, &self.last) {
            (Some(current), _) => format!("entry {current:?}"),
            (None, Some(last)) => format!("after entry {last:?}"),
            (None, None) => "before the first entry".to_owned(),
        }
    }

    fn bomb(&self, limit: u64, unit: &'static str) -> UnpackError {
        UnpackError::Bomb { place: self.place(), limit, unit }
    }

    fn archive_error(&self, source: TarError) -> UnpackError {
        UnpackError::Archive { place: self.place(), source }
    }
}

fn shown(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.path).into_owned()
}

/// Copies a member's data without an intermediate buffer.
fn copy(from: &mut impl BufRead, to: &mut impl Write, mut amount: u64) -> Result<(), EntryProblem> {
    while amount > 0 {
        let available = from.fill_buf().map_err(|e| EntryProblem::Data(e.into()))?;
        if available.is_empty() {
            return Err(EntryProblem::Data(TarError::Truncated));
        }
        let n = available.len().min(usize::try_from(amount).unwrap_or(usize::MAX));
        to.write_all(&available[..n]).map_err(|source| EntryProblem::Io { operation: "write", source })?;
        from.consume(n);
        amount -= n as u64;
    }
    Ok(())
}
