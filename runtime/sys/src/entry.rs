//! [`crate::exe::seal`] before the C library is set up, for programs linked with `--entry=berth_entry` (the Makefile does).
//!
//! A program that seals itself is started twice. The first start only has to make the second, but the C library's set-up
//! comes before `main`: under a hypervisor its questions about the processor's caches alone cost a quarter of a
//! millisecond. So the same steps are taken here, as the very first instructions. Whatever fails is left to `seal`,
//! which knows another way and has words for the failure.
//!
//! ```text
//!  kernel ─▶ berth_entry ─ read-only already, or no command for it ─▶ _start ─▶ main ─▶ seal (finds it done)
//!                  │                                                    ▲
//!                  └─ open_tree, mount_setattr, execveat ── failed ─────┘
//! ```
//!
//! For the same program [`berth_no_stack_bounds`] stands in for `pthread_getattr_np` (`--defsym`). The standard library asks it
//! for the bounds of the main thread's stack, to have words for an overflow, and the C library reads the whole of
//! `/proc/self/maps` for the answer: 0.1 ms of each start. Without an answer an overflow is a plain SIGSEGV.
//!
//! Nothing before `_start` may call the C library or be compiled to a call of it (`memcpy` and its like are resolved later): no
//! copies, no comparisons of slices, no panics.

use std::arch::{asm, global_asm};
use std::ffi::CStr;
use std::mem::MaybeUninit;

use crate::mountfd::{RawMountAttr, attr};

/// The words that make a command one for [`crate::exe::seal`].
const COMMANDS: [&CStr; 3] = [c"create", c"run", c"exec"];
const PROGRAM: &CStr = c"/proc/self/exe";
/// statfs(2).
const ST_RDONLY: i64 = 1;
/// `struct statfs` of `<asm/statfs.h>`, whose flags the libc crate has no name for.
#[repr(C)]
struct Statfs {
    before: [i64; 10],
    flags: i64,
    spare: [i64; 4],
}
/// open_tree(2).
const OPEN_TREE_CLONE: usize = 1;

// The stack is the kernel's: argc, argv, NULL, envp, NULL. r12 and r13 are kept by a callee; rdx is for _start.
global_asm!(
    ".globl berth_entry",
    ".type berth_entry, @function",
    "berth_entry:",
    "xor ebp, ebp",
    "mov r12, rsp",
    "mov r13, rdx",
    "mov rdi, rsp",
    "call {early}",
    "mov rsp, r12",
    "mov rdx, r13",
    "jmp _start",
    early = sym early,
);

/// pthread_getattr_np(3) that knows nothing, which a caller has to expect.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
extern "C" fn berth_no_stack_bounds(_: libc::pthread_t, _: *mut libc::pthread_attr_t) -> libc::c_int {
    libc::ENOSYS
}

/// Returns if there is nothing to do, or if it cannot be done.
///
/// # Safety
/// `stack` is the stack as the kernel made it for this process.
unsafe extern "C" fn early(stack: *const usize) {
    // SAFETY: the caller's promise.
    let count = unsafe { *stack };
    let (argv, envp) = (stack.wrapping_add(1), stack.wrapping_add(count + 2));
    // SAFETY: argv ends with a null; its entries are terminated strings.
    if unsafe { !has_command(argv) } || is_read_only() {
        return;
    }
    let path = PROGRAM.as_ptr() as usize;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as usize;
    // SAFETY: the path is a terminated string.
    let mount = unsafe { call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, path, flags, 0, 0]) };
    if mount < 0 {
        return;
    }
    let mount = mount.cast_unsigned();
    let change = RawMountAttr { attr_set: attr::RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (empty, at, size) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize, size_of::<RawMountAttr>());
    // SAFETY: the path is a terminated string, `change` lives and has that size.
    let changed = unsafe {
        call(libc::SYS_mount_setattr, [mount, empty, at, std::ptr::from_ref(&change) as usize, size])
    };
    if changed == 0 {
        // SAFETY: arguments and environment are those of the kernel. Returns only on failure.
        unsafe { call(libc::SYS_execveat, [mount, empty, argv as usize, envp as usize, at]) };
    }
    // SAFETY: the descriptor is ours alone.
    unsafe { call(libc::SYS_close, [mount, 0, 0, 0, 0]) };
}

/// Whether one of the words is one of the commands.
///
/// # Safety
/// `argv` is a list of terminated strings that ends with a null.
unsafe fn has_command(mut argv: *const usize) -> bool {
    loop {
        // SAFETY: not past the null yet.
        let word = unsafe { *argv } as *const u8;
        if word.is_null() {
            return false;
        }
        for command in &COMMANDS {
            // SAFETY: both are terminated strings.
            if unsafe { equal(word, command.as_ptr().cast()) } {
                return true;
            }
        }
        argv = argv.wrapping_add(1);
    }
}

/// Compares two strings, by volatile reads: the compiler must not make it a call of memcmp.
///
/// # Safety
/// Both are terminated.
unsafe fn equal(mut one: *const u8, mut other: *const u8) -> bool {
    loop {
        // SAFETY: not read past its end: the loop ends there.
        let a = unsafe { one.read_volatile() };
        // SAFETY: as before; while both are equal, neither has ended.
        let b = unsafe { other.read_volatile() };
        if a != b {
            return false;
        }
        if a == 0 {
            return true;
        }
        (one, other) = (one.wrapping_add(1), other.wrapping_add(1));
    }
}

fn is_read_only() -> bool {
    let mut found = MaybeUninit::<Statfs>::uninit();
    // SAFETY: the path is a terminated string, the kernel fills the structure.
    let done =
        unsafe { call(libc::SYS_statfs, [PROGRAM.as_ptr() as usize, found.as_mut_ptr() as usize, 0, 0, 0]) };
    // SAFETY: it was filled, for the call succeeded.
    done == 0 && unsafe { (*found.as_ptr()).flags } & ST_RDONLY != 0
}

/// A system call; negative is an error number.
///
/// # Safety
/// As the system call demands of its arguments.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let answer;
    let [a, b, c, d, e] = arguments;
    // SAFETY: the registers are those of the kernel's calling convention; it changes rax, rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}
