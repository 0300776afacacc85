//! `resume`: all processes go on.

use anyhow::bail;
use clap::Args;

use crate::state::{Status, Store};

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Resume {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        match container.status() {
            Status::Paused => container.live_cgroup()?.thaw()?,
            other => bail!("container not paused: {} is {}", self.id, other.name()),
        }
        Ok(0)
    }
}
