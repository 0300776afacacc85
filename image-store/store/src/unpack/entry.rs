//! How one member is made in the tree.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat, futimens, makedev, mkdirat, mknodat,
};
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use crate::tarball::{Entry, Kind};
use crate::unpack::name::{self, Name};
use crate::unpack::tree::{
    DEFAULT_ACL, Tree, io_problem, is_directory, is_whiteout, lossy, set_opaque, set_time_at, set_xattr,
};
use crate::unpack::{EntryProblem, copy};

/// How often the free space is looked at.
const SPACE_CHECK: u64 = 32 << 20;

impl Tree {
    /// Makes one member; its data is read from `data`.
    pub(super) fn place(&mut self, entry: &Entry, data: &mut impl BufRead) -> Result<(), EntryProblem> {
        match name::parse(&entry.path)? {
            Name::Ignored => Ok(()),
            Name::Root if entry.kind != Kind::Directory => Err(EntryProblem::Root),
            Name::Root => {
                let root = self.root.clone();
                attributes(&root, OsStr::new("."), entry)?;
                self.named_directory(&[], entry);
                Ok(())
            }
            Name::Opaque { directory } => match directory.split_last() {
                // An opaque root hides everything; a layer's root is opaque like any other directory.
                None => set_opaque(&self.root, OsStr::new(".")),
                Some((last, parent)) => {
                    self.directory(&directory)?;
                    let at = self.directory(parent)?;
                    set_opaque(&at, OsStr::from_bytes(last))
                }
            },
            Name::Whiteout { parent, name } => {
                let at = self.directory(&parent)?;
                whiteout(&at, OsStr::from_bytes(name))
            }
            Name::Plain { parent, name } => {
                let at = self.directory(&parent)?;
                self.plain(entry, &parent, &at, name, data)
            }
        }
    }

    fn plain(
        &mut self,
        entry: &Entry,
        parent: &[&[u8]],
        at: &Rc<OwnedFd>,
        raw_name: &[u8],
        data: &mut impl BufRead,
    ) -> Result<(), EntryProblem> {
        let name = OsStr::from_bytes(raw_name);
        match entry.kind {
            Kind::File => return self.file(entry, at, name, data),
            Kind::Directory => {
                self.make_directory(at, name)?;
                attributes(at, name, entry)?;
                self.named_directory(&[parent, &[raw_name]].concat(), entry);
                return Ok(());
            }
            Kind::HardLink => return self.hard_link(entry, at, name),
            Kind::Symlink => {
                create(at, name, || symlinkat(OsStr::from_bytes(&entry.link), &**at, name))?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::CharDevice => SFlag::S_IFCHR,
                    Kind::BlockDevice => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let device = makedev(u64::from(entry.device.0), u64::from(entry.device.1));
                create(at, name, || mknodat(&**at, name, kind, Mode::from_bits_truncate(0o600), device))?;
            }
        }
        attributes(at, name, entry)?;
        set_time_at(at, name, entry.mtime).map_err(|e| io_problem("set the time", e))
    }

