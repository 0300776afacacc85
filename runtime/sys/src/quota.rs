//! Project quotas: a bound for what a tree of files may take (`quotactl(2)`, `ioctl_xfs_fsgetxattr(2)`).
//!
//! A file belongs to a project, by its number; what is made in a directory that hands its project on belongs to it as well.
//! File systems that know them: ext4 mounted with `prjquota`, xfs with `pquota`. Linux 5.14 or newer.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

// _IOR('X', 31, struct fsxattr), _IOW('X', 32, struct fsxattr)
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
/// What is made in this directory gets its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// The kind of quota, of linux/quota.h.
const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// `XQM_CMD(8)` of linux/dqblk_xfs.h, which all file systems answer.
const Q_XGETQSTATV: u32 = 0x5808;
const FS_QSTATV_VERSION1: u8 = 1;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
/// Bytes of a block in which bounds are given.
const BLOCK: u64 = 1024;

/// What a project may take, and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that it may take; 0 is no bound.
    pub limit: u64,
    /// Bytes that it takes.
    pub space: u64,
    /// Files that it has.
    pub files: u64,
}

fn attributes(file: impl AsFd) -> Result<FsXattr, Errno> {
    let mut found = FsXattr::default();
    // SAFETY: FS_IOC_FSGETXATTR writes one struct fsxattr, whose layout FsXattr has, and which lives across the call.
    let ret =
        unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR, std::ptr::from_mut(&mut found)) };
    Errno::result(ret)?;
    Ok(found)
}

/// The project of a file; 0 is none.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system has none.
pub fn project(file: impl AsFd) -> Result<u32, Errno> {
    attributes(file).map(|found| found.project)
}

/// Gives a directory to a project, and with it all that is made in it from now on.
///
/// # Errors
/// As [`project`]; `EINVAL` inside of a user namespace.
pub fn set_project(directory: impl AsFd, project: u32) -> Result<(), Errno> {
    let found = attributes(&directory)?;
    let wanted = FsXattr { flags: found.flags | FS_XFLAG_PROJINHERIT, project, ..found };
    // SAFETY: FS_IOC_FSSETXATTR reads one struct fsxattr, whose layout FsXattr has, and which lives across the call.
    let ret =
        unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), FS_IOC_FSSETXATTR, std::ptr::from_ref(&wanted)) };
    Errno::result(ret).map(drop)
}

/// Whether the file system of this file holds projects to their bounds.
///
/// # Errors
/// `ENOSYS` where it knows no quotas, `EOPNOTSUPP` or `EINVAL` where they are off, `EPERM`.
pub fn is_enforced(file: impl AsFd) -> Result<bool, Errno> {
    // struct fs_quota_statv is 160 bytes: version, a byte, the flags, counters.
    let mut state = [0_u8; 256];
    state[0] = FS_QSTATV_VERSION1;
    // SAFETY: Q_XGETQSTATV reads the version and writes at most one struct fs_quota_statv, which the buffer has room for.
    unsafe { quotactl(file, Q_XGETQSTATV, 0, state.as_mut_ptr().cast()) }?;
    Ok(u16::from_ne_bytes([state[2], state[3]]) & FS_QUOTA_PDQ_ENFD != 0)
}

/// What a project of the file system of this file may take and takes.
///
/// # Errors
/// As [`is_enforced`].
pub fn usage(file: impl AsFd, project: u32) -> Result<Usage, Errno> {
    let mut found = empty();
    // SAFETY: Q_GETQUOTA writes one struct if_dqblk, which libc calls dqblk, and which lives across the call.
    match unsafe { quotactl(file, Q_GETQUOTA, project, std::ptr::from_mut(&mut found).cast()) } {
        // xfs knows no project that never had anything.
        Err(Errno::ENOENT) => return Ok(Usage::default()),
        other => other?,
    }
    Ok(Usage { limit: found.dqb_bhardlimit * BLOCK, space: found.dqb_curspace, files: found.dqb_curinodes })
}

/// Bounds a project to so many bytes; 0 takes the bound away.
///
/// # Errors
/// As [`is_enforced`].
pub fn set_limit(file: impl AsFd, project: u32, bytes: u64) -> Result<(), Errno> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut wanted = libc::dqblk {
        dqb_bhardlimit: blocks,
        dqb_bsoftlimit: blocks,
        dqb_valid: libc::QIF_BLIMITS,
        ..empty()
    };
    // SAFETY: Q_SETQUOTA reads one struct if_dqblk, which libc calls dqblk, and which lives across the call.
    unsafe { quotactl(file, Q_SETQUOTA, project, std::ptr::from_mut(&mut wanted).cast()) }
}

fn empty() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

/// `quotactl_fd(2)` for projects.
///
/// # Safety
/// `address` is what the command takes: it reads or writes there.
unsafe fn quotactl(
    file: impl AsFd,
    command: u32,
    project: u32,
    address: *mut libc::c_void,
) -> Result<(), Errno> {
    let command = command << 8 | PRJQUOTA;
    // SAFETY: the caller's address is right for the command; the other arguments are values.
    let ret =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_fd().as_raw_fd(), command, project, address) };
    Errno::result(ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<FsXattr>(), 28);
        assert_eq!(std::mem::offset_of!(FsXattr, project), 12);
        assert_eq!(std::mem::offset_of!(libc::dqblk, dqb_valid), 64);
    }

    #[test]
    fn a_file_system_without_quotas_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(is_enforced(&proc).is_err());
        assert!(project(&proc).is_err());
    }
}
