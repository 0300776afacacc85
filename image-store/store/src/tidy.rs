//! From what overlayfs left in an upper directory to what a layer should say: the difference to the layers below it,
//! and nothing else.
//!
//! overlayfs copies a file up when it is opened for writing, marks a directory opaque when it stands where something
//! else stood, and copies parents up whenever anything in them changes. None of that is a change by itself:
//!
//! * what is equal to what lies below goes: files in content and metadata, directories in metadata but their time;
//! * an opaque directory says by name what it hides, or nothing where nothing is hidden, so that a layer is the same
//!   whether files were removed one by one or with their directory;
//! * a device 0:0 that hides nothing (`mknod c 0 0`) goes;
//! * overlayfs's own attributes go;
//! * times can be set, so that a step that is run again makes the same layer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{IoContext, Result};
use crate::pack::{is_opaque, names, read_xattrs};
use crate::unpack::{OPAQUE, is_whiteout};
use crate::usage::is_directory;

/// Gives files that a step made a time that does not depend on when it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retime {
    /// What has this time (seconds and nanoseconds since 1970) or a later one…
    pub since: (i64, i64),
    /// …but none later than this one (a file may bring a time that is yet to come)…
    pub until: (i64, i64),
    /// …gets this one, in seconds since 1970.
    pub to: i64,
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Tidies the tree `upper` up, which lies on `base`; none means on nothing.
pub(crate) fn tidy(
    upper: &OwnedFd,
    base: Option<&OwnedFd>,
    retime: Option<Retime>,
    path: &Path,
) -> Result<()> {
    let tidier = Tidier { retime };
    let opaque = is_opaque(upper, OsStr::new("."));
    let before = fstat(upper).during("stat", path)?;
    tidier.directory(upper, base, opaque, path)?;
    tidier.strip(upper, OsStr::new("."), opaque, path)?;
    tidier.time(upper, OsStr::new("."), &before, path)
}

struct Tidier {
    retime: Option<Retime>,
}

impl Tidier {
    /// Whether anything is left in the directory. `hides`: only what is in it counts, not what `base` has there.
    fn directory(&self, upper: &OwnedFd, base: Option<&OwnedFd>, hides: bool, path: &Path) -> Result<bool> {
        let mut kept = false;
        let listed = names(upper).during("list", path)?;
        for name in &listed {
            let path = path.join(name);
            let stat =
                fstatat(upper, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).during("stat", &path)?;
            let below = base.map(|base| look(base, name)).transpose().during("stat", &path)?.flatten();
            kept |= match (below, is_directory(&stat)) {
                (below, true) => {
                    let base = base.zip(below.as_ref());
                    self.subdirectory(upper, name, &stat, base, hides, &path)?
                }
                (None, _) if is_whiteout(&stat) => self.remove(upper, name, &path)?,
                (Some(_), _) if is_whiteout(&stat) => true,
                (below, false) => {
                    let same = match base.zip(below.as_ref()) {
                        Some((base, below)) => {
                            same_file(upper, &stat, base, below, name).during("compare", &path)?
                        }
                        None => false,
                    };
                    if same {
                        self.remove(upper, name, &path)?
                    } else {
                        self.strip(upper, name, false, &path)?;
                        self.time(upper, name, &stat, &path)?;
                        true
                    }
                }
            };
        }
        if hides && let Some(base) = base {
            let shown: HashSet<_> = listed.into_iter().collect();
            for name in names(base).during("list", path)?.iter().filter(|name| !shown.contains(*name)) {
                mknodat(upper, name.as_os_str(), SFlag::S_IFCHR, Mode::empty(), 0)
                    .during("hide", path.join(name))?;
                kept = true;
            }
        }
        Ok(kept)
    }

