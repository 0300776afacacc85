//! A part of a stack of layers, as overlayfs would merge it: which directories it consists of, or which file it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::rootdir::{Kind, Meta, RootDir};

/// What lies at a path of a stack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A directory: the directories that it is merged of, top first.
    Directories(Vec<PathBuf>),
    /// Anything else.
    File(PathBuf),
}

/// Finds the part at a plain path of the merged tree. `lower`: the stack, top first.
pub(crate) fn part(lower: &[PathBuf], path: &Path) -> io::Result<Part> {
    let mut found = Vec::new();
    for layer in lower {
        let root = RootDir::open_host(layer)?;
        match look(&root, path)? {
            Look::Absent { hidden: false } => {}
            Look::Absent { hidden: true } => break,
            Look::Directory { hides } => {
                found.push(layer.join(path));
                if hides {
                    break;
                }
            }
            Look::File if found.is_empty() => return Ok(Part::File(layer.join(path))),
            Look::File => break,
        }
    }
    match found.is_empty() {
        true => Err(io::Error::from(io::ErrorKind::NotFound)),
        false => Ok(Part::Directories(found)),
    }
}

enum Look {
    /// Not in this layer; `hidden`: nor in those below.
    Absent {
        hidden: bool,
    },
    /// `hides`: what is below does not show through.
    Directory {
        hides: bool,
    },
    File,
}

fn look(root: &RootDir, path: &Path) -> io::Result<Look> {
    let mut at = PathBuf::new();
    let mut hides = is_opaque(root, &at)?;
    for part in path {
        at.push(part);
        match root.meta(&at)? {
            None => return Ok(Look::Absent { hidden: hides }),
            Some(meta) if meta.is_dir() => hides |= is_opaque(root, &at)?,
            Some(meta) if is_whiteout(&meta) || at != path => return Ok(Look::Absent { hidden: true }),
            Some(_) => return Ok(Look::File),
        }
    }
    Ok(Look::Directory { hides })
}

fn is_whiteout(meta: &Meta) -> bool {
    meta.kind == Kind::CharDevice && meta.device == 0
}

fn is_opaque(root: &RootDir, path: &Path) -> io::Result<bool> {
    use xattr::FileExt;
    let dir = File::from(root.open_dir(path)?);
    Ok(dir.get_xattr("trusted.overlay.opaque")?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, SFlag, mknod};
    use std::fs;

    #[test]
    fn layers_hide_what_is_below() {
        let dir = tempfile::tempdir().unwrap();
        let stack: Vec<PathBuf> = ["top", "mid", "low"].map(|name| dir.path().join(name)).into();
        for (layer, made) in [("top", "a"), ("mid", "a/b"), ("low", "a/b"), ("mid", "o"), ("low", "o")] {
            fs::create_dir_all(dir.path().join(layer).join(made)).unwrap();
        }
        fs::write(stack[2].join("f"), "").unwrap();
        fs::write(stack[2].join("gone"), "").unwrap();
        mknod(&stack[1].join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        xattr::set(stack[1].join("o"), "trusted.overlay.opaque", b"y").unwrap();
        let at = |path: &str| part(&stack, Path::new(path)).ok();
        assert_eq!(at("").unwrap(), Part::Directories(stack.clone()));
        assert_eq!(at("a/b").unwrap(), Part::Directories(vec![stack[1].join("a/b"), stack[2].join("a/b")]));
        assert_eq!(at("o").unwrap(), Part::Directories(vec![stack[1].join("o")]));
        assert_eq!(at("f").unwrap(), Part::File(stack[2].join("f")));
        assert_eq!(at("gone"), None);
    }
}
