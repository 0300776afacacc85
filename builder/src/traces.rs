//! What a container's mounts leave behind in its file system, and taking it away: a layer holds what the command did,
//! not the mount points that the runtime had to make for it.

use std::io;
use std::path::PathBuf;

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