    fn subdirectory(
        &self,
        upper: &OwnedFd,
        name: &OsStr,
        stat: &FileStat,
        below: Option<(&OwnedFd, &FileStat)>,
        hides: bool,
        path: &Path,
    ) -> Result<bool> {
        let opaque = is_opaque(upper, name);
        let directory = openat(upper, name, DIRECTORY, Mode::empty()).during("open", path)?;
        let below = match below.filter(|(_, stat)| is_directory(stat)) {
            Some((base, stat)) => {
                Some((openat(base, name, DIRECTORY, Mode::empty()).during("open", path)?, stat))
            }
            None => None,
        };
        let kept = self.directory(&directory, below.as_ref().map(|(fd, _)| fd), hides || opaque, path)?;
        if !kept
            && let Some((base, below)) = &below
            && same_owner_and_mode(stat, below)
            && read_xattrs(&directory, OsStr::new(".")).during("read attributes of", path)?
                == read_xattrs(base, OsStr::new(".")).during("read attributes of", path)?
        {
            unlinkat(upper, name, UnlinkatFlags::RemoveDir).during("remove", path)?;
            return Ok(false);
        }
        self.strip(upper, name, opaque, path)?;
        self.time(upper, name, stat, path)?;
        Ok(true)
    }

    fn remove(&self, upper: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool> {
        unlinkat(upper, name, UnlinkatFlags::NoRemoveDir).during("remove", path)?;
        Ok(false)
    }

    /// Takes overlayfs's bookkeeping away: it means nothing in a lower directory.
    fn strip(&self, at: &OwnedFd, name: &OsStr, opaque: bool, path: &Path) -> Result<()> {
        let link = berth_sys::path::magic_link(at).join(name);
        for key in xattr::list(&link).during("list attributes of", path)? {
            let text = key.to_string_lossy();
            if text.starts_with("trusted.overlay.") && (opaque || text != OPAQUE) {
                xattr::remove(&link, &key).during("remove an attribute of", path)?;
            }
        }
        Ok(())
    }

    /// Gives the time it should have; a directory's own may have been changed by the tidying.
    fn time(&self, at: &OwnedFd, name: &OsStr, stat: &FileStat, path: &Path) -> Result<()> {
        let had = (stat.st_mtime, stat.st_mtime_nsec);
        let wanted = match self.retime {
            Some(retime) if (retime.since..=retime.until).contains(&had) => (retime.to, 0),
            _ if is_directory(stat) => had,
            _ => return Ok(()),
        };
        let time = TimeSpec::new(wanted.0, wanted.1);
        utimensat(at, name, &time, &time, UtimensatFlags::NoFollowSymlink).during("set the time of", path)
    }
}

fn look(at: &OwnedFd, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn same_owner_and_mode(a: &FileStat, b: &FileStat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

/// Whether a file was only copied up. One with several names says something by being linked.
fn same_file(
    upper: &OwnedFd,
    stat: &FileStat,
    base: &OwnedFd,
    below: &FileStat,
    name: &OsStr,
) -> io::Result<bool> {
    let times = |stat: &FileStat| (stat.st_mtime, stat.st_mtime_nsec);
    let alike = stat.st_nlink == 1
        && same_owner_and_mode(stat, below)
        && (stat.st_size, stat.st_rdev) == (below.st_size, below.st_rdev)
        && times(stat) == times(below);
    if !alike || read_xattrs(upper, name)? != read_xattrs(base, name)? {
        return Ok(false);
    }
    let is = |kind: SFlag| stat.st_mode & SFlag::S_IFMT.bits() == kind.bits();
    if is(SFlag::S_IFLNK) {
        return Ok(readlinkat(upper, name)? == readlinkat(base, name)?);
    }
    if !is(SFlag::S_IFREG) {
        return Ok(true);
    }
    let open = |at: &OwnedFd| -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(File::from(openat(at.as_fd(), name, flags, Mode::empty())?))
    };
    same_content(open(upper)?, open(base)?)
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    const CHUNK: usize = 64 << 10;
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        match b.read_exact(&mut right[..n]) {
            Ok(()) if left[..n] == right[..n] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
