//! Where `COPY` takes files from: a filtered tree, and the selection of paths in it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use berth_dockerfile_parser::{glob, ignore};
use berth_oci::{Digest, Hasher};
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use crate::fault::{At, Fault};
use crate::key::field;
use crate::parallel;
use crate::rootdir::{Kind, Meta, RootDir, clamp, names};
use crate::stats::{Stats, is_settled};

/// Fewer files than this are not worth a thread.
const SHARE: usize = 256;

/// A tree that files are copied from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) root: RootDir,
    /// What `.dockerignore` leaves out.
    ignore: ignore::Matcher,
    /// Files of the context belong to root, whoever has them on disk; those of stages keep their owner.
    pub(crate) keeps_owner: bool,
    /// For messages: `the build context`, `stage "x"`.
    pub(crate) name: String,
    /// Digests of files that were read the last time.
    pub(crate) stats: Option<Stats>,
    hashes: Mutex<HashMap<PathBuf, Digest>>,
}

/// One file to copy.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Plain path in the source.
    pub(crate) from: PathBuf,
    /// Path below the destination; empty for the selected file or directory itself.
    pub(crate) to: PathBuf,
    pub(crate) meta: Meta,
}

/// A selected source.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Its name as selected, for the destination's file name.
    pub(crate) name: OsString,
    /// The file, or the directory's contents; parents come before what is in them.
    pub(crate) entries: Vec<Entry>,
}

impl Selection {
    pub(crate) fn is_dir(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.meta.is_dir())
    }
}

/// Selected files by what makes a difference for a copy: everything but the time.
pub(crate) struct Fingerprint {
    pub(crate) digest: Digest,
    /// Each file's name and state; none if they are as they were the last time.
    pub(crate) list: Option<Vec<(String, String)>>,
    /// The newest modification time, in seconds.
    pub(crate) newest: i64,
}

impl Source {
    pub(crate) fn new(root: RootDir, ignore: ignore::Matcher, keeps_owner: bool, name: String) -> Self {
        Self { root, ignore, keeps_owner, name, stats: None, hashes: Mutex::default() }
    }

    /// Uses digests of the last time.
    pub(crate) fn with_stats(mut self, stats: Stats) -> Self {
        self.stats = Some(stats);
        self
    }

    fn is_ignored(&self, path: &Path) -> Result<bool, Fault> {
        if path.as_os_str().is_empty() || self.ignore.is_empty() {
            return Ok(false);
        }
        let text = path.to_string_lossy();
        self.ignore.matches(&text).map_err(|e| Fault::said(format!(".dockerignore: {e}")))
    }

    /// What a source argument selects. A pattern may match nothing, a plain path may not.
    pub(crate) fn select(&self, argument: &str, exclude: &ignore::Matcher) -> Result<Vec<Selection>, Fault> {
        let path = clamp(Path::new(argument));
        if !glob::has_wildcards(argument) {
            return match self.one(&path, exclude)? {
                Some(selection) => Ok(vec![selection]),
                None => Err(self.not_found(argument, &path)),
            };
        }
        let mut found = Vec::new();
        let pattern: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        self.expand(&pattern, PathBuf::new(), &mut found)?;
        let selected: Result<Vec<_>, _> = found.iter().map(|path| self.one(path, exclude)).collect();
        Ok(selected?.into_iter().flatten().collect())
    }

    fn not_found(&self, argument: &str, path: &Path) -> Fault {
        let exists =
            self.root.resolve(path).and_then(|plain| self.root.meta(&plain)).is_ok_and(|meta| meta.is_some());
        let hint = if exists {
            "; it is there, but .dockerignore leaves it out"
        } else if argument.contains("..") {
            "; paths cannot leave it"
        } else {
            ""
        };
        Fault::said(format!("\"/{}\": not found in {}{hint}", path.display(), self.name))
    }

    /// Paths whose parts match the pattern's parts.
    fn expand(&self, pattern: &[String], at: PathBuf, found: &mut Vec<PathBuf>) -> Result<(), Fault> {
        let Some((first, rest)) = pattern.split_first() else {
            found.push(at);
            return Ok(());
        };
        let plain = self.root.resolve(&at).at("resolve", &at)?;
        let is_dir = self.root.meta(&plain).at("look at", &at)?.is_some_and(|meta| meta.is_dir());
        if !is_dir {
            return Ok(());
        }
        for name in self.root.read_dir(&plain).at("read directory", &at)? {
            let matches = glob::matches(first, &name.to_string_lossy())
                .map_err(|e| Fault::said(format!("{e}: {}", pattern.join("/"))))?;
            if matches {
                self.expand(rest, at.join(name), found)?;
            }
        }
        Ok(())
    }

