//! `state`: one container, as JSON.

use anyhow::Context;
use clap::Args;

use crate::state::Store;

#[derive(Debug, Args)]
pub(crate) struct State {
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl State {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        let shown = container.record.shown(container.status(), String::new());
        println!("{}", serde_json::to_string_pretty(&shown).context("state")?);
        Ok(0)
    }
}
