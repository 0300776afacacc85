//! Writing selected files into a root. All destination handling goes by descriptor inside of the root: hostile
//! symlinks in the image lead nowhere else.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::chmod;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::fault::{At, Fault};
use crate::fresh::{self, Fresh, Part};
use crate::node::Maker;
use crate::rootdir::{Kind, Meta, RootDir, clamp};
use crate::source::{Entry, Selection, Source};

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How files change on the way.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// `--chown`, as numbers.
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(crate) mode: Option<chmod::Mode>,
}

impl Changes {
    pub(crate) fn owner_of(&self, meta: &Meta, keeps_owner: bool) -> (u32, u32) {
        match self.owner {
            Some(owner) => owner,
            None if keeps_owner => (meta.uid, meta.gid),
            None => (0, 0),
        }
    }

    pub(crate) fn mode_of(&self, mode: u32, is_dir: bool) -> u32 {
        self.mode.as_ref().map_or(mode, |change| change.apply(mode, is_dir))
    }

    /// Owner and mode of directories that are made on the way.
    pub(crate) fn set_up_parent(&self, root: &RootDir, path: &Path) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        root.set_owner(path, uid, gid)?;
        root.set_mode(path, self.mode_of(0o755, true))
    }
}

/// A destination in a root.
pub(crate) struct Copier<'r, 'a> {
    root: &'r RootDir,
    changes: &'a Changes,
    cancel: &'a CancellationToken,
}

impl<'r, 'a> Copier<'r, 'a> {
    pub(crate) fn new(root: &'r RootDir, changes: &'a Changes, cancel: &'a CancellationToken) -> Self {
        Self { root, changes, cancel }
    }

    /// Copies a selection to `dest` (an absolute path of the image; a `/` at its end says that it is a directory).
    pub(crate) fn copy(&self, source: &Source, selection: &Selection, dest: &str) -> Result<(), Fault> {
        self.begin(source, selection, dest)?.fill(self.root)
    }

