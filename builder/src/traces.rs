//! What a container's mounts leave behind in its file system, and taking it away: a layer holds what the command did,
//! not the mount points that the runtime had to make for it.

use std::io;
use std::path::{Path, PathBuf};

use crate::rootdir::{Kind, Meta, RootDir};

/// Mount points that did not exist before the container.
#[derive(Debug)]
pub(crate) struct MountPoints {
    /// Plain paths, parents first.
    absent: Vec<PathBuf>,
    /// Directories that existed and got one of them, with their metadata.
    parents: Vec<(PathBuf, Meta)>,
}

impl MountPoints {
    /// Finds out which parts of `targets` are not there yet.
    pub(crate) fn look(root: &RootDir, targets: impl Iterator<Item = PathBuf>) -> io::Result<Self> {
        let mut points = Self { absent: Vec::new(), parents: Vec::new() };
        for target in targets {
            let plain = root.resolve(&target)?;
            let mut at = PathBuf::new();
            let mut above = root.meta(&at)?;
            for part in &plain {
                let parent = at.clone();
                at.push(part);
                let meta = root.meta(&at)?;
                if meta.is_none() {
                    if let Some(above) = above.take() {
                        points.parents.push((parent, above));
                    }
                    if !points.absent.contains(&at) {
                        points.absent.push(at.clone());
                    }
                }
                above = meta;
            }
        }
        Ok(points)
    }

    /// Removes them, unless the command made something of them: a file with contents, a directory with entries.
    pub(crate) fn remove(&self, root: &RootDir) -> io::Result<()> {
        for path in self.absent.iter().rev() {
            match root.meta(path)? {
                Some(meta) if meta.is_dir() && root.read_dir(path)?.is_empty() => root.rmdir(path)?,
                Some(meta) if meta.kind == Kind::File && meta.size == 0 => root.unlink(path)?,
                _ => {}
            }
        }
        for (path, meta) in self.parents.iter().rev() {
            if root.meta(path)?.is_some_and(|now| now.is_dir()) {
                root.set_mtime(path, meta.mtime)?;
            }
        }
        Ok(())
    }

    /// Making a mount point copied the directory it is in up from below. If nothing else happened there, the copy
    /// goes. Only while the snapshot is not mounted.
    pub(crate) fn forget_copies(&self, upper: &Path) -> io::Result<()> {
        let root = RootDir::open_host(upper)?;
        for (path, before) in self.parents.iter().rev().filter(|(path, _)| !path.as_os_str().is_empty()) {
            let Some(now) = root.meta(path)?.filter(Meta::is_dir) else { continue };
            let same = (now.mode, now.uid, now.gid, now.mtime)
                == (before.mode, before.uid, before.gid, before.mtime);
            if same && root.read_dir(path)?.is_empty() && !is_opaque(&root, path)? {
                root.rmdir(path)?;
            }
        }
        Ok(())
    }
}

/// Whether a directory hides what lies below it.
fn is_opaque(root: &RootDir, path: &Path) -> io::Result<bool> {
    use xattr::FileExt;
    let dir = std::fs::File::from(root.open_dir(path)?);
    Ok(dir.get_xattr("trusted.overlay.opaque")?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_untouched_mount_points_go() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let root = RootDir::open_host(dir.path()).unwrap();
        let targets = ["/etc/hosts", "/proc", "/a/b/c", "/used", "/etc/kept"].map(PathBuf::from);
        let points = MountPoints::look(&root, targets.into_iter()).unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::create_dir(dir.path().join("proc")).unwrap();
        fs::create_dir(dir.path().join("used")).unwrap();
        for (file, text) in [("etc/hosts", ""), ("etc/kept", "x"), ("used/f", "")] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        points.remove(&root).unwrap();
        let left = |path: &str| dir.path().join(path).exists();
        assert!(!left("a") && !left("proc") && !left("etc/hosts"));
        assert!(left("etc/kept") && left("used/f"));
    }
}
