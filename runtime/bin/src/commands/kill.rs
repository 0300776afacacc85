//! `kill`: a signal to the container's first process.

use anyhow::{Context, bail};
use berth_core::Error;
use berth_spec::oci::{LinuxNamespace, LinuxNamespaceType};
use berth_sys::pidfd;
use clap::Args;
use nix::libc::SIGKILL;

use crate::signal;
use crate::state::{Container, Status, Store};

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal every process of the container
    #[arg(short, long)]
    all: bool,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let signal = signal::parse(&self.signal)?;
        let container = store.load(&self.id)?;
        if self.all {
            signal_all(&container, signal)?;
            return Ok(0);
        }
        let status = container.status();
        let shared = signal == SIGKILL && !own_pid_namespace(&container)?;
        if shared {
            // Nothing else would end what the first process leaves, or has left, behind.
            signal_all(&container, signal)?;
        }
        let Some(init) = container.init()? else {
            if shared {
                return Ok(0);
            }
            bail!(Error::Status(format!("container not running: {} is {}", self.id, status.name())));
        };
        match pidfd::send_signal(&init, signal) {
            Err(berth_sys::Errno::ESRCH) if shared => {}
            other => other.with_context(|| format!("signal {signal} to container {}", self.id))?,
        }
        if signal == SIGKILL && status == Status::Paused {
            // On version 1 a frozen process does not die.
            container.live_cgroup()?.thaw()?;
        }
        Ok(0)
    }
}

fn own_pid_namespace(container: &Container) -> anyhow::Result<bool> {
    let spec = container.spec()?;
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let own = |namespace: &LinuxNamespace| {
        let joined = namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::Pid && !joined
    };
    Ok(listed.into_iter().flatten().any(own))
}

fn signal_all(container: &Container, number: i32) -> anyhow::Result<()> {
    let Some(cgroup) = container.cgroup()? else { return Ok(()) };
    if number == SIGKILL {
        return Ok(cgroup.kill_all()?);
    }
    for pid in cgroup.pids()? {
        match pidfd::open(berth_sys::Pid::from_raw(pid)).and_then(|fd| pidfd::send_signal(fd, number)) {
            Ok(()) | Err(berth_sys::Errno::ESRCH) => {}
            Err(errno) => bail!("signal {number} to process {pid}: {errno}"),
        }
    }
    Ok(())
}
