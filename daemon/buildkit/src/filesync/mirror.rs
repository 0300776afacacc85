//! What is kept of clients' directories from one build to the next, so that only what changed has to come again.
//!
//! A mirror belongs to one build at a time: builds of the same directory at the same time have one each.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use berth_builder::rootdir::RootDir;
use sha2::{Digest as _, Sha256};

/// So many are kept.
const KEPT: usize = 32;
/// One that was not used for so long goes.
const UNUSED: Duration = Duration::from_secs(48 * 60 * 60);

/// All mirrors.
#[derive(Debug)]
pub(crate) struct Mirrors {
    dir: PathBuf,
    in_use: Mutex<HashSet<PathBuf>>,
}

/// A mirror that a build has.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The files.
    pub(super) tree: RootDir,
    /// Files that are on their way.
    pub(super) incoming: RootDir,
    path: PathBuf,
    all: Arc<Mirrors>,
}

impl Mirrors {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, in_use: Mutex::default() }
    }

    fn in_use(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mirror that was used for this key before, if one is free; else a new one. Blocking.
    pub(crate) fn claim(self: &Arc<Self>, key: &str) -> io::Result<Mirror> {
        let key = hex::encode(Sha256::digest(key));
        let path = {
            let mut in_use = self.in_use();
            let mut names = (0..).map(|n: u32| self.dir.join(format!("{key}-{n}")));
            let path = names.find(|path| !in_use.contains(path)).expect("there are more numbers than builds");
            in_use.insert(path.clone());
            path
        };
        // From here on it is given back whatever happens.
        let release = Release { path: path.clone(), all: Arc::clone(self) };
        self.limit();
        let incoming = path.join("incoming");
        // What a build that was killed left.
        if let Err(error) = fs::remove_dir_all(&incoming)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        for dir in [&path.join("tree"), &incoming] {
            fs::create_dir_all(dir)?;
        }
        let (tree, incoming) = (RootDir::open_host(&path.join("tree"))?, RootDir::open_host(&incoming)?);
        std::mem::forget(release);
        Ok(Mirror { tree, incoming, path, all: Arc::clone(self) })
    }

    /// Directories of mirrors that no build has, and when each was used.
    fn idle(&self) -> Vec<(SystemTime, PathBuf)> {
        let in_use = self.in_use();
        let Ok(listed) = fs::read_dir(&self.dir) else { return Vec::new() };
        let idle = listed.flatten().filter(|entry| !in_use.contains(&entry.path()));
        let used = |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).ok();
        let mut idle: Vec<_> =
            idle.map(|entry| (used(&entry).unwrap_or(SystemTime::UNIX_EPOCH), entry.path())).collect();
        idle.sort();
        idle
    }

    /// Removes those of the past, and the oldest if there are too many.
    fn limit(&self) {
        let idle = self.idle();
        let surplus = idle.len().saturating_sub(KEPT);
        let old = |used: &SystemTime| used.elapsed().is_ok_and(|age| age > UNUSED);
        for (index, (used, path)) in idle.iter().enumerate() {
            if index < surplus || old(used) {
                self.remove(path);
            }
        }
    }

    /// Removes those that no build has; returns how many bytes they had. Blocking.
    pub(crate) fn prune(&self) -> u64 {
        self.idle().iter().map(|(_, path)| self.remove(path)).sum()
    }

    fn remove(&self, path: &Path) -> u64 {
        {
            // Nobody may begin to use it meanwhile.
            let mut in_use = self.in_use();
            if !in_use.insert(path.to_owned()) {
                return 0;
            }
        }
        let size = size(path);
        let removed = fs::remove_dir_all(path);
        self.in_use().remove(path);
        match removed {
            Ok(()) => size,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the mirror of a context cannot be removed");
                0
            }
        }
    }
}

fn size(path: &Path) -> u64 {
    let Ok(listed) = fs::read_dir(path) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    listed.flatten().map(of).sum()
}

/// Gives a path back that was claimed.
struct Release {
    path: PathBuf,
    all: Arc<Mirrors>,
}

impl Drop for Release {
    fn drop(&mut self) {
        self.all.in_use().remove(&self.path);
    }
}

impl Mirror {
    /// Where the files are.
    pub(crate) fn tree_path(&self) -> PathBuf {
        self.path.join("tree")
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // When it was used last. If it cannot be said, it goes a little earlier.
        if let Ok(dir) = fs::File::open(&self.path) {
            dir.set_modified(SystemTime::now()).ok();
        }
        self.all.in_use().remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_at_the_same_time_have_mirrors_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Arc::new(Mirrors::new(dir.path().join("contexts")));
        let first = mirrors.claim("app").unwrap();
        let second = mirrors.claim("app").unwrap();
        let (one, two) = (first.tree_path(), second.tree_path());
        assert_ne!(one, two);
        fs::write(one.join("f"), "123").unwrap();
        drop(first);
        assert_eq!(mirrors.claim("app").unwrap().tree_path(), one, "the first is free again");
        assert!(one.join("f").exists());
        assert_eq!(mirrors.prune(), 3);
        assert!(!one.exists() && two.exists(), "one that is in use stays");
    }
}
