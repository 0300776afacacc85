//! A container's processes → images.

use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use berth_spec::oci;
use berth_sys::{Pid, pidfd};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::criu::Criu;
use super::options::{Session, Shared};
use super::rpc::{Features, Kind, PageServer, Request};
use super::{DESCRIPTORS, core_image, mounts};
use crate::state::Container;

/// What only a dump is told.
pub(crate) struct Dump<'a> {
    pub(crate) shared: &'a Shared,
    /// Relative to the images.
    pub(crate) parent: Option<&'a Path>,
    pub(crate) leave_running: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    /// Only the memory; the container goes on.
    pub(crate) memory_only: bool,
    /// `ADDRESS:PORT`
    pub(crate) page_server: Option<&'a str>,
    /// Gets a zero byte when pages can be fetched.
    pub(crate) status_fd: Option<RawFd>,
}

impl Dump<'_> {
    pub(crate) fn run(&self, container: &Container) -> anyhow::Result<()> {
        let page_server = self.page_server.map(page_server).transpose()?;
        let mut session = self.shared.open("dump.log", true, &container.record)?;
        if let Some(parent) = self.parent {
            check_parent(&session.images, parent)?;
        }
        let mut status = self.status_fd.filter(|_| self.shared.lazy_pages).map(StatusFd::take).transpose()?;
        Criu::check_version()?;
        if self.memory_only || self.shared.lazy_pages {
            Criu::check_features(Features {
                memory_tracking: self.memory_only.then_some(true),
                lazy_pages: self.shared.lazy_pages.then_some(true),
            })?;
        }
        let options = &mut session.options;
        options.pid = Some(container.record.pid);
        options.root = Some(container.record.rootfs.display().to_string());
        options.leave_running = Some(self.leave_running);
        options.tcp_skip_in_flight = Some(self.tcp_skip_in_flight);
        options.link_remap = Some(self.link_remap);
        options.page_server = page_server;
        options.parent_images = self.parent.map(|path| path.display().to_string());
        options.track_memory = self.parent.is_some().then_some(true);
        let spec = container.spec()?;
        options.external = external_namespaces(&spec)?;
        options.freeze_cgroup = freezer(container)?;
        let kind = if self.memory_only { Kind::PreDump } else { Kind::Dump };
        if !self.memory_only {
            let root = PathBuf::from(format!("/proc/{}/root", container.record.pid));
            options.external_mounts =
                mounts::of_dump(&container.plan(&spec)?, &root, &container.record.rootfs)?;
            keep_descriptors(container, &session)?;
        }
        let request =
            Request { kind: kind.into(), options: Some(session.options.clone()), ..Request::default() };
        let number = core_image::own_number(container.record.pid)?;
        Criu::start(false)?
            .perform(&request, |event| match (event.script, status.take()) {
                ("status-ready", Some(fd)) => fd.tell(),
                (_, unchanged) => {
                    status = unchanged;
                    Ok(())
                }
            })
            .map(drop)
            .map_err(|error| session.explain(error))?;
        if self.memory_only { Ok(()) } else { core_image::untie(&session.images, number) }
    }
}

fn page_server(text: &str) -> anyhow::Result<PageServer> {
    let parts = text.rsplit_once(':').filter(|(address, port)| !address.is_empty() && !port.is_empty());
    let (address, port) = parts.context("use --page-server ADDRESS:PORT to specify page server")?;
    let port: u16 = port.parse().with_context(|| format!("invalid port number {port:?} in --page-server"))?;
    let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(PageServer { address: Some(address), port: Some(port.into()) })
}

/// The caller's descriptor for news of the page server.
struct StatusFd(File);

impl StatusFd {
    /// Ours alone from now on, so that whoever waits at its other end sees when we end.
    fn take(number: RawFd) -> anyhow::Result<Self> {
        let invalid = || format!("invalid --status-fd argument {number}");
        let fd = pidfd::open(Pid::this()).and_then(|own| pidfd::getfd(own, number)).with_context(invalid)?;
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL).with_context(invalid)?);
        if !flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR) {
            bail!("{}: not writable", invalid());
        }
        nix::unistd::close(number).with_context(invalid)?;
        Ok(Self(File::from(fd)))
    }

    fn tell(mut self) -> anyhow::Result<()> {
        self.0.write_all(&[0]).context("write to --status-fd")
    }
}

/// CRIU stores it as a link in the images, so it is relative to them.
fn check_parent(images: &Path, parent: &Path) -> anyhow::Result<()> {
    if parent.components().next() == Some(Component::RootDir) {
        bail!("--parent-path must be relative (to the directory of the images)");
    }
    let place = images.join(parent);
    let found =
        std::fs::metadata(&place).with_context(|| format!("invalid --parent-path: {}", place.display()))?;
    if !found.is_dir() {
        bail!("invalid --parent-path: {} is not a directory", place.display());
    }
    Ok(())
}

/// Namespaces that were joined by path are no part of the checkpoint: `net[4026531840]:extRootNetNS`.
fn external_namespaces(spec: &oci::Spec) -> anyhow::Result<Vec<String>> {
    let mut external = Vec::new();
    for (kind, name, key) in super::restore::EXTERNAL {
        if let Some(path) = super::restore::joined(spec, kind) {
            let inode =
                std::fs::metadata(path).with_context(|| format!("the namespace {}", path.display()))?.ino();
            external.push(format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(external)
}

/// Where the container's processes can be stopped all at once.
fn freezer(container: &Container) -> anyhow::Result<Option<String>> {
    let paths = container.live_cgroup()?.paths();
    let all = paths.get("freezer").or_else(|| paths.get("").filter(|_| paths.len() == 1));
    Ok(all.map(|path| path.display().to_string()))
}

/// A restored process gets its pipes by what they were called.
fn keep_descriptors(container: &Container, session: &Session) -> anyhow::Result<()> {
    let of = |fd: RawFd| std::fs::read_link(format!("/proc/{}/fd/{fd}", container.record.pid));
    // One that is closed has no name.
    let names: Vec<PathBuf> = (0..3).map(|fd| of(fd).unwrap_or_default()).collect();
    let path = session.images.join(DESCRIPTORS);
    let text = serde_json::to_vec(&names).context("descriptors")?;
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
