//! Copies one file that is no directory, with everything that belongs to it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, mknodat, utimensat,
};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use crate::copy::Changes;
use crate::fault::{At, Fault};
use crate::rootdir::Kind;
use crate::source::{Entry, Source};

/// So much of a file is read at a time.
const CHUNK: usize = 1 << 20;

/// Makes files, one after the other. Each thread has its own.
pub(crate) struct Maker<'a> {
    source: &'a Source,
    changes: &'a Changes,
    /// Whether the destination's file system can share extents; none is not known yet.
    shares: Option<bool>,
    buffer: Vec<u8>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(source: &'a Source, changes: &'a Changes) -> Self {
        Self { source, changes, shares: None, buffer: Vec::new() }
    }

    /// Makes a file that is not there yet. `from` and `to` are names in open directories, `target` is for messages.
    pub(crate) fn file(
        &mut self,
        entry: &Entry,
        from: (&OwnedFd, &OsStr),
        to: (&OwnedFd, &OsStr),
        target: &Path,
    ) -> Result<(), Fault> {
        let meta = &entry.meta;
        if meta.kind == Kind::File {
            return Ok(self.regular(entry, from, to).at("copy", target)?);
        }
        special(entry, from, to).at("copy", target)?;
        let (uid, gid) = self.changes.owner_of(meta, self.source.keeps_owner);
        let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(to.0, to.1, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW).at("set owner of", target)?;
        if meta.kind != Kind::Symlink {
            let mode = Mode::from_bits_truncate(self.changes.mode_of(meta.mode, false));
            fchmodat(to.0, to.1, mode, FchmodatFlags::FollowSymlink).at("set mode of", target)?;
        }
        Ok(utimensat(to.0, to.1, &meta.mtime, &meta.mtime, UtimensatFlags::NoFollowSymlink)
            .at("set time of", target)?)
    }

    /// Owner before mode: a change of owner clears setuid; it drops file capabilities as well.
    fn regular(&mut self, entry: &Entry, from: (&OwnedFd, &OsStr), to: (&OwnedFd, &OsStr)) -> io::Result<()> {
        let meta = &entry.meta;
        // O_NONBLOCK: if it became a fifo meanwhile, it must not hold us up.
        let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut read = File::from(openat(from.0, from.1, read, Mode::empty())?);
        let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut write = File::from(openat(to.0, to.1, write, Mode::from_bits_truncate(0o600))?);
        if meta.size > 0 {
            self.contents(&mut read, &mut write)?;
        }
        let (uid, gid) = self.changes.owner_of(meta, self.source.keeps_owner);
        fchown(&write, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&write, Mode::from_bits_truncate(self.changes.mode_of(meta.mode, false)))?;
        if self.source.keeps_owner {
            for (name, value) in attributes(&read)? {
                set_attribute(&write, &name, &value)?;
            }
        }
        Ok(futimens(&write, &meta.mtime, &meta.mtime)?)
    }

    fn contents(&mut self, read: &mut File, write: &mut File) -> io::Result<()> {
        let shares = match self.shares {
            Some(known) => known,
            None => {
                // The other file systems either can, or it makes no difference.
                let kind = fstatfs(&*write)?.filesystem_type();
                let shares = ![EXT4_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC].contains(&kind);
                *self.shares.insert(shares)
            }
        };
        if shares {
            // On Linux this is copy_file_range(2), which shares extents where the file system can.
            return io::copy(read, write).map(drop);
        }
        // Where it cannot, copy_file_range goes page by page through a pipe, at half the speed of this.
        self.buffer.resize(CHUNK, 0);
        loop {
            match read.read(&mut self.buffer)? {
                0 => return Ok(()),
                n => write.write_all(&self.buffer[..n])?,
            }
        }
    }
}

fn special(entry: &Entry, from: (&OwnedFd, &OsStr), to: (&OwnedFd, &OsStr)) -> io::Result<()> {
    let node = |kind: SFlag| -> io::Result<()> {
        Ok(mknodat(to.0, to.1, kind, Mode::from_bits_truncate(0o600), entry.meta.device)?)
    };
    match entry.meta.kind {
        // overlayfs's whiteout, and no device: it would delete what is below.
        Kind::CharDevice if entry.meta.device == 0 => Err(Errno::EPERM.into()),
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
