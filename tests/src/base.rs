//! Base images made of real files on this machine: there is no registry to pull one from.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The statically linked busybox of package busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

/// Fills `dir` with a root file system of busybox and its applets.
///
/// # Panics
/// If the file system refuses, or busybox is missing.
pub fn busybox_rootfs(dir: &Path) {
    for sub in ["bin", "etc", "tmp", "root", "usr/bin", "var", "home"] {
        std::fs::create_dir_all(dir.join(sub)).expect("create a directory of the base image");
    }
    let tmp = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o1777);
    std::fs::set_permissions(dir.join("tmp"), tmp).expect("chmod /tmp of the base image");
    std::fs::copy(BUSYBOX, dir.join("bin/busybox")).expect("copy busybox (package busybox-static)");
    let applets = Command::new(BUSYBOX).arg("--list").output().expect("busybox --list");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        symlink("busybox", dir.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home:/bin/sh\n";
    std::fs::write(dir.join("etc/passwd"), passwd).expect("write passwd");
    std::fs::write(dir.join("etc/group"), "root:x:0:\nweb:x:1000:\nextra:x:2000:web\n").expect("write group");
}

/// The same as an uncompressed tar archive, as `import` takes it.
///
/// # Panics
/// As [`busybox_rootfs`].
pub fn busybox_tar() -> Vec<u8> {
    let dir = tempfile::Builder::new().prefix("berth-base").tempdir().expect("temporary directory");
    busybox_rootfs(dir.path());
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", dir.path()).expect("archive the base image");
    tar.into_inner().expect("finish the archive")
}
