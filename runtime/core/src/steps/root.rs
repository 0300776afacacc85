//! The root file system: propagation of the host's tree, the root mount, the pivot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_spec::{InitStep, Propagation};
use berth_sys::mountfd::{self, MountAttr, Tree};
use berth_sys::path::{magic_link, mkdir_all_in_root, open_in_root};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, makedev};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::error::{Context, Fault};
use crate::init::Init;

const NONE: Option<&str> = None;

/// Changes what `/` is to other mount namespaces.
pub(super) fn propagation(change: Propagation, what: &str) -> Result<(), Fault> {
    mount(NONE, "/", NONE, flags_of(change), NONE).at(|| format!("change the propagation of {what}"))
}

fn flags_of(change: Propagation) -> MsFlags {
    let recursive = if change.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    MsFlags::from_bits_truncate(change.flag) | recursive
}

impl Init<'_> {
    /// Puts the root mount where a pivot can find it: on `root.path`.
    pub(super) fn mount_root(&mut self) -> Result<(), Fault> {
        let container =
            self.container.as_mut().ok_or_else(|| Fault::new("an exec has no root of its own"))?;
        let path = &container.plan.root.path;
        // A root that is asked to be a slave goes on receiving the host's mounts; nothing of its own goes out either way.
        let asked = |step: &InitStep| matches!(step, InitStep::RootMountPropagation(change) if change.flag == nix::libc::MS_SLAVE);
        let slave = container.plan.steps.iter().any(asked);
        if container.plan.has_own_mounts() {
            // First of all: an unbindable mount cannot be bound, and what is bound from a private one has no master.
            unshare_parent(path, if slave { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE });
        }
        let tree = match container.rootfs.take() {
            Some(mount) => mount,
            None => mountfd::open_tree(AT_FDCWD, path, Tree::CloneRecursive)
                .at(|| format!("bind root file system {}", path.display()))?,
        };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let target = open(path, directory, Mode::empty()).at(|| format!("open {}", path.display()))?;
        mountfd::move_mount(&tree, &target)
            .at(|| format!("mount the root file system on {}", path.display()))?;
        let own = if slave { mountfd::propagation::SLAVE } else { mountfd::propagation::PRIVATE };
        let change = MountAttr { propagation: own, ..MountAttr::default() };
        mountfd::mount_setattr(&tree, &change, false).at(|| "make the root file system private".into())?;
        self.stage.root = Some(tree);
        Ok(())
    }

    /// Makes the root mount `/`.
    pub(super) fn pivot_root(&mut self, own_mounts: bool) -> Result<(), Fault> {
        if !own_mounts {
            return self.chroot_only();
        }
        if self.no_pivot {
            self.move_root()?;
        } else {
            fchdir(self.stage.root()?).at(|| "enter the root file system".into())?;
            exchange_root()?;
        }
        chdir("/").at(|| "chdir /".into())?;
        self.stage.root = Some(super::open_root().at(|| "open /".into())?);
        // A detached procfs of our pid namespace stays good across the pivot.
        self.reopen_null()
    }

    fn chroot_only(&mut self) -> Result<(), Fault> {
        let container =
            self.container.as_ref().ok_or_else(|| Fault::new("an exec has no root of its own"))?;
        let path = &container.plan.root.path;
        chdir(path)
            .and_then(|()| chroot("."))
            .and_then(|()| chdir("/"))
            .at(|| format!("chroot {}", path.display()))?;
        self.stage.root = Some(super::open_root().at(|| "open /".into())?);
        Ok(())
    }

    /// Standard streams that are the host's /dev/null become the container's, so that no descriptor of the host's
    /// file system stays open. A container without one keeps what it has.
    fn reopen_null(&mut self) -> Result<(), Fault> {
        for (number, stream) in standard_streams() {
            if !fstat(stream).is_ok_and(|stat| is_null(&stat)) {
                continue;
            }
            let Some(null) = null_of_container(self.stage.root()?) else { continue };
            let replaced = match number {
                0 => nix::unistd::dup2_stdin(&null),
                1 => nix::unistd::dup2_stdout(&null),
                _ => nix::unistd::dup2_stderr(&null),
            };
            replaced.at(|| "reopen /dev/null".into())?;
        }
        Ok(())
    }

    pub(super) fn create_working_directory(&mut self, path: &Path) -> Result<(), Fault> {
        let mode = Mode::from_bits_truncate(0o755);
        match mkdir_all_in_root(self.stage.root()?, path, mode) {
            // A read-only root: if the directory is missing, chdir says so in its own words.
            Ok(_) | Err(berth_sys::Errno::EROFS) => Ok(()),
            Err(errno) => Err(Fault::os(format!("mkdir {}", path.display()), errno)),
        }
    }
}

/// Makes the working directory the root, and takes the old root away.
fn exchange_root() -> Result<(), Fault> {
    // The old root is stacked on the new one, and taken away without a place for it being needed
    // (pivot_root(2), "pivot_root(".", ".")").
    let old = super::open_root().at(|| "open /".into())?;
    pivot_root(".", ".").at(|| "pivot_root".into())?;
    // Our directory is the new root still; what follows is for the old one alone.
    fchdir(&old).at(|| "enter the old root".into())?;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(NONE, ".", NONE, slave, NONE).at(|| "detach the old root from the host".into())?;
    umount2(".", MntFlags::MNT_DETACH).at(|| "unmount the old root".into())
}

/// The container's /dev/null, opened. What else an image or a volume has there, a link for instance, would become a
/// standard stream and be given to the container's user (crun CVE-2026-88265).
fn null_of_container(root: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let null = open_in_root(root, "/dev/null", flags, Mode::empty()).ok()?;
    fstat(&null).is_ok_and(|stat| is_null(&stat)).then_some(null)
}

/// Whether it is the null device.
pub(super) fn is_null(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}

/// Standard input, output and error.
pub(super) fn standard_streams() -> [(i32, std::os::fd::BorrowedFd<'static>); 3] {
    use std::sync::OnceLock;
    static STREAMS: OnceLock<(std::io::Stdin, std::io::Stdout, std::io::Stderr)> = OnceLock::new();
    let (stdin, stdout, stderr) =
        STREAMS.get_or_init(|| (std::io::stdin(), std::io::stdout(), std::io::stderr()));
    [(0, stdin.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())]
}

/// pivot_root(2) refuses a root whose parent mount is shared. With the usual slave propagation nothing is shared any
/// more; where config.json asks for another, the mount below the root's place is made private or a slave.
fn unshare_parent(path: &Path, propagation: MsFlags) {
    let mut place = Some(path);
    while let Some(directory) = place {
        // EINVAL: it is no mount point, so the next one up is asked. A failure shows at the pivot.
        if mount(NONE, directory, NONE, propagation, NONE).is_ok() {
            return;
        }
        place = directory.parent();
    }
}

/// A path by which a descriptor can be named to mount(2). Only before the pivot: it is the host's /proc.
pub(super) fn name_of(fd: impl AsFd) -> std::path::PathBuf {
    magic_link(fd)
}
