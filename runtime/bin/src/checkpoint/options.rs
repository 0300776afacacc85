//! What both commands are told, and what of it goes to CRIU.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use berth_sys::clone::CloneFlags;
use clap::Args;

use super::rpc::Options;
use crate::state::Record;

/// Where images are, unless told otherwise.
const DEFAULT_IMAGES: &str = "checkpoint";
/// Settings of CRIU for containers; callers of runc know the file.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";
/// The annotation that names another one, or with no value none.
const CONFIG_ANNOTATION: &str = "org.criu.config";

// The flags of both.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// Directory of CRIU's images (default: checkpoint)
    #[arg(long)]
    image_path: Option<PathBuf>,
    /// Directory for CRIU's log and temporary files (default: that of the images)
    #[arg(long)]
    work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow unix sockets that lead out of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow processes that belong to a shell outside
    #[arg(long)]
    shell_job: bool,
    /// Handle file locks
    #[arg(long)]
    file_locks: bool,
    /// How CRIU treats cgroups: soft, full, strict or ignore (default: soft)
    #[arg(long, default_value = "")]
    manage_cgroups_mode: String,
    /// Make this namespace anew, and do not bring back what was in it (network)
    #[arg(long)]
    empty_ns: Vec<String>,
    /// Keep pages of memory once only in the images
    #[arg(long)]
    auto_dedup: bool,
    /// Fetch pages of memory when they are needed (userfaultfd)
    #[arg(long)]
    pub(crate) lazy_pages: bool,
}

/// The directories, open as long as CRIU needs them, and what CRIU is told in both cases.
pub(super) struct Session {
    pub(super) images: PathBuf,
    work: Option<PathBuf>,
    open: Vec<File>,
    log: PathBuf,
    pub(super) options: Options,
}

impl Shared {
    /// Opens the directories. Those for a dump are made.
    pub(super) fn open(&self, log_file: &str, dump: bool, record: &Record) -> anyhow::Result<Session> {
        let images = self.image_path.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_IMAGES));
        let mode = cgroups_mode(&self.manage_cgroups_mode)?;
        if let Some(kind) = self.empty_ns.iter().find(|kind| *kind != "network") {
            bail!("namespace {kind:?} is not supported (--empty-ns takes network)");
        }
        if dump {
            make(&images)?;
        }
        if let Some(work) = &self.work_path {
            make(work)?;
        }
        let log = self.work_path.as_ref().unwrap_or(&images).join(log_file);
        let options = Options {
            log_level: Some(4),
            log_file: Some(log_file.to_owned()),
            tcp_established: Some(self.tcp_established),
            ext_unix_sk: Some(self.ext_unix_sk),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            auto_dedup: Some(self.auto_dedup),
            lazy_pages: Some(self.lazy_pages),
            notify_scripts: Some(true),
            orphan_pts_master: Some(true),
            manage_cgroups: Some(true),
            cgroups_mode: Some(mode),
            // Network devices and addresses are the engine's.
            empty_namespaces: u32::try_from(CloneFlags::NEWNET.bits()).ok(),
            config_file: match record.annotations.get(CONFIG_ANNOTATION).map(String::as_str) {
                None => Some(CONFIG_FILE.to_owned()),
                Some("") => None,
                Some(path) => Some(path.to_owned()),
            },
            ..Options::default()
        };
        let mut session = Session { images, work: self.work_path.clone(), open: Vec::new(), log, options };
        session.open_directories()?;
        Ok(session)
    }
}

impl Session {
    /// Opens the directories for CRIU as the mount namespace of the caller has them: CRIU mounts in the one it works in,
    /// which it cannot where another namespace's mount is.
    pub(super) fn open_directories(&mut self) -> anyhow::Result<()> {
        let images = directory(&self.images)?;
        let work = self.work.as_deref().map(directory).transpose()?;
        self.options.images_dir_fd = images.as_raw_fd();
        self.options.work_dir_fd = work.as_ref().map(AsRawFd::as_raw_fd);
        self.open = std::iter::once(images).chain(work).collect();
        Ok(())
    }

    /// Adds to a failure of CRIU what its log has of it, and where that is.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = self.log.display();
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let found: Vec<&str> =
            text.lines().filter(|line| line.contains("Error")).take(4).map(str::trim).collect();
        match found.is_empty() {
            true => error.context(format!("see {log}")),
            false => anyhow::anyhow!("{error:#} (from {log}: {})", found.join("; ")),
        }
    }
}

/// `criu_cg_mode` of CRIU's rpc.proto.
fn cgroups_mode(name: &str) -> anyhow::Result<i32> {
    Ok(match name {
        "ignore" => 0,
        "soft" => 3,
        "full" => 4,
        "strict" => 5,
        "" => 6,
        _ => bail!("invalid manage-cgroups-mode value {name:?} (soft, full, strict or ignore)"),
    })
}

/// Images hold a container's memory: they are for nobody else.
fn make(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("mkdir {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn directory(path: &Path) -> anyhow::Result<File> {
    let opened = File::options().read(true).custom_flags(nix::libc::O_DIRECTORY).open(path);
    opened.with_context(|| format!("open the directory {}", path.display()))
}
