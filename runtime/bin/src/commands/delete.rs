//! `delete`: a container that has ended, and all it holds.

use std::os::fd::AsFd;

use anyhow::{Context, bail};
use berth_sys::pidfd;
use clap::Args;
use nix::libc::SIGKILL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::log::Log;
use crate::state::{Container, Status, Store};

/// The time a killed process has to go, in milliseconds.
const PATIENCE: u16 = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill it first if it still runs; no error if it does not exist
    #[arg(short, long)]
    force: bool,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Delete {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let container = match store.load(&self.id) {
            Err(error) if self.force && does_not_exist(&error) => {
                store.sweep(&self.id)?;
                return Ok(0);
            }
            other => other?,
        };
        match container.status() {
            Status::Stopped => {}
            // Nobody has started it, so nobody's work is lost.
            Status::Created => kill(&container)?,
            _ if self.force => kill(&container)?,
            other => bail!(
                "cannot delete container {} that is not stopped: {} (kill it first, or use --force)",
                self.id,
                other.name()
            ),
        }
        container.destroy(log)?;
        Ok(0)
    }
}

fn does_not_exist(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(berth_core::Error::NoContainer { .. }))
}

fn kill(container: &Container) -> anyhow::Result<()> {
    let Some(init) = container.init()? else { return Ok(()) };
    if let Some(cgroup) = container.cgroup()? {
        cgroup.kill_all()?;
        // A frozen process does not die on version 1; where there is no freezer nothing is frozen.
        cgroup.thaw().ok();
    }
    match pidfd::send_signal(&init, SIGKILL) {
        Ok(()) | Err(berth_sys::Errno::ESRCH) => {}
        Err(errno) => return Err(errno).context("kill the container's first process"),
    }
    let ended = poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE));
    if ended.context("wait for the container's first process")? == 0 {
        bail!("the container's first process {} does not end", container.record.pid);
    }
    Ok(())
}
