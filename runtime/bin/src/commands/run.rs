//! `run`: create, start, and stay until it ends.

use anyhow::Context;
use berth_core::Error;
use clap::Args;

use super::create::{abandon, make};
use super::failed;
use crate::bundle::Bundle;
use crate::cli::CreateFlags;
use crate::diagnose::{Root, missing_libraries};
use crate::foreground::{self, Listeners, Signals};
use crate::log::Log;
use crate::notify::{self, Notify};
use crate::state::Store;
use crate::streams;

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    flags: CreateFlags,
    /// Return once the program runs
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted for runc's sake: this runtime never becomes a subreaper
    #[arg(long)]
    no_subreaper: bool,
}

impl Run {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let mut bundle = Bundle::read(self.flags.bundle.as_deref())?;
        let terminal = bundle.wants_terminal();
        let stdio = streams::choose(terminal, self.flags.console_socket.as_deref(), self.detach)?;
        let container = store.reserve(&self.flags.id, &bundle)?;
        let notify =
            match notify::prepare(&container, &mut bundle.spec).and_then(|()| Notify::listen(&container)) {
                Ok(notify) => notify,
                Err(error) => {
                    container.forget()?;
                    return Err(error);
                }
            };
        let signals = if self.detach { None } else { Some(Signals::block()?) };
        let (mut created, container) = make(&self.flags, &bundle, container, stdio, None, !self.detach, log)
            .with_context(|| failed("run"))?;
        if let Err(error) = created.start() {
            abandon(created, container, log);
            if let Error::Child(failure) = &error
                && failure.is_of_the_program()
                && log.is_bare()
            {
                // As runc's init says it itself, past the log: scripts compare the line.
                eprintln!("{}", failure.bare());
                return Ok(1);
            }
            return Err(error).with_context(|| failed("run"));
        }
        let Some(signals) = signals else {
            if let Some(notify) = notify
                && let Err(error) = notify.wait(&created.pidfd, created.pid)
            {
                // The container runs all the same.
                log.warn(&format!("{error:#}"));
            }
            return Ok(0);
        };
        let console = created.console.take();
        let (pidfd, watch) = created.into_process();
        let status = foreground::serve(&signals, &pidfd, console, Listeners { watch, notify }, log)?;
        if let (Some(root), Some(process)) = (Root::open(&bundle.rootfs()), bundle.spec.process())
            && let Some(problem) = missing_libraries(&root, process, status.shell_code())
        {
            log.explain(&problem);
        }
        if !self.keep {
            container.destroy(log)?;
        }
        Ok(u8::try_from(status.shell_code()).unwrap_or(u8::MAX))
    }
}