    /// The half of a copy that depends on what is in the root: all but the contents of what is new there.
    pub(crate) fn begin<'s>(
        &self,
        source: &'s Source,
        selection: &'s Selection,
        dest: &str,
    ) -> Result<Fresh<'s>, Fault>
    where
        'a: 's,
    {
        let (changes, cancel) = (self.changes, self.cancel);
        let mut fresh = Fresh { source, changes, cancel, parts: Vec::new(), linked: HashMap::new() };
        let plain = self.root.resolve(Path::new(dest)).at("resolve", dest)?;
        let existing = self.root.meta(&plain).at("look at", dest)?;
        if selection.is_dir() {
            self.tree(selection, plain, existing.as_ref(), &mut fresh)?;
            return Ok(fresh);
        }
        let Some(entry) = selection.entries.first() else { return Ok(fresh) };
        let target = self.file_target(dest, &plain, existing.as_ref(), Path::new(&selection.name))?;
        self.parents(&target)?;
        match self.root.meta(&target).at("look at", &target)? {
            Some(found) if found.is_dir() => {
                return Err(Fault::said(format!(
                    "cannot replace to directory /{} with file",
                    target.display()
                )));
            }
            Some(_) => self.root.unlink(&target).at("remove", &target)?,
            None if entry.meta.kind == Kind::File => {
                // The directory is there for certain when something is in it, whatever view of the tree comes next.
                drop(self.new_file(&target).at("create", &target)?);
                fresh.parts.push(Part { dest: target, entries: &selection.entries });
                return Ok(fresh);
            }
            None => {}
        }
        let (from_dir, from) = source.root.parent(&entry.from).at("open", &entry.from)?;
        let (to_dir, to) = self.root.parent(&target).at("open", &target)?;
        Maker::new(source, changes).file(entry, (&from_dir, &from), (&to_dir, &to), &target)?;
        Ok(fresh)
    }

    /// Where a single file goes.
    pub(crate) fn file_target(
        &self,
        dest: &str,
        plain: &Path,
        existing: Option<&Meta>,
        name: &Path,
    ) -> Result<PathBuf, Fault> {
        let into_dir = dest.ends_with('/') || dest.ends_with("/.") || existing.is_some_and(Meta::is_dir);
        if !into_dir {
            return Ok(plain.to_owned());
        }
        if existing.is_some_and(|meta| !meta.is_dir()) {
            return Err(Fault::said(format!("cannot copy to non-directory: {dest}")));
        }
        let inside = plain.join(name);
        // A symlink of that name is followed, as the destination itself would be.
        Ok(self.root.resolve(&inside).at("resolve", &inside)?)
    }

    pub(crate) fn parents(&self, target: &Path) -> Result<(), Fault> {
        let parent = target.parent().unwrap_or(Path::new(""));
        self.dirs(parent)
    }

    /// Makes a directory and its parents.
    pub(crate) fn dirs(&self, path: &Path) -> Result<(), Fault> {
        let set_up = |root: &RootDir, path: &Path| self.changes.set_up_parent(root, path);
        match self.root.make_dirs(path, &set_up) {
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOTDIR) => Err(Fault::said(format!(
                "cannot copy to non-directory: /{}: not a directory",
                path.display()
            ))),
            result => Ok(result.at("create directory", path)?),
        }
    }

    fn tree<'s>(
        &self,
        selection: &'s Selection,
        dest: PathBuf,
        existing: Option<&Meta>,
        fresh: &mut Fresh<'s>,
    ) -> Result<(), Fault> {
        if existing.is_some_and(|meta| !meta.is_dir()) {
            return Err(Fault::said(format!("cannot copy to non-directory: /{}", dest.display())));
        }
        self.dirs(&dest)?;
        if existing.is_none() {
            fresh.parts.push(Part { dest, entries: &selection.entries });
            return Ok(());
        }
        let Some((top, below)) = selection.entries.split_first() else { return Ok(()) };
        let from = fresh.source.root.open_dir(&top.from).at("open", &top.from)?;
        let to = self.root.open_dir(&dest).at("open", &dest)?;
        let mut levels = vec![Level { path: PathBuf::new(), from, to, mtime: top.meta.mtime }];
        let mut maker = Maker::new(fresh.source, self.changes);
        let mut rest = below;
        while let Some((entry, after)) = rest.split_first() {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
            let parent = entry.to.parent().unwrap_or(Path::new(""));
            while levels.len() > 1 && levels.last().is_some_and(|level| level.path != parent) {
                leave(levels.pop(), &dest)?;
            }
            let level = levels.last().expect("the top is always there");
            let target = dest.join(&entry.to);
            if !entry.meta.is_dir() {
                self.entry(entry, level, target, &mut maker, fresh)?;
                rest = after;
                continue;
            }
            match self.directory(entry, level, &target, fresh.source)? {
                Some(existing) => {
                    levels.push(existing);
                    rest = after;
                }
                None => {
                    let inside = after.iter().take_while(|next| next.to.starts_with(&entry.to)).count();
                    let (part, others) = rest.split_at(1 + inside);
                    fresh.parts.push(Part { dest: dest.clone(), entries: part });
                    rest = others;
                }
            }
        }
        while let Some(level) = levels.pop() {
            leave(Some(level), &dest)?;
        }
        Ok(())
    }

    /// Sets a directory up. If it was there already, what is needed to go into it.
    fn directory(
        &self,
        entry: &Entry,
        level: &Level,
        target: &Path,
        source: &Source,
    ) -> Result<Option<Level>, Fault> {
        let name = entry.to.file_name().unwrap_or_default();
        let existing = look(level, name, target)?;
        match &existing {
            Some(found) if !found.is_dir() => {
                return Err(Fault::said(format!("cannot copy to non-directory: /{}", target.display())));
            }
            Some(_) => {}
            None => mkdirat(&level.to, name, Mode::from_bits_truncate(0o700)).at("create", target)?,
        }
        let to = openat(&level.to, name, DIRECTORY, Mode::empty()).at("open", target)?;
        let (uid, gid) = self.changes.owner_of(&entry.meta, source.keeps_owner);
        fchown(&to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).at("set owner of", target)?;
        let mode = Mode::from_bits_truncate(self.changes.mode_of(entry.meta.mode, true));
        fchmod(&to, mode).at("set mode of", target)?;
        if existing.is_none() {
            return Ok(None);
        }
        let from = openat(&level.from, name, DIRECTORY, Mode::empty()).at("open", &entry.from)?;
        Ok(Some(Level { path: entry.to.clone(), from, to, mtime: entry.meta.mtime }))
    }

    /// Copies one entry that is no directory into a directory that was there before.
    fn entry(
        &self,
        entry: &Entry,
        level: &Level,
        target: PathBuf,
        maker: &mut Maker<'_>,
        fresh: &mut Fresh<'_>,
    ) -> Result<(), Fault> {
        let name = entry.to.file_name().unwrap_or_default();
        match look(level, name, &target)? {
            Some(found) if found.is_dir() => {
                return Err(Fault::said(format!(
                    "cannot replace to directory /{} with file",
                    target.display()
                )));
            }
            Some(_) => unlinkat(&level.to, name, UnlinkatFlags::NoRemoveDir).at("remove", &target)?,
            None => {}
        }
        if entry.meta.links > 1 {
            if let Some(first) = fresh.linked.get(&entry.meta.identity) {
                return Ok(fresh::link(self.root, first, &target).at("link", &target)?);
            }
            fresh.linked.insert(entry.meta.identity, target.clone());
        }
        maker.file(entry, (&level.from, name), (&level.to, name), &target)
    }

    /// A new file, open for writing.
    pub(crate) fn new_file(&self, target: &Path) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        Ok(File::from(self.root.open(target, flags, Mode::from_bits_truncate(0o600))?))
    }

    /// Writes a file that the Dockerfile itself holds.
    pub(crate) fn inline(&self, name: &str, data: &[u8], dest: &str) -> Result<(), Fault> {
        use std::io::Write;
        let plain = self.root.resolve(Path::new(dest)).at("resolve", dest)?;
        let existing = self.root.meta(&plain).at("look at", dest)?;
        let target = self.file_target(dest, &plain, existing.as_ref(), &clamp(Path::new(name)))?;
        self.parents(&target)?;
        self.root.unlink(&target).at("remove", &target)?;
        let mut file = self.new_file(&target).at("create", &target)?;
        file.write_all(data).at("write", &target)?;
        let (uid, gid) = self.changes.owner.unwrap_or((0, 0));
        self.root.set_owner(&target, uid, gid).at("set owner of", &target)?;
        Ok(self.root.set_mode(&target, self.changes.mode_of(0o644, false)).at("set mode of", &target)?)
    }
}

