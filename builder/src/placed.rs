//! Copies that come out the same wherever they are made: what is copied lands beside what is there, so that the layer
//! depends on the way to it, and on nothing else of the file system below. Such a copy is not made again because a step
//! before it changed.
//!
//! What a copy depends on then, and what is therefore asked for here: its own files and options; where its destination
//! leads; owner, mode, attributes of the directories on the way, and the times of those that it only passes through.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use berth_oci::{DiffId, Digest};
use jiff::Timestamp;
use xattr::FileExt;

use crate::cache::Record;
use crate::key::KeyInputs;
use crate::rootdir::{Meta, RootDir};
use crate::source::Selection;

/// The layers of such copies, by what they depend on.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    dir: PathBuf,
}

impl Placed {
    pub(crate) fn new(builds: &Path) -> Self {
        Self { dir: builds.join("placed") }
    }

    /// The layer, the bytes of its files, and the time of what was made.
    pub(crate) fn get(&self, place: &Digest) -> Option<(DiffId, u64, Timestamp)> {
        let text = fs::read_to_string(self.dir.join(place.hex())).ok()?;
        let mut words = text.split(' ');
        let layer = DiffId::parse(words.next()?).ok()?;
        Some((layer, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    }

    pub(crate) fn put(&self, place: &Digest, record: &Record) {
        let path = self.dir.join(place.hex());
        let text = format!("{} {} {}", record.layer, record.size, record.created);
        let saved = fs::create_dir_all(&self.dir).and_then(|()| fs::write(path, text));
        if let Err(error) = saved {
            tracing::debug!(%error, "where a copy went cannot be remembered");
        }
    }
}

/// Everything that a copy to `dest` in this file system depends on; none if something is in its way, and then all of the
/// file system counts.
pub(crate) fn place<'a>(
    root: &RootDir,
    key: &KeyInputs,
    selections: impl Iterator<Item = &'a Selection>,
    dest: &str,
    owner: Option<(u32, u32)>,
) -> io::Result<Option<Digest>> {
    let plain = root.resolve(Path::new(dest))?;
    let existing = root.meta(&plain)?;
    let mut any = false;
    for selection in selections {
        any = true;
        if lands_on_something(root, selection, dest, &plain, existing.as_ref())? {
            return Ok(None);
        }
    }
    let Some(way) = way(root, &plain)?.filter(|_| any) else { return Ok(None) };
    let mut place = KeyInputs::new("place", "");
    for (name, value) in key.inputs.iter().filter(|(name, _)| name != "parent") {
        place.add(name, value);
    }
    place.add("owner", format!("{owner:?}"));
    place.add("at", plain.to_string_lossy());
    way.into_iter().for_each(|directory| place.add("directory", directory));
    Ok(Some(place.digest()))
}

/// Whether a name that the copy makes is taken.
fn lands_on_something(
    root: &RootDir,
    selection: &Selection,
    dest: &str,
    plain: &Path,
    existing: Option<&Meta>,
) -> io::Result<bool> {
    let is_there = existing.is_some_and(Meta::is_dir);
    if existing.is_some() && !is_there {
        return Ok(true);
    }
    if !selection.is_dir() {
        let into = is_there || dest.ends_with('/') || dest.ends_with("/.");
        let target = if into { plain.join(&selection.name) } else { plain.to_owned() };
        return Ok(root.meta(&target)?.is_some());
    }
    for entry in selection.entries.iter().filter(|entry| is_there && entry.to.iter().count() == 1) {
        if root.meta(&plain.join(&entry.to))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The directories that are there on the way to `path`, as a layer would tell them; none if something else is on it.
fn way(root: &RootDir, path: &Path) -> io::Result<Option<Vec<String>>> {
    let mut told = Vec::new();
    let mut at = PathBuf::new();
    let mut names = path.iter();
    let mut passed: Option<(String, String)> = None;
    while let Some(meta) = root.meta(&at)? {
        if !meta.is_dir() {
            return Ok(None);
        }
        // What comes after it is made in this one only if it is the last: all others keep their times.
        told.extend(passed.take().map(|(text, time)| format!("{text} {time}")));
        // A layer never tells the time of the root.
        let time = if at.as_os_str().is_empty() { String::new() } else { format!("{:?}", meta.mtime) };
        let attributes = attributes(&File::from(root.open_dir(&at)?))?;
        let text = format!("{} {:o} {} {} {attributes:?}", at.display(), meta.mode, meta.uid, meta.gid);
        passed = Some((text, time));
        let Some(name) = names.next() else { break };
        at.push(name);
    }
    told.extend(passed.map(|(text, _)| text));
    Ok(Some(told))
}

fn attributes(directory: &File) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match directory.list_xattr() {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names {
        found.push((name.to_string_lossy().into_owned(), directory.get_xattr(&name)?.unwrap_or_default()));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use berth_dockerfile_parser::ignore::Matcher;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Fixture {
        from: tempfile::TempDir,
        to: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self { from: tempfile::tempdir().unwrap(), to: tempfile::tempdir().unwrap() };
            fs::create_dir_all(fixture.from.path().join("d/sub")).unwrap();
            fs::write(fixture.from.path().join("d/f"), "data").unwrap();
            fs::create_dir_all(fixture.to.path().join("usr/bin")).unwrap();
            fixture
        }

        fn place(&self, what: &str, dest: &str) -> Option<Digest> {
            let from = RootDir::open_host(self.from.path()).unwrap();
            let source = Source::new(from, Matcher::default(), false, "the build context".into());
            let selections = source.select(what, &Matcher::default()).unwrap();
            let root = RootDir::open_host(self.to.path()).unwrap();
            let key = KeyInputs::new("COPY", "whatever is below");
            place(&root, &key, selections.iter(), dest, None).unwrap()
        }
    }

    #[test]
    fn what_lies_elsewhere_makes_no_difference() {
        let fixture = Fixture::new();
        for (what, dest) in [("d", "/new/place"), ("d", "/usr"), ("d/f", "/usr/bin/"), ("d/f", "/usr/g")] {
            let before = fixture.place(what, dest).unwrap();
            fs::write(fixture.to.path().join("elsewhere"), dest).unwrap();
            assert_eq!(fixture.place(what, dest), Some(before), "{what} {dest}");
        }
    }

    #[test]
    fn what_is_in_the_way_counts() {
        let fixture = Fixture::new();
        let there = |path: &str| fixture.to.path().join(path);
        fs::write(there("usr/f"), "").unwrap();
        symlink("nowhere", there("usr/bin/f")).unwrap();
        assert_eq!(fixture.place("d", "/usr"), None, "d/f is usr/f");
        assert_eq!(fixture.place("d/f", "/usr"), None, "so is d/f alone");
        assert_eq!(fixture.place("d/f", "/usr/bin/"), None, "a symlink is followed");
        assert_eq!(fixture.place("d", "/usr/f/x"), None, "no directory");
    }

    #[test]
    fn directories_on_the_way_count() {
        let fixture = Fixture::new();
        let before = fixture.place("d/f", "/usr/bin/");
        fs::set_permissions(fixture.to.path().join("usr"), fs::Permissions::from_mode(0o700)).unwrap();
        let narrower = fixture.place("d/f", "/usr/bin/");
        assert_ne!(narrower, before);
        fs::rename(fixture.to.path().join("usr"), fixture.to.path().join("opt")).unwrap();
        symlink("opt", fixture.to.path().join("usr")).unwrap();
        assert_ne!(fixture.place("d/f", "/usr/bin/"), narrower, "it is /opt/bin now");
    }
}
