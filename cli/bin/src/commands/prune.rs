//! `prune` of containers, images, networks, volumes, and of all of them.

use anyhow::{Result, bail};
use berth_api::Filters;
use berth_client::Client;
use clap::Args;

use super::{confirm, rmi};
use crate::exit::Exit;
use crate::flags::filter;
use crate::output::units;
use crate::session::Session;

// What every prune takes.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Filter: key=value
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

// What takes `--all` besides.
#[derive(Debug, Args)]
pub(crate) struct PruneMore {
    /// Also what has a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: Prune,
}

/// Remove all that nobody uses
#[derive(Debug, Args)]
pub(crate) struct System {
    /// Also volumes
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    more: PruneMore,
}

impl Prune {
    /// The filters, if the user agrees to go on.
    fn agreed(&self, what: &str) -> Result<Option<Filters>> {
        let filters = filter::parse(&self.filter)?;
        let agreed = self.force || confirm(&format!("WARNING! This will remove {what}.\nGo on?"))?;
        Ok(agreed.then_some(filters))
    }
}

pub(crate) async fn containers(session: &Session, args: Prune) -> Result<Exit> {
    let client = session.client().await?;
    if let Some(filters) = args.agreed("all stopped containers")? {
        total(prune_containers(&client, &filters).await?);
    }
    Ok(Exit::Success)
}

pub(crate) async fn images(session: &Session, args: PruneMore) -> Result<Exit> {
    let client = session.client().await?;
    let what = if args.all { "all images that no container uses" } else { "all images without a name" };
    if let Some(filters) = args.prune.agreed(what)? {
        total(prune_images(&client, filters, args.all).await?);
    }
    Ok(Exit::Success)
}

pub(crate) async fn networks(session: &Session, args: Prune) -> Result<Exit> {
    let client = session.client().await?;
    if let Some(filters) = args.agreed("all networks that no container uses")? {
        prune_networks(&client, &filters).await?;
    }
    Ok(Exit::Success)
}

pub(crate) async fn volumes(session: &Session, args: PruneMore) -> Result<Exit> {
    let client = session.client().await?;
    if let Some(mut filters) = args.prune.agreed("all volumes that no container uses")? {
        if args.all {
            filters.add("all", "true");
        }
        total(prune_volumes(&client, &filters).await?);
    }
    Ok(Exit::Success)
}

pub(crate) async fn system(session: &Session, args: System) -> Result<Exit> {
    if args.volumes && args.more.prune.filter.iter().any(|filter| filter.starts_with("until=")) {
        bail!(
            "the filter \"until\" means nothing to volumes: leave out --volumes, or prune volumes on their own"
        );
    }
    let client = session.client().await?;
    let volumes = if args.volumes { ", volumes" } else { "" };
    let what = format!("all stopped containers, unused networks and images{volumes}, and the build cache");
    let Some(filters) = args.more.prune.agreed(&what)? else { return Ok(Exit::Success) };
    let mut freed = prune_containers(&client, &filters).await?;
    prune_networks(&client, &filters).await?;
    if args.volumes {
        freed += prune_volumes(&client, &filters).await?;
    }
    freed += prune_images(&client, filters.clone(), args.more.all).await?;
    let cache = client.build_prune(args.more.all, 0, 0, &filters).await?;
    list("Deleted build cache objects", cache.caches_deleted);
    total(freed + cache.space_reclaimed);
    Ok(Exit::Success)
}

async fn prune_containers(client: &Client, filters: &Filters) -> Result<u64> {
    let answer = client.container_prune(filters).await?;
    list("Deleted Containers", answer.containers_deleted);
    Ok(answer.space_reclaimed)
}

async fn prune_images(client: &Client, mut filters: Filters, all: bool) -> Result<u64> {
    filters.add("dangling", if all { "false" } else { "true" });
    let answer = client.image_prune(&filters).await?;
    if let Some(items) = answer.images_deleted.filter(|items| !items.is_empty()) {
        println!("Deleted Images:");
        rmi::tell(&items);
        println!();
    }
    Ok(answer.space_reclaimed)
}

async fn prune_networks(client: &Client, filters: &Filters) -> Result<()> {
    list("Deleted Networks", client.network_prune(filters).await?.networks_deleted);
    Ok(())
}

async fn prune_volumes(client: &Client, filters: &Filters) -> Result<u64> {
    let answer = client.volume_prune(filters).await?;
    list("Deleted Volumes", answer.volumes_deleted);
    Ok(answer.space_reclaimed)
}

fn list(heading: &str, names: Option<Vec<String>>) {
    if let Some(names) = names.filter(|names| !names.is_empty()) {
        println!("{heading}:\n{}\n", names.join("\n"));
    }
}

fn total(bytes: u64) {
    println!("Total reclaimed space: {}", units::size(i64::try_from(bytes).unwrap_or(i64::MAX)));
}
