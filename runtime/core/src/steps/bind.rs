//! Bind mounts: whose file or directory it is, and who may reach it.
//!
//! ```text
//!  Host, ids mapped or of a container with users of its own ─▶ made by the parent before it forked
//!  Host ─────────────────────────────────────────────────────▶ open_tree of the path
//!  Container ─▶ openat2 inside the root ─▶ open_tree ─ ids mapped? ─▶ MapIds, answered by the parent
//! ```

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_spec::{BindSource, MountAttributes, MountStep};
use berth_sys::Errno;
use berth_sys::mountfd::{self, Tree};
use berth_sys::path::{create_file_in_root, mkdir_all_in_root, open_in_root};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::mounts::{attach, directory_mode};
use crate::error::{Context, Fault};
use crate::init::Init;
use crate::protocol::FromChild;

impl Init<'_> {
    /// One bind mount.
    pub(super) fn bind(
        &mut self,
        step: &MountStep,
        source: &BindSource,
        recursive: bool,
    ) -> Result<(), Fault> {
        let what = || format!("mount {}", step.destination.display());
        let mount = match source {
            BindSource::Host(path) => self.of_host(step, path, recursive),
            BindSource::Container(path) => self.of_container(step, path, recursive),
        }?;
        if step.destination == Path::new("/proc") && !is_procfs(&mount).at(what)? {
            return Err(Fault::new(format!("{source} cannot be mounted on /proc because it is no procfs")));
        }
        let target = target_for(self.stage.root()?, &step.destination, &mount)
            .map_err(|errno| Fault::os(what(), errno).hint(other_kind(errno)))?;
        if matches!(source, BindSource::Host(_)) && self.has_own_users() {
            let attributes = within_locks(&mount, step).at(|| "take attributes of the host's away".into())?;
            return attach(&mount, &target, &MountStep { attributes, ..step.clone() });
        }
        attach(&mount, &target, step)
    }

    fn has_own_users(&self) -> bool {
        self.container.as_ref().is_some_and(|container| !container.plan.id_maps.is_empty())
    }

    fn of_host(&mut self, step: &MountStep, path: &Path, recursive: bool) -> Result<OwnedFd, Fault> {
        let prepared = step.index.and_then(|index| self.container.as_mut()?.idmapped.remove(&index));
        match prepared {
            Some(mount) => Ok(mount),
            None => detached(path, recursive).map_err(|errno| {
                let hint = match errno {
                    Errno::ENOENT if path.is_symlink() => {
                        Some("it is a symbolic link to nothing on the host")
                    }
                    Errno::ENOENT => Some(
                        "the source does not exist on the host: create it, or correct the mount's source",
                    ),
                    Errno::EACCES => Some("you may not read the source on the host"),
                    _ => None,
                };
                unbindable(&path.display().to_string(), step, errno, hint)
            }),
        }
    }

    /// What earlier mounts of the container show. To map its ids takes a privilege over its file system that only the
    /// parent may have; a detached mount is the same to all who hold it.
    fn of_container(&mut self, step: &MountStep, path: &Path, recursive: bool) -> Result<OwnedFd, Fault> {
        let mount = open_in_root(self.stage.root()?, path, OFlag::O_PATH, Mode::empty())
            .and_then(|source| mountfd::clone_of(source, recursive))
            .map_err(|errno| {
                let hint = (errno == Errno::ENOENT)
                    .then_some("neither the container's root nor the mounts before this one have the source");
                unbindable(&format!("{} of the container", path.display()), step, errno, hint)
            })?;
        if let (Some(_), Some(index)) = (&step.idmap, step.index) {
            let what = || format!("have the ids of {} mapped", step.destination.display());
            self.link.send(&FromChild::MapIds(index), Some(&mount)).at(what)?;
            self.link.wait_for_go().at(what)?;
        }
        Ok(mount)
    }
}

/// A detached mount of the source. A source that is a detached mount itself, handed over as a descriptor, is taken
/// as it is where the kernel does not copy such (before 6.15).
pub(crate) fn detached(source: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let tree = if recursive { Tree::CloneRecursive } else { Tree::Clone };
    match mountfd::open_tree(AT_FDCWD, source, tree) {
        Err(Errno::EINVAL) if source.starts_with("/proc/self/fd") => {
            mountfd::open_tree(AT_FDCWD, source, Tree::Open)
        }
        other => other,
    }
}

/// The place of a bind: a directory for a directory, a file for anything else.
///
/// # Errors
/// `ENOTDIR` if the one is a directory and the other is none, as mount(2) says; move_mount(2) has no word for it.
fn target_for(root: BorrowedFd<'_>, destination: &Path, mount: &OwnedFd) -> Result<OwnedFd, Errno> {
    if is_directory(mount)? {
        return mkdir_all_in_root(root, destination, directory_mode());
    }
    let target = create_file_in_root(root, destination, Mode::from_bits_truncate(0o755))?;
    if is_directory(&target)? { Err(Errno::ENOTDIR) } else { Ok(target) }
}

fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(SFlag::from_bits_truncate(fstat(file)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn other_kind(errno: Errno) -> Option<String> {
    let hint = "one of source and destination is a directory and the other is a file";
    (errno == Errno::ENOTDIR).then(|| hint.to_owned())
}

/// What of a step's attributes the users of a container may change. The kernel locks what a mount has when a mount
/// namespace of other users gets a copy (mount_namespaces(7)); one that the parent has made for us was never in one, and
/// gets no more liberty for that.
///
/// # Errors
/// `EPERM` if config.json names what is locked, as the kernel has it.
fn within_locks(mount: &OwnedFd, step: &MountStep) -> Result<MountAttributes, Errno> {
    type A = MountAttributes;
    let present = mountfd::attributes(mount)?;
    let (locked, times) = (present & A::LOCKABLE, present & (A::ATIME | A::NODIRATIME));
    let wanted = step.attributes;
    let changes_times = wanted.clear & A::ATIME != 0 && wanted.set & (A::ATIME | A::NODIRATIME) != times;
    if locked & wanted.clear & !step.implied != 0 || changes_times {
        return Err(Errno::EPERM);
    }
    Ok(wanted.without_clearing(step.implied))
}

/// Why the source of a bind cannot be had.
fn unbindable(source: &str, step: &MountStep, errno: Errno, hint: Option<&str>) -> Fault {
    Fault::os(format!("bind {source} to {}", step.destination.display()), errno).hint(hint.map(str::to_owned))
}

/// Whether a mount shows a procfs, from its root.
fn is_procfs(mount: &OwnedFd) -> Result<bool, Errno> {
    let is_root = fstat(mount)?.st_ino == berth_sys::procfs::ROOT_INO;
    Ok(is_root && fstatfs(mount)?.filesystem_type() == PROC_SUPER_MAGIC)
}
