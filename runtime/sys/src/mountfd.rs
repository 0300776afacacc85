//! The file-descriptor mount API: `fsopen`, `fsconfig`, `fsmount`, `open_tree`, `move_mount`, `mount_setattr`
//! (Linux 5.2, 5.12; manual pages of the same names).
//!
//! A detached mount lives as long as its descriptor: nothing appears in any mount table until
//! [`move_mount`], and nothing has to be unmounted if the process dies before.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::path::magic_link;

/// Mount attributes, `MOUNT_ATTR_*` of `<linux/mount.h>`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x01;
    /// No set-user-id programs.
    pub const NOSUID: u64 = 0x02;
    /// No device files.
    pub const NODEV: u64 = 0x04;
    /// No programs.
    pub const NOEXEC: u64 = 0x08;
    /// The mask of the access-time modes.
    pub const ATIME_MASK: u64 = 0x70;
    /// Access times as `relatime` does (the zero of the mask).
    pub const RELATIME: u64 = 0x00;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// All access times.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times on directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Mapped ids; needs a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Propagation types for [`MountAttr::propagation`], `MS_*` of `mount(2)`.
pub mod propagation {
    /// `MS_UNBINDABLE`.
    pub const UNBINDABLE: u64 = 1 << 17;
    /// `MS_PRIVATE`.
    pub const PRIVATE: u64 = 1 << 18;
    /// `MS_SLAVE`.
    pub const SLAVE: u64 = 1 << 19;
    /// `MS_SHARED`.
    pub const SHARED: u64 = 1 << 20;
}

/// `ST_RELATIME` of `<linux/statfs.h>`, which not every C library names.
const ST_RELATIME: libc::c_ulong = 0x1000;

/// The longest value `fsconfig(2)` takes as a string (it copies 256 bytes with the end).
pub const MAX_STRING: usize = 255;

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;

fn cstring(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

/// A file system under configuration (`fsopen(2)`).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Opens a file system type by name.
    ///
    /// # Errors
    /// `ENODEV` if the kernel does not know the type; see `fsopen(2)`.
    pub fn open(fstype: &str) -> Result<Self, Errno> {
        let name = cstring(fstype)?;
        // SAFETY: `name` is a terminated string that lives across the call.
        let ret = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
        crate::own_fd(ret).map(Self)
    }

    fn config(
        &self,
        command: libc::c_uint,
        key: Option<&str>,
        value: Option<&str>,
        aux: libc::c_int,
    ) -> Result<(), Errno> {
        let key = key.map(cstring).transpose()?;
        let value = value.map(cstring).transpose()?;
        let key_ptr = key.as_ref().map_or(std::ptr::null(), |k| k.as_ptr());
        let value_ptr = value.as_ref().map_or(std::ptr::null(), |v| v.as_ptr());
        let fd = self.0.as_raw_fd();
        // SAFETY: both pointers are null or point to terminated strings that live across the call.
        let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key_ptr, value_ptr, aux) };
        Errno::result(ret).map(drop)
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// See `fsconfig(2)`.
    pub fn set_string(&self, key: &str, value: &str) -> Result<(), Errno> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// Sets `key` to the path of something that exists. One that is longer than a string may be, or no text, is named
    /// through a descriptor; the file system looks it up at once and keeps what it finds.
    ///
    /// # Errors
    /// See `open(2)` and `fsconfig(2)`.
    pub fn set_path(&self, key: &str, path: &Path) -> Result<(), Errno> {
        match path.to_str().filter(|text| text.len() <= MAX_STRING) {
            Some(text) => self.set_string(key, text),
            None => {
                let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
                let fd = nix::fcntl::open(path, flags, Mode::empty())?;
                self.set_string(key, &magic_link(&fd).to_string_lossy())
            }
        }
    }

    /// Sets a flag without a value.
    ///
    /// # Errors
    /// See `fsconfig(2)`.
    pub fn set_flag(&self, key: &str) -> Result<(), Errno> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// Sets a descriptor.
    ///
    /// # Errors
    /// See `fsconfig(2)`.
    pub fn set_fd(&self, key: &str, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.config(FSCONFIG_SET_FD, Some(key), None, fd.as_raw_fd())
    }

    /// Applies mount(2)-style data, `a,b=c`.
    ///
    /// # Errors
    /// See `fsconfig(2)`; the option at fault is found in [`Self::log`].
    pub fn set_data(&self, data: &str) -> Result<(), Errno> {
        for option in data.split(',').filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => self.set_string(key, value)?,
                None => self.set_flag(option)?,
            }
        }
        Ok(())
    }

    /// Makes the superblock.
    ///
    /// # Errors
    /// See `fsconfig(2)`.
    pub fn create(&self) -> Result<(), Errno> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    /// Makes a detached mount of the superblock with attributes of [`attr`].
    ///
    /// # Errors
    /// See `fsmount(2)`.
    pub fn mount(&self, attrs: u64) -> Result<OwnedFd, Errno> {
        let attrs = libc::c_uint::try_from(attrs).map_err(|_| Errno::EINVAL)?;
        // SAFETY: three integers, no memory of ours.
        let ret = unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attrs) };
        crate::own_fd(ret)
    }

    /// What the file system had to say, one message a line; empty if nothing.
    #[must_use]
    pub fn log(&self) -> String {
        let mut lines = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(n @ 1..) = nix::unistd::read(&self.0, &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..n]);
            // Each message begins with its level: "e ", "w " or "i ".
            lines.push(line.get(2..).unwrap_or(&line).trim_end().to_owned());
        }
        lines.join("; ")
    }
}

