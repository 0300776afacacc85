//! A tar stream into a directory of a container. The archive is the client's, the links on the way are the
//! container's; neither leads out of the root.

use std::ffi::{CString, OsStr};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use berth_store::members::Members;
use berth_sys::path::{mkdir_all_in_root, open_in_root};
use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};
use xattr::FileExt as _;

use crate::fsutil;

/// Where to unpack.
pub(super) struct Target<'a> {
    pub(super) root: BorrowedFd<'a>,
    /// Absolute path in the root.
    pub(super) dir: &'a str,
    /// Who everything belongs to, instead of whom the archive says.
    pub(super) owner: Option<(u32, u32)>,
    /// Fail rather than put a directory in a file's place or the other way round.
    pub(super) keep_kind: bool,
}

/// Why it was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// The archive cannot be read.
    #[error("reading the archive: {0}")]
    Archive(#[source] io::Error),
    /// An entry that is not taken.
    #[error("{path}: {reason}")]
    Refused {
        /// Its name.
        path: String,
        /// Why.
        reason: String,
    },
    /// The kernel refused.
    #[error("unpacking {path}: {source}")]
    System {
        /// The entry's name.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl UnpackError {
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}

/// Unpacks an archive, plain or gzip.
pub(super) fn unpack(target: &Target<'_>, from: impl Read) -> Result<(), UnpackError> {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let magic = {
        let head = io::BufRead::fill_buf(&mut from).map_err(UnpackError::Archive)?;
        [head.first().copied(), head.get(1).copied()]
    };
    let refused = |what: &str| UnpackError::Refused {
        path: "the archive".to_owned(),
        reason: format!("{what} compression is not supported here: send it plain or as gzip"),
    };
    match magic {
        [Some(0x1f), Some(0x8b)] => entries(target, MultiGzDecoder::new(from)),
        [Some(b'B'), Some(b'Z')] => Err(refused("bzip2")),
        [Some(0xfd), Some(b'7')] => Err(refused("xz")),
        [Some(0x28), Some(0xb5)] => Err(refused("zstd")),
        _ => entries(target, from),
    }
}

fn entries(target: &Target<'_>, from: impl Read) -> Result<(), UnpackError> {
    // Directories get their times last, when nothing is written into them any more.
    let mut dirs = Vec::new();
    Members::new(from).each(UnpackError::Archive, |entry| {
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = relative(OsStr::from_bytes(&entry.path_bytes())).ok_or_else(|| UnpackError::Refused {
            path: shown.clone(),
            reason: "the name leads out of the directory".to_owned(),
        })?;
        one(target, entry, &name, &shown, &mut dirs).map(|()| true)
    })?;
    for (path, time) in dirs.into_iter().rev() {
        let system =
            |source: Errno| UnpackError::System { path: path.display().to_string(), source: source.into() };
        let dir = open_in_root(target.root, &path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(system)?;
        nix::sys::stat::futimens(&dir, &time, &time).map_err(system)?;
    }
    Ok(())
}

/// The name without `.` and leading slashes; none if it contains `..`.
fn relative(name: &OsStr) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(clean)
}

fn one<R: Read>(
    target: &Target<'_>,
    entry: &mut Entry<'_, R>,
    name: &Path,
    shown: &str,
    dirs: &mut Vec<(PathBuf, TimeSpec)>,
) -> Result<(), UnpackError> {
    let system = |source: io::Error| UnpackError::System { path: shown.to_owned(), source };
    let refuse = |reason: String| UnpackError::Refused { path: shown.to_owned(), reason };
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let Some(last) = name.file_name() else {
        // The directory itself: it is there, and keeps what it is.
        return Ok(());
    };
    let last =
        CString::new(last.as_bytes()).map_err(|_| refuse("the name contains a NUL byte".to_owned()))?;
    let within = Path::new(target.dir).join(name);
    let parent = parent_of(target, &within).map_err(|error| system(error.into()))?;
    clear(target, parent.as_fd(), &last, kind, shown)?;
    let mode = Mode::from_bits_truncate(entry.header().mode().map_err(UnpackError::Archive)? & 0o7777);
    make(target, entry, &parent, &last, kind, mode).map_err(|error| match error {
        Made::Refused(reason) => refuse(reason),
        Made::Io(source) => system(source),
    })?;
    if kind == EntryType::Link {
        return Ok(());
    }
    let time = TimeSpec::new(i64::try_from(entry.header().mtime().unwrap_or(0)).unwrap_or(0), 0);
    finish(target, entry, &parent, &last, kind, mode, &time).map_err(system)?;
    if kind == EntryType::Directory {
        dirs.push((within, time));
    }
    Ok(())
}

