//! The machine whose process 1 is systemd: a few packages of the distribution, unpacked and not configured.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::image::Image;
use super::{busybox, cache, output, sources};

/// What is not needed to boot; half of the packages.
const LEAVE_OUT: [&str; 10] = [
    "dev/",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/perl",
    "usr/share/zoneinfo",
    "usr/share/i18n",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/python3",
];

/// Puts systemd, a message bus and busybox into the image, and the service that runs `/berth/cases.sh`.
///
/// # Errors
/// mmdebstrap(1) is missing, or the packages cannot be fetched.
pub fn add_systemd(image: &mut Image) -> Result<()> {
    image.tree(&packages()?, &LEAVE_OUT)?;
    let own = sources().join("systemd");
    image.file("init", 0o755, &own.join("init"))?;
    image.file("berth/busybox", 0o755, &busybox()?)?;
    image.file("etc/systemd/system/cases.service", 0o644, &own.join("cases.service"))
}

/// An archive with systemd and dbus and all they depend on, from the cache or from the distribution.
fn packages() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("/etc/os-release names no release (VERSION_CODENAME)")?.trim_matches('"');
    let archive = cache().join(format!("systemd-{suite}.tar"));
    if !archive.is_file() {
        println!("# making {}", archive.display());
        fs::create_dir_all(cache())?;
        let fresh = archive.with_extension("tar.new");
        let options = ["--variant=extract", "--format=tar", "--include=base-files,systemd,dbus"];
        let mut command = Command::new("mmdebstrap");
        output(command.args(options).arg(suite).arg(&fresh))
            .context("make the root of the systemd machine")?;
        fs::rename(&fresh, &archive).context("move the archive into the cache")?;
    }
    Ok(archive)
}
