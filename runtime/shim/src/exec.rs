//! One more process in the container.

use std::{os::fd::OwnedFd, time::Instant};

use berth_shim_protocol::{Exec as Request, Failure, FailureKind, WindowSize, files};
use berth_spec::oci;
use berth_sys::pidfd;
use nix::{errno::Errno, unistd::Pid};

use crate::{
    ending::Ended,
    ops::system,
    shim::Shim,
    stdio::{Hub, HubKind, has_terminal},
};

/// One more process in the container.
pub(crate) struct Exec {
    pub(crate) id: String,
    pid: Pid,
    pidfd: OwnedFd,
    pub(crate) hub: Hub,
    /// It was reaped; its output may still be read.
    pub(crate) ended: Option<Ended>,
    /// Its end is recorded and told.
    pub(crate) recorded: bool,
}

impl Exec {
    /// Run it. Its name and pid.
    pub(crate) fn start(
        shim: &mut Shim,
        request: Request,
        stream: Option<OwnedFd>,
    ) -> Result<(String, i32), Failure> {
        let Request { exec_id: id, mut process, console_size, attach } = request;
        // Set before the process runs, for it may look at once.
        if let Some(WindowSize { rows, cols }) = console_size {
            let size = oci::BoxBuilder::default().height(rows).width(cols).build();
            process.set_console_size(Some(size.expect("both are given")));
        }
        if !files::valid_exec_id(&id) {
            return Err(Failure::new(FailureKind::Invalid, format!("invalid exec id {id:?}")));
        }
        if shim.execs.values().any(|exec| exec.id == id) {
            return Err(Failure::new(FailureKind::AlreadyExists, format!("exec {id} exists already")));
        }
        let number = shim.new_hub_id();
        let mut hub = Hub::new(&shim.poller, number, HubKind::Exec);
        if let (Some(attach), Some(stream)) = (&attach, stream) {
            hub.attach(attach, stream).map_err(system("taking the stream"))?;
        }
        let stdin = attach.as_ref().is_some_and(|attach| attach.stdin);
        let piped = attach.is_some() || has_terminal(&process);
        let (child, console) = shim.container_mut()?.exec(&process, piped, stdin)?;
        let joined = hub.connect(console, stdin);
        let (pid, pidfd) = (child.pid, child.pidfd);
        let mut exec = Self { id: id.clone(), pid, pidfd, hub, ended: None, recorded: false };
        if let Err(errno) = joined {
            // It fails only if it has ended already. Nobody will hear of it: it is as if it had not begun.
            exec.kill(nix::libc::SIGKILL).ok();
            pidfd::wait(&exec.pidfd, true).ok();
            return Err(system("joining the streams of the process")(errno));
        }
        exec.hub.settle();
        shim.execs.insert(number, exec);
        Ok((id, pid.as_raw()))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Whether its end is still to be told.
    pub(crate) fn is_running(&self) -> bool {
        !self.recorded
    }

    /// Whether nothing is left of it to care for.
    pub(crate) fn is_over(&self) -> bool {
        self.recorded && self.hub.is_idle()
    }

    pub(crate) fn kill(&self, signal: i32) -> Result<(), Errno> {
        pidfd::send_signal(&self.pidfd, signal)
    }

    /// Reap it if it has ended.
    pub(crate) fn try_wait(&mut self, scratch: &mut [u8]) {
        if self.ended.is_none()
            && let Ok(Some(status)) = pidfd::wait(&self.pidfd, false)
        {
            self.ended = Some(Ended::now(status));
            self.hub.drain(scratch);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let drain = self.ended.filter(|_| self.is_running()).map(|ended| ended.deadline);
        drain.into_iter().chain(self.hub.deadline()).min()
    }
}
