//! Compressing a log file that was rotated away: in a process of its own, for it takes longer than a container may wait.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use berth_shim_protocol::log_identity;
use berth_sys::process::{SchedAttr, set_scheduler};
use flate2::{Compression, GzBuilder};

/// The argument that makes this program compress a file.
pub(crate) const ROLE: &str = "compress";

/// Only when nobody else wants the processor.
const NICE: i32 = 19;

/// `<path>.gz`
pub(super) fn compressed(path: &Path) -> PathBuf {
    with(path, ".gz")
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Begins to compress a file. It keeps its name until that is done.
pub(super) fn begin(path: &Path) -> io::Result<Child> {
    let null = Stdio::null;
    Command::new("/proc/self/exe").arg(ROLE).arg(path).stdin(null()).stdout(null()).spawn()
}

/// Puts a compressed file in the place of this one. A reader that comes in between finds one of them.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    let mut niceness = SchedAttr::default();
    niceness.nice = NICE;
    set_scheduler(&niceness).context("lowering the priority")?;
    let failed = |what: &'static str, path: &Path| format!("{what} {}", path.display());
    let mut plain = File::open(path).with_context(|| failed("opening", path))?;
    let identity = log_identity(&plain.metadata()?);
    let (done, half) = (compressed(path), with(path, ".gz.new"));
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o640).open(&half);
    let file = file.with_context(|| failed("making", &half))?;
    let mut packer = GzBuilder::new().comment(identity).write(file, Compression::default());
    let packed = io::copy(&mut plain, &mut packer).and_then(|_| packer.finish());
    packed.with_context(|| failed("writing", &half))?;
    fs::rename(&half, &done).with_context(|| failed("naming", &done))?;
    fs::remove_file(path).with_context(|| failed("removing", path))
}

/// What a compression that was broken off has left.
pub(super) fn clean(path: &Path) -> io::Result<()> {
    fs::remove_file(with(path, ".gz.new"))
}
