//! What the cache holds, and taking parts of it away.
//!
//! The bound on the cache is a hard one: before a step's result is recorded, what was used longest ago goes until there
//! is room. Everything counts: layers, the records themselves, cache mounts.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use berth_oci::{DiffId, Digest};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{Statvfs, statvfs};

use crate::cache::Cache;
use crate::fault::{At, store};
use crate::rootdir::RootDir;
use crate::shared::Shared;
use crate::{BuildError, failed};

/// Part of the file system that the cache may take if nothing else is said.
const SHARE: u64 = 5;
/// What belongs to the cache beside records and cache mounts: all of it can be made again.
const HELPERS: [&str; 7] = ["lists", "selected", "placed", "stats", "fetched", "git", "memory"];

/// One thing in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its name.
    pub id: String,
    /// `regular`: what a step made; `exec.cachemount`: the directory of a cache mount.
    pub kind: &'static str,
    /// The step, or the cache's id.
    pub description: String,
    /// Bytes, its record included.
    pub size: u64,
    /// A step is using it.
    pub in_use: bool,
    /// An image has the same layer: removing the entry frees nothing.
    pub shared: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was used last.
    pub used: Timestamp,
    /// How often it was used.
    pub uses: u64,
    layer: Option<DiffId>,
}

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Also what images share.
    pub all: bool,
    /// So many bytes may stay; what was used last stays first.
    pub keep_bytes: u64,
    /// So many bytes of the file system shall be free; if they are, nothing has to go. 0 says nothing.
    pub free_bytes: u64,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only entries whose names begin so.
    pub ids: Vec<String>,
    /// Only entries of these kinds.
    pub kinds: Vec<String>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of the entries.
    pub ids: Vec<String>,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// Lists the cache.
pub(crate) fn entries(shared: &Shared) -> Result<Vec<CacheEntry>, BuildError> {
    let images = shared.store.images();
    let mut in_images: HashSet<DiffId> = HashSet::new();
    for image in images.list(true).map_err(store)? {
        if let Ok(config) = images.config_of(&image.id) {
            in_images.extend(config.diff_ids().iter().cloned());
        }
    }
    let mut found = Vec::new();
    for (key, record, bytes) in Cache::new(&shared.dirs.builds).list()? {
        found.push(CacheEntry {
            id: key.hex().to_owned(),
            kind: "regular",
            description: record.description,
            size: record.size + bytes,
            in_use: false,
            shared: in_images.contains(&record.layer),
            created: record.made,
            used: record.used,
            uses: record.uses,
            layer: Some(record.layer),
        });
    }
    found.extend(mounts(&shared.dirs.builds.join("mounts"))?);
    found.sort_by_key(|entry| entry.used);
    Ok(found)
}

fn mounts(dir: &Path) -> Result<Vec<CacheEntry>, BuildError> {
    let mut found = Vec::new();
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        listed => listed.at("list", dir)?,
    };
    for entry in listed.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(meta) = entry.metadata().ok().filter(fs::Metadata::is_dir) else { continue };
        if name.starts_with("build-") {
            continue;
        }
        let time = |time: std::io::Result<SystemTime>| {
            time.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default()
        };
        let lock = dir.join(format!("{name}.lock"));
        let used = fs::metadata(&lock).and_then(|meta| meta.modified());
        found.push(CacheEntry {
            size: size_of(&entry.path())?,
            kind: "exec.cachemount",
            description: format!("cache mount {}", fs::read_to_string(&lock).unwrap_or_default()),
            in_use: try_lock(&lock).is_none(),
            shared: false,
            created: time(meta.created()),
            used: time(used),
            uses: 0,
            layer: None,
            id: name,
        });
    }
    Ok(found)
}

fn try_lock(path: &Path) -> Option<Flock<fs::File>> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}

fn size_of(dir: &Path) -> Result<u64, BuildError> {
    fn below(root: &RootDir, dir: &Path) -> std::io::Result<u64> {
        let mut bytes = 0;
        for name in root.read_dir(dir)? {
            let path = dir.join(name);
            bytes += match root.meta(&path)? {
                Some(meta) if meta.is_dir() => below(root, &path)?,
                Some(meta) => meta.size,
                None => 0,
            };
        }
        Ok(bytes)
    }
    let root = RootDir::open_host(dir).at("open", dir)?;
    below(&root, Path::new("")).at("measure", dir)
}