/// Attributes to change on a mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr<'a> {
    /// [`attr`] bits to set.
    pub set: u64,
    /// [`attr`] bits to clear (the access-time mode must be cleared as a whole, [`attr::ATIME_MASK`]).
    pub clear: u64,
    /// One of [`propagation`], or 0 to keep.
    pub propagation: u64,
    /// User namespace of an id-mapped mount; adds [`attr::IDMAP`].
    pub userns: Option<BorrowedFd<'a>>,
}

/// `struct mount_attr` of `<linux/mount.h>`.
#[repr(C)]
pub(crate) struct RawMountAttr {
    pub(crate) attr_set: u64,
    pub(crate) attr_clr: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// Changes attributes of the mount whose root is `mount`; with `recursive`, of all below too, all or none.
///
/// # Errors
/// See `mount_setattr(2)`.
pub fn mount_setattr(mount: impl AsFd, change: &MountAttr<'_>, recursive: bool) -> Result<(), Errno> {
    let idmap = if change.userns.is_some() { attr::IDMAP } else { 0 };
    let mut raw = RawMountAttr {
        attr_set: change.set | idmap,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: change.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    let size = size_of::<RawMountAttr>();
    let attrs = std::ptr::from_mut(&mut raw);
    // SAFETY: the path is a terminated string, `attrs` points to a live structure of `size` bytes.
    let ret = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, attrs, size) };
    Errno::result(ret).map(drop)
}

/// The attributes of the mount a file is on, of [`attr`]: those of `statfs(2)`, which all kernels tell.
///
/// # Errors
/// See `fstatfs(2)`.
pub fn attributes(file: impl AsFd) -> Result<u64, Errno> {
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the call fills one statvfs, which lives across it.
    let ret = unsafe { libc::fstatvfs(file.as_fd().as_raw_fd(), found.as_mut_ptr()) };
    Errno::result(ret)?;
    // SAFETY: it was filled, for the call succeeded.
    let flags = unsafe { found.assume_init() }.f_flag;
    let named = [
        (libc::ST_RDONLY, attr::RDONLY),
        (libc::ST_NOSUID, attr::NOSUID),
        (libc::ST_NODEV, attr::NODEV),
        (libc::ST_NOEXEC, attr::NOEXEC),
        (libc::ST_NOATIME, attr::NOATIME),
        (libc::ST_NODIRATIME, attr::NODIRATIME),
    ];
    let set = named.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, bit)| all | bit);
    let strict = flags & (libc::ST_NOATIME | ST_RELATIME) == 0;
    Ok(if strict { set | attr::STRICTATIME } else { set })
}

