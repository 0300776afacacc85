//! `restore`: a container from a checkpoint.

use std::path::PathBuf;

use anyhow::Context;
use berth_core::{ConsoleSink, Stdio};
use berth_sys::pidfd;
use clap::Args;

use super::announce;
use crate::bundle::Bundle;
use crate::checkpoint::{Restore as FromImages, Shared};
use crate::foreground::{self, Listeners, Signals};
use crate::log::Log;
use crate::state::Store;
use crate::streams;

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    shared: Shared,
    /// Directory of config.json (default: the current one)
    #[arg(short, long)]
    bundle: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File that receives the pid
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Return once the container runs
    #[arg(short, long)]
    detach: bool,
    /// Accepted for runc's sake: this runtime never becomes a subreaper
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted for runc's sake: CRIU brings the root file system back its own way
    #[arg(long)]
    no_pivot: bool,
    /// Profile of a security module for the processes, TYPE:NAME
    #[arg(long)]
    lsm_profile: Option<String>,
    /// Context of a security module for the mounts
    #[arg(long)]
    lsm_mount_context: Option<String>,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Restore {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let mut bundle = Bundle::read(self.bundle.as_deref())?;
        bundle.add_time_namespace()?;
        let stdio = streams::choose(bundle.wants_terminal(), self.console_socket.as_deref(), self.detach)?;
        let console: Option<&ConsoleSink> = match &stdio {
            Stdio::Terminal(sink) => Some(sink),
            Stdio::Inherit | Stdio::Fds { .. } => None,
        };
        let mut container = store.reserve(&self.id, &bundle)?;
        if container.unprivileged {
            log.warn("restore is untested with rootless containers");
        }
        let restore = FromImages {
            shared: &self.shared,
            console,
            lsm_profile: self.lsm_profile.as_deref(),
            lsm_mount_context: self.lsm_mount_context.as_deref(),
        };
        let restored = match restore.run(&mut container) {
            Ok(restored) => restored,
            Err(error) => {
                container.forget()?;
                return Err(error).context("restore failed");
            }
        };
        if let Err(error) = announce(self.pid_file.as_deref(), None, restored.pid, &restored.pidfd) {
            // Both fail only if it has ended and been reaped already.
            pidfd::send_signal(&restored.pidfd, nix::libc::SIGKILL).ok();
            pidfd::wait(&restored.pidfd, true).ok();
            container.destroy(log)?;
            return Err(error);
        }
        if self.detach {
            return Ok(0);
        }
        // Only now: CRIU, which waits for its children by signals, has not inherited this.
        let signals = Signals::block()?;
        let status =
            foreground::serve(&signals, &restored.pidfd, restored.console, Listeners::default(), log)?;
        container.destroy(log)?;
        Ok(u8::try_from(status.shell_code()).unwrap_or(u8::MAX))
    }
}
