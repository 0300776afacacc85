//! `docker diff`: what a snapshot's upper directory changes of the layers below.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::path::open_beneath_strict;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, fstatat};

use crate::error::{IoContext, Result};
use crate::pack::{is_opaque, names};
use crate::shared::open_directory;
use crate::snapshots::Snapshots;
use crate::unpack::is_whiteout;
use crate::usage::{is_directory, walk};

/// One difference, as `docker diff` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute path in the container (bytes that are not UTF-8 are replaced).
    pub path: String,
    /// What happened.
    pub kind: ChangeKind,
}

/// `A`, `C` or `D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Changed (docker's 0).
    Modified,
    /// New (1).
    Added,
    /// Gone (2).
    Deleted,
}

impl Snapshots {
    /// `docker diff`, sorted by path. A directory in which something changed is changed itself, as docker
    /// has it.
    ///
    /// # Errors
    /// If the trees cannot be read.
    pub fn changes(&self, key: &str) -> Result<Vec<Change>> {
        let snapshot = self.required(key)?;
        let below = self.mount_ro(&snapshot.layers)?;
        let upper = open_directory(&snapshot.upper)?;
        let mut found = BTreeMap::new();
        walk(&upper, Path::new("/"), &mut |at, name, stat, path| {
            let shown = |path: &Path| path.to_string_lossy().into_owned();
            let old = stat_below(&below, path);
            let kind = if is_whiteout(stat) {
                if old.is_none() {
                    return Ok(());
                }
                ChangeKind::Deleted
            } else {
                let opaque = is_directory(stat) && is_opaque(at, name);
                if let (true, Some(_)) = (opaque, &old) {
                    let here = open_beneath_strict(
                        at.as_fd(),
                        Path::new(name),
                        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
                    )
                    .during("open", path)?;
                    for gone in hidden_by(&here, &below, path)? {
                        found.insert(shown(&path.join(gone)), ChangeKind::Deleted);
                    }
                }
                if old.is_some() { ChangeKind::Modified } else { ChangeKind::Added }
            };
            found.insert(shown(path), kind);
            for ancestor in path.ancestors().skip(1).filter(|a| *a != Path::new("/")) {
                found.entry(shown(ancestor)).or_insert(ChangeKind::Modified);
            }
            Ok(())
        })?;
        let found = found.into_iter().map(|(path, kind)| Change { path, kind });
        Ok(found.collect())
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn stat_below(below: &OwnedFd, path: &Path) -> Option<FileStat> {
    let path = relative(path);
    let (parent, name) = (path.parent()?, path.file_name()?);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = open_beneath_strict(below.as_fd(), parent, flags).ok()?;
    fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
}

/// What an opaque directory hides and does not have itself.
fn hidden_by(here: &OwnedFd, below: &OwnedFd, path: &Path) -> Result<Vec<std::ffi::OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let Ok(old) = open_beneath_strict(below.as_fd(), relative(path), flags) else { return Ok(Vec::new()) };
    let old = names(&old).during("list", path)?;
    let gone =
        |name: &&std::ffi::OsString| fstatat(here, OsStr::new(name), AtFlags::AT_SYMLINK_NOFOLLOW).is_err();
    Ok(old.iter().filter(gone).cloned().collect())
}
