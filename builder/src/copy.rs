//! Writing selected files into a root. All destination handling goes by descriptor inside of the root: hostile
//! symlinks in the image lead nowhere else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::chmod;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::fault::{At, Fault};
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
    fn owner_of(&self, meta: &Meta, keeps_owner: bool) -> (u32, u32) {
        match self.owner {
            Some(owner) => owner,
            None if keeps_owner => (meta.uid, meta.gid),
            None => (0, 0),
        }
    }

    fn mode_of(&self, mode: u32, is_dir: bool) -> u32 {
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
pub(crate) struct Copier<'a> {
    root: &'a RootDir,
    changes: &'a Changes,
    cancel: &'a CancellationToken,
    /// Where a file with several names was copied to first.
    linked: RefCell<HashMap<(u64, u64), PathBuf>>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(root: &'a RootDir, changes: &'a Changes, cancel: &'a CancellationToken) -> Self {
        Self { root, changes, cancel, linked: RefCell::default() }
    }

    /// Copies a selection to `dest` (an absolute path of the image; a `/` at its end says that it is a directory).
    pub(crate) fn copy(&self, source: &Source, selection: &Selection, dest: &str) -> Result<(), Fault> {
        // Links are kept within one source only.
        self.linked.borrow_mut().clear();
        let plain = self.root.resolve(Path::new(dest)).at("resolve", dest)?;
        let existing = self.root.meta(&plain).at("look at", dest)?;
        if selection.is_dir() {
            return self.tree(source, selection, &plain, existing.as_ref());
        }
        let Some(entry) = selection.entries.first() else { return Ok(()) };
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
            None => {}
        }
        let (from_dir, from) = source.root.parent(&entry.from).at("open", &entry.from)?;
        let (to_dir, to) = self.root.parent(&target).at("open", &target)?;
        self.file(source, entry, (&from_dir, &from), (&to_dir, &to), &target)
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

    fn tree(
        &self,
        source: &Source,
        selection: &Selection,
        dest: &Path,
        existing: Option<&Meta>,
    ) -> Result<(), Fault> {
        if existing.is_some_and(|meta| !meta.is_dir()) {
            return Err(Fault::said(format!("cannot copy to non-directory: /{}", dest.display())));
        }
        self.dirs(dest)?;
        let Some((top, below)) = selection.entries.split_first() else { return Ok(()) };
        let level = Level {
            path: PathBuf::new(),
            from: source.root.open_dir(&top.from).at("open", &top.from)?,
            to: self.root.open_dir(dest).at("open", dest)?,
            fresh: existing.is_none(),
            meta: top.meta.clone(),
        };
        let mut levels = vec![level];
        for entry in below {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
            let parent = entry.to.parent().unwrap_or(Path::new(""));
            while levels.len() > 1 && levels.last().is_some_and(|level| level.path != parent) {
                self.leave(levels.pop(), dest)?;
            }
            let level = levels.last().expect("the top is always there");
            if let Some(next) = self.entry(source, entry, level, &dest.join(&entry.to))? {
                levels.push(next);
            }
        }
        while let Some(level) = levels.pop() {
            self.leave(Some(level), dest)?;
        }
        Ok(())
    }

    /// Gives a directory its time. Only when all is in it, since writing into it changes its time. The destination
    /// itself takes nothing but the time of the source.
    fn leave(&self, level: Option<Level>, dest: &Path) -> Result<(), Fault> {
        let Some(level) = level else { return Ok(()) };
        let time = level.meta.mtime;
        Ok(futimens(&level.to, &time, &time).at("set time of", dest.join(&level.path))?)
    }

    /// Copies one entry; of a directory, what is needed to go into it.
    fn entry(
        &self,
        source: &Source,
        entry: &Entry,
        level: &Level,
        target: &Path,
    ) -> Result<Option<Level>, Fault> {
        let name = entry.to.file_name().unwrap_or_default();
        let meta = &entry.meta;
        let existing = if level.fresh {
            None
        } else {
            match fstatat(&level.to, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(Meta::of(&stat)),
                Err(Errno::ENOENT) => None,
                Err(error) => return Err(Err::<(), _>(error).at("look at", target).unwrap_err().into()),
            }
        };
        if meta.is_dir() {
            let fresh = existing.is_none();
            match existing {
                Some(found) if !found.is_dir() => {
                    return Err(Fault::said(format!("cannot copy to non-directory: /{}", target.display())));
                }
                Some(_) => {}
                None => mkdirat(&level.to, name, Mode::from_bits_truncate(0o700)).at("create", target)?,
            }
            let from = openat(&level.from, name, DIRECTORY, Mode::empty()).at("open", &entry.from)?;
            let to = openat(&level.to, name, DIRECTORY, Mode::empty()).at("open", target)?;
            let (uid, gid) = self.changes.owner_of(meta, source.keeps_owner);
            fchown(&to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).at("set owner of", target)?;
            let mode = Mode::from_bits_truncate(self.changes.mode_of(meta.mode, true));
            fchmod(&to, mode).at("set mode of", target)?;
            let path = entry.to.clone();
            return Ok(Some(Level { path, from, to, fresh, meta: meta.clone() }));
        }
        match existing {
            Some(found) if found.is_dir() => {
                return Err(Fault::said(format!(
                    "cannot replace to directory /{} with file",
                    target.display()
                )));
            }
            Some(_) => unlinkat(&level.to, name, UnlinkatFlags::NoRemoveDir).at("remove", target)?,
            None => {}
        }
        self.file(source, entry, (&level.from, name), (&level.to, name), target)?;
        Ok(None)
    }

    /// Makes a new file that is no directory, with everything that belongs to it.
    fn file(
        &self,
        source: &Source,
        entry: &Entry,
        from: (&OwnedFd, &OsStr),
        to: (&OwnedFd, &OsStr),
        target: &Path,
    ) -> Result<(), Fault> {
        let meta = &entry.meta;
        if meta.links > 1 {
            let mut linked = self.linked.borrow_mut();
            if let Some(first) = linked.get(&meta.identity) {
                return Ok(self.link(first, target).at("link", target)?);
            }
            linked.insert(meta.identity, target.to_owned());
        }
        if meta.kind == Kind::File {
            return Ok(self.regular(source, entry, from, to).at("copy", target)?);
        }
        self.special(entry, from, to).at("copy", target)?;
        let (uid, gid) = self.changes.owner_of(meta, source.keeps_owner);
        fchownat(
            to.0,
            to.1,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .at("set owner of", target)?;
        if meta.kind != Kind::Symlink {
            let mode = Mode::from_bits_truncate(self.changes.mode_of(meta.mode, false));
            fchmodat(to.0, to.1, mode, FchmodatFlags::FollowSymlink).at("set mode of", target)?;
        }
        Ok(utimensat(to.0, to.1, &meta.mtime, &meta.mtime, UtimensatFlags::NoFollowSymlink)
            .at("set time of", target)?)
    }

    /// Owner before mode: a change of owner clears setuid; it drops file capabilities as well.
    fn regular(
        &self,
        source: &Source,
        entry: &Entry,
        from: (&OwnedFd, &OsStr),
        to: (&OwnedFd, &OsStr),
    ) -> io::Result<()> {
        let meta = &entry.meta;
        // O_NONBLOCK: if it became a fifo meanwhile, it must not hold us up.
        let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut read = File::from(openat(from.0, from.1, read, Mode::empty())?);
        let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut write = File::from(openat(to.0, to.1, write, Mode::from_bits_truncate(0o600))?);
        if meta.size > 0 {
            // On Linux this is copy_file_range(2), which shares extents where the file system can.
            io::copy(&mut read, &mut write)?;
        }
        let (uid, gid) = self.changes.owner_of(meta, source.keeps_owner);
        fchown(&write, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&write, Mode::from_bits_truncate(self.changes.mode_of(meta.mode, false)))?;
        if source.keeps_owner {
            for (name, value) in attributes(&read)? {
                set_attribute(&write, &name, &value)?;
            }
        }
        Ok(futimens(&write, &meta.mtime, &meta.mtime)?)
    }

    fn link(&self, first: &Path, target: &Path) -> io::Result<()> {
        let (from_dir, from) = self.root.parent(first)?;
        let (dir, name) = self.root.parent(target)?;
        Ok(linkat(&from_dir, from.as_os_str(), &dir, name.as_os_str(), AtFlags::empty())?)
    }

    fn special(&self, entry: &Entry, from: (&OwnedFd, &OsStr), to: (&OwnedFd, &OsStr)) -> io::Result<()> {
        let node = |kind: SFlag| -> io::Result<()> {
            Ok(mknodat(to.0, to.1, kind, Mode::from_bits_truncate(0o600), entry.meta.device)?)
        };
        match entry.meta.kind {
            Kind::Symlink => {
                let link = readlinkat(from.0, from.1)?;
                Ok(symlinkat(link.as_os_str(), to.0, to.1)?)
            }
            Kind::Fifo => node(SFlag::S_IFIFO),
            Kind::CharDevice => node(SFlag::S_IFCHR),
            Kind::BlockDevice => node(SFlag::S_IFBLK),
            Kind::Socket => node(SFlag::S_IFSOCK),
            Kind::Dir | Kind::File => Err(Errno::EINVAL.into()),
        }
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

/// A directory that is being filled.
struct Level {
    /// Below the destination.
    path: PathBuf,
    from: OwnedFd,
    to: OwnedFd,
    /// It did not exist before: nothing is in it but what was put there.
    fresh: bool,
    meta: Meta,
}

/// What an image layer can hold of a file's extended attributes: `user.*` and file capabilities.
pub(crate) fn attributes(file: &File) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    use xattr::FileExt;
    let names = match file.list_xattr() {
        Ok(names) => names,
        Err(e) if e.raw_os_error() == Some(nix::libc::ENOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in names {
        let wanted = name.to_str().is_some_and(|n| n.starts_with("user.") || n == "security.capability");
        if wanted && let Some(value) = file.get_xattr(&name)? {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

fn set_attribute(file: &File, name: &OsStr, value: &[u8]) -> io::Result<()> {
    use xattr::FileExt;
    match file.set_xattr(name, value) {
        // The file system of the store may know no user attributes.
        Err(e) if e.raw_os_error() == Some(nix::libc::ENOTSUP) => Ok(()),
        result => result,
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
