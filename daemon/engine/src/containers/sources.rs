//! Where a container's mounts come from, opened at its start.
//!
//! What others can change meanwhile is opened once and handed to the shim as a detached mount: a directory within a volume
//! that other containers write to, an image's file system. Nothing of it is looked up by path again.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime_client::protocol::MOUNT_PLACEHOLDER;
use berth_spec::oci;
use berth_sys::{
    mountfd,
    path::{open_beneath, open_beneath_strict},
};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use super::create::prepare_bind;
use super::mounts::{IdOwner, MountKind, MountPlan, id_owner};
use super::record::Definition;
use super::secrets;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::spec;
use crate::spec::user::User;

/// Mounts for config.json, and the descriptors that their placeholders number.
pub(super) struct Sources {
    pub(super) mounts: Vec<oci::Mount>,
    pub(super) handed: Vec<OwnedFd>,
}

impl Sources {
    fn hand(&mut self, mount: OwnedFd) -> PathBuf {
        self.handed.push(mount);
        PathBuf::from(format!("{MOUNT_PLACEHOLDER}{}", self.handed.len() - 1))
    }
}

impl Engine {
    /// Volumes, binds, images and generated files. With users of its own all but the binds have the container's ids.
    pub(super) fn mount_sources(
        &self,
        definition: &Definition,
        user: &User,
        own_users: bool,
    ) -> Result<Sources> {
        let mut sources = Sources { mounts: Vec::new(), handed: Vec::new() };
        let generated: &[&str] = if own_users { &["rprivate", "idmap"] } else { &["rprivate"] };
        for (file, target) in self.generated_files(definition)? {
            sources.mounts.push(spec::bind(&file, target, generated));
        }
        let shared: Vec<&MountPlan> =
            definition.mounts.iter().filter(|plan| secrets::in_directory(plan)).collect();
        let mut open = !shared.is_empty();
        for plan in &definition.mounts {
            // Before what is mounted within it.
            if open && plan.target.starts_with(secrets::DIRECTORY) {
                open = false;
                let directory = sources.hand(secrets::directory(shared.iter().copied())?);
                sources.mounts.push(spec::bind(&directory, secrets::DIRECTORY, generated));
            }
            let source = match plan.kind {
                MountKind::Volume => {
                    let base = self.volumes.mount_for(&plan.source, &definition.id)?;
                    match plan.subpath.as_str() {
                        "" => base,
                        subpath => sources.hand(subtree(&base, subpath)?),
                    }
                }
                MountKind::Bind => {
                    prepare_bind(plan)?;
                    PathBuf::from(&plan.source)
                }
                MountKind::Image => sources.hand(self.image_tree(plan)?),
                MountKind::Tmpfs => PathBuf::new(),
                MountKind::Secret if secrets::in_directory(plan) => continue,
                MountKind::Secret => sources.hand(secrets::file(plan)?),
            };
            let mut mount = spec::mount(plan, &source);
            match id_owner(&plan.idmap) {
                Ok(Some(_)) if own_users => {
                    return Err(EngineError::invalid(format!(
                        "mount at {}: idmap needs the host's users (--userns=host)",
                        plan.target
                    )));
                }
                Ok(Some(owner)) => map_ids(&mut mount, owner, &plan.source, user)?,
                _ => {}
            }
            // overlayfs, which an image is, cannot be mapped; nor is what the host shows.
            let mapped = matches!(plan.kind, MountKind::Volume | MountKind::Secret);
            if own_users
                && mapped
                && let Some(options) = mount.options_mut()
            {
                options.push("idmap".to_owned());
            }
            sources.mounts.push(mount);
        }
        Ok(sources)
    }

    /// The file system of an image, or a part of it.
    fn image_tree(&self, plan: &MountPlan) -> Result<OwnedFd> {
        let image = self.store.images().resolve(&plan.image_id)?;
        let root = self.store.snapshots().mount_ro(&image.layers)?;
        if plan.subpath.is_empty() {
            return Ok(root);
        }
        let part = open_beneath_strict(root.as_fd(), &plan.subpath, OFlag::O_PATH).map_err(|error| {
            EngineError::invalid(format!(
                "cannot access path {} of image {}: {error}",
                plan.subpath, plan.source
            ))
        })?;
        mountfd::clone_of(&part, false).map_err(|error| {
            EngineError::internal(format!(
                "cannot mount {} of image {}: {error} (needs Linux 6.15; mount the whole image instead)",
                plan.subpath, plan.source
            ))
        })
    }
}

