//! Writes a tree as a tar, reproducibly: a layer in its canonical form, or a merged root file system.
//!
//! Canonical form, version 1 (frozen): each directory is followed by its members in the order of their bytes;
//! whiteouts (0:0 character devices) become empty `.wh.name` files, opaque directories contain
//! `.wh..wh..opq` first; the first name of an inode in this order carries the data and later ones are hard
//! links; extended attributes in PAX `SCHILY.xattr` records except `trusted.overlay.*` and the labels of
//! this host's security modules; sockets are left out; the root is named (`./`) only if asked for.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

use crate::tarball::{Entry, Kind, Writer};
use crate::unpack::{OPAQUE, is_whiteout};

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub(crate) struct PackError {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Bytes of files, each inode once.
    pub(crate) size: u64,
    /// Length of the archive.
    pub(crate) tar_size: u64,
}

/// What is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A layer, with or without an entry for its root.
    Layer { root: bool },
    /// A merged root file system: what looks like a whiteout is a device.
    Merged,
}

/// Writes the tree below `root`.
pub(crate) fn pack(root: BorrowedFd<'_>, form: Form, to: impl Write) -> Result<Packed, PackError> {
    pack_without(root, form, &[], to)
}

/// The same, leaving out those of `places` (relative paths) that hold nothing: empty files and directories that were
/// only made to mount something on.
pub(crate) fn pack_without(
    root: BorrowedFd<'_>,
    form: Form,
    places: &[&Path],
    to: impl Write,
) -> Result<Packed, PackError> {
    let mut packer = Packer { form, places, writer: Writer::new(to), links: HashMap::new(), size: 0 };
    let root = openat(root, ".", DIRECTORY, Mode::empty()).map_err(at(Path::new("."), "open"))?;
    if form == (Form::Layer { root: true }) {
        let stat = fstat(&root).map_err(at(Path::new("."), "stat"))?;
        let xattrs = read_xattrs(&root, OsStr::new(".")).map_err(at(Path::new("."), "read attributes of"))?;
        let entry = Packer::<'_, io::Sink>::entry(Path::new("."), Kind::Directory, &stat, xattrs);
        packer.writer.member(&entry).map_err(at(Path::new("."), "write"))?;
    }
    if matches!(form, Form::Layer { .. }) && is_opaque(&root, OsStr::new(".")) {
        packer.marker(Path::new(".wh..wh..opq"))?;
    }
    packer.directory(root, Path::new(""))?;
    let Packer { writer, size, .. } = packer;
    Ok(Packed { size, tar_size: writer.finish().map_err(at(Path::new(""), "write"))? })
}

fn holds_nothing(parent: &OwnedFd, name: &OsStr, kind: Kind, stat: &FileStat) -> io::Result<bool> {
    match kind {
        Kind::Directory => Ok(names(&openat(parent, name, DIRECTORY, Mode::empty())?)?.is_empty()),
        Kind::File => Ok(stat.st_size == 0),
        _ => Ok(false),
    }
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn at<E: Into<io::Error>>(path: &Path, operation: &'static str) -> impl FnOnce(E) -> PackError {
    let path = path.to_owned();
    move |error| PackError { operation, path, source: error.into() }
}

struct Packer<'a, W> {
    form: Form,
    places: &'a [&'a Path],
    writer: Writer<W>,
    links: HashMap<(u64, u64), PathBuf>,
    size: u64,
}