    /// The file or directory that a path names; symlinks are followed, but not to what is left out.
    fn one(&self, path: &Path, exclude: &ignore::Matcher) -> Result<Option<Selection>, Fault> {
        let plain = self.root.resolve(path).at("resolve", path)?;
        let Some(meta) = self.root.meta(&plain).at("look at", path)? else { return Ok(None) };
        let is_dir = meta.is_dir();
        let name = path.file_name().unwrap_or_default().to_owned();
        let mut entries = vec![Entry { from: plain.clone(), to: PathBuf::new(), meta }];
        if is_dir {
            let start = entries.len();
            self.walk(&plain, &mut entries, exclude, None)?;
            // A directory that is left out still counts if something below it is taken back in.
            if entries.len() == start && self.is_ignored(&plain)? {
                return Ok(None);
            }
        } else if self.is_ignored(&plain)? || self.is_ignored(path)? {
            return Ok(None);
        }
        Ok(Some(Selection { name, entries }))
    }

    /// What `COPY --parents` selects: files keep the directories they are in, as seen from the pivot (`a/./b/c`:
    /// from `a`).
    pub(crate) fn select_parents(
        &self,
        argument: &str,
        exclude: &ignore::Matcher,
    ) -> Result<Vec<Selection>, Fault> {
        let (pivot, pattern) = argument.split_once("/./").unwrap_or(("", argument));
        // `x/y/./` means everything in x/y.
        let pivot = pivot.strip_suffix("/.").unwrap_or(pivot);
        let (pivot, pattern) = match pattern.strip_suffix("/.") {
            Some(dir) if !argument.contains("/./") => (dir, ""),
            _ => (pivot, pattern),
        };
        let top_path = clamp(Path::new(pivot));
        let top = self.root.resolve(&top_path).at("resolve", &top_path)?;
        let Some(meta) = self.root.meta(&top).at("look at", &top)?.filter(Meta::is_dir) else {
            return Err(self.not_found(argument, &top_path));
        };
        let pattern = clamp(Path::new(pattern)).to_string_lossy().into_owned();
        if !pattern.is_empty() && !glob::has_wildcards(&pattern) {
            let required = top.join(&pattern);
            let there = self.root.meta(&required).at("look at", &required)?.is_some();
            if !there || self.is_ignored(&required)? {
                return Err(self.not_found(argument, &clamp(Path::new(argument))));
            }
        }
        let include = match pattern.as_str() {
            "" => None,
            pattern => {
                Some(ignore::Matcher::new([pattern]).map_err(|e| Fault::said(format!("{e}: {argument}")))?)
            }
        };
        let mut entries = vec![Entry { from: top.clone(), to: PathBuf::new(), meta }];
        self.walk(&top, &mut entries, exclude, include.as_ref())?;
        Ok(vec![Selection { name: OsString::new(), entries }])
    }

    /// Adds everything below `top` that is not left out.
    fn walk(
        &self,
        top: &Path,
        entries: &mut Vec<Entry>,
        exclude: &ignore::Matcher,
        include: Option<&ignore::Matcher>,
    ) -> Result<(), Fault> {
        let walk = Walk { source: self, exclude, include, top };
        let ignored = walk.state_of(top)?;
        let mut listings = walk.listings(States { ignored, ..States::default() })?;
        collect(&mut listings, 0, entries);
        Ok(())
    }

