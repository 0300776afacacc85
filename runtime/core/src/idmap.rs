//! Id-mapped bind mounts (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! To map a mount takes CAP_SYS_ADMIN over the user namespace of its file system, which the init of a container with its
//! own user namespace has not, so the parent does it: for sources on the host before it forks, with detached mounts that
//! the child inherits and attaches where they belong; for what the container's own mounts show when the child has come
//! to it, with the detached mount that the child sends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_spec::{BindSource, IdMaps, IdmapSource, IdmapStep, InitStep, MountSource};
use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
use berth_sys::mountfd::{self, MountAttr};
use berth_sys::{Errno, Pid, pidfd, process};

use crate::error::Error;
use crate::steps::bind::detached;

/// By the index in `mounts` of config.json.
pub(crate) type Prepared = BTreeMap<usize, OwnedFd>;

/// Makes the id-mapped mounts of a plan, and with `own_users` (a container with its own user namespace) all binds.
///
/// # Errors
/// A source that does not exist, or whose file system knows no id mapping.
pub(crate) fn prepare(steps: &[InitStep], own_users: bool) -> Result<Prepared, Error> {
    let mut namespaces: Vec<(&IdmapSource, OwnedFd)> = Vec::new();
    let mut prepared = Prepared::new();
    for step in steps {
        let InitStep::Mount(mount) = step else { continue };
        let Some(index) = mount.index else { continue };
        let MountSource::Bind { source: BindSource::Host(source), recursive } = &mount.source else {
            continue;
        };
        let Some(idmap) = &mount.idmap else {
            // What the container's root may not reach we may. One that is not there yet may come by another mount.
            if own_users && let Ok(fd) = detached(source, *recursive) {
                prepared.insert(index, fd);
            }
            continue;
        };
        if !namespaces.iter().any(|(known, _)| *known == &idmap.source) {
            namespaces.push((&idmap.source, user_namespace(&idmap.source)?));
        }
        let Some((_, namespace)) = namespaces.iter().find(|(known, _)| *known == &idmap.source) else {
            continue;
        };
        let fd = detached(source, *recursive)
            .map_err(|errno| Error::os(format!("bind {}", source.display()), errno))?;
        apply(&fd, idmap, namespace, index, &source.display().to_string())?;
        prepared.insert(index, fd);
    }
    Ok(prepared)
}

/// Maps the ids of a detached mount that the child has made for the step of this index.
///
/// # Errors
/// There is no such step, or its mount cannot be mapped.
pub(crate) fn map(steps: &[InitStep], index: usize, mount: &OwnedFd) -> Result<(), Error> {
    let asked = steps.iter().find_map(|step| match step {
        InitStep::Mount(mount) if mount.index == Some(index) => {
            mount.idmap.as_ref().map(|idmap| (mount, idmap))
        }
        _ => None,
    });
    let (step, idmap) = asked.ok_or_else(|| Error::Protocol {
        got: format!("MapIds({index})"),
        expected: "a mount with mapped ids",
    })?;
    let MountSource::Bind { source, .. } = &step.source else {
        return Err(Error::Protocol { got: format!("MapIds({index})"), expected: "a bind mount" });
    };
    apply(mount, idmap, &user_namespace(&idmap.source)?, index, &source.to_string())
}

fn apply(
    mount: &OwnedFd,
    idmap: &IdmapStep,
    namespace: &OwnedFd,
    index: usize,
    source: &str,
) -> Result<(), Error> {
    let change = MountAttr { userns: Some(namespace.as_fd()), ..MountAttr::default() };
    mountfd::mount_setattr(mount, &change, idmap.recursive).map_err(|errno| {
        let hint = match errno {
            Errno::EINVAL => " (does its file system support id-mapped mounts?)",
            Errno::EPERM => " (is it id-mapped already?)",
            _ => "",
        };
        Error::os(format!("mounts[{index}]: map the ids of {source}{hint}"), errno)
    })
}

fn user_namespace(source: &IdmapSource) -> Result<OwnedFd, Error> {
    match source {
        IdmapSource::Namespace(path) => open(path),
        IdmapSource::Maps(maps) => mapped(maps),
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    File::open(path).map(OwnedFd::from).map_err(|e| Error::io("open namespace", path, e))
}

/// A new user namespace with these maps: a short-lived child holds it while they are written.
///
/// # Errors
/// When the kernel refuses the namespace or the maps.
pub fn mapped(maps: &IdMaps) -> Result<OwnedFd, Error> {
    let forked = clone3(&Clone3 { flags: CloneFlags::NEWUSER, cgroup: None });
    match forked.map_err(|e| Error::os("clone3 of a user namespace", e))? {
        Forked::Child => {
            nix::unistd::pause();
            process::exit_now(0)
        }
        Forked::Parent { pid, pidfd } => {
            let namespace = write(pid, maps).and_then(|()| open(&of(pid, "ns/user")));
            // Both fail only if it is gone already, which it cannot be.
            pidfd::send_signal(&pidfd, nix::libc::SIGKILL).ok();
            pidfd::wait(&pidfd, true).ok();
            namespace
        }
    }
}

fn of(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

fn write(pid: Pid, maps: &IdMaps) -> Result<(), Error> {
    for (name, map) in [("gid_map", &maps.gid), ("uid_map", &maps.uid)] {
        let path = of(pid, name);
        fs::write(&path, IdMaps::text(map)).map_err(|e| Error::io("write", &path, e))?;
    }
    Ok(())
}
