//! A container that fills the daemon's disk: it ends, is told of, and can be removed, which makes room again.

use std::path::Path;

use berth_tests::cli::Frontend;
use berth_tests::daemon::Daemon;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small file system in memory (images are unpacked only where 64 MiB stay free) at a place, as long as this lives.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn at(place: &'a Path) -> Self {
        mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), Some("size=112m"))
            .expect("mount a tmpfs");
        Self(place)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Whoever still uses it takes it along.
        umount2(self.0, MntFlags::MNT_DETACH).expect("umount the tmpfs");
    }
}

#[test]
fn what_fills_the_disk_ends_and_goes() {
    let mut daemon = Daemon::start();
    daemon.shut_down();
    let root = daemon.root();
    let _small = Small::at(&root);
    daemon.start_again();
    let cli = daemon.cli(Frontend::Berth);
    cli.import_busybox("busybox");
    let fill = "cat /dev/zero > /big 2>/dev/null; exit 7";
    assert_eq!(cli.run(&["run", "--rm", "--name", "once", "busybox", "sh", "-c", fill]).code, 7);
    cli.eventually("it is removed", |cli| cli.ok(&["ps", "-aq"]).is_empty());
    let stay = "cat /dev/zero > /big 2>/dev/null; echo full; exec sleep 1000";
    cli.ok(&["run", "-d", "--name", "stays", "--log-driver", "none", "busybox", "sh", "-c", stay]);
    cli.eventually("the disk is full", |_| {
        nix::sys::statvfs::statvfs(&root).expect("statvfs").blocks_available() == 0
    });
    cli.ok(&["rm", "-f", "stays"]);
    assert_eq!(cli.ok(&["run", "--rm", "busybox", "echo", "there is room"]), "there is room");
    // Before its root goes.
    daemon.shut_down();
}
