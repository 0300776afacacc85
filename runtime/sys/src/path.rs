//! Path resolution that a hostile directory tree cannot lead astray: `openat2(2)`.
//!
//! Every function takes the root as a descriptor and confines the whole walk to it: absolute symbolic links and
//! `..` are scoped to the root, magic links are refused, a concurrent rename makes the kernel answer `EAGAIN`,
//! which is tried again.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

/// Tries after `EAGAIN` (a rename raced with the walk) before giving up.
const ATTEMPTS: usize = 64;
/// As many symbolic links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

fn open_resolved<P: ?Sized + NixPath>(
    root: BorrowedFd<'_>,
    path: &P,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> Result<OwnedFd, Errno> {
    // openat2 refuses a mode without O_CREAT or O_TMPFILE.
    let creates = flags.intersects(OFlag::O_CREAT | OFlag::O_TMPFILE.difference(OFlag::O_DIRECTORY));
    let mode = if creates { mode } else { Mode::empty() };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    let mut last = Errno::EAGAIN;
    for _ in 0..ATTEMPTS {
        match openat2(root, path, how) {
            Err(error @ (Errno::EAGAIN | Errno::EINTR)) => last = error,
            other => return other,
        }
    }
    Err(last)
}

/// Opens `path` with `root` as the root directory of the walk (`RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`).
/// `O_CLOEXEC` is added. The empty path and `/` mean the root itself.
///
/// # Errors
/// See `openat2(2)`.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let path = path.as_ref();
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open_resolved(root, path, flags, mode, resolve)
}

/// Opens `path` below `dir`; a walk that would leave it fails with `EXDEV`
/// (`RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`).
///
/// # Errors
/// See `openat2(2)`.
pub fn open_beneath(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open_resolved(dir, path.as_ref(), flags, mode, resolve)
}

/// Opens `path` below `dir` without following any symbolic link and without leaving the mount
/// (`RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS`).
///
/// # Errors
/// `ELOOP` on a symbolic link, `EXDEV` on a mount point; see `openat2(2)`.
pub fn open_beneath_strict(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlag,
) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_resolved(dir, path.as_ref(), flags, Mode::empty(), resolve)
}

/// Makes a directory and all parents that lack, inside `root`, and opens it (`O_PATH`).
///
/// A dangling symbolic link in the middle is followed, scoped to the root, and its target is made.
///
/// # Errors
/// `ENOTDIR`, `ELOOP`, and what `mkdirat(2)` and `openat2(2)` say.
pub fn mkdir_all_in_root(root: BorrowedFd<'_>, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd, Errno> {
    mkdir_all(root, path.as_ref(), mode, MAX_LINKS)
}

