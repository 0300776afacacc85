//! `create`: everything of a container but its program.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use anyhow::Context;
use berth_core::{CreateRequest, CreatedContainer, Gate, Newborn, Recorder, RootfsSource, Stdio, Trace};
use berth_sys::pidfd;
use clap::Args;

use super::{announce, failed};
use crate::activation;
use crate::bundle::Bundle;
use crate::cli::CreateFlags;
use crate::log::Log;
use crate::notify;
use crate::state::{Container, Store};
use crate::streams;

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    flags: CreateFlags,
}

impl Create {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let mut bundle = Bundle::read(self.flags.bundle.as_deref())?;
        let stdio = streams::choose(bundle.wants_terminal(), self.flags.console_socket.as_deref(), true)?;
        let container = store.reserve(&self.flags.id, &bundle)?;
        let gate = notify::prepare(&container, &mut bundle.spec).and_then(|()| container.make_gate());
        let fifo = match gate {
            Ok(fifo) => fifo,
            Err(error) => {
                container.forget()?;
                return Err(error);
            }
        };
        make(&self.flags, &bundle, container, stdio, Some(fifo), false, log)
            .with_context(|| failed("create"))?;
        Ok(0)
    }
}

impl CreateFlags {
    /// Somebody wants to know of the first process: once it is ready, and before it starts.
    fn wants_word(&self) -> bool {
        self.pid_file.is_some() || self.pidfd_socket.is_some()
    }
}

/// Makes the container; without a FIFO its program starts as soon as it may. On failure nothing is left of it.
pub(super) fn make(
    flags: &CreateFlags,
    bundle: &Bundle,
    container: Container,
    stdio: Stdio,
    fifo: Option<OwnedFd>,
    foreground: bool,
    log: &Log,
) -> anyhow::Result<(CreatedContainer, Container)> {
    log.debug(&format!("creating container {} from {}", flags.id, bundle.directory.display()));
    let tell = |line: &str| log.debug(line);
    let unit = container.record.unit.clone();
    let unprivileged = container.unprivileged;
    let container = RefCell::new(container);
    let record = |born: &Newborn<'_>| container.borrow_mut().born(born).map_err(|error| format!("{error:#}"));
    let (gate, recorded) = match fifo {
        Some(fifo) => (Gate::Fifo(fifo), false),
        // One without a program would look for ever as if it were being made.
        None if flags.wants_word() || bundle.spec.process().is_none() => (Gate::InProcess, false),
        None => (Gate::Recorded(Recorder(&record)), true),
    };
    let request = CreateRequest {
        id: &flags.id,
        bundle: &bundle.directory,
        spec: &bundle.spec,
        unit,
        rootfs: RootfsSource::Path,
        stdio,
        gate,
        preserve_fds: flags.preserve_fds + activation::inherited(),
        no_pivot: flags.no_pivot,
        no_new_keyring: flags.no_new_keyring,
        die_with_parent: false,
        unprivileged,
        trace: log.wants_debug().then_some(Trace(&tell)),
        // In the foreground we stay to answer.
        observe_seccomp: foreground && log.wants_debug(),
    };
    // Before it is tried: they may be why it fails.
    bundle.warnings.iter().for_each(|warning| log.explain(&warning.to_string()));
    let created = berth_core::create(request);
    let mut container = container.into_inner();
    let created = match created {
        Ok(created) => created,
        Err(error) => {
            container.forget()?;
            return Err(error.into());
        }
    };
    created.config_warnings().for_each(|warning| log.explain(&warning));
    for warning in &created.warnings {
        log.warn(warning);
    }
    if recorded {
        return Ok((created, container));
    }
    let known = container.created(created.pid, created.cgroup.path(), created.rdt.as_ref()).and_then(|()| {
        let (file, socket) = (flags.pid_file.as_deref(), flags.pidfd_socket.as_deref());
        announce(file, socket, created.pid, &created.pidfd)
    });
    match known {
        Ok(()) => Ok((created, container)),
        Err(error) => {
            abandon(created, container, log);
            Err(error)
        }
    }
}

/// Ends a container that nobody will ever see; what fails is only logged, for there is a failure to tell already.
pub(super) fn abandon(created: CreatedContainer, container: Container, log: &Log) {
    // Both fail only if it has ended and been reaped already.
    pidfd::send_signal(&created.pidfd, nix::libc::SIGKILL).ok();
    pidfd::wait(&created.pidfd, true).ok();
    // If it failed for want of descriptors, these are what it takes to clean up.
    drop(created);
    if let Err(left) = container.destroy(log) {
        log.warn(&format!("{left:#}"));
    }
}
