//! docker cp: files into and out of a container, running or not.
//!
//! Everything is reached through a descriptor of the container's root, with the container's own links followed inside
//! it only. Of a running container that is its root as it sees it; of another one a detached mount of its snapshot
//! with its volumes attached, which no process but this one sees.

mod pack;
mod path;
mod root;
mod unpack;

use std::io::Read;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use berth_api::Time;
use berth_api::archive::{PathStat, go_file_mode};
use berth_api::options::PutArchive;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag};

use crate::containers::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fsutil;
use crate::items::{ByteStream, stream_from};
use path::Wanted;
use root::Root;

/// A path of a container, opened.
struct Found {
    /// The last component, for the archive.
    base: String,
    parent: std::os::fd::OwnedFd,
    /// Name in the parent; `.` is the parent itself.
    name: std::ffi::CString,
    stat: FileStat,
}

impl Engine {
    /// What a path in a container is.
    ///
    /// # Errors
    /// When there is no such container or path.
    pub async fn container_path_stat(self: &Arc<Self>, name: &str, path: &str) -> Result<PathStat> {
        let container = self.containers.find(name)?;
        let (name, path) = (name.to_owned(), path.to_owned());
        self.blocking(move |engine| {
            let root = engine.open_root(&container)?;
            let found = find(&root, &name, &path)?;
            path_stat(&root, &found, &path)
        })
        .await
    }

    /// A path in a container as a tar archive.
    ///
    /// # Errors
    /// When there is no such container or path.
    pub async fn get_archive(self: &Arc<Self>, name: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let container = self.containers.find(name)?;
        let (name, path) = (name.to_owned(), path.to_owned());
        self.blocking(move |engine| {
            let root = engine.open_root(&container)?;
            let found = find(&root, &name, &path)?;
            let stat = path_stat(&root, &found, &path)?;
            engine.events.publish("container", "archive-path", &container.id, container.attributes(&[]));
            let stream = stream_from(move |sink| {
                // The root, whose mounts are crossed, lives until the archive is written.
                let _root = root;
                pack::pack(found.parent.as_fd(), &found.name, &found.base, sink)
            });
            Ok((stat, stream))
        })
        .await
    }

    /// Unpacks a tar archive into a directory of a container.
    ///
    /// # Errors
    /// When there is no such container or directory, it is read-only, or the archive is damaged or hostile; what was
    /// unpacked before that stays.
    pub async fn put_archive(
        self: &Arc<Self>,
        name: &str,
        options: PutArchive,
        tar: impl Read + Send + 'static,
    ) -> Result<()> {
        let container = self.containers.find(name)?;
        let (engine, name) = (Arc::clone(self), name.to_owned());
        self.detached(async move {
            engine.blocking(move |engine| engine.put(&container, &name, &options, tar)).await
        })
        .await
    }

    fn put(&self, container: &Container, name: &str, options: &PutArchive, tar: impl Read) -> Result<()> {
        let wanted = Wanted::parse(&options.path);
        let root = self.open_root(container)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match berth_sys::path::open_in_root(root.as_fd(), &wanted.path, flags, Mode::empty()) {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Err(missing(&options.path, name)),
            Err(Errno::ENOTDIR) => return Err(EngineError::invalid("extraction point is not a directory")),
            Err(error) => return Err(EngineError::io("open in the container", &options.path, error)),
        }
        refuse_read_only(container, &wanted.path)?;
        let definition = container.definition();
        let owner = if options.copy_uid_gid && !definition.config.user.is_empty() {
            let user =
                crate::spec::user::Accounts::read(root.as_fd()).resolve(&definition.config.user, &[])?;
            Some((user.uid, user.gid))
        } else {
            None
        };
        let target = unpack::Target {
            root: root.as_fd(),
            dir: &wanted.path,
            owner,
            keep_kind: options.no_overwrite_dir_non_dir,
        };
        unpack::unpack(&target, tar).map_err(|error| told(error, container))?;
        self.events.publish("container", "extract-to-dir", &container.id, container.attributes(&[]));
        Ok(())
    }
}

fn missing(path: &str, name: &str) -> EngineError {
    EngineError::not_found(format!("Could not find the file {path} in container {name}"))
}

const ROOT_READ_ONLY: &str = "container rootfs is marked read-only";
const VOLUME_READ_ONLY: &str = "mounted volume is marked read-only";

fn refuse_read_only(container: &Container, path: &str) -> Result<()> {
    let definition = container.definition();
    let below =
        |target: &str| path == target || path.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'));
    let mounts = definition.mounts.iter().filter(|plan| !plan.is_in_memory() && below(&plan.target));
    match mounts.max_by_key(|plan| plan.target.len()) {
        Some(plan) if plan.read_only => Err(EngineError::invalid(VOLUME_READ_ONLY)),
        None if definition.host.readonly_rootfs => Err(EngineError::invalid(ROOT_READ_ONLY)),
        _ => Ok(()),
    }
}

fn told(error: unpack::UnpackError, container: &Container) -> EngineError {
    match error.errno() {
        // Reached by a link that the check above did not see.
        Some(Errno::EROFS) if container.definition().host.readonly_rootfs => {
            EngineError::invalid(ROOT_READ_ONLY)
        }
        Some(Errno::EROFS) => EngineError::invalid(VOLUME_READ_ONLY),
        Some(_) => EngineError::internal(error.to_string()),
        None => EngineError::invalid(error.to_string()),
    }
}

/// Opens what a path means: links before the last component are followed, the last one only when a slash follows it.
fn find(root: &Root, name: &str, path: &str) -> Result<Found> {
    let wanted = Wanted::parse(path);
    let failed = |error| match error {
        Errno::ENOENT | Errno::ENOTDIR => missing(path, name),
        error => EngineError::io("open in the container", path, error),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let open =
        |path: &str| berth_sys::path::open_in_root(root.as_fd(), path, flags, Mode::empty()).map_err(failed);
    let (parent, entry) = match wanted.split() {
        Some((parent, entry)) => (open(parent)?, entry),
        // The root itself, or a directory asked for by a trailing slash.
        None => (open(&wanted.path)?, "."),
    };
    let entry = std::ffi::CString::new(entry)
        .map_err(|_| EngineError::invalid("a path cannot contain a NUL byte"))?;
    let stat = fsutil::lstat_at(parent.as_fd(), &entry)
        .map_err(|error| failed(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
    Ok(Found { base: wanted.base, parent, name: entry, stat })
}

fn path_stat(root: &Root, found: &Found, path: &str) -> Result<PathStat> {
    let stat = &found.stat;
    let mut link_target = String::new();
    if fsutil::kind(stat) == SFlag::S_IFLNK {
        let text = readlinkat(&found.parent, found.name.as_c_str())
            .map_err(|error| EngineError::io("read the link", path, error))?;
        link_target = root.follow(&Wanted::parse(path).path, &text.to_string_lossy());
    }
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(PathStat {
        name: found.base.clone(),
        size: stat.st_size,
        mode: go_file_mode(stat.st_mode),
        mtime: Time(Timestamp::new(stat.st_mtime, nanos).unwrap_or_default()),
        link_target,
    })
}
