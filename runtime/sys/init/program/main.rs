//! The first process of a container with `--init`: runs the command as its child, hands every signal on to it, reaps
//! what is left to it, and ends as the command ended.
//!
//! It needs the kernel and nothing else: no C library, no allocation, no standard library.

#![no_std]
#![no_main]
// A loop that copies must not become a call of memcpy, which would come from a C library.
#![no_builtins]

use core::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
mod machine {
    use core::arch::{asm, global_asm};

    pub(crate) const WRITE: usize = 1;
    pub(crate) const SIGPROCMASK: usize = 14;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const KILL: usize = 62;
    pub(crate) const SETPGID: usize = 109;
    pub(crate) const SIGTIMEDWAIT: usize = 128;
    pub(crate) const EXIT_GROUP: usize = 231;

    // At the entry the stack holds argc, argv and the environment (System V ABI, 3.4.1).
    global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call berth_init_run", "ud2");

    /// One system call of up to four arguments.
    ///
    /// # Safety
    /// The arguments must be what the call expects (syscalls(2)).
    pub(crate) unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
        let result: isize;
        // SAFETY: the kernel's calling convention; the caller answers for the arguments.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number.cast_signed() => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") 0,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        result
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use core::arch::{asm, global_asm};

    pub(crate) const IOCTL: usize = 29;
    pub(crate) const WRITE: usize = 64;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const KILL: usize = 129;
    pub(crate) const SIGPROCMASK: usize = 135;
    pub(crate) const SIGTIMEDWAIT: usize = 137;
    pub(crate) const SETPGID: usize = 154;
    pub(crate) const GETPID: usize = 172;
    pub(crate) const CLONE: usize = 220;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const WAIT4: usize = 260;

    // At the entry the stack holds argc, argv and the environment.
    global_asm!(".globl _start", "_start:", "mov x0, sp", "bl berth_init_run", "brk #1");

    /// One system call of up to four arguments.
    ///
    /// # Safety
    /// The arguments must be what the call expects (syscalls(2)).
    pub(crate) unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
        let result: isize;
        // SAFETY: the kernel's calling convention; the caller answers for the arguments.
        unsafe {
            asm!(
                "svc #0",
                in("x8") number,
                inlateout("x0") a.cast_signed() => result,
                in("x1") b, in("x2") c, in("x3") d, in("x4") 0,
                options(nostack),
            );
        }
        result
    }
}

use machine::syscall;

/// A NUL-terminated string of the kernel's.
type Text = *const u8;

const ENOENT: isize = -2;
const EINTR: isize = -4;
const ENOTDIR: isize = -20;

const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;
/// Bytes of the kernel's signal set.
const SET_SIZE: usize = 8;
/// Bytes of the longest path, its NUL included.
const PATH_MAX: usize = 4096;
const DEFAULT_PATH: Text = c"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".as_ptr().cast();

/// All signals but those that tell of a fault of our own: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
const FORWARDED: u64 = !(bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(31));

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(255)
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: exit_group takes a number.
        unsafe { syscall(machine::EXIT_GROUP, code, 0, 0, 0) };
    }
}

/// `stack` is the stack as the kernel left it: argc, argv, a null pointer, the environment, a null pointer.
#[unsafe(no_mangle)]
extern "C" fn berth_init_run(stack: *const usize) -> ! {
    // SAFETY: execve(2) has laid the stack out so.
    let (mut command, environment) = unsafe {
        let argc = *stack;
        let argv = stack.add(1).cast::<Text>();
        (argv.add(usize::from(argc > 0)), argv.add(argc + 1))
    };
    // SAFETY: argv and its strings end with a null.
    unsafe {
        if !(*command).is_null() && is(*command, c"--".as_ptr().cast()) {
            command = command.add(1);
        }
        if (*command).is_null() {
            say(c"there is no command to run: the usage is docker-init -- COMMAND [ARGUMENT...]".as_ptr().cast());
            exit(127);
        }
    }
    let set = FORWARDED;
    let mut before = 0_u64;
    // SAFETY: both sets live; their size is the kernel's.
    unsafe {
        syscall(machine::SIGPROCMASK, SIG_BLOCK, &raw const set as usize, &raw mut before as usize, SET_SIZE)
    };
    // SAFETY: without flags this is fork(2): the child goes on with a copy of everything.
    let child = unsafe { syscall(machine::CLONE, SIGCHLD, 0, 0, 0) };
    match child {
        0 => become_command(command, environment, &before),
        1.. => serve(child.cast_unsigned(), &set),
        _ => {
            say(c"cannot fork".as_ptr().cast());
            exit(255)
        }
    }
}

/// Hands signals on and reaps until the command has ended, then ends as it did.
fn serve(child: usize, set: &u64) -> ! {
    loop {
        // SAFETY: the set lives; without information and time nothing else is touched.
        let signal = unsafe { syscall(machine::SIGTIMEDWAIT, &raw const *set as usize, 0, 0, SET_SIZE) };
        match signal.cast_unsigned() {
            SIGCHLD => {
                if let Some(code) = reap(child) {
                    exit(code);
                }
            }
            number @ 1..=64 => {
                // SAFETY: numbers. That it has just ended is told by SIGCHLD.
                unsafe { syscall(machine::KILL, child, number, 0, 0) };
            }
            _ => {}
        }
    }
}

/// Reaps who has ended; the command's exit code, if it was among them.
fn reap(child: usize) -> Option<usize> {
    let mut ended = None;
    loop {
        let mut status = 0_i32;
        // SAFETY: the status lives; no resource usage is asked for.
        let pid = unsafe { syscall(machine::WAIT4, usize::MAX, &raw mut status as usize, WNOHANG, 0) };
        match pid {
            EINTR => {}
            1.. if pid.cast_unsigned() == child => ended = Some(code(status)),
            1.. => {}
            _ => return ended,
        }
    }
}

