//! Commands of docker compose that are left out on purpose; who calls one is told why, and what there is instead.

use anyhow::{Result, bail};
use clap::Args;

use crate::exit::Exit;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Missing {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<String>,
}

pub(crate) fn alpha() -> Result<Exit> {
    bail!(
        "berth compose has no experimental commands; `scale`, `watch` and `--dry-run` are ordinary ones: see `berth \
         compose --help`"
    )
}

pub(crate) fn bridge() -> Result<Exit> {
    bail!(
        "berth compose converts to no other model (docker's `bridge` runs converter images from its own registry); \
         `berth compose config` writes the whole project as one file, which converters read"
    )
}

pub(crate) fn publish() -> Result<Exit> {
    bail!(
        "berth compose publishes no projects; `berth compose config --resolve-image-digests` writes the file that would \
         be published, `berth compose push` pushes its images"
    )
}
