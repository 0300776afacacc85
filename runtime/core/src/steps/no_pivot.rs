//! `--no-pivot`: the root file system is moved over `/`, for hosts whose own root cannot be exchanged (a RAM disk).
//!
//! The old root stays, below the new one, and chroot(2) keeps a process from its files only. The kernel lets whoever has a
//! user namespace mount a new procfs or sysfs if its mount namespace has a whole one already, with nothing mounted over
//! parts of it; the host's is one. So those are taken away first.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use berth_sys::mountfd::{self, FsContext, MountAttr};
use berth_sys::{Errno, procfs};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use super::root::name_of;
use crate::error::{Context, Fault};
use crate::init::Init;

impl Init<'_> {
    /// Moves the root file system to `/` and enters it.
    pub(super) fn move_root(&mut self) -> Result<(), Fault> {
        let place = std::fs::read_link(name_of(self.stage.root()?));
        let place = place.map_err(|error| Fault::new(format!("find the root file system: {error}")))?;
        let mountinfo = self.stage.procfs()?.open_file("thread-self/mountinfo", OFlag::O_RDONLY);
        let mountinfo = mountinfo.at(|| "open mountinfo".into())?;
        let mountinfo = procfs::text_of(File::from(mountinfo))
            .map_err(|error| Fault::new(format!("read mountinfo: {error}")))?;
        for mount in whole(&mountinfo).filter(|mount| !mount.starts_with(&place)) {
            take_away(&mount).at(|| format!("hide {} from the container", mount.display()))?;
        }
        let root = self.stage.root()?;
        fchdir(root).at(|| "enter the root file system".into())?;
        let slash = super::open_root().at(|| "open /".into())?;
        mountfd::move_mount(root, &slash).at(|| "move the root file system to /".into())?;
        chroot(".").at(|| "chroot".into())
    }
}

/// Where the whole of a procfs or sysfs is mounted, and not a part of it (proc_pid_mountinfo(5)).
fn whole(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let [root, place] = mount.split(' ').skip(3).take(2).collect::<Vec<_>>().try_into().ok()?;
        let concerned = matches!(filesystem.split(' ').next()?, "proc" | "sysfs");
        (concerned && root == "/").then(|| unescaped(place))
    })
}

/// Spaces and the like stand as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Unmounts it here and nowhere else; where that is not allowed it is covered.
fn take_away(place: &Path) -> Result<(), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mount: OwnedFd = match open(place, flags, Mode::empty()) {
        // It went with another that it was mounted on.
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let slave = MountAttr { propagation: mountfd::propagation::SLAVE, ..MountAttr::default() };
    match mountfd::mount_setattr(&mount, &slave, true) {
        // The same: what is there now is no mount.
        Err(Errno::EINVAL) => return Ok(()),
        other => other?,
    }
    fchdir(&mount)?;
    match umount2(".", MntFlags::MNT_DETACH) {
        // A user's namespace has it from one of root's.
        Err(Errno::EINVAL | Errno::EPERM) => {
            let cover = FsContext::open("tmpfs")?;
            cover.create()?;
            mountfd::move_mount(cover.mount(mountfd::attr::RDONLY)?, &mount)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_mounts_are_found() {
        let mountinfo = "24 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                         25 30 0:23 / /a\\040b\\134 rw - proc proc rw,hidepid=2\n\
                         26 30 0:23 /sys /proc/sys ro - proc proc rw\n\
                         27 24 0:26 / /sys/fs/cgroup rw - tmpfs proc rw\n\
                         nothing\n";
        let found: Vec<_> = whole(mountinfo).collect();
        assert_eq!(found, [Path::new("/sys"), Path::new("/a b\\")]);
    }
}