    fn file(
        &mut self,
        entry: &Entry,
        at: &Rc<OwnedFd>,
        name: &OsStr,
        data: &mut impl BufRead,
    ) -> Result<(), EntryProblem> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // Most files need nothing more than what they are made with.
        let exact = entry.mode & !0o777 == 0 && entry.mode & self.umask == 0;
        let mode = Mode::from_bits_truncate(if exact { entry.mode } else { 0o600 });
        let fd = create(at, name, || openat(&**at, name, flags, mode))?;
        let mut file = File::from(fd);
        match &entry.sparse {
            None => {
                self.reserve_space(entry.size)?;
                copy(data, &mut file, entry.size)?;
            }
            Some(map) => {
                for segment in map {
                    self.reserve_space(segment.length)?;
                    file.seek(SeekFrom::Start(segment.offset)).map_err(|e| io_error("seek", e))?;
                    copy(data, &mut file, segment.length)?;
                }
                file.set_len(entry.size).map_err(|e| io_error("truncate", e))?;
            }
        }
        self.size = self.size.saturating_add(entry.size);
        // A directory with a group of its own may give it to what is made in it.
        if self.groups || (entry.uid, entry.gid) != (0, 0) {
            fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(|e| io_problem("chown", e))?;
        }
        xattrs(at, name, entry)?;
        // Access lists change the mode.
        if !exact || !entry.xattrs.is_empty() {
            fchmod(&file, Mode::from_bits_truncate(entry.mode)).map_err(|e| io_problem("chmod", e))?;
        }
        let time = TimeSpec::new(entry.mtime.0, i64::from(entry.mtime.1));
        futimens(&file, &time, &time).map_err(|e| io_problem("set the time", e))
    }

    fn make_directory(&mut self, at: &Rc<OwnedFd>, name: &OsStr) -> Result<(), EntryProblem> {
        let make = || mkdirat(&**at, name, Mode::from_bits_truncate(0o700));
        match make() {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io_problem("mkdir", errno)),
        }
        let stat = fstatat(&**at, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| io_problem("stat", e))?;
        // Many writers name a directory again and again; nothing is hidden by that.
        if is_directory(&stat) {
            return Ok(());
        }
        uncover(at, name)?;
        make().map_err(|e| io_problem("mkdir", e))?;
        // What lies below is hidden by this layer: first by the whiteout, now by the directory.
        set_opaque(at, name)
    }

    fn hard_link(&mut self, entry: &Entry, at: &Rc<OwnedFd>, name: &OsStr) -> Result<(), EntryProblem> {
        let missing = || EntryProblem::LinkTarget(lossy(&entry.link));
        // Some writers name the target from the root. It is this layer's root that is meant.
        let mut parent = name::components(&entry.link)?;
        let target = OsStr::from_bytes(parent.pop().ok_or_else(missing)?);
        let from = self.directory(&parent)?;
        let stat = fstatat(&*from, target, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if is_directory(&stat) || is_whiteout(&stat) {
            return Err(missing());
        }
        if let Ok(here) = fstatat(&**at, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            && (here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        create(at, name, || linkat(&*from, target, &**at, name, LinkatFlags::empty()))
    }

    /// Fails before the disk is full, not after.
    fn reserve_space(&mut self, amount: u64) -> Result<(), EntryProblem> {
        self.until_space_check = self.until_space_check.saturating_sub(amount.max(4096));
        if self.until_space_check > 0 {
            return Ok(());
        }
        self.until_space_check = SPACE_CHECK;
        let space = fstatvfs(&*self.root).map_err(|e| io_problem("statvfs", e))?;
        let free = space.blocks_available() * space.fragment_size();
        if free < self.reserve.saturating_add(amount) {
            return Err(io_error("reserve space", io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }
}

fn io_error(operation: &'static str, source: io::Error) -> EntryProblem {
    EntryProblem::Io { operation, source }
}

/// Makes something under a name that nothing of this layer has yet, but for a whiteout: hiding what lies below and
/// having something of that name is one and the same in an overlay.
fn create<T>(at: &Rc<OwnedFd>, name: &OsStr, make: impl Fn() -> nix::Result<T>) -> Result<T, EntryProblem> {
    match make() {
        Err(Errno::EEXIST) => {
            uncover(at, name)?;
            make()
        }
        other => other,
    }
    .map_err(|e| io_problem("create", e))
}

/// Takes a whiteout away. Anything else of that name came from this very archive.
fn uncover(at: &Rc<OwnedFd>, name: &OsStr) -> Result<(), EntryProblem> {
    let stat = fstatat(&**at, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| io_problem("stat", e))?;
    if !is_whiteout(&stat) {
        return Err(EntryProblem::Duplicate);
    }
    unlinkat(&**at, name, UnlinkatFlags::NoRemoveDir).map_err(|e| io_problem("replace", e))
}

/// A whiteout hides what lies in the layers below; what this layer itself has under that name stays.
fn whiteout(at: &Rc<OwnedFd>, name: &OsStr) -> Result<(), EntryProblem> {
    match mknodat(&**at, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => {
            let stat =
                fstatat(&**at, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| io_problem("stat", e))?;
            if is_directory(&stat) { set_opaque(at, name) } else { Ok(()) }
        }
        Err(errno) => Err(io_problem("mknod", errno)),
    }
}

/// Owner, attributes, mode. In this order: chown(2) clears setuid bits and capabilities.
fn attributes(at: &Rc<OwnedFd>, name: &OsStr, entry: &Entry) -> Result<(), EntryProblem> {
    fchownat(
        &**at,
        name,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .map_err(|e| io_problem("chown", e))?;
    xattrs(at, name, entry)?;
    if entry.kind != Kind::Symlink {
        // `name` was made by us, in a directory that nobody else writes to: it is no link.
        let mode = Mode::from_bits_truncate(entry.mode);
        fchmodat(&**at, name, mode, FchmodatFlags::FollowSymlink).map_err(|e| io_problem("chmod", e))?;
    }
    Ok(())
}

fn xattrs(at: &Rc<OwnedFd>, name: &OsStr, entry: &Entry) -> Result<(), EntryProblem> {
    for (key, value) in &entry.xattrs {
        if key.starts_with(b"trusted.overlay.") || key == DEFAULT_ACL.as_bytes() {
            continue;
        }
        match set_xattr(at.as_fd(), name, OsStr::from_bytes(key), value) {
            Ok(()) => {}
            // The file system has no such attributes, or not on this type of file: as docker does.
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
            Err(error)
                if error.raw_os_error() == Some(Errno::EPERM as i32)
                    && key.starts_with(b"user.")
                    && entry.kind != Kind::File
                    && entry.kind != Kind::Directory => {}
            Err(source) => return Err(EntryProblem::Io { operation: "set an extended attribute", source }),
        }
    }
    Ok(())
}
