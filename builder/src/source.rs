//! Where `COPY` takes files from: a filtered tree, and the selection of paths in it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::{glob, ignore};
use berth_oci::{Digest, Hasher};

use crate::fault::{At, Fault};
use crate::key::{KeyInputs, field};
use crate::rootdir::{Kind, Meta, RootDir, clamp};

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
    hashes: RefCell<HashMap<PathBuf, Digest>>,
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

impl Source {
    pub(crate) fn new(root: RootDir, ignore: ignore::Matcher, keeps_owner: bool, name: String) -> Self {
        Self { root, ignore, keeps_owner, name, hashes: RefCell::default() }
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
            self.walk(&plain, &mut entries, exclude)?;
            // A directory that is left out still counts if something below it is taken back in.
            if entries.len() == start && self.is_ignored(&plain)? {
                return Ok(None);
            }
        } else if self.is_ignored(&plain)? || self.is_ignored(path)? {
            return Ok(None);
        }
        Ok(Some(Selection { name, entries }))
    }

    /// Adds everything below `top` that is not left out.
    fn walk(&self, top: &Path, entries: &mut Vec<Entry>, exclude: &ignore::Matcher) -> Result<(), Fault> {
        let mut walk = Walk { source: self, exclude, top, entries };
        let state = walk.state_of(top)?;
        walk.dir(top, &state, &ignore::DirState::default())
    }

    /// Adds what makes a difference for a copy of these entries to a key: everything but the time.
    pub(crate) fn add_to_key(&self, key: &mut KeyInputs, selections: &[Selection]) -> Result<(), Fault> {
        let mut files = Hasher::default();
        for selection in selections {
            field(&mut files, selection.name.as_encoded_bytes());
            for entry in &selection.entries {
                field(&mut files, entry.to.as_os_str().as_encoded_bytes());
                let meta = &entry.meta;
                let (uid, gid) = if self.keeps_owner { (meta.uid, meta.gid) } else { (0, 0) };
                field(
                    &mut files,
                    format!("{:?} {:o} {uid} {gid} {}", meta.kind, meta.mode, meta.device).as_bytes(),
                );
                match meta.kind {
                    Kind::File => field(&mut files, self.content(&entry.from)?.as_str().as_bytes()),
                    Kind::Symlink => {
                        let target = self.root.read_link(&entry.from).at("read link", &entry.from)?;
                        field(&mut files, target.as_encoded_bytes());
                    }
                    _ => {}
                }
            }
        }
        key.add("files", files.finish().as_str());
        Ok(())
    }

    /// Digest of a file's contents.
    fn content(&self, path: &Path) -> Result<Digest, Fault> {
        if let Some(known) = self.hashes.borrow().get(path) {
            return Ok(known.clone());
        }
        let digest = self.hash(path).at("read", path)?;
        self.hashes.borrow_mut().insert(path.to_owned(), digest.clone());
        Ok(digest)
    }

    fn hash(&self, path: &Path) -> io::Result<Digest> {
        let mut file = self.root.open_file(path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&buffer[..n]),
            }
        }
    }
}

/// A walk over one directory.
struct Walk<'a> {
    source: &'a Source,
    exclude: &'a ignore::Matcher,
    top: &'a Path,
    entries: &'a mut Vec<Entry>,
}

impl Walk<'_> {
    /// What the ignore patterns made of a directory and those above it.
    fn state_of(&self, path: &Path) -> Result<ignore::DirState, Fault> {
        let mut state = ignore::DirState::default();
        let mut at = PathBuf::new();
        for part in path {
            at.push(part);
            state = self.step(&self.source.ignore, &at, &state)?.1;
        }
        Ok(state)
    }

    fn step(
        &self,
        matcher: &ignore::Matcher,
        path: &Path,
        parent: &ignore::DirState,
    ) -> Result<(bool, ignore::DirState), Fault> {
        matcher.step(&path.to_string_lossy(), parent).map_err(|e| Fault::said(format!("ignore pattern: {e}")))
    }

    fn dir(
        &mut self,
        dir: &Path,
        ignored: &ignore::DirState,
        excluded: &ignore::DirState,
    ) -> Result<(), Fault> {
        let root = &self.source.root;
        for name in root.read_dir(dir).at("read directory", dir)? {
            let from = dir.join(&name);
            let to = from.strip_prefix(self.top).unwrap_or(&from).to_owned();
            let (is_ignored, ignored) = self.step(&self.source.ignore, &from, ignored)?;
            let (is_excluded, excluded) = self.step(self.exclude, &to, excluded)?;
            let left_out = is_ignored || is_excluded;
            let Some(meta) = root.meta(&from).at("look at", &from)? else { continue };
            let is_dir = meta.is_dir();
            let may_return = self.source.ignore.has_exceptions() || self.exclude.has_exceptions();
            if left_out && !(is_dir && may_return) {
                continue;
            }
            let before = self.entries.len();
            self.entries.push(Entry { from: from.clone(), to, meta });
            if is_dir {
                self.dir(&from, &ignored, &excluded)?;
            }
            if left_out && self.entries.len() == before + 1 {
                self.entries.truncate(before);
            }
        }
        Ok(())
    }
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
            let mut key = KeyInputs::new("COPY", "p");
            let found = source.select("a", &ignore::Matcher::default()).unwrap();
            source.add_to_key(&mut key, &found).unwrap();
            key.digest()
        };
        let first = key();
        fs::write(dir.path().join("a/x"), "a/x").unwrap();
        assert_eq!(first, key(), "rewritten with the same contents");
        fs::write(dir.path().join("a/x"), "a/X").unwrap();
        assert_ne!(first, key());
    }
}
