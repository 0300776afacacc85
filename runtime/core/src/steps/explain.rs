//! Why a file that is there does not run. Users of every peer are left alone with a bare error number here.
//!
//! All of it is asked only after a failure, as the container's user and in the container's file system, and nothing of
//! it decides anything.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_sys::Errno;
use nix::fcntl::OFlag;
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::elf::{self, Elf};

/// What the kernel reads of a script's first line (`BINPRM_BUF_SIZE`).
const FIRST_LINE: u64 = 256;
/// As many interpreters as the kernel follows.
const MAX_DEPTH: usize = 5;

/// Why execve(2) of a file that was found has failed.
pub(super) fn execve(program: &Path, errno: Errno) -> Option<String> {
    explain(program, errno, MAX_DEPTH)
}

fn explain(program: &Path, errno: Errno, depth: usize) -> Option<String> {
    match errno {
        Errno::ETXTBSY => return Some("the file is open for writing".into()),
        Errno::E2BIG => return Some("its arguments and environment are too long together".into()),
        Errno::ELOOP => return Some("its interpreters lead to each other".into()),
        Errno::ELIBBAD => return Some("its dynamic loader is no valid one".into()),
        _ => {}
    }
    let head = read_file(program, FIRST_LINE);
    if let Some(rest) = head.strip_prefix(b"#!") {
        return script(rest, errno, depth);
    }
    let elf = open(program).and_then(elf::read);
    match (errno, elf) {
        (Errno::ENOENT, Some(Elf { loader: Some(loader), .. })) => Some(format!(
            "its dynamic loader {loader} does not exist in the container: the image lacks the C library that the \
             program was built for"
        )),
        (Errno::ENOEXEC | Errno::EINVAL, Some(elf)) if elf.machine != elf::NATIVE => Some(format!(
            "it is built for {}, and this machine is {}: use an image for this platform",
            elf::machine_name(elf.machine),
            elf::machine_name(elf::NATIVE)
        )),
        (Errno::ENOEXEC, _) if head.is_empty() => Some("the file is empty".into()),
        (Errno::ENOEXEC, _) if head.starts_with(b"\x7fELF") => Some("the file is damaged".into()),
        (Errno::ENOEXEC, _) => Some(
            "it is neither a program nor a script that names its interpreter: begin it with #!/bin/sh".into(),
        ),
        (Errno::EACCES, _) => refused(program),
        _ => None,
    }
}

/// `rest` is what follows `#!`.
fn script(rest: &[u8], errno: Errno, depth: usize) -> Option<String> {
    let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(interpreter) = words.next().map(|word| PathBuf::from(OsStr::from_bytes(word))) else {
        return Some("its first line names no interpreter: write #!/bin/sh".into());
    };
    // With arguments the CR belongs to the last of them, which the interpreter complains of by itself.
    if errno == Errno::ENOENT && line.ends_with(b"\r") && words.next().is_none() {
        return Some(format!(
            "its first line ends in CRLF, so that the kernel looks for \"{}\\r\": save the script with LF line ends",
            interpreter.display()
        ));
    }
    let name = interpreter.display();
    if errno == Errno::ENOENT && !interpreter.exists() {
        return Some(format!(
            "its interpreter {name} does not exist in the container: install it, or change the script's first line"
        ));
    }
    let why = if depth == 0 { None } else { explain(&interpreter, errno, depth - 1) };
    why.map(|why| format!("its interpreter is {name}: {why}"))
}

/// Why a file may not be executed.
pub(super) fn refused(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    if mode & 0o111 == 0 {
        return Some(format!("it is not executable, its mode is {:04o}: chmod +x", mode & 0o7777));
    }
    if statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
        return Some("it lies on a file system that is mounted noexec".into());
    }
    let user = nix::unistd::geteuid();
    Some(format!("user {user} may not execute it, its mode is {:04o}", mode & 0o7777))
}

/// A regular file of the container; not a pipe, which might never answer.
fn open(path: &Path) -> Option<File> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

/// The beginning of a regular file of the container; nothing of what cannot be read.
pub(super) fn read_file(path: &Path, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(file) = open(path) {
        file.take(limit).read_to_end(&mut bytes).ok();
    }
    bytes
}
