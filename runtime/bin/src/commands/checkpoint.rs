//! `checkpoint`: the state of a container's processes, into files.

use std::os::fd::RawFd;
use std::path::PathBuf;

use anyhow::bail;
use berth_sys::Pid;
use clap::Args;

use crate::bundle::Bundle;
use crate::checkpoint::{Dump, Shared};
use crate::log::Log;
use crate::state::{Status, Store};

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    shared: Shared,
    /// Directory of earlier images (of a --pre-dump), from that of the images
    #[arg(long)]
    parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that are not yet established
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give files that were unlinked a name again, where possible
    #[arg(long)]
    link_remap: bool,
    /// Descriptor that gets a zero byte when --lazy-pages is ready
    #[arg(long)]
    status_fd: Option<RawFd>,
    /// ADDRESS:PORT of the page server
    #[arg(long)]
    page_server: Option<String>,
    /// Dump the memory only, and let the container go on
    #[arg(long)]
    pre_dump: bool,
    /// The bundle of a container that a shim looks after, instead of one in the state directory
    #[arg(long, hide = true, requires = "pid")]
    bundle: Option<PathBuf>,
    /// The first process of that container
    #[arg(long, hide = true, requires = "bundle", requires = "leave_running")]
    pid: Option<i32>,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Checkpoint {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let container = match (&self.bundle, self.pid) {
            (Some(bundle), Some(pid)) => {
                store.adopt(&self.id, &Bundle::read(Some(bundle))?, Pid::from_raw(pid))?
            }
            _ => store.load(&self.id)?,
        };
        let status = container.status();
        if matches!(status, Status::Creating | Status::Created | Status::Stopped) {
            bail!("Container cannot be checkpointed in {} state", status.name());
        }
        if container.unprivileged {
            log.warn("checkpoint is untested with rootless containers");
        }
        Dump {
            shared: &self.shared,
            parent: self.parent_path.as_deref(),
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            memory_only: self.pre_dump,
            page_server: self.page_server.as_deref(),
            status_fd: self.status_fd,
        }
        .run(&container)?;
        if !self.leave_running && !self.pre_dump {
            container.destroy(log)?;
        }
        Ok(0)
    }
}