/// Attaches a detached mount (or moves an attached one) onto what `to` refers to.
///
/// # Errors
/// See `move_mount(2)`.
pub fn move_mount(mount: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let (from, to) = (mount.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are terminated static strings; the rest are integers.
    let ret = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    Errno::result(ret).map(drop)
}

/// What [`open_tree`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// The path itself, as `O_PATH` would.
    Open,
    /// A detached bind mount of it.
    Clone,
    /// A detached bind mount of it and of all mounts below.
    CloneRecursive,
}

/// Opens a path as a mount object. An empty path means `dir` itself; symbolic links are followed.
///
/// # Errors
/// See `open_tree(2)`.
pub fn open_tree<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, path: &P, tree: Tree) -> Result<OwnedFd, Errno> {
    let mut flags = OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    flags |= match tree {
        Tree::Open => 0,
        Tree::Clone => OPEN_TREE_CLONE,
        Tree::CloneRecursive => OPEN_TREE_CLONE | libc::AT_RECURSIVE as libc::c_uint,
    };
    let ret = path.with_nix_path(|path| {
        // SAFETY: `path` is a terminated string that lives across the call; the rest are integers.
        unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }
    })?;
    crate::own_fd(ret)
}

/// A detached bind mount of what `fd` refers to.
///
/// # Errors
/// See `open_tree(2)`.
pub fn clone_of(fd: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let tree = if recursive { Tree::CloneRecursive } else { Tree::Clone };
    open_tree(fd.as_fd(), c"", tree)
}

/// An overlay to mount.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Lower directories, the top-most first.
    pub lower: &'a [&'a Path],
    /// Upper directory; without one the overlay is read-only.
    pub upper: Option<&'a Path>,
    /// Work directory, on the same file system as `upper`.
    pub work: Option<&'a Path>,
    /// Further options as `key=value` or a flag, e.g. `("xino", Some("off"))`, `("userxattr", None)`.
    pub options: &'a [(&'a str, Option<&'a str>)],
    /// Mount attributes of [`attr`].
    pub attrs: u64,
}

/// An overlay could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("mount overlay: {operation}: {errno}{}", if log.is_empty() { String::new() } else { format!(" ({log})") })]
pub struct OverlayError {
    /// The call and its argument.
    pub operation: String,
    /// The kernel's answer.
    pub errno: Errno,
    /// The kernel's explanation, if it gave one.
    pub log: String,
}

impl From<OverlayError> for std::io::Error {
    fn from(error: OverlayError) -> Self {
        Self::new(Self::from(error.errno).kind(), error)
    }
}

/// Mounts an overlay, detached.
///
/// Lower directories are given one by one (`lowerdir+`, Linux 6.8: no limit of a page, no escaping). An older kernel
/// takes that name at first and refuses it only when the superblock is made; it gets the options as `mount(2)` has them.
///
/// # Errors
/// The call that failed, and the kernel's own explanation.
pub fn overlay(overlay: &Overlay<'_>) -> Result<OwnedFd, OverlayError> {
    match overlay_by_context(overlay) {
        Err(first) if first.errno == Errno::EINVAL && !first.operation.contains("dir=") => {
            // If that is refused too, the first refusal is the one that explains.
            overlay_by_page(overlay).map_err(|_| first)
        }
        other => other,
    }
}