/// The directory an entry goes into, made if the archive has not said how.
fn parent_of(target: &Target<'_>, within: &Path) -> Result<OwnedFd, Errno> {
    let parent = within.parent().unwrap_or(Path::new("/"));
    mkdir_all_in_root(target.root, parent, Mode::from_bits_truncate(0o755))?;
    open_in_root(target.root, parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// Makes room: what is in the way goes, but for a directory that another one is merged into.
fn clear(
    target: &Target<'_>,
    parent: BorrowedFd<'_>,
    name: &CString,
    kind: EntryType,
    shown: &str,
) -> Result<(), UnpackError> {
    let system = |source: io::Error| UnpackError::System { path: shown.to_owned(), source };
    let stat = match fsutil::lstat_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(system)?,
    };
    let is_dir = fsutil::kind(&stat) == SFlag::S_IFDIR;
    let wants_dir = kind == EntryType::Directory;
    if is_dir && wants_dir {
        return Ok(());
    }
    if target.keep_kind && is_dir != wants_dir {
        let (new, old) =
            if wants_dir { ("directory", "non-directory") } else { ("non-directory", "directory") };
        return Err(UnpackError::Refused {
            path: shown.to_owned(),
            reason: format!("cannot overwrite {old} {shown:?} with {new}"),
        });
    }
    remove(parent, name, is_dir, 0).map_err(system)
}

fn remove(parent: BorrowedFd<'_>, name: &CString, is_dir: bool, depth: usize) -> io::Result<()> {
    const MAX_DEPTH: usize = 200;
    if !is_dir {
        return Ok(unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?);
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("directories are nested more than {MAX_DEPTH} deep")));
    }
    let dir = fsutil::open_dir_at(parent, name)?;
    for child in fsutil::names(dir.as_fd())? {
        let is_dir = fsutil::kind(&fsutil::lstat_at(dir.as_fd(), &child)?) == SFlag::S_IFDIR;
        remove(dir.as_fd(), &child, is_dir, depth + 1)?;
    }
    Ok(unlinkat(parent, name.as_c_str(), UnlinkatFlags::RemoveDir)?)
}

