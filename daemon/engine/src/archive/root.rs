//! The root of a container as a descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mountfd;
use berth_sys::path::{create_file_in_root, mkdir_all_in_root, open_in_root};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::path::link_target;
use crate::containers::{Container, MountKind, Writing, subtree};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::fsutil;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// A container's root.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// What is written through it may come after the container has ended.
    _writing: Writing,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Where a link finally leads, if there is something; else where its text says.
    pub(super) fn follow(&self, path: &str, text: &str) -> String {
        let mut target = link_target(path, text);
        for _ in 0..MAX_LINKS {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
            let Ok(found) = open_in_root(self.as_fd(), &target, flags, Mode::empty()) else { break };
            match nix::fcntl::readlinkat(&found, c"") {
                Ok(text) => target = link_target(&target, &text.to_string_lossy()),
                Err(_) => break,
            }
        }
        target
    }
}

impl Engine {
    /// Opens the root of a container. Blocking.
    pub(super) fn open_root(&self, container: &Container) -> Result<Root> {
        let writing = container.weight.writing();
        let status = container.status();
        if status.phase.is_alive() {
            let path = format!("/proc/{}/root", status.pid);
            let fd =
                fsutil::open_host_dir(Path::new(&path)).during("open the root of the container", &path)?;
            // The process may have ended, and its number be somebody else's, between the two.
            let now = container.status();
            if now.phase.is_alive() && now.pid == status.pid {
                return Ok(Root { fd, _writing: writing });
            }
        }
        let root = Root { fd: self.store.snapshots().mount(&container.id)?, _writing: writing };
        let definition = container.definition();
        if !status.ever_started {
            self.write_files_unstarted(&definition)?;
        }
        for (file, target) in self.generated_files(&definition)? {
            if let Ok(copy) = mountfd::open_tree(AT_FDCWD.as_fd(), &file, mountfd::Tree::Clone) {
                self.attach_mount(&root, &copy, target, false)?;
            }
        }
        for plan in &definition.mounts {
            let source = match plan.kind {
                MountKind::Volume => self.volumes.source(&plan.source)?,
                MountKind::Bind => PathBuf::from(&plan.source),
                MountKind::Tmpfs | MountKind::Image | MountKind::Secret => continue,
            };
            let copy = match plan.subpath.as_str() {
                "" => mountfd::open_tree(AT_FDCWD.as_fd(), &source, mountfd::Tree::Clone)
                    .map_err(|error| EngineError::io("attach the volume", &plan.target, error)),
                subpath => subtree(&source, subpath),
            };
            // What is not there is made, or complained about, at the start.
            if let Ok(copy) = copy {
                self.attach_mount(&root, &copy, &plan.target, plan.read_only)?;
            }
        }
        Ok(root)
    }

    /// Attaches a detached mount of a directory or file of the host to the detached root. Kernels before 6.15 refuse that;
    /// then what lies in the volume is not reached, which is told.
    fn attach_mount(&self, root: &Root, copy: &OwnedFd, target: &str, read_only: bool) -> Result<()> {
        let failed = |error: Errno| EngineError::io("attach the volume", target, error);
        let kind = SFlag::from_bits_truncate(fstat(copy).map_err(failed)?.st_mode) & SFlag::S_IFMT;
        let place = if kind == SFlag::S_IFDIR {
            mkdir_all_in_root(root.as_fd(), target, Mode::from_bits_truncate(0o755))
        } else {
            create_file_in_root(root.as_fd(), target, Mode::from_bits_truncate(0o644))
        };
        let place = place.map_err(|error| EngineError::io("make the mount point", target, error))?;
        if read_only {
            let attributes =
                mountfd::MountAttr { set: mountfd::attr::RDONLY, ..mountfd::MountAttr::default() };
            mountfd::mount_setattr(copy, &attributes, false).map_err(failed)?;
        }
        match mountfd::move_mount(copy, &place) {
            Err(Errno::EINVAL) => {
                tracing::warn!(
                    target,
                    "this kernel cannot show the volume of a stopped container to docker cp"
                );
                Ok(())
            }
            other => other.map_err(failed),
        }
    }
}
