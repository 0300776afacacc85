//! `start`: the program of a created container.

use berth_sys::Pid;
use clap::Args;

use crate::log::Log;
use crate::notify::Notify;
use crate::state::Store;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Start {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        let notify = Notify::listen(&container)?;
        let init = container.start()?;
        if let Some(notify) = notify
            && let Err(error) = notify.wait(&init, Pid::from_raw(container.record.pid))
        {
            // The container runs all the same.
            log.warn(&format!("{error:#}"));
        }
        Ok(0)
    }
}
