//! The stat cache: digests of files that have not changed since they were read the last time.
//!
//! A file is told by device and inode; it is unchanged if size, modification and change time are. The change time
//! cannot be set by anybody, so that a file whose contents were exchanged under the same size and modification time
//! is still noticed. What changed just before it was read is not kept: a second change within the same tick of the
//! clock would not show.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_oci::Digest;
use nix::sys::time::TimeSpec;

use crate::rootdir::Meta;
use crate::trees::Trees;

/// First bytes of the file; another format is another file.
const MAGIC: &[u8; 8] = b"berthst1";
/// Device, inode, size, two times in seconds and nanoseconds, SHA-256.
const RECORD: usize = 7 * 8 + 32;
/// Younger changes are not trusted.
const SETTLED: Duration = Duration::from_millis(50);

type Identity = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    hash: [u8; 32],
}

/// What is known of one tree.
#[derive(Debug)]
pub(crate) struct Stats {
    file: PathBuf,
    /// Read when it is first asked for.
    known: OnceLock<HashMap<Identity, Seen>>,
    used: Mutex<HashMap<Identity, Seen>>,
    /// Whole selections.
    pub(crate) trees: Trees,
}

/// Whether a file had been left alone long enough before `time` that a later change will show in its change time.
pub(crate) fn is_settled(meta: &Meta, time: SystemTime) -> bool {
    let (seconds, nanos) = pair(meta.ctime);
    let changed = u64::try_from(seconds).ok().zip(u32::try_from(nanos).ok());
    let changed = changed.map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(seconds, nanos));
    changed.is_some_and(|changed| changed + SETTLED <= time)
}

fn pair(time: TimeSpec) -> (i64, i64) {
    (time.tv_sec(), time.tv_nsec())
}

impl Stats {
    /// Opens the cache of the tree with this root.
    pub(crate) fn open(builds: &Path, root: &Meta) -> Self {
        let (device, inode) = root.identity;
        let file = builds.join("stats").join(format!("{device:x}-{inode:x}"));
        let trees = Trees::open(file.with_extension("trees"));
        Self { file, known: OnceLock::new(), used: Mutex::default(), trees }
    }

    fn known(&self) -> &HashMap<Identity, Seen> {
        let read = || fs::read(&self.file).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default();
        self.known.get_or_init(read)
    }

    /// What is known of a file, if it is as it was.
    fn seen(&self, meta: &Meta) -> Option<Seen> {
        let seen = *self.known().get(&meta.identity)?;
        let same = (seen.size, seen.mtime, seen.ctime) == (meta.size, pair(meta.mtime), pair(meta.ctime));
        same.then_some(seen)
    }

    /// Whether the digest of a file is known.
    pub(crate) fn knows(&self, meta: &Meta) -> bool {
        self.seen(meta).is_some()
    }

    /// The digest of a file, if it is as it was.
    pub(crate) fn get(&self, meta: &Meta) -> Option<Digest> {
        let seen = self.seen(meta)?;
        self.use_it(meta.identity, seen);
        Digest::from_sha256_hex(&hex::encode(seen.hash)).ok()
    }

    fn use_it(&self, identity: Identity, seen: Seen) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(identity, seen);
    }

    /// Keeps the digest of a file that was read after `before`, when it had this metadata.
    pub(crate) fn put(&self, meta: &Meta, digest: &Digest, before: SystemTime) {
        if !is_settled(meta, before) {
            return;
        }
        let mut hash = [0; 32];
        if hex::decode_to_slice(digest.hex(), &mut hash).is_err() {
            return;
        }
        let seen = Seen { size: meta.size, mtime: pair(meta.mtime), ctime: pair(meta.ctime), hash };
        self.use_it(meta.identity, seen);
    }

    /// Writes what was used, if anything is new. What was not asked for is forgotten when it is more than that.
    pub(crate) fn save(&self) {
        if let Err(error) = self.trees.save() {
            tracing::debug!(%error, "the cache of selections cannot be written");
        }
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.is_empty() || used.iter().all(|(identity, seen)| self.known().get(identity) == Some(seen)) {
            return;
        }
        let mut all = used.clone();
        if self.known().len() <= 4 * used.len() {
            for (identity, seen) in self.known() {
                all.entry(*identity).or_insert(*seen);
            }
        }
        if let Err(error) = write(&self.file, &all) {
            tracing::debug!(%error, "the stat cache cannot be written");
        }
    }
}

fn write(file: &Path, all: &HashMap<Identity, Seen>) -> std::io::Result<()> {
    let dir = file.parent().expect("the file is in a directory");
    fs::create_dir_all(dir)?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + all.len() * RECORD);
    bytes.extend_from_slice(MAGIC);
    for ((device, inode), seen) in all {
        for number in [*device, *inode, seen.size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [seen.mtime.0, seen.mtime.1, seen.ctime.0, seen.ctime.1] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&seen.hash);
    }
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.write_all(&bytes)?;
    temporary.persist(file)?;
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<HashMap<Identity, Seen>> {
    let records = bytes.strip_prefix(MAGIC)?;
    let number = |record: &[u8], i: usize| -> [u8; 8] {
        record[i * 8..i * 8 + 8].try_into().expect("a record has this many numbers")
    };
    let mut all = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let unsigned = |i| u64::from_le_bytes(number(record, i));
        let signed = |i| i64::from_le_bytes(number(record, i));
        let hash = record[7 * 8..].try_into().ok()?;
        let seen =
            Seen { size: unsigned(2), mtime: (signed(3), signed(4)), ctime: (signed(5), signed(6)), hash };
        all.insert((unsigned(0), unsigned(1)), seen);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootdir::RootDir;

    #[test]
    fn a_change_is_noticed_whatever_its_times_say() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("f");
        fs::write(&path, "one").unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let root = RootDir::open_host(tree.path()).unwrap();
        let meta = || root.meta(Path::new("f")).unwrap().unwrap();
        let top = root.meta(Path::new("")).unwrap().unwrap();
        let stats = Stats::open(dir.path(), &top);
        let first = meta();
        stats.put(&first, &Digest::of(b"one"), SystemTime::now());
        stats.save();
        assert_eq!(Stats::open(dir.path(), &top).get(&first), None, "it may change again in this tick");
        stats.put(&first, &Digest::of(b"one"), SystemTime::now() + SETTLED * 2);
        stats.save();
        let again = Stats::open(dir.path(), &top);
        assert_eq!(again.get(&meta()), Some(Digest::of(b"one")));
        fs::write(&path, "two").unwrap();
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(
            again.get(&meta()),
            None,
            "size and modification time are the same, the change time is not"
        );
    }
}
