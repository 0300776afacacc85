//! `berth volume`: create, ls, rm.

use std::collections::BTreeMap;

use anyhow::Result;
use berth_api::volume::VolumeCreateRequest;
use clap::Args;
use serde_json::{Value, json};

use super::each;
use crate::exit::Exit;
use crate::flags::{environment, filter};
use crate::output::list::{Column, Style, render};
use crate::session::Session;

/// Make a volume
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Option of the driver
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Name; the engine chooses one if there is none
    #[arg(default_value = "")]
    name: String,
}

/// List volumes
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Filter: key=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove volumes
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// No failure if one is not there
    #[arg(short, long)]
    force: bool,
    /// Volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

const COLUMNS: &[Column] = &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")];
const HEADINGS: &[Column] = &[("MOUNTPOINT", "Mountpoint"), ("SCOPE", "Scope"), ("LABELS", "Labels")];

pub(crate) async fn create(session: &Session, args: Create) -> Result<Exit> {
    let labels: BTreeMap<_, _> = args.label.iter().map(|label| environment::pair(label)).collect();
    let request = VolumeCreateRequest {
        name: args.name,
        driver: args.driver,
        driver_opts: Some(environment::pairs("--opt", &args.options)?).filter(|options| !options.is_empty()),
        labels: (!labels.is_empty()).then_some(labels),
    };
    println!("{}", session.client().await?.volume_create(&request).await?.name);
    Ok(Exit::Success)
}

pub(crate) async fn ls(session: &Session, args: Ls) -> Result<Exit> {
    let mut volumes = session.client().await?.volume_list(&filter::parse(&args.filter)?).await?.volumes;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Value> = volumes
        .iter()
        .map(|volume| {
            let labels: Vec<String> =
                volume.labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
            json!({
                "Name": volume.name,
                "Driver": volume.driver,
                "Mountpoint": volume.mountpoint,
                "Scope": volume.scope,
                "Labels": labels.join(","),
                "Availability": "N/A",
                "Group": "N/A",
                "Links": "N/A",
                "Size": "N/A",
                "Status": "N/A",
            })
        })
        .collect();
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("Name") };
    print!("{}", render(style, COLUMNS, HEADINGS, &rows)?);
    Ok(Exit::Success)
}

pub(crate) async fn rm(session: &Session, args: Rm) -> Result<Exit> {
    let client = session.client().await?;
    each(&args.volumes, async |name: &str| Ok(client.volume_remove(name, args.force).await?)).await
}
