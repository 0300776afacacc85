//! Virtual machines: a distribution kernel, an initramfs made here, qemu.

mod image;
mod kernel;
mod machine;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use image::Image;
pub use kernel::Kernel;
pub use machine::{Machine, Tally, boot};
pub use systemd::add_systemd;

/// The root of the sources.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// What goes into the machines.
#[must_use]
pub fn sources() -> PathBuf {
    workspace().join("tests/vm")
}

/// Runs a command and gives its standard output.
///
/// # Errors
/// It cannot be run, or fails.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Where downloads are kept.
fn cache() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(|| workspace().join("target"))
        .join("berth-vm")
}

/// A static busybox of this machine.
///
/// # Errors
/// There is none.
pub fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/initramfs-tools/bin/busybox"];
    for path in places.map(PathBuf::from) {
        if path.is_file() && is_static(&path)? {
            return Ok(path);
        }
    }
    bail!("no static busybox: install busybox-static")
}

/// An ELF file without an interpreter (program header PT_INTERP, elf(5)).
///
/// # Errors
/// It cannot be read.
pub fn is_static(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let word = |at: usize, size: usize| -> Option<u64> {
        let mut value = [0u8; 8];
        value[..size].copy_from_slice(bytes.get(at..at + size)?);
        Some(u64::from_le_bytes(value))
    };
    let headers = || {
        let (offset, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
        (0..count).map(|at| word((offset + at * size) as usize, 4)).collect::<Option<Vec<_>>>()
    };
    const PT_INTERP: u64 = 3;
    Ok(bytes.starts_with(b"\x7fELF") && headers().is_some_and(|types| !types.contains(&PT_INTERP)))
}

/// A program of BERTH_BIN_DIR.
#[must_use]
pub fn binary(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("BERTH_BIN_DIR")?).join(name);
    path.exists().then_some(path)
}
