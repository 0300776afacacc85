//! Directories that a layer did not name.
//!
//! A tar may hold `usr/bin/x` without `usr/` and `usr/bin/`. Unpacked on its own it needs these directories,
//! and in an overlay the top-most directory gives owner, mode and time: the invented ones would hide the real
//! ones below. For a stack in which that happens one more lower directory lies on top, `layers/fix-<chain>`,
//! with nothing but those directories, each with the attributes of the layer that did name it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_oci::{DiffId, chain_id};
use berth_sys::path::open_beneath_strict;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fstat, utimensat};
use nix::sys::time::TimeSpec;

use crate::error::{IoContext, Result};
use crate::layers::{Layers, Row};
use crate::pack::{is_opaque, read_xattrs};
use crate::shared::open_directory;

/// Owner, mode, time and extended attributes of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    mtime: (i64, i64),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    pub(crate) fn of(directory: &OwnedFd, path: &Path) -> Result<Self> {
        let stat: FileStat = fstat(directory).during("stat", path)?;
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            xattrs: read_xattrs(directory, OsStr::new(".")).during("read attributes of", path)?,
        })
    }

    /// The root of a stack that does not name it.
    pub(crate) fn plain() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }

    /// Whether everything but the time is equal.
    pub(crate) fn same_but_time(&self, other: &Self) -> bool {
        Self { mtime: other.mtime, ..self.clone() } == *other
    }

    /// Gives them to a directory of the store itself (one that no container has written to).
    pub(crate) fn apply(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).during("chown", path)?;
        for (key, value) in &self.xattrs {
            let key = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(key);
            xattr::set(path, key, value).during("set an attribute of", path)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode)).during("chmod", path)?;
        self.apply_time(path)
    }

    fn apply_time(&self, path: &Path) -> Result<()> {
        let time = TimeSpec::new(self.mtime.0, self.mtime.1);
        utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
            .during("set the time of", path)
    }
}

struct Stack {
    /// Top first.
    layers: Vec<(OwnedFd, Row, PathBuf)>,
}

impl Stack {
    fn open(layers: &Layers, diff_ids: &[DiffId]) -> Result<Self> {
        let open = |diff_id: &DiffId| {
            let path = layers.path(diff_id);
            Ok((open_directory(&path)?, layers.required(diff_id)?, path))
        };
        Ok(Self { layers: diff_ids.iter().rev().map(open).collect::<Result<_>>()? })
    }

    /// The attributes that a directory of the merged tree should have; none if it is no directory there.
    fn attributes(&self, directory: &str) -> Result<Option<Attributes>> {
        let mut invented = None;
        for (root, row, path) in &self.layers {
            let (found, opaque) = look(root, directory);
            match found {
                Look::Absent => {}
                Look::Hidden => break,
                Look::Directory(fd) => {
                    let attributes = Attributes::of(&fd, &path.join(directory))?;
                    if !row.implicit.contains(directory) {
                        return Ok(Some(attributes));
                    }
                    invented.get_or_insert(attributes);
                }
            }
            if opaque {
                break;
            }
        }
        Ok(invented)
    }
}

enum Look {
    Absent,
    Hidden,
    Directory(OwnedFd),
}

/// What one layer has at a path, and whether it hides what the layers below have there.
fn look(root: &OwnedFd, directory: &str) -> (Look, bool) {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let mut opaque = is_opaque(root, OsStr::new("."));
    let mut here = match open_beneath_strict(root.as_fd(), ".", flags) {
        Ok(fd) => fd,
        Err(_) => return (Look::Absent, opaque),
    };
    for component in Path::new(directory).components() {
        let name = component.as_os_str();
        let Ok(next) = open_beneath_strict(here.as_fd(), Path::new(name), flags) else {
            return (Look::Absent, opaque);
        };
        if !fstat(&next).is_ok_and(|stat| stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR) {
            return (Look::Hidden, true);
        }
        opaque |= is_opaque(&here, name);
        here = next;
    }
    (Look::Directory(here), opaque)
}

/// The attributes of the root of a stack.
pub(crate) fn root_attributes(layers: &Layers, diff_ids: &[DiffId]) -> Result<Attributes> {
    for diff_id in diff_ids.iter().rev() {
        if !layers.required(diff_id)?.implicit.contains("") {
            let path = layers.path(diff_id);
            return Attributes::of(&open_directory(&path)?, &path);
        }
    }
    Ok(Attributes::plain())
}

/// The lower directories of a stack, top first; never empty.
pub(crate) fn lower_directories(layers: &Layers, diff_ids: &[DiffId]) -> Result<Vec<PathBuf>> {
    let mut lower: Vec<PathBuf> = Vec::with_capacity(diff_ids.len() + 1);
    let mut invented = BTreeSet::new();
    for (position, diff_id) in diff_ids.iter().enumerate() {
        let row = layers.required(diff_id)?;
        // At the bottom there is nothing to hide; the root is seen to by the snapshot itself.
        if position > 0 {
            invented.extend(row.implicit.into_iter().filter(|path| !path.is_empty()));
        }
    }
    if !invented.is_empty() {
        lower.push(fixup(layers, diff_ids, &invented)?);
    }
    // overlayfs takes no directory twice; of a repeated layer (often the empty one) the top mention decides.
    let mut seen = BTreeSet::new();
    lower.extend(diff_ids.iter().rev().filter(|d| seen.insert(*d)).map(|diff_id| layers.path(diff_id)));
    if lower.is_empty() {
        lower.push(layers.shared.empty_layer());
    }
    Ok(lower)
}

/// The directory of a stack's corrections, made if it is not there yet.
fn fixup(layers: &Layers, diff_ids: &[DiffId], invented: &BTreeSet<String>) -> Result<PathBuf> {
    let chain = chain_id(diff_ids).expect("a stack with invented directories has layers");
    let _guard = layers.shared.layer_locks.lock(&format!("fix {chain}"));
    let place = layers.shared.layers_dir().join(format!("fix-{}", chain.hex()));
    if place.is_dir() {
        return Ok(place);
    }
    let stack = Stack::open(layers, diff_ids)?;
    let temporary = layers.shared.temporary("fix-")?;
    let tree = temporary.path().join("tree");
    fs::create_dir(&tree).during("create", &tree)?;
    let mut made = Vec::new();
    for path in with_parents(invented) {
        // Sorted: a parent comes first, and if it is not there neither is what would lie in it.
        let target = tree.join(&path);
        let parent_made = target.parent().is_some_and(Path::is_dir);
        let Some(attributes) = stack.attributes(&path)?.filter(|_| parent_made) else { continue };
        nix::unistd::mkdir(&target, Mode::from_bits_truncate(0o700)).during("create", &target)?;
        made.push((target, attributes));
    }
    for (path, attributes) in made.iter().rev() {
        attributes.apply(path)?;
    }
    root_attributes(layers, diff_ids)?.apply(&tree)?;
    fs::rename(&tree, &place).during("rename to", &place)?;
    Ok(place)
}

fn with_parents(paths: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for path in paths {
        let ancestors = Path::new(path).ancestors().filter(|a| !a.as_os_str().is_empty());
        all.extend(ancestors.map(|a| a.to_string_lossy().into_owned()));
    }
    all
}
