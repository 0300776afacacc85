//! `tmpcopyup`: what the image has at a place, copied into the tmpfs that covers it.
//!
//! By descriptors and single names: others may write to the image meanwhile, and this runs where the host's paths are.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::Errno;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

const OPEN_DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Copies the content of a directory with owners and modes. Sockets, pipes and devices of an image mean nothing in a
/// fresh tmpfs and are left out.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut list = Dir::openat(from, ".", OPEN_DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in list.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    names.iter().try_for_each(|name| copy_entry(list.as_fd(), to, name))
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFLNK => {
            symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
            fchownat(to, name, owner(&stat), group(&stat), AtFlags::AT_SYMLINK_NOFOLLOW)
        }
        SFlag::S_IFDIR => {
            let source = openat(from, name, OPEN_DIRECTORY, Mode::empty())?;
            mkdirat(to, name, Mode::S_IRWXU)?;
            let made = openat(to, name, OPEN_DIRECTORY, Mode::empty())?;
            copy(source.as_fd(), made.as_fd())?;
            give(&made, &source)
        }
        SFlag::S_IFREG => {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let source = openat(from, name, flags, Mode::empty())?;
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let made = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
            give(&made, &source)?;
            std::io::copy(&mut File::from(source), &mut File::from(made))
                .map(drop)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        }
        _ => Ok(()),
    }
}

/// The owner and mode of `source` for the copy; the mode last, for a change of owner takes bits away.
fn give(made: &OwnedFd, source: &OwnedFd) -> Result<(), Errno> {
    let stat = fstat(source)?;
    fchown(made, owner(&stat), group(&stat))?;
    fchmod(made, Mode::from_bits_truncate(stat.st_mode))
}

fn owner(stat: &FileStat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

fn group(stat: &FileStat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}
