//! The terminal: a pty of the container's own devpts.

use std::os::fd::{BorrowedFd, OwnedFd};

use berth_spec::TerminalPlan;
use berth_sys::path::{create_file_in, open_in_root};
use berth_sys::{Errno, mountfd, process, tty};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::{Context, Fault};
use crate::init::Init;
use crate::protocol::FromChild;

/// `<linux/magic.h>`; C libraries do not agree on its type.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

impl Init<'_> {
    /// Opens a terminal, makes it ours, and gives the other side to the parent.
    pub(super) fn console(&mut self, plan: TerminalPlan, on_dev_console: bool) -> Result<(), Fault> {
        let root = self.stage.root()?;
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let devpts = open_in_root(root, "/dev/pts", directory, Mode::empty())
            .at(|| "open /dev/pts of the container (mount a devpts there to have a terminal)".into())?;
        let kind = fstatfs(&devpts).at(|| "look at /dev/pts".into())?.filesystem_type();
        if kind != DEVPTS_SUPER_MAGIC {
            return Err(Fault::new(
                "/dev/pts of the container is no devpts: mount one there to have a terminal",
            ));
        }
        let pty = tty::open_in(std::os::fd::AsFd::as_fd(&devpts)).at(|| "open a terminal".into())?;
        if on_dev_console {
            let target = place_of_console(root)?;
            let bind = mountfd::clone_of(&pty.slave, false).at(|| "bind the terminal".into())?;
            mountfd::move_mount(&bind, &target).at(|| "mount /dev/console".into())?;
        }
        if let Some((rows, columns)) = plan.size {
            tty::set_size(&pty.master, rows, columns).at(|| "set the terminal's size".into())?;
        }
        if self.foreground {
            tty::keep_newlines(&pty.slave).at(|| "set the terminal's modes".into())?;
        }
        tty::set_controlling(&pty.slave).at(|| "take the controlling terminal".into())?;
        process::set_stdio(&pty.slave, &pty.slave, &pty.slave).at(|| "set standard streams".into())?;
        self.link.send(&FromChild::Console, Some(&pty.master)).at(|| "hand over the terminal".into())
    }
}

/// The file that the terminal is bound to. A link would lead the terminal over a file of the container's choice
/// (runc CVE-2025-52565, crun CVE-2026-88264).
fn place_of_console(root: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let what = || "create /dev/console".to_owned();
    let dev = open_in_root(root, "/dev", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).at(what)?;
    match create_file_in(&dev, "console", Mode::from_bits_truncate(0o620)) {
        Err(Errno::ELOOP) => Err(Fault::new("/dev/console of the image must be a file, not a link")),
        other => other.at(what),
    }
}