/// A directory that was there before and is being filled.
struct Level {
    /// Below the destination.
    path: PathBuf,
    from: OwnedFd,
    to: OwnedFd,
    mtime: TimeSpec,
}

/// Gives a directory its time. Only when all is in it, since writing into it changes its time. The destination itself
/// takes nothing but the time of the source.
fn leave(level: Option<Level>, dest: &Path) -> Result<(), Fault> {
    let Some(level) = level else { return Ok(()) };
    Ok(futimens(&level.to, &level.mtime, &level.mtime).at("set time of", dest.join(&level.path))?)
}

/// What is at a name.
fn look(level: &Level, name: &OsStr, target: &Path) -> Result<Option<Meta>, Fault> {
    match fstatat(&level.to, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(None),
        stat => Ok(Some(Meta::of(&stat.at("look at", target)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_dockerfile_parser::ignore::Matcher;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    struct Fixture {
        from: tempfile::TempDir,
        to: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let f = Self { from: tempfile::tempdir().unwrap(), to: tempfile::tempdir().unwrap() };
            fs::create_dir_all(f.from.path().join("d/sub")).unwrap();
            fs::write(f.from.path().join("d/sub/f"), "data").unwrap();
            fs::hard_link(f.from.path().join("d/sub/f"), f.from.path().join("d/g")).unwrap();
            fs::write(f.from.path().join("one"), "1").unwrap();
            f
        }

        fn copy(&self, what: &str, dest: &str, changes: &Changes) -> Result<(), String> {
            let root = RootDir::open_host(self.from.path()).unwrap();
            let source = Source::new(root, Matcher::default(), false, "the build context".into());
            let to = RootDir::open_host(self.to.path()).unwrap();
            let cancel = CancellationToken::new();
            let copier = Copier::new(&to, changes, &cancel);
            for selection in source.select(what, &Matcher::default()).unwrap() {
                copier.copy(&source, &selection, dest).map_err(|fault| match fault {
                    Fault::Said(message) => message,
                    Fault::Build(error) => error.to_string(),
                })?;
            }
            Ok(())
        }
    }

    #[test]
    fn directories_are_copied_by_contents() {
        let f = Fixture::new();
        fs::set_permissions(f.from.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        f.copy("d", "/new/place", &Changes::default()).unwrap();
        let dest = f.to.path().join("new/place");
        assert_eq!(fs::read_to_string(dest.join("sub/f")).unwrap(), "data");
        assert_eq!(
            fs::metadata(&dest).unwrap().mode() & 0o7777,
            0o755,
            "the source root's mode does not count"
        );
        let ino = |name: &str| fs::metadata(dest.join(name)).unwrap().ino();
        assert_eq!(ino("g"), ino("sub/f"), "hard links are kept");
    }

    #[test]
    fn files_go_into_directories_or_become_them() {
        let f = Fixture::new();
        fs::create_dir(f.to.path().join("dir")).unwrap();
        f.copy("one", "/dir", &Changes::default()).unwrap();
        f.copy("one", "/a/b/", &Changes::default()).unwrap();
        f.copy("one", "/c", &Changes::default()).unwrap();
        for path in ["dir/one", "a/b/one", "c"] {
            assert_eq!(fs::read_to_string(f.to.path().join(path)).unwrap(), "1", "{path}");
        }
        fs::create_dir(f.to.path().join("dir2")).unwrap();
        fs::create_dir(f.to.path().join("dir2/g")).unwrap();
        assert!(
            f.copy("d", "/dir2", &Changes::default()).unwrap_err().contains("cannot replace to directory")
        );
        assert!(f.copy("d", "/c", &Changes::default()).unwrap_err().contains("cannot copy to non-directory"));
    }

    #[test]
    fn hostile_symlinks_do_not_escape() {
        let f = Fixture::new();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), f.to.path().join("abs")).unwrap();
        symlink("../../../../../../../..", f.to.path().join("up")).unwrap();
        f.copy("one", "/abs/", &Changes::default()).unwrap();
        f.copy("d", "/up/tmp/x", &Changes::default()).unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(f.to.path().join("tmp/x/sub/f").exists(), "`..` ends at the root");
    }

    #[test]
    fn modes_and_owners_are_changed() {
        let f = Fixture::new();
        let changes = Changes { owner: Some((5, 6)), mode: Some(chmod::Mode::parse("4711").unwrap()) };
        f.copy("one", "/p/q", &changes).unwrap();
        let meta = fs::metadata(f.to.path().join("p/q")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o4711));
        assert_eq!(fs::metadata(f.to.path().join("p")).unwrap().uid(), 5, "made on the way");
    }
}