    /// What a copy of these files depends on.
    pub(crate) fn fingerprint(&self, selections: &[Selection]) -> Result<Fingerprint, Fault> {
        let before = SystemTime::now();
        let entries: Vec<&Entry> = selections.iter().flat_map(|selection| &selection.entries).collect();
        let newest = entries.iter().map(|entry| entry.meta.mtime.tv_sec()).max().unwrap_or(0).max(0);
        let look = self.stats.as_ref().map(|stats| (&stats.trees, self.look(selections)));
        if let Some((trees, look)) = &look
            && let Some(digest) = trees.get(look)
        {
            return Ok(Fingerprint { digest, list: None, newest });
        }
        self.read(&entries)?;
        let states = parallel::map(&entries, SHARE, || (), |(), entry| self.state(entry))?;
        let mut files = Hasher::default();
        let mut list = Vec::with_capacity(entries.len());
        let mut states = states.into_iter();
        for selection in selections {
            field(&mut files, selection.name.as_encoded_bytes());
            for (entry, state) in selection.entries.iter().zip(&mut states) {
                field(&mut files, entry.to.as_os_str().as_encoded_bytes());
                field(&mut files, state.as_bytes());
                list.push((entry.from.to_string_lossy().into_owned(), state));
            }
        }
        let digest = files.finish();
        // Names in directories are looked at each time, what is in the files is not.
        let settled = |entry: &&Entry| entry.meta.is_dir() || is_settled(&entry.meta, before);
        if let Some((trees, look)) = look
            && entries.iter().all(settled)
        {
            trees.put(look, digest.clone());
        }
        Ok(Fingerprint { digest, list: Some(list), newest })
    }

    /// Names and metadata of files. As long as they are the same, the contents are as well: nobody can set the change
    /// time.
    fn look(&self, selections: &[Selection]) -> Digest {
        let mut look = Hasher::default();
        field(&mut look, &[u8::from(self.keeps_owner)]);
        let mut numbers = Vec::new();
        for selection in selections {
            field(&mut look, selection.name.as_encoded_bytes());
            for entry in &selection.entries {
                let meta = &entry.meta;
                numbers.clear();
                for number in
                    [u64::from(meta.mode), u64::from(meta.uid), u64::from(meta.gid), meta.size, meta.device]
                {
                    numbers.extend_from_slice(&number.to_le_bytes());
                }
                for time in [meta.mtime, meta.ctime] {
                    numbers.extend_from_slice(&time.tv_sec().to_le_bytes());
                    numbers.extend_from_slice(&time.tv_nsec().to_le_bytes());
                }
                numbers.extend_from_slice(&meta.identity.0.to_le_bytes());
                numbers.extend_from_slice(&meta.identity.1.to_le_bytes());
                numbers.push(meta.kind as u8);
                numbers.extend_from_slice(entry.from.as_os_str().as_encoded_bytes());
                field(&mut look, &numbers);
                field(&mut look, entry.to.as_os_str().as_encoded_bytes());
            }
        }
        look.finish()
    }

    /// Everything of a file that a copy of it has, but the time.
    fn state(&self, entry: &Entry) -> Result<String, Fault> {
        let meta = &entry.meta;
        let (uid, gid) = if self.keeps_owner { (meta.uid, meta.gid) } else { (0, 0) };
        let rest = match meta.kind {
            Kind::File => self.content(entry)?.as_str().to_owned(),
            Kind::Symlink => {
                let target = self.root.read_link(&entry.from).at("read link", &entry.from)?;
                format!("{target:?}")
            }
            _ => String::new(),
        };
        let attributes = if self.keeps_owner && meta.kind == Kind::File {
            let file = self.root.open_file(&entry.from).at("open", &entry.from)?;
            crate::node::attributes(&file).at("read attributes of", &entry.from)?
        } else {
            Vec::new()
        };
        Ok(format!("{:?} {:o} {uid} {gid} {} {rest} {attributes:?}", meta.kind, meta.mode, meta.device))
    }

    /// Digest of a file's contents.
    fn content(&self, entry: &Entry) -> Result<Digest, Fault> {
        if let Some(known) = self.stats.as_ref().and_then(|stats| stats.get(&entry.meta)) {
            return Ok(known);
        }
        let known = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(&entry.from).cloned();
        match known {
            Some(known) => Ok(known),
            None => self.digest(entry, &mut Vec::new()),
        }
    }

    /// Reads a file for its digest; the buffer is for the next one, too.
    fn digest(&self, entry: &Entry, buffer: &mut Vec<u8>) -> Result<Digest, Fault> {
        let before = SystemTime::now();
        let digest = self.hash(&entry.from, buffer).at("read", &entry.from)?;
        if let Some(stats) = &self.stats {
            stats.put(&entry.meta, &digest, before);
        }
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(entry.from.clone(), digest.clone());
        Ok(digest)
    }

