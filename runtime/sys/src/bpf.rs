//! Device control of cgroup v2: `BPF_PROG_TYPE_CGROUP_DEVICE` programs (`bpf(2)`).
//!
//! The program itself (rules to instructions) is made by the cgroup crate; here it is loaded and attached.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// The kernel's limit of programs on one cgroup.
const MAX_PROGRAMS: usize = 64;

/// One eBPF instruction, `struct bpf_insn` of `<linux/bpf.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInsn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub regs: u8,
    /// Offset.
    pub off: i16,
    /// Immediate operand.
    pub imm: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` for this command, zero-extended by the kernel to its own
    // size, and lives across the call; pointers inside it are set by the callers in this module only.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(ret)
}

/// Loads a device program.
///
/// # Errors
/// `EINVAL`/`EACCES` if the verifier refuses it; `EPERM` without the capability; see `bpf(2)`.
pub fn load_device_program(program: &[BpfInsn]) -> Result<OwnedFd, Errno> {
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        ..LoadAttr::default()
    };
    crate::own_fd(bpf(BPF_PROG_LOAD, &mut attr)?)
}

/// Attaches a device program to a cgroup v2 directory, beside those that are there.
///
/// # Errors
/// `EBADF` if the directory is not of a cgroup v2; see `bpf(2)`.
pub fn attach_device(cgroup: impl AsFd, program: impl AsFd) -> Result<(), Errno> {
    change(BPF_PROG_ATTACH, cgroup.as_fd(), program.as_fd(), BPF_F_ALLOW_MULTI)
}

/// Detaches a device program from a cgroup.
///
/// # Errors
/// `ENOENT` if it is not attached.
pub fn detach_device(cgroup: impl AsFd, program: impl AsFd) -> Result<(), Errno> {
    change(BPF_PROG_DETACH, cgroup.as_fd(), program.as_fd(), 0)
}

fn change(
    command: libc::c_int,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: flags,
    };
    bpf(command, &mut attr).map(drop)
}

/// The device programs attached to a cgroup itself.
///
/// # Errors
/// See `bpf(2)`.
pub fn attached_device_programs(cgroup: impl AsFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let count = (attr.prog_cnt as usize).min(MAX_PROGRAMS);
    ids[..count].iter().map(|id| program_by_id(*id)).collect()
}

fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = IdAttr { id, ..IdAttr::default() };
    crate::own_fd(bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOV_IMM_R0: u8 = 0xb7;
    const EXIT: u8 = 0x95;

    #[test]
    fn loads_attaches_lists_and_detaches() {
        let mount = match std::fs::metadata("/sys/fs/cgroup/cgroup.controllers") {
            Ok(_) => "/sys/fs/cgroup",
            Err(_) => "/sys/fs/cgroup/unified",
        };
        let dir = tempfile::Builder::new().prefix("berth-bpf-").tempdir_in(mount).unwrap();
        let cgroup = std::fs::File::open(dir.path()).unwrap();
        let allow = [
            BpfInsn { code: MOV_IMM_R0, regs: 0, off: 0, imm: 1 },
            BpfInsn { code: EXIT, regs: 0, off: 0, imm: 0 },
        ];
        let outcome = load_device_program(&allow).and_then(|program| {
            attach_device(&cgroup, &program)?;
            let attached = attached_device_programs(&cgroup)?.len();
            detach_device(&cgroup, &program)?;
            Ok((attached, attached_device_programs(&cgroup)?.len()))
        });
        // TempDir cannot delete a cgroup directory recursively (its files are not removable).
        let path = dir.keep();
        std::fs::remove_dir(&path).unwrap();
        match outcome {
            Ok(counts) => assert_eq!(counts, (1, 0)),
            Err(errno) => assert!(
                matches!(errno, Errno::ENOSYS | Errno::EINVAL),
                "only a kernel without CONFIG_CGROUP_BPF may refuse: {errno}"
            ),
        }
    }

    #[test]
    fn the_verifier_is_asked() {
        let no_exit = [BpfInsn { code: MOV_IMM_R0, regs: 0, off: 0, imm: 1 }];
        assert!(load_device_program(&no_exit).is_err());
    }
}