enum Made {
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Made {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Made {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

fn make<R: Read>(
    target: &Target<'_>,
    entry: &mut Entry<'_, R>,
    parent: &OwnedFd,
    name: &CString,
    kind: EntryType,
    mode: Mode,
) -> Result<(), Made> {
    let link = || -> Result<PathBuf, Made> {
        let bytes =
            entry.link_name_bytes().ok_or_else(|| Made::Refused("a link without target".to_owned()))?;
        Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
    };
    match kind {
        EntryType::Directory => match mkdirat(parent, name.as_c_str(), Mode::S_IRWXU) {
            Err(Errno::EEXIST) => Ok(()),
            other => Ok(other?),
        },
        EntryType::Symlink => Ok(symlinkat(&link()?, parent, name.as_c_str())?),
        EntryType::Link => {
            let first = relative(link()?.as_os_str())
                .ok_or_else(|| Made::Refused("the link leads out of the directory".to_owned()))?;
            let first = Path::new(target.dir).join(first);
            let first = open_in_root(target.root, &first, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
            Ok(linkat(&first, c"", parent, name.as_c_str(), AtFlags::AT_EMPTY_PATH)?)
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let header = entry.header();
            let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
            let (special, device) = match kind {
                EntryType::Char => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
                EntryType::Block => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
                _ => (SFlag::S_IFIFO, 0),
            };
            Ok(mknodat(parent, name.as_c_str(), special, mode, device)?)
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file =
                std::fs::File::from(openat(parent, name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            io::copy(entry, &mut file)?;
            Ok(())
        }
        other => {
            Err(Made::Refused(format!("entries of type {:?} are not taken", char::from(other.as_byte()))))
        }
    }
}

/// Owner, attributes, mode, time.
fn finish<R: Read>(
    target: &Target<'_>,
    entry: &mut Entry<'_, R>,
    parent: &OwnedFd,
    name: &CString,
    kind: EntryType,
    mode: Mode,
    time: &TimeSpec,
) -> io::Result<()> {
    let number = |value: io::Result<u64>| value.ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
    let (uid, gid) = target.owner.unwrap_or((number(entry.header().uid()), number(entry.header().gid())));
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(parent, name.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if matches!(kind, EntryType::Regular | EntryType::Directory) {
        attributes(entry, parent, name, kind)?;
    }
    if kind != EntryType::Symlink {
        // What is there now was made by us, under a name of which nobody else knows yet.
        fchmodat(parent, name.as_c_str(), mode, FchmodatFlags::NoFollowSymlink)?;
    }
    Ok(utimensat(parent, name.as_c_str(), time, time, UtimensatFlags::NoFollowSymlink)?)
}

fn attributes<R: Read>(
    entry: &mut Entry<'_, R>,
    parent: &OwnedFd,
    name: &CString,
    kind: EntryType,
) -> io::Result<()> {
    let mut wanted = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            wanted.push((key.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let file = match kind {
        EntryType::Directory => std::fs::File::from(fsutil::open_dir_at(parent.as_fd(), name)?),
        _ => fsutil::open_file_at(parent.as_fd(), name)?,
    };
    for (key, value) in wanted.iter().filter(|(key, _)| !key.starts_with("trusted.")) {
        match file.set_xattr(key, value) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsutil::open_host_dir;
    use std::os::unix::fs::MetadataExt as _;
    use tar::{Builder, Header};

    fn entry(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, content: &str) {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }

    fn run(dir: &Path, keep_kind: bool, fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Result<(), UnpackError> {
        let mut tar = Builder::new(Vec::new());
        fill(&mut tar);
        let root = open_host_dir(dir).unwrap();
        let target = Target { root: root.as_fd(), dir: "/in", owner: None, keep_kind };
        unpack(&target, tar.into_inner().unwrap().as_slice())
    }

    fn prepared() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        dir
    }

    #[test]
    fn archives_are_unpacked() {
        let dir = prepared();
        run(dir.path(), false, |tar| {
            entry(tar, EntryType::Directory, "d/", "", "");
            entry(tar, EntryType::Regular, "d/file", "", "text");
            entry(tar, EntryType::Link, "again", "d/file", "");
            entry(tar, EntryType::Symlink, "link", "d/file", "");
            entry(tar, EntryType::Regular, "./x/y/z", "", "deep");
        })
        .unwrap();
        let file = std::fs::metadata(dir.path().join("in/d/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()), (7, 8, 0o640, 1000));
        assert_eq!(file.ino(), std::fs::metadata(dir.path().join("in/again")).unwrap().ino());
        assert_eq!(std::fs::read_to_string(dir.path().join("in/link")).unwrap(), "text");
        assert_eq!(std::fs::metadata(dir.path().join("in/d")).unwrap().mtime(), 1000);
        assert_eq!(std::fs::read_to_string(dir.path().join("in/x/y/z")).unwrap(), "deep");
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let dir = prepared();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("in/trap")).unwrap();
        std::os::unix::fs::symlink("/../../..", dir.path().join("in/up")).unwrap();
        // The links resolve inside the root, where they lead to nothing (which is made) or to the root itself.
        run(dir.path(), false, |tar| {
            entry(tar, EntryType::Regular, "trap/evil", "", "x");
            entry(tar, EntryType::Regular, "up/evil", "", "x");
        })
        .unwrap();
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
        assert!(dir.path().join("evil").exists());
        for name in ["../evil", "a/../../evil"] {
            let refused = run(dir.path(), false, |tar| entry(tar, EntryType::Regular, name, "", "x"));
            assert!(matches!(refused, Err(UnpackError::Refused { .. })), "{name}");
        }
        let refused = run(dir.path(), false, |tar| entry(tar, EntryType::Link, "l", "../../etc/passwd", ""));
        assert!(refused.is_err());
        // A symbolic link of the archive itself is no way out either.
        run(dir.path(), false, |tar| {
            entry(tar, EntryType::Symlink, "own", outside.path().to_str().unwrap(), "");
            entry(tar, EntryType::Regular, "own/evil", "", "x");
        })
        .unwrap();
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
    }

    #[test]
    fn files_and_directories_replace_each_other_only_when_allowed() {
        let dir = prepared();
        std::fs::create_dir_all(dir.path().join("in/thing/sub")).unwrap();
        let put = |keep| run(dir.path(), keep, |tar| entry(tar, EntryType::Regular, "thing", "", "x"));
        assert!(put(true).unwrap_err().to_string().contains("cannot overwrite directory"));
        put(false).unwrap();
        assert!(dir.path().join("in/thing").is_file());
        let put = |keep| run(dir.path(), keep, |tar| entry(tar, EntryType::Directory, "thing/", "", ""));
        assert!(put(true).is_err());
        put(false).unwrap();
        assert!(dir.path().join("in/thing").is_dir());
    }
}