    /// Makes the digests of files, on all cores if they are many.
    fn read(&self, entries: &[&Entry]) -> Result<(), Fault> {
        const FEW: usize = 32;
        const SMALL: u64 = 4 << 20;
        let files: Vec<&Entry> = {
            let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = |entry: &&&Entry| {
                entry.meta.kind == Kind::File
                    && !hashes.contains_key(&entry.from)
                    && !self.stats.as_ref().is_some_and(|stats| stats.knows(&entry.meta))
            };
            entries.iter().filter(wanted).copied().collect()
        };
        let bytes: u64 = files.iter().map(|entry| entry.meta.size).sum();
        if files.len() < FEW && bytes < SMALL {
            return Ok(());
        }
        parallel::map(&files, 1, Vec::new, |buffer, entry| self.digest(entry, buffer).map(drop)).map(drop)
    }

    fn hash(&self, path: &Path, buffer: &mut Vec<u8>) -> io::Result<Digest> {
        let mut file = self.root.open_file(path)?;
        let mut hasher = Hasher::default();
        buffer.resize(128 << 10, 0);
        loop {
            match file.read(buffer)? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&buffer[..n]),
            }
        }
    }
}

/// What the patterns made of a directory and those above it.
#[derive(Default)]
struct States {
    ignored: ignore::DirState,
    excluded: ignore::DirState,
    included: ignore::DirState,
}

/// A walk over the directories below `top`.
struct Walk<'a> {
    source: &'a Source,
    exclude: &'a ignore::Matcher,
    /// Only what these match; none means everything.
    include: Option<&'a ignore::Matcher>,
    top: &'a Path,
}

/// A directory that is still to be listed.
struct Pending {
    path: PathBuf,
    states: States,
}

/// What a directory has that may be wanted.
struct Listed {
    entry: Entry,
    /// It counts only for what is in it.
    is_only_on_the_way: bool,
    /// For a directory: what the patterns made of it…
    states: Option<States>,
    /// …and which listing is its own.
    below: Option<usize>,
}

impl Walk<'_> {
    fn state_of(&self, path: &Path) -> Result<ignore::DirState, Fault> {
        let mut state = ignore::DirState::default();
        let mut at = PathBuf::new();
        for part in path {
            at.push(part);
            state = step(&self.source.ignore, &at, &state)?.1;
        }
        Ok(state)
    }

    /// Lists all directories, level by level, those of a level side by side. The first listing is the top's.
    fn listings(&self, states: States) -> Result<Vec<Vec<Listed>>, Fault> {
        const FEW: usize = 8;
        let mut level = vec![Pending { path: self.top.to_owned(), states }];
        let mut all = Vec::new();
        while !level.is_empty() {
            let found = parallel::map(&level, FEW, || (), |(), directory| self.list(directory))?;
            let first_below = all.len() + found.len();
            level.clear();
            for mut listing in found {
                for listed in &mut listing {
                    if let Some(states) = listed.states.take() {
                        listed.below = Some(first_below + level.len());
                        level.push(Pending { path: listed.entry.from.clone(), states });
                    }
                }
                all.push(listing);
            }
        }
        Ok(all)
    }

    fn list(&self, directory: &Pending) -> Result<Vec<Listed>, Fault> {
        let Pending { path, states } = directory;
        let opened = self.source.root.open_dir(path).at("open", path)?;
        let listing = opened.try_clone().at("open", path)?;
        let mut found = Vec::new();
        for name in names(listing).at("read directory", path)? {
            let from = path.join(&name);
            let to = from.strip_prefix(self.top).unwrap_or(&from).to_owned();
            let (is_ignored, ignored) = step(&self.source.ignore, &from, &states.ignored)?;
            let (is_excluded, excluded) = step(self.exclude, &to, &states.excluded)?;
            let (is_included, included) = match self.include {
                Some(include) => step(include, &to, &states.included)?,
                None => (true, ignore::DirState::default()),
            };
            let stat = match fstatat(&opened, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                // It went away while we looked.
                Err(nix::errno::Errno::ENOENT) => continue,
                stat => stat.at("look at", &from)?,
            };
            let meta = Meta::of(&stat);
            let is_dir = meta.is_dir();
            let left_out = is_ignored || is_excluded;
            let may_return = self.source.ignore.has_exceptions() || self.exclude.has_exceptions();
            if left_out && !(is_dir && may_return) || !is_included && !is_dir {
                continue;
            }
            found.push(Listed {
                entry: Entry { from, to, meta },
                is_only_on_the_way: left_out || !is_included,
                states: is_dir.then_some(States { ignored, excluded, included }),
                below: None,
            });
        }
        Ok(found)
    }
}