impl<W: Write> Packer<'_, W> {
    /// Writes the members of a directory. Recursion is as deep as paths are, which PATH_MAX bounds in practice;
    /// one descriptor is open per level.
    fn directory(&mut self, directory: OwnedFd, path: &Path) -> Result<(), PackError> {
        for name in names(&directory).map_err(at(path, "list"))? {
            let path = path.join(&name);
            let stat = fstatat(&directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(at(&path, "stat"))?;
            self.member(&directory, &name, &path, &stat)?;
        }
        Ok(())
    }

    fn member(
        &mut self,
        at_fd: &OwnedFd,
        name: &OsStr,
        path: &Path,
        stat: &FileStat,
    ) -> Result<(), PackError> {
        let in_layer = matches!(self.form, Form::Layer { .. });
        if in_layer && is_whiteout(stat) {
            let mut hidden = OsString::from(".wh.");
            hidden.push(name);
            return self.marker(&path.with_file_name(hidden));
        }
        let Some(kind) = kind_of(stat) else { return Ok(()) };
        if self.places.contains(&path)
            && holds_nothing(at_fd, name, kind, stat).map_err(at(path, "look into"))?
        {
            return Ok(());
        }
        let inode = (stat.st_dev, stat.st_ino);
        if kind != Kind::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode) {
                let mut entry = Self::entry(path, Kind::HardLink, stat, Vec::new());
                entry.link = first.as_os_str().as_bytes().to_vec();
                return self.writer.member(&entry).map_err(at(path, "write"));
            }
            self.links.insert(inode, path.to_owned());
        }
        let xattrs = read_xattrs(at_fd, name).map_err(at(path, "read attributes of"))?;
        let mut entry = Self::entry(path, kind, stat, xattrs);
        match kind {
            Kind::Directory => {
                self.writer.member(&entry).map_err(at(path, "write"))?;
                if in_layer && is_opaque(at_fd, name) {
                    self.marker(&path.join(".wh..wh..opq"))?;
                }
                let directory = openat(at_fd, name, DIRECTORY, Mode::empty()).map_err(at(path, "open"))?;
                self.directory(directory, path)
            }
            Kind::File => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let file = File::from(openat(at_fd, name, flags, Mode::empty()).map_err(at(path, "open"))?);
                // A running container may have changed it since: what counts is the file that is open now.
                entry.size = file.metadata().map_err(at(path, "stat"))?.len();
                self.size += entry.size;
                self.writer.member(&entry).map_err(at(path, "write"))?;
                self.writer.data(file, entry.size).map_err(at(path, "read"))
            }
            Kind::Symlink => {
                let target = readlinkat(at_fd, name).map_err(at(path, "read link"))?;
                entry.link = target.as_bytes().to_vec();
                self.writer.member(&entry).map_err(at(path, "write"))
            }
            _ => self.writer.member(&entry).map_err(at(path, "write")),
        }
    }

    /// A whiteout or opaque marker: an empty file without a time.
    fn marker(&mut self, path: &Path) -> Result<(), PackError> {
        let entry = Entry {
            path: path.as_os_str().as_bytes().to_vec(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        };
        self.writer.member(&entry).map_err(at(path, "write"))
    }

    fn entry(path: &Path, kind: Kind, stat: &FileStat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        Entry {
            path: path.as_os_str().as_bytes().to_vec(),
            link: Vec::new(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            size: 0,
            device: if is_device {
                (number(major(stat.st_rdev)), number(minor(stat.st_rdev)))
            } else {
                (0, 0)
            },
            xattrs,
            sparse: None,
        }
    }
}

pub(crate) fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    // A descriptor of its own: reading moves the position that duplicates share.
    let mut listing = Dir::openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn kind_of(stat: &FileStat) -> Option<Kind> {
    Some(match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFCHR => Kind::CharDevice,
        SFlag::S_IFBLK => Kind::BlockDevice,
        SFlag::S_IFIFO => Kind::Fifo,
        _ => return None,
    })
}

/// One component below a descriptor, for the calls that have no `*at` form; used with `l…xattr` only.
fn magic(at: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(at.as_fd().as_raw_fd().to_string()).join(name)
}

/// The attributes that belong into an archive.
pub(crate) fn read_xattrs(at: &OwnedFd, name: &OsStr) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = magic(at, name);
    let listed = match xattr::list(&path) {
        Ok(listed) => listed,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for key in listed {
        let bytes = key.as_bytes();
        let of_the_host = matches!(bytes, b"security.selinux" | b"security.ima" | b"security.evm");
        if of_the_host || bytes.starts_with(b"trusted.overlay.") {
            continue;
        }
        if let Some(value) = xattr::get(&path, &key)? {
            found.push((bytes.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn is_opaque(at: &OwnedFd, name: &OsStr) -> bool {
    matches!(xattr::get(magic(at, name), OPAQUE), Ok(Some(value)) if value == b"y")
}
