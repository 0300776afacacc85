//! A root file system whose files belong to the same ids in a user namespace as on the disk.
//!
//! overlayfs itself cannot be mapped, its layers can: each is a detached mount that maps ids. What overlayfs makes on its own
//! account (its work directory, what it copies up) it makes as whoever mounted it, and the host's root has no id in such a
//! layer; the kernel would then mount the whole of it read-only. So it is mounted as the namespace's root.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use berth_shim_protocol::{Failure, Users, oci};
use berth_spec::{IdMap, IdMaps};
use berth_sys::mountfd::{self, MountAttr, Overlay};
use caps::CapSet;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{Mode, stat},
    unistd::{Gid, Uid, setfsgid, setfsuid},
};

use crate::container::{core_failure, system};

/// The namespace whose ids the layers are to have. The container's own is not there yet; one of the same ids does as well.
pub(crate) fn namespace(users: &Users, spec: &oci::Spec) -> Result<OwnedFd, Failure> {
    let maps = |list: &Option<Vec<oci::LinuxIdMapping>>| {
        let map = |line: &oci::LinuxIdMapping| IdMap {
            container: line.container_id(),
            host: line.host_id(),
            size: line.size(),
        };
        list.iter().flatten().map(map).collect()
    };
    match (users, spec.linux()) {
        (Users::Namespace(path), _) => File::open(path)
            .map(OwnedFd::from)
            .map_err(|error| system(format!("open {}: {error}", path.display()))),
        (Users::Own, Some(linux)) => {
            let maps = IdMaps { uid: maps(linux.uid_mappings()), gid: maps(linux.gid_mappings()) };
            berth_core::user_namespace(&maps).map_err(|error| core_failure(&error))
        }
        (Users::Own, None) => Err(system("config.json has no user namespace".to_owned())),
    }
}

/// The overlay of these layers, seen by this user namespace.
pub(crate) fn overlay(request: &Overlay<'_>, users: &OwnedFd) -> Result<OwnedFd, Failure> {
    let mut held = Vec::new();
    let mut mapped = |path: &Path| -> Result<PathBuf, Failure> {
        let mount = map(path, users)
            .map_err(|errno| system(format!("map the ids of {}: {errno}", path.display())))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        held.push(mount);
        Ok(path)
    };
    let lower = request.lower.iter().map(|layer| mapped(layer)).collect::<Result<Vec<_>, _>>()?;
    // The upper and the work directory must be in one mount, so what is mapped is their parent.
    let (Some(upper), Some(work)) = (request.upper, request.work) else {
        return Err(system("a root file system with users of its own has to be writable"));
    };
    let (Some(parent), Some(upper), Some(work)) = (upper.parent(), upper.file_name(), work.file_name())
    else {
        return Err(system(format!("{} is no directory of a snapshot", upper.display())));
    };
    let parent = mapped(parent)?;
    let (upper, work) = (parent.join(upper), parent.join(work));
    let lower: Vec<&Path> = lower.iter().map(AsRef::as_ref).collect();
    let request = Overlay { lower: &lower, upper: Some(&upper), work: Some(&work), ..*request };
    let root = stat(&parent).map_err(system)?;
    as_user(root.st_uid, root.st_gid, || mountfd::overlay(&request))?.map_err(system)
}

/// A mount of this directory's own that maps ids.
fn map(path: &Path, users: &OwnedFd) -> Result<OwnedFd, Errno> {
    let opened = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let mount = mountfd::clone_of(&opened, false)?;
    let change = MountAttr { userns: Some(users.as_fd()), ..MountAttr::default() };
    mountfd::mount_setattr(&mount, &change, false)?;
    Ok(mount)
}

/// Does something with other ids for files, and all capabilities still (capabilities(7), "Effect of user ID changes").
fn as_user<T>(uid: u32, gid: u32, action: impl FnOnce() -> T) -> Result<T, Failure> {
    let before = caps::read(None, CapSet::Effective).map_err(system)?;
    let (own_uid, own_gid) = (setfsuid(Uid::from_raw(uid)), setfsgid(Gid::from_raw(gid)));
    let done = caps::set(None, CapSet::Effective, &before).map(|()| action());
    setfsgid(own_gid);
    setfsuid(own_uid);
    done.map_err(system)
}