/// What a shell says of a status (wait(2)): the exit code, or 128 and the signal.
fn code(status: i32) -> usize {
    let status = status.cast_unsigned() as usize;
    match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signal => 128 + signal,
    }
}

/// In the child: a process group of its own, in the foreground of the terminal if there is one, then the command.
fn become_command(command: *const Text, environment: *const Text, mask: &u64) -> ! {
    // SAFETY: numbers; the group that is set is read from a variable that lives. Without a terminal it fails, and that
    // is all. SIGTTOU, which a background process would get for it, is still blocked.
    unsafe {
        syscall(machine::SETPGID, 0, 0, 0, 0);
        let group = syscall(machine::GETPID, 0, 0, 0, 0) as i32;
        syscall(machine::IOCTL, 0, TIOCSPGRP, &raw const group as usize, 0);
        syscall(machine::SIGPROCMASK, SIG_SETMASK, &raw const *mask as usize, 0, SET_SIZE);
    }
    // SAFETY: argv has a first string here.
    let name = unsafe { *command };
    let error = execute(name, command, environment);
    say_of(name, error);
    exit(if error == ENOENT || error == ENOTDIR { 127 } else { 126 })
}

/// execvp(3), without its detour to a shell. Comes back with the error only.
fn execute(name: Text, command: *const Text, environment: *const Text) -> isize {
    if has_slash(name) {
        return execve(name, command, environment);
    }
    let mut list = find_path(environment);
    let mut worst = ENOENT;
    let mut buffer = MaybeUninit::<[u8; PATH_MAX]>::uninit();
    loop {
        let Some(rest) = join(&mut buffer, list, name) else { return worst };
        match execve(buffer.as_ptr().cast(), command, environment) {
            ENOENT | ENOTDIR => {}
            error => worst = error,
        }
        match rest {
            Some(next) => list = next,
            None => return worst,
        }
    }
}

fn execve(path: Text, command: *const Text, environment: *const Text) -> isize {
    // SAFETY: a string and two lists of strings, each ending with a null.
    unsafe { syscall(machine::EXECVE, path as usize, command as usize, environment as usize, 0) }
}

/// Writes the first directory of `list`, a slash and `name`; gives what follows in the list. `None`: too long.
fn join(buffer: &mut MaybeUninit<[u8; PATH_MAX]>, list: Text, name: Text) -> Option<Option<Text>> {
    let start = buffer.as_mut_ptr().cast::<u8>();
    let mut length = 0;
    let mut put = |byte: u8| {
        if length == PATH_MAX {
            return false;
        }
        // SAFETY: within the buffer.
        unsafe { *start.add(length) = byte };
        length += 1;
        true
    };
    let (mut directory, mut name) = (list, name);
    // SAFETY: both strings end with a NUL, and nothing beyond it is read.
    unsafe {
        while *directory != 0 && *directory != b':' {
            if !put(*directory) {
                return None;
            }
            directory = directory.add(1);
        }
        if !put(b'/') {
            return None;
        }
        while *name != 0 {
            if !put(*name) {
                return None;
            }
            name = name.add(1);
        }
        if !put(0) {
            return None;
        }
        Some(if *directory == 0 { None } else { Some(directory.add(1)) })
    }
}

/// The value of PATH.
fn find_path(environment: *const Text) -> Text {
    let mut entry = environment;
    // SAFETY: the list ends with a null pointer, its strings with a NUL.
    unsafe {
        while !(*entry).is_null() {
            let mut text = *entry;
            let mut name: Text = c"PATH=".as_ptr().cast();
            while *name != 0 && *text == *name {
                text = text.add(1);
                name = name.add(1);
            }
            if *name == 0 {
                return text;
            }
            entry = entry.add(1);
        }
    }
    DEFAULT_PATH
}

fn has_slash(text: Text) -> bool {
    let mut at = text;
    // SAFETY: the string ends with a NUL.
    unsafe {
        while *at != 0 {
            if *at == b'/' {
                return true;
            }
            at = at.add(1);
        }
    }
    false
}

/// Whether two strings are the same.
///
/// # Safety
/// Both must end with a NUL.
unsafe fn is(mut one: Text, mut other: Text) -> bool {
    // SAFETY: read up to the first difference, or the end of both.
    unsafe {
        while *one == *other {
            if *one == 0 {
                return true;
            }
            one = one.add(1);
            other = other.add(1);
        }
    }
    false
}

fn write(text: Text) {
    let mut length = 0;
    // SAFETY: the string ends with a NUL; so many bytes of it are there to be written.
    unsafe {
        while *text.add(length) != 0 {
            length += 1;
        }
        syscall(machine::WRITE, 2, text as usize, length, 0);
    }
}

fn say(text: Text) {
    write(c"docker-init: ".as_ptr().cast());
    write(text);
    write(c"\n".as_ptr().cast());
}

/// In the words that clients know from a start without init.
fn say_of(name: Text, error: isize) {
    let reason = match error {
        ENOENT | ENOTDIR if !has_slash(name) => c": executable file not found in $PATH\n",
        ENOENT | ENOTDIR => c": no such file or directory\n",
        -8 => c": exec format error\n",
        -13 => c": permission denied\n",
        _ => c": cannot be run\n",
    };
    write(c"docker-init: exec: ".as_ptr().cast());
    write(name);
    write(reason.as_ptr().cast());
}