fn overlay_by_context(overlay: &Overlay<'_>) -> Result<OwnedFd, OverlayError> {
    let plain = |operation: String| move |errno| OverlayError { operation, errno, log: String::new() };
    let fs = FsContext::open("overlay").map_err(plain("fsopen".into()))?;
    let fail = |operation: String| |errno| OverlayError { operation, errno, log: fs.log() };
    let set = |key: &str, path: &Path| -> Result<(), OverlayError> {
        let operation = format!("fsconfig {key}={}", path.display());
        fs.set_path(key, path).map_err(fail(operation))
    };
    for lower in overlay.lower {
        set("lowerdir+", lower)?;
    }
    if let Some(upper) = overlay.upper {
        set("upperdir", upper)?;
    }
    if let Some(work) = overlay.work {
        set("workdir", work)?;
    }
    for (key, value) in overlay.options {
        let operation = format!("fsconfig {key}={}", value.unwrap_or_default());
        match value {
            Some(value) => fs.set_string(key, value),
            None => fs.set_flag(key),
        }
        .map_err(fail(operation))?;
    }
    // What mounts are told to be of; programs look for this name.
    fs.set_string("source", "overlay").map_err(fail("fsconfig source".into()))?;
    fs.create().map_err(fail("fsconfig create".into()))?;
    fs.mount(overlay.attrs).map_err(fail("fsmount".into()))
}

/// For kernels before 6.8, whose one `lowerdir` is too long for a string of `fsconfig(2)` with three layers already.
/// `mount(2)` takes a page of options, which is enough for some two hundred directories named by their descriptors. It
/// needs a place: one in a mount namespace of a thread's own, which ends with the thread; what stays is a detached clone.
fn overlay_by_page(overlay: &Overlay<'_>) -> Result<OwnedFd, OverlayError> {
    let make = || -> Result<OwnedFd, OverlayError> {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare the mounts of a thread"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).map_err(failed("make the mounts of a thread private"))?;
        // Opened in here: the kernel takes no directory of another mount namespace.
        let (options, _open) = page_of_options(overlay)?;
        mount(Some("overlay"), PLACE, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(failed("mount the overlay"))?;
        open_tree(AT_FDCWD, PLACE, Tree::Clone).map_err(failed("open the overlay"))
    };
    let root = std::thread::scope(|scope| scope.spawn(make).join().expect("no thread of mounts panics"))?;
    if overlay.attrs != 0 {
        let change = MountAttr { set: overlay.attrs, ..MountAttr::default() };
        mount_setattr(&root, &change, false).map_err(failed("mount_setattr"))?;
    }
    Ok(root)
}

fn failed(operation: &str) -> impl Fn(Errno) -> OverlayError {
    move |errno| OverlayError { operation: operation.to_owned(), errno, log: String::new() }
}

/// The options as `mount(2)` takes them, and the descriptors that they name.
fn page_of_options(overlay: &Overlay<'_>) -> Result<(String, Vec<OwnedFd>), OverlayError> {
    let mut opened = Vec::new();
    let mut name = |path: &Path| -> Result<String, OverlayError> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(failed(&format!("open {}", path.display())))?;
        let link = magic_link(&fd).to_string_lossy().into_owned();
        opened.push(fd);
        Ok(link)
    };
    let lower = overlay.lower.iter().map(|path| name(path)).collect::<Result<Vec<_>, _>>()?;
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    for (key, path) in [("upperdir", overlay.upper), ("workdir", overlay.work)] {
        if let Some(path) = path {
            options.push(format!("{key}={}", name(path)?));
        }
    }
    options.extend(overlay.options.iter().map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => (*key).to_owned(),
    }));
    Ok((options.join(","), opened))
}

