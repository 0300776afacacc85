//! Where the mounts of a pod's container come from.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use berth_oci::RuntimeConfig;
use berth_runtime_client::protocol::MOUNT_PLACEHOLDER;
use berth_spec::oci;
use berth_store::Image;
use berth_sys::mountfd;
use berth_sys::path::{open_beneath_strict, open_in_root};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::model::{ContainerSpec, IdMapping, PodMount, Propagation, SandboxSpec};
use super::namespaces::Pins;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::spec::bind;

/// Mounts for config.json, and the images whose file systems are handed to the shim when the container starts.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) mounts: Vec<oci::Mount>,
    /// By the number of their placeholders: image id and directory within.
    pub(super) images: Vec<(String, String)>,
}

impl Engine {
    /// All mounts of a container beside the usual ones. Blocking.
    pub(super) fn pod_mounts(
        &self,
        id: &str,
        spec: &ContainerSpec,
        sandbox: &SandboxSpec,
        pins: &Pins,
        image: (&Image, &RuntimeConfig),
    ) -> Result<Sources> {
        let mut sources = Sources::default();
        let taken =
            |target: &str| spec.mounts.iter().any(|mount| clean(&mount.container_path) == Path::new(target));
        let access = if spec.security.readonly_rootfs { "ro" } else { "rw" };
        for (file, target) in
            [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
        {
            if !taken(target) {
                sources.mounts.push(bind(&pins.dir.join(file), target, &["rprivate", access]));
            }
        }
        if !taken("/dev/shm") {
            let shm = if sandbox.namespaces.host_ipc { PathBuf::from("/dev/shm") } else { pins.shm() };
            sources.mounts.push(bind(&shm, "/dev/shm", &["rprivate", "rw"]));
        }
        for (number, path) in image.1.volumes.iter().flat_map(|volumes| volumes.keys()).enumerate() {
            if !taken(path) {
                let dir = self.image_volume(id, number, path, image.0)?;
                let mut mount = bind(&dir, path, &["rprivate", "rw"]);
                if let Some(users) = sandbox.namespaces.users {
                    mount.set_uid_mappings(Some(id_lines(users)?)).set_gid_mappings(Some(id_lines(users)?));
                }
                sources.mounts.push(mount);
            }
        }
        for mount in &spec.mounts {
            let mount = match &mount.image {
                Some(image) => self.image_mount(mount, image, &mut sources.images)?,
                None => host_mount(mount)?,
            };
            sources.mounts.push(mount);
        }
        Ok(sources)
    }

    /// A directory of the container's own for a VOLUME of its image, with the image's content.
    fn image_volume(&self, id: &str, number: usize, path: &str, image: &Image) -> Result<PathBuf> {
        let dir = self.pod_container_dir(id).join("volumes").join(number.to_string());
        fs::create_dir_all(&dir).during("create", &dir)?;
        let root = self.store.snapshots().mount_ro(&image.layers)?;
        match open_in_root(root.as_fd(), path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(content) => crate::volumes::copy_up(content.as_fd(), &dir)?,
            // The image has nothing there.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => return Err(EngineError::io("open in the image", path, error)),
        }
        Ok(dir)
    }

    fn image_mount(
        &self,
        mount: &PodMount,
        image: &str,
        images: &mut Vec<(String, String)>,
    ) -> Result<oci::Mount> {
        let failed = |why: String| EngineError::invalid(format!("ImageVolumeMountFailed: {why}"));
        let found = self.store.images().resolve(image).map_err(|error| failed(error.to_string()))?;
        let source = (found.id.to_string(), mount.image_sub_path.clone());
        // What would fail at the start fails here.
        self.image_source(&source).map_err(|error| failed(error.to_string()))?;
        images.push(source);
        let placeholder = PathBuf::from(format!("{MOUNT_PLACEHOLDER}{}", images.len() - 1));
        Ok(bind(&placeholder, &mount.container_path, &["ro", "rprivate"]))
    }

    /// The file system of an image, or a directory of it.
    pub(super) fn image_source(&self, (id, sub_path): &(String, String)) -> Result<OwnedFd> {
        let image = self.store.images().resolve(id)?;
        let root = self.store.snapshots().mount_ro(&image.layers)?;
        if sub_path.is_empty() {
            return Ok(root);
        }
        let part = open_beneath_strict(root.as_fd(), sub_path, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(|error| EngineError::invalid(format!("path {sub_path} of image {id}: {error}")))?;
        mountfd::clone_of(&part, false)
            .map_err(|error| EngineError::internal(format!("cannot mount {sub_path} of image {id}: {error}")))
    }
}

fn clean(path: &str) -> PathBuf {
    PathBuf::from(crate::containers::clean_path(path))
}

fn host_mount(mount: &PodMount) -> Result<oci::Mount> {
    let source = host_source(&mount.host_path)?;
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => {
            require(&source, &["shared:", "master:"], "shared or slave")?;
            "rslave"
        }
        Propagation::Bidirectional => {
            require(&source, &["shared:"], "shared")?;
            "rshared"
        }
    };
    let access = match (mount.read_only, mount.recursive_read_only) {
        (false, false) => "rw",
        (true, false) => "ro",
        (true, true) if mount.propagation == Propagation::Private => "rro",
        (_, true) => {
            return Err(EngineError::invalid(format!(
                "mount of {:?}: recursive_read_only needs readonly and private propagation",
                mount.container_path
            )));
        }
    };
    let mut made = bind(&source, &mount.container_path, &[access, propagation]);
    if let Some(ids) = mount.ids {
        let mapping = id_lines(ids)?;
        made.set_uid_mappings(Some(mapping.clone())).set_gid_mappings(Some(mapping));
    }
    Ok(made)
}

/// One line of an id mapping.
pub(super) fn id_lines(ids: IdMapping) -> Result<Vec<oci::LinuxIdMapping>> {
    let line = oci::LinuxIdMappingBuilder::default().container_id(0u32).host_id(ids.host_id).size(ids.length);
    line.build().map(|line| vec![line]).map_err(|error| EngineError::internal(error.to_string()))
}

/// The source with its links resolved. One that is missing becomes a directory, as the orchestrator's tools expect.
fn host_source(path: &str) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(path).during("create the source of a mount", path)?;
            fs::canonicalize(path).during("resolve the source of a mount", path)
        }
        other => other.during("resolve the source of a mount", path),
    }
}

/// Mounts travel only from a mount that lets them.
fn require(source: &Path, tags: &[&str], words: &str) -> Result<()> {
    const TABLE: &str = "/proc/self/mountinfo";
    let text = fs::read_to_string(TABLE).during("read", TABLE)?;
    let mut best: Option<(usize, bool)> = None;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(point) = fields.get(4) else { continue };
        let optional = fields.iter().skip(6).take_while(|field| **field != "-");
        let point = Path::new(point);
        let depth = point.components().count();
        // Of mounts on top of each other the last one counts.
        if source.starts_with(point) && best.is_none_or(|(deepest, _)| deepest <= depth) {
            let mut optional = optional;
            best = Some((depth, optional.any(|field| tags.iter().any(|tag| field.starts_with(tag)))));
        }
    }
    match best {
        Some((_, true)) => Ok(()),
        _ => Err(EngineError::invalid(format!(
            "path {:?} is mounted on a mount that is not {words}: mount --make-rshared it first",
            source.display().to_string()
        ))),
    }
}
