//! A checkpoint → a container that has yet to be started.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use berth_oci::{MAX_DOCUMENT, Manifest};
use berth_runtime_client::protocol::{Restore, Runtime};
use berth_store::Image;
use berth_store::members::Members;
use berth_sys::path::open_in_root;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::{CONFIG_DUMP, Config, IMAGE_ANNOTATIONS, IMAGES, LOG, ROOTFS_DIFF, SPEC_DUMP, STATUS_DUMP};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

/// No `config.dump` is longer.
const MAX_CONFIG: u64 = 1 << 20;

/// Where a checkpoint is.
pub(in crate::pods) enum Checkpoint {
    /// A file of the host.
    Archive(PathBuf),
    /// The file system of an image.
    Image(Box<Image>),
}

impl Engine {
    /// The checkpoint that an image is, by its path on the host or by its annotation; none: it is an ordinary one.
    pub(in crate::pods) fn checkpoint_of(&self, image: &str) -> Result<Option<Checkpoint>> {
        if image.starts_with('/') {
            return Ok(Some(Checkpoint::Archive(image.into())));
        }
        let image = self.store.images().resolve(image)?;
        let Some(manifest) = &image.manifest else { return Ok(None) };
        let bytes = match self.store.content().read(&manifest.digest, MAX_DOCUMENT as u64) {
            Ok(bytes) => bytes,
            // Its layers are there all the same.
            Err(_) => return Ok(None),
        };
        let annotations = serde_json::from_slice::<Manifest>(&bytes).ok().and_then(|found| found.annotations);
        let annotated =
            annotations.is_some_and(|all| IMAGE_ANNOTATIONS.iter().any(|key| all.contains_key(*key)));
        if !annotated {
            return Ok(None);
        }
        if !self.config.restore_images {
            return Err(EngineError::forbidden(
                "the image is a checkpoint, whose processes come back with whatever rights its maker gave them: start \
                 berthd with --cri-restore-images if you trust all who may name images",
            ));
        }
        Ok(Some(Checkpoint::Image(Box::new(image))))
    }

    /// The image that the checkpoint's container was made of.
    pub(in crate::pods) fn base_of(&self, checkpoint: &Checkpoint) -> Result<Image> {
        let mut text = Vec::new();
        self.each_file(checkpoint, |name, file| match name {
            CONFIG_DUMP => file.take(MAX_CONFIG).read_to_end(&mut text).map(|_| false),
            _ => Ok(true),
        })?;
        let config: Config = serde_json::from_slice(&text).map_err(|error| {
            EngineError::invalid(format!("{}: no checkpoint ({CONFIG_DUMP}: {error})", checkpoint.name()))
        })?;
        let names = [&config.rootfs_image_ref, &config.rootfs_image_name, &config.rootfs_image];
        let mut found =
            names.iter().filter(|name| !name.is_empty()).map(|name| self.store.images().resolve(name));
        found.find_map(std::result::Result::ok).ok_or_else(|| {
            EngineError::not_found(format!(
                "the image {:?} that the checkpoint's container was made of is not here: pull it first",
                config.rootfs_image_name
            ))
        })
    }

