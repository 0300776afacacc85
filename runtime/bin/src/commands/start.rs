//! `start`: the program of a created container.

use clap::Args;

use crate::state::Store;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Start {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        store.load(&self.id)?.start()?;
        Ok(0)
    }
}
