//! Telling whoever started the daemon that it serves.

use std::{fs::OpenOptions, io::Write as _};

use anyhow::Context as _;

/// Writes a newline to an inherited descriptor and closes it, so that no shim inherits it in turn.
pub(crate) fn tell(fd: i32) -> anyhow::Result<()> {
    let what = || format!("telling readiness on descriptor {fd}");
    let path = format!("/proc/self/fd/{fd}");
    // Opened anew by path: taking the number over would need unsafe code for nothing.
    let mut file = OpenOptions::new().write(true).open(path).with_context(what)?;
    file.write_all(b"\n").with_context(what)?;
    nix::unistd::close(fd).with_context(what)
}
