//! `pause`: all processes stand still.

use anyhow::bail;
use clap::Args;

use crate::state::{Status, Store};

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Pause {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        match container.status() {
            Status::Running | Status::Created => container.live_cgroup()?.freeze()?,
            other => bail!("container not running: {} is {}", self.id, other.name()),
        }
        Ok(0)
    }
}