/// A directory or file within a volume, as a mount of its own. Links in the volume, which containers wrote, do not lead
/// out of it, and what was opened is what is mounted.
pub(crate) fn subtree(volume: &Path, subpath: &str) -> Result<OwnedFd> {
    let root = crate::fsutil::open_host_dir(volume).during("open", volume)?;
    let failed = |error: nix::errno::Errno| {
        EngineError::invalid(format!("cannot access path {}: {error}", volume.join(subpath).display()))
    };
    let part = open_beneath_strict(root.as_fd(), subpath, OFlag::O_PATH).map_err(failed)?;
    mountfd::clone_of(&part, true).map_err(failed)
}

/// /dev/shm of a container that runs, as a mount of its own. It is looked up inside, where its own mounts are, by a
/// thread that goes there and does not come back; a link in its place is not followed.
pub(super) fn shm_of(pid: i32) -> Result<OwnedFd> {
    let failed = move |what: &'static str| {
        move |error: nix::errno::Errno| EngineError::io(what, format!("/dev/shm of process {pid}"), error)
    };
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = std::fs::File::open(&path).during("open", &path)?;
    let enter = move || -> Result<OwnedFd> {
        // Only a thread with a root and a working directory of its own may enter a mount namespace (setns(2)).
        unshare(CloneFlags::CLONE_FS).map_err(failed("leave the daemon's root for"))?;
        setns(&namespace, CloneFlags::CLONE_NEWNS).map_err(failed("enter the mounts around"))?;
        let root = crate::fsutil::open_host_dir(Path::new("/")).during("open the root around", "/dev/shm")?;
        let shm = open_beneath(root.as_fd(), "dev/shm", OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())
            .map_err(failed("open"))?;
        mountfd::clone_of(&shm, false).map_err(failed("copy the mount"))
    };
    let thread = std::thread::Builder::new().name("berth-shm".to_owned()).spawn(enter);
    let thread = thread.during("start a thread for", "/dev/shm")?;
    thread.join().map_err(|_| EngineError::internal("the thread that looks for /dev/shm has panicked"))?
}

/// Shows the owner's files as the container's user's, and what that user makes as the owner's.
fn map_ids(mount: &mut oci::Mount, owner: IdOwner, source: &str, user: &User) -> Result<()> {
    let (uid, gid) = match owner {
        IdOwner::Ids { uid, gid } => (uid, gid),
        IdOwner::Caller => {
            use std::os::unix::fs::MetadataExt as _;
            let metadata = std::fs::metadata(source).during("find the owner of", source)?;
            (metadata.uid(), metadata.gid())
        }
    };
    mount.set_uid_mappings(Some(swap(uid, user.uid)?)).set_gid_mappings(Some(swap(gid, user.gid)?));
    Ok(())
}

/// `on_disk` is seen as `inside`; every other id stays what it is, but for these two, which would have two meanings.
fn swap(on_disk: u32, inside: u32) -> Result<Vec<oci::LinuxIdMapping>> {
    let line = |container: u32, host: u32, size: u32| {
        oci::LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build()
    };
    let mut lines = vec![line(on_disk, inside, 1)];
    let mut next = 0;
    // The last id stands for "none" and cannot be mapped.
    for end in BTreeSet::from([on_disk, inside, u32::MAX]) {
        if end > next {
            lines.push(line(next, next, end - next));
        }
        next = end.saturating_add(1);
    }
    lines.into_iter().collect::<Result<_, _>>().map_err(|error| EngineError::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(on_disk: u32, inside: u32) -> Vec<(u32, u32, u32)> {
        let lines = swap(on_disk, inside).unwrap();
        lines.iter().map(|line| (line.container_id(), line.host_id(), line.size())).collect()
    }

    #[test]
    fn only_the_two_ids_change() {
        assert_eq!(lines(1000, 0), [(1000, 0, 1), (1, 1, 999), (1001, 1001, u32::MAX - 1001)]);
        assert_eq!(lines(5, 1000), [(5, 1000, 1), (0, 0, 5), (6, 6, 994), (1001, 1001, u32::MAX - 1001)]);
        assert_eq!(lines(7, 7), [(7, 7, 1), (0, 0, 7), (8, 8, u32::MAX - 8)]);
    }
}
