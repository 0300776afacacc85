//! `berth compose version`.

use anyhow::Result;
use berth_compose::labels::COMPOSE_VERSION;
use clap::Args;

use crate::exit::Exit;

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Only the version of docker compose whose behaviour this is
    #[arg(long)]
    short: bool,
    /// Format: pretty or json
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) fn run(version: &Version) -> Result<Exit> {
    let berth = env!("CARGO_PKG_VERSION");
    if version.short {
        println!("{COMPOSE_VERSION}");
    } else if version.format.as_deref() == Some("json") {
        println!("{}", serde_json::json!({"version": format!("v{COMPOSE_VERSION}"), "berth": berth}));
    } else {
        println!("Berth Compose version {berth}, compatible with Docker Compose v{COMPOSE_VERSION}");
    }
    Ok(Exit::Success)
}