    /// Lays the checkpoint's files out for the container's start; what it had written comes back as a layer.
    pub(in crate::pods) fn unpack_checkpoint(
        &self,
        id: &str,
        checkpoint: &Checkpoint,
        log: Option<&Path>,
    ) -> Result<Option<berth_oci::DiffId>> {
        let dir = self.restored_dir(id);
        let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(&dir.join(IMAGES)).during("create", &dir)?;
        self.each_file(checkpoint, |name, file| {
            if name == CONFIG_DUMP || name == SPEC_DUMP || name == STATUS_DUMP {
                return Ok(true);
            }
            let options = File::options().write(true).create_new(true).mode(0o600).clone();
            io::copy(file, &mut options.open(dir.join(name))?).map(|_| true)
        })?;
        if let Some(log) = log.filter(|log| !log.exists() && dir.join(LOG).exists()) {
            if let Some(parent) = log.parent() {
                fs::create_dir_all(parent).during("create", parent)?;
            }
            fs::copy(dir.join(LOG), log).during("write", log)?;
        }
        match File::open(dir.join(ROOTFS_DIFF)) {
            Ok(layer) => Ok(Some(self.store.layers().unpack(layer, None)?.diff_id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::io("open", dir.join(ROOTFS_DIFF), error)),
        }
    }

    /// Who brings the processes back, and from where.
    pub(in crate::pods) fn restoring(&self, id: &str) -> (Runtime, Restore) {
        let dir = self.restored_dir(id);
        let runtime = Runtime { path: self.config.runtime_program(), args: Vec::new() };
        let path = std::env::var("PATH").unwrap_or_default();
        (runtime, Restore { images: dir.join(IMAGES), work: dir, path })
    }

    fn restored_dir(&self, id: &str) -> PathBuf {
        self.pod_container_dir(id).join("restored")
    }

    /// Shows the checkpoint's files, and nothing else that may be in there, until told to stop.
    fn each_file(
        &self,
        checkpoint: &Checkpoint,
        mut see: impl FnMut(&str, &mut dyn Read) -> io::Result<bool>,
    ) -> Result<()> {
        match checkpoint {
            Checkpoint::Archive(path) => {
                let file = File::open(path).during("open the checkpoint", path)?;
                let seen = Members::new(io::BufReader::new(file)).each(std::convert::identity, |entry| {
                    let name = wanted(&entry.path()?);
                    match name.filter(|_| entry.header().entry_type().is_file()) {
                        Some(name) => see(&name, entry),
                        None => Ok(true),
                    }
                });
                seen.during("read the checkpoint", path)
            }
            Checkpoint::Image(image) => {
                let root = self.store.snapshots().mount_ro(&image.layers)?;
                let mut walk = || -> io::Result<()> {
                    for name in names_in(&root)? {
                        let Some(mut file) = regular(&root, &name)? else { continue };
                        if !see(&name, &mut file)? {
                            break;
                        }
                    }
                    Ok(())
                };
                walk().during("read the checkpoint", image.id.as_str())
            }
        }
    }
}

impl Checkpoint {
    fn name(&self) -> String {
        match self {
            Self::Archive(path) => path.display().to_string(),
            Self::Image(image) => image.id.to_string(),
        }
    }
}

/// The name of a file that belongs to a checkpoint: `config.dump`, `checkpoint/core-1.img`.
fn wanted(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            _ => return None,
        }
    }
    match parts[..] {
        [name @ (CONFIG_DUMP | SPEC_DUMP | STATUS_DUMP | ROOTFS_DIFF | LOG)] => Some(name.to_owned()),
        [IMAGES, name] => Some(format!("{IMAGES}/{name}")),
        _ => None,
    }
}

/// All that could be of a checkpoint in the root of an image.
fn names_in(root: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = [CONFIG_DUMP, ROOTFS_DIFF, LOG]
        .into_iter()
        .filter(|name| is_there(root, name))
        .map(str::to_owned)
        .collect();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = open_in_root(root.as_fd(), IMAGES, flags, Mode::empty())?;
    let mut dir = nix::dir::Dir::from_fd(dir)?;
    for entry in dir.iter() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(wanted(&Path::new(IMAGES).join(&name)).filter(|_| name != "." && name != ".."));
    }
    Ok(names)
}

/// A file of an image, for reading; none if it is something else. A pipe or a device, which the image's maker may have
/// put there instead, is not opened: that could wait for ever.
fn regular(root: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    let open =
        |flags| open_in_root(root.as_fd(), name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    if !File::from(open(OFlag::O_PATH)?).metadata()?.is_file() {
        return Ok(None);
    }
    Ok(Some(File::from(open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?)))
}

fn is_there(root: &OwnedFd, name: &str) -> bool {
    open_in_root(root.as_fd(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_a_file_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join(CONFIG_DUMP), Mode::S_IRUSR).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(LOG)).unwrap();
        fs::write(dir.path().join(ROOTFS_DIFF), "x").unwrap();
        let root = OwnedFd::from(File::open(dir.path()).unwrap());
        assert!(regular(&root, CONFIG_DUMP).unwrap().is_none());
        assert!(regular(&root, LOG).unwrap().is_none());
        assert!(regular(&root, ROOTFS_DIFF).unwrap().is_some());
    }

    #[test]
    fn only_files_of_a_checkpoint_are_taken() {
        let name = |path: &str| wanted(Path::new(path));
        assert_eq!(name("./config.dump").as_deref(), Some("config.dump"));
        assert_eq!(name("checkpoint/core-1.img").as_deref(), Some("checkpoint/core-1.img"));
        for path in
            ["", "x", "/config.dump", "../config.dump", "checkpoint/../x", "checkpoint/a/b", "checkpoint"]
        {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