/// Puts what was listed into one order: a directory, then what is in it.
fn collect(listings: &mut [Vec<Listed>], at: usize, entries: &mut Vec<Entry>) {
    for listed in std::mem::take(&mut listings[at]) {
        let before = entries.len();
        entries.push(listed.entry);
        if let Some(below) = listed.below {
            collect(listings, below, entries);
        }
        if listed.is_only_on_the_way && entries.len() == before + 1 {
            entries.truncate(before);
        }
    }
}

fn step(
    matcher: &ignore::Matcher,
    path: &Path,
    parent: &ignore::DirState,
) -> Result<(bool, ignore::DirState), Fault> {
    if matcher.is_empty() {
        return Ok((false, ignore::DirState::default()));
    }
    matcher.step(&path.to_string_lossy(), parent).map_err(|e| Fault::said(format!("ignore pattern: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn source(dir: &Path, ignore_file: &str) -> Source {
        let matcher = ignore::Matcher::new(ignore::read(ignore_file)).unwrap();
        Source::new(RootDir::open_host(dir).unwrap(), matcher, false, "the build context".into())
    }

    fn paths(source: &Source, argument: &str) -> Vec<String> {
        let selections = source.select(argument, &ignore::Matcher::default()).unwrap();
        let entries = selections.iter().flat_map(|s| &s.entries);
        entries.map(|e| e.from.display().to_string()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for file in ["a/x", "a/b/y.txt", "a/b/z", "top.txt"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        dir
    }

    #[test]
    fn selections() {
        let dir = tree();
        let all = source(dir.path(), "");
        assert_eq!(paths(&all, "a/b"), ["a/b", "a/b/y.txt", "a/b/z"]);
        assert_eq!(paths(&all, "*.txt"), ["top.txt"]);
        assert_eq!(paths(&all, "/../top.txt"), ["top.txt"]);
        assert_eq!(paths(&all, "*/b/*.txt"), ["a/b/y.txt"]);
        assert!(paths(&all, "*.none").is_empty());
        assert!(all.select("none", &ignore::Matcher::default()).is_err());
    }

    #[test]
    fn ignored_files_are_not_there() {
        let dir = tree();
        let some = source(dir.path(), "a\n!a/b/z\ntop.txt");
        assert_eq!(paths(&some, "."), ["", "a", "a/b", "a/b/z"]);
        let Err(Fault::Said(message)) = some.select("top.txt", &ignore::Matcher::default()) else {
            panic!("an ignored file was found")
        };
        assert!(message.contains(".dockerignore leaves it out"), "{message}");
    }

    #[test]
    fn the_key_knows_contents_but_not_times() {
        let dir = tree();
        let key = || {
            let source = source(dir.path(), "");
            let found = source.select("a", &ignore::Matcher::default()).unwrap();
            source.fingerprint(&found).unwrap().digest
        };
        let first = key();
        fs::write(dir.path().join("a/x"), "a/x").unwrap();
        assert_eq!(first, key(), "rewritten with the same contents");
        fs::write(dir.path().join("a/x"), "a/X").unwrap();
        assert_ne!(first, key());
    }

    #[test]
    fn parents_are_kept() {
        let dir = tree();
        let all = source(dir.path(), "");
        let targets = |argument: &str| -> Vec<String> {
            let found = all.select_parents(argument, &ignore::Matcher::default()).unwrap();
            found[0].entries.iter().map(|e| e.to.display().to_string()).collect()
        };
        assert_eq!(targets("a/b/z"), ["", "a", "a/b", "a/b/z"]);
        assert_eq!(targets("./a/./b"), ["", "b", "b/y.txt", "b/z"]);
        assert_eq!(targets("**/*.txt"), ["", "a", "a/b", "a/b/y.txt", "top.txt"]);
        assert_eq!(targets("a/b/./"), ["", "y.txt", "z"]);
        assert!(all.select_parents("a/none", &ignore::Matcher::default()).is_err());
    }
}