fn open_dir(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_in_root(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
}

fn mkdir_all(root: BorrowedFd<'_>, path: &Path, mode: Mode, links: usize) -> Result<OwnedFd, Errno> {
    match open_dir(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (mut done, mut dir) = deepest(root, path)?;
    for component in path.components().skip(done.components().count()) {
        let name = match component {
            Component::Normal(name) => name,
            Component::ParentDir => OsStr::new(".."),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        };
        let next = done.join(name);
        dir = match mkdirat(&dir, name, mode) {
            Ok(()) => open_beneath_strict(dir.as_fd(), name, OFlag::O_PATH | OFlag::O_DIRECTORY)?,
            Err(Errno::EEXIST) => match open_dir(root, &next) {
                Err(Errno::ENOENT) => {
                    let target = dangling(&dir, name, &done, links)?;
                    mkdir_all(root, &target, mode, links - 1)?
                }
                other => other?,
            },
            Err(error) => return Err(error),
        };
        done = next;
    }
    Ok(dir)
}

/// The longest proper prefix of `path` that exists, as a relative path without `.`, opened. Mostly only the last
/// component lacks.
fn deepest(root: BorrowedFd<'_>, path: &Path) -> Result<(PathBuf, OwnedFd), Errno> {
    for prefix in path.ancestors().skip(1) {
        match open_dir(root, prefix) {
            Err(Errno::ENOENT) => {}
            other => return Ok((prefix.to_owned(), other?)),
        }
    }
    Err(Errno::ENOENT)
}

/// Where a dangling link `parent/name` points, as a path inside the root.
fn dangling(dir: &OwnedFd, name: &OsStr, parent: &Path, links: usize) -> Result<PathBuf, Errno> {
    if links <= 1 {
        return Err(Errno::ELOOP);
    }
    match readlinkat(dir, name) {
        Ok(target) => Ok(parent.join(target).components().skip_while(|c| *c == Component::RootDir).collect()),
        // Somebody made it a directory meanwhile, or it is gone: walking on will tell.
        Err(Errno::EINVAL) => Ok(parent.join(name)),
        Err(error) => Err(error),
    }
}

/// Opens (`O_PATH`) the file at `path` inside `root`, making an empty one and its parents if there is none.
/// What exists is opened whatever its type.
///
/// # Errors
/// As [`mkdir_all_in_root`].
pub fn create_file_in_root(
    root: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    create_file(root, path.as_ref(), mode, MAX_LINKS)
}

fn create_file(root: BorrowedFd<'_>, path: &Path, mode: Mode, links: usize) -> Result<OwnedFd, Errno> {
    match open_in_root(root, path, OFlag::O_PATH, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let name = path.file_name().ok_or(Errno::EISDIR)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    let dir = mkdir_all(root, parent, Mode::from_bits_truncate(0o755), links)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(&dir, name, flags, mode) {
        Ok(_made) => open_beneath_strict(dir.as_fd(), name, OFlag::O_PATH),
        Err(Errno::EEXIST) => {
            let target = dangling(&dir, name, parent, links)?;
            create_file(root, &target, mode, links - 1)
        }
        Err(error) => Err(error),
    }
}

/// Opens (`O_PATH`) the file `name` of a directory, making an empty one if there is none. What exists is opened whatever
/// its type, but for a symbolic link.
///
/// # Errors
/// `ELOOP` on a symbolic link; see `openat(2)`.
pub fn create_file_in(dir: impl AsFd, name: impl AsRef<OsStr>, mode: Mode) -> Result<OwnedFd, Errno> {
    let (dir, name) = (dir.as_fd(), name.as_ref());
    let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(dir, name, create, mode) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let found = openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFLNK { Err(Errno::ELOOP) } else { Ok(found) }
}

/// The magic link of a descriptor of this process, for the few calls that only take a path.
///
/// Use it only where `/proc` is the host's, that is outside a container's mount namespace.
#[must_use]
pub fn magic_link(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn setup() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        let root = fs::File::open(dir.path().join("root")).unwrap().into();
        (dir, root)
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (dir, root) = setup();
        let inside = dir.path().join("root");
        symlink("../../../../secret", inside.join("up")).unwrap();
        symlink("/secret", inside.join("abs")).unwrap();
        for path in ["up", "abs", "../secret", "/../../secret"] {
            let opened = open_in_root(root.as_fd(), path, OFlag::O_RDONLY, Mode::empty());
            assert_eq!(opened.unwrap_err(), Errno::ENOENT, "{path}");
        }
        let opened = open_beneath(root.as_fd(), "up", OFlag::O_RDONLY, Mode::empty());
        assert_eq!(opened.unwrap_err(), Errno::EXDEV);
        let opened = open_beneath_strict(root.as_fd(), "abs", OFlag::O_RDONLY);
        assert_eq!(opened.unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn magic_links_are_refused() {
        let proc = fs::File::open("/proc").unwrap();
        let opened = open_in_root(proc.as_fd(), "self/root", OFlag::O_PATH, Mode::empty());
        assert_eq!(opened.unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn directories_are_made_through_dangling_links() {
        let (dir, root) = setup();
        let inside = dir.path().join("root");
        fs::create_dir(inside.join("var")).unwrap();
        symlink("/run", inside.join("var/run")).unwrap();
        symlink("../../../escape", inside.join("var/esc")).unwrap();
        mkdir_all_in_root(root.as_fd(), "/var/run/a/b", Mode::from_bits_truncate(0o755)).unwrap();
        assert!(inside.join("run/a/b").is_dir());
        mkdir_all_in_root(root.as_fd(), "var/esc/x", Mode::from_bits_truncate(0o755)).unwrap();
        assert!(inside.join("escape/x").is_dir());
        assert!(!dir.path().join("escape").exists());
        symlink("loop", inside.join("loop")).unwrap();
        let looped = mkdir_all_in_root(root.as_fd(), "loop/x", Mode::empty());
        assert_eq!(looped.unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn files_are_made_with_their_parents() {
        let (dir, root) = setup();
        let inside = dir.path().join("root");
        symlink("/etc/real", inside.join("alias")).unwrap();
        let mode = Mode::from_bits_truncate(0o644);
        create_file_in_root(root.as_fd(), "/a/b/file", mode).unwrap();
        create_file_in_root(root.as_fd(), "alias", mode).unwrap();
        assert!(inside.join("a/b/file").is_file());
        assert!(inside.join("etc/real").is_file());
        symlink("real", inside.join("etc/link")).unwrap();
        let etc = open_in_root(root.as_fd(), "etc", OFlag::O_PATH, Mode::empty()).unwrap();
        for name in ["real", "new"] {
            create_file_in(&etc, name, mode).unwrap();
            assert!(inside.join("etc").join(name).is_file());
        }
        assert_eq!(create_file_in(&etc, "link", mode).unwrap_err(), Errno::ELOOP);
        let under_file = mkdir_all_in_root(root.as_fd(), "a/b/file/x", mode);
        assert_eq!(under_file.unwrap_err(), Errno::ENOTDIR);
    }
}