/// Where a thread mounts something in a namespace of its own; a directory that every system has, and nobody needs there.
const PLACE: &str = "/sys";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::open_in_root;
    use std::fs;
    use std::io::Read;

    fn tmpfs() -> OwnedFd {
        let fs = FsContext::open("tmpfs").unwrap();
        fs.set_data("size=1m,mode=0700").unwrap();
        fs.create().unwrap();
        fs.mount(attr::NODEV).unwrap()
    }

    fn read(root: &OwnedFd, path: &str) -> Result<String, Errno> {
        let fd = open_in_root(root.as_fd(), path, OFlag::O_RDONLY, Mode::empty())?;
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text).unwrap();
        Ok(text)
    }

    fn write(root: &OwnedFd, path: &str) -> Result<(), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        open_in_root(root.as_fd(), path, flags, Mode::from_bits_truncate(0o600)).map(drop)
    }

    #[test]
    fn overlay_orders_layers_and_keeps_writes_in_upper() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (top, odd, upper, work) = (make("top"), make("a:b,c"), make("upper"), make("work"));
        fs::write(top.join("both"), "top").unwrap();
        fs::write(odd.join("both"), "bottom").unwrap();
        fs::write(odd.join("below"), "below").unwrap();
        for way in [overlay_by_context, overlay_by_page] {
            let request = Overlay {
                lower: &[&top, &odd],
                upper: Some(&upper),
                work: Some(&work),
                options: &[],
                attrs: 0,
            };
            let root = way(&request).unwrap();
            assert_eq!(read(&root, "both").unwrap(), "top");
            assert_eq!(read(&root, "below").unwrap(), "below");
            write(&root, "new").unwrap();
        }
        assert!(upper.join("new").exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "the mount must stay detached");
    }

    #[test]
    fn overlay_of_as_many_layers_as_an_image_may_have() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<_> = (0..128).map(|n| dir.path().join(format!("{n:064}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join(format!("f{n}")), "x").unwrap();
        }
        let lower: Vec<&Path> = layers.iter().map(std::path::PathBuf::as_path).collect();
        for way in [overlay_by_context, overlay_by_page] {
            let request =
                Overlay { lower: &lower, upper: None, work: None, options: &[], attrs: attr::RDONLY };
            let root = way(&request).unwrap();
            assert_eq!(read(&root, "f0").unwrap() + &read(&root, "f127").unwrap(), "xx");
            assert_eq!(write(&root, "new"), Err(Errno::EROFS));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("overlay /sys"), "the mount is in no table that anybody sees");
    }

    #[test]
    fn overlay_takes_paths_of_any_length_and_kind() {
        use std::os::unix::ffi::OsStringExt;
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
        let odd = deep.join(std::ffi::OsString::from_vec(b"\xff:,\\".to_vec()));
        let (upper, work) = (deep.join("upper"), deep.join("work"));
        for path in [&odd, &upper, &work] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(odd.join("below"), "below").unwrap();
        let request =
            Overlay { lower: &[&odd], upper: Some(&upper), work: Some(&work), options: &[], attrs: 0 };
        for way in [overlay_by_context, overlay_by_page] {
            let root = way(&request).unwrap();
            assert_eq!(read(&root, "below").unwrap(), "below");
            write(&root, "new").unwrap();
        }
        assert!(upper.join("new").exists());
    }

    #[test]
    fn overlay_error_names_the_directory() {
        let missing = Path::new("/nonexistent/lower");
        let request = Overlay { lower: &[missing], upper: None, work: None, options: &[], attrs: 0 };
        let error = overlay(&request).unwrap_err();
        assert_eq!(error.errno, Errno::ENOENT);
        assert!(error.to_string().contains("/nonexistent/lower"), "{error}");
    }

    #[test]
    fn attributes_and_clones() {
        let mount = tmpfs();
        write(&mount, "file").unwrap();
        let clone = clone_of(&mount, true).unwrap();
        let change = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
        mount_setattr(&clone, &change, true).unwrap();
        assert_eq!(write(&clone, "file"), Err(Errno::EROFS));
        write(&mount, "file").unwrap();
    }

    #[test]
    fn the_kernel_explains_a_bad_option() {
        let fs = FsContext::open("tmpfs").unwrap();
        assert_eq!(fs.set_data("size=1m,nonsense=1"), Err(Errno::EINVAL));
        assert!(fs.log().contains("nonsense"));
    }
}