/// Removes what the options say.
pub(crate) fn prune(shared: &Shared, options: &PruneOptions) -> Result<Pruned, BuildError> {
    let _pruning = shared.pruning.lock().unwrap_or_else(PoisonError::into_inner);
    failed::clear(shared);
    let now = Timestamp::now();
    let all = entries(shared)?;
    let mut total: u64 = all.iter().map(|entry| entry.size).sum();
    let mut pruned = Pruned::default();
    let keep_bytes = match options.free_bytes {
        0 => options.keep_bytes,
        wanted => {
            let stat = file_system(shared)?;
            let missing = wanted.saturating_sub(stat.blocks_available() * stat.fragment_size());
            options.keep_bytes.max(total.saturating_sub(missing)).max(1)
        }
    };
    let old = |entry: &CacheEntry| {
        options
            .unused_for
            .is_none_or(|age| now.duration_since(entry.used).unsigned_abs() >= age && entry.used <= now)
    };
    let named = |entry: &CacheEntry| {
        (options.ids.is_empty() || options.ids.iter().any(|id| entry.id.starts_with(id.as_str())))
            && (options.kinds.is_empty() || options.kinds.iter().any(|kind| kind == entry.kind))
    };
    for entry in &all {
        if keep_bytes > 0 && total <= keep_bytes {
            break;
        }
        if entry.in_use || entry.shared && !options.all || !old(entry) || !named(entry) {
            continue;
        }
        if remove(shared, entry, &all)? {
            total = total.saturating_sub(entry.size);
            pruned.ids.push(entry.id.clone());
            pruned.bytes += if entry.shared { 0 } else { entry.size };
        }
    }
    let everything = keep_bytes == 0 && options.unused_for.is_none();
    if options.all && everything && options.ids.is_empty() && options.kinds.is_empty() {
        for name in HELPERS {
            let dir = shared.dirs.builds.join(name);
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => result.at("remove", &dir)?,
            }
        }
    }
    shared.cached.store(total, Ordering::Relaxed);
    shared.store.gc().map_err(store)?;
    Ok(pruned)
}

/// Whether it is gone.
fn remove(shared: &Shared, entry: &CacheEntry, all: &[CacheEntry]) -> Result<bool, BuildError> {
    let Some(layer) = &entry.layer else {
        let dir = shared.dirs.builds.join("mounts");
        let path = dir.join(format!("{}.lock", entry.id));
        let Some(_lock) = try_lock(&path) else { return Ok(false) };
        let root = RootDir::open_host(&dir).at("open", &dir)?;
        root.remove_tree(Path::new(&entry.id)).at("remove", dir.join(&entry.id))?;
        fs::remove_file(&path).at("remove", &path)?;
        return Ok(true);
    };
    let Ok(key) = Digest::parse(&format!("sha256:{}", entry.id)) else { return Ok(false) };
    let cache = Cache::new(&shared.dirs.builds);
    let same = |other: &&CacheEntry| other.id != entry.id && other.layer.as_ref() == Some(layer);
    let shared_layer = all.iter().filter(same).any(|other| {
        Digest::parse(&format!("sha256:{}", other.id)).is_ok_and(|key| cache.path(&key).exists())
    });
    cache.remove(&shared.store, &key, shared_layer)?;
    Ok(true)
}

fn file_system(shared: &Shared) -> Result<Statvfs, BuildError> {
    let dir = &shared.dirs.builds;
    fs::create_dir_all(dir).at("create directory", dir)?;
    statvfs(dir).at("measure the file system of", dir)
}

/// Evicts what was used longest ago until `size` more bytes fit.
pub(crate) fn make_room(shared: &Shared, size: u64) -> Result<(), BuildError> {
    let limit = match shared.dirs.cache_limit {
        Some(limit) => limit,
        None => {
            let stat = file_system(shared)?;
            stat.blocks() * stat.fragment_size() / SHARE
        }
    };
    let known = shared.cached.load(Ordering::Relaxed);
    if known > 0 && known + size <= limit {
        shared.cached.fetch_add(size, Ordering::Relaxed);
        return Ok(());
    }
    let total: u64 = entries(shared)?.iter().map(|entry| entry.size).sum();
    if total + size > limit {
        let keep_bytes = limit.saturating_sub(size).max(1);
        prune(shared, &PruneOptions { all: true, keep_bytes, ..PruneOptions::default() })?;
    } else {
        shared.cached.store(total, Ordering::Relaxed);
    }
    shared.cached.fetch_add(size, Ordering::Relaxed);
    Ok(())
}
