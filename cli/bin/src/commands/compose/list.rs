//! `berth compose ps`, `images`, `ls`, `top`, `port`, `volumes`, `stats`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use berth_api::container::ContainerSummary;
use berth_api::options::ListContainers;
use berth_compose::labels::{Labelled, OneOff};
use berth_compose::{logs, observe};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::project::ProjectArgs;
use crate::commands::ps::{self, short, truncated};
use crate::commands::stats;
use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::{Column, Style, render, table};
use crate::output::units;
use crate::session::Session;

/// List the containers of the project
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Filter: status=…
    #[arg(long)]
    filter: Option<String>,
    /// Only those in this state
    #[arg(long)]
    status: Vec<String>,
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Only the services' names
    #[arg(long)]
    services: bool,
    /// Also containers of services that are not in the files
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, require_equals = true)]
    orphans: bool,
    /// Services
    names: Vec<String>,
}

const PS: &[Column] = &[
    ("NAME", "Name"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("SERVICE", "Service"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
];

const PS_MORE: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("STATE", "State"),
    ("LABELS", "Labels"),
    ("PROJECT", "Project"),
    ("CREATED AT", "CreatedAt"),
];

pub(crate) async fn run_ps(session: &Session, args: &ProjectArgs, ps: Ps) -> Result<Exit> {
    let client = session.client().await?;
    let project = args.found(&client, &[]).await?;
    for name in &ps.names {
        project.service(name)?;
    }
    let mut states = ps.status.clone();
    if let Some(filter) = &ps.filter {
        match filter.split_once('=') {
            Some(("status", state)) => states.push(state.to_owned()),
            _ => bail!("unknown filter {filter:?}; it is status=STATE"),
        }
    }
    let one_off = if ps.all { OneOff::Include } else { OneOff::Exclude };
    let mut containers =
        observe::containers(&client, &project.name, one_off, ps.all || !states.is_empty()).await?;
    containers.retain(|container| {
        let service = container.service();
        let named = if !ps.names.is_empty() {
            ps.names.iter().any(|name| name == service)
        } else {
            ps.orphans || project.services.contains_key(service)
        };
        named && (states.is_empty() || states.contains(&container.state))
    });
    containers.sort_by(|a, b| a.short_name().cmp(b.short_name()));
    if ps.services {
        let services: BTreeSet<&str> = containers.iter().map(Labelled::service).collect();
        services.into_iter().for_each(|service| println!("{service}"));
        return Ok(Exit::Success);
    }
    if ps.quiet {
        containers.iter().for_each(|container| println!("{}", container.id));
        return Ok(Exit::Success);
    }
    let rows: Vec<Value> =
        containers.iter().map(|container| row(container, &project.name, ps.no_trunc)).collect();
    print!("{}", render(Style { format: ps.format.as_deref(), only: None }, PS, PS_MORE, &rows)?);
    Ok(Exit::Success)
}

fn row(container: &ContainerSummary, project: &str, whole: bool) -> Value {
    let created = Timestamp::from_second(container.created).unwrap_or_default();
    let publishers = container.ports.iter().map(|port| {
        json!({"URL": port.ip, "TargetPort": port.private_port, "PublishedPort": port.public_port, "Protocol": port.kind})
    });
    let labels: Vec<String> = container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Command": format!("\"{}\"", if whole { container.command.clone() } else { truncated(&container.command, 20) }),
        "CreatedAt": units::local(created),
        "ExitCode": exit_code(&container.status),
        "Health": health(&container.status),
        "ID": if whole { &container.id } else { short(&container.id) },
        "Image": container.image,
        "Labels": labels.join(","),
        "Name": container.short_name(),
        "Names": container.short_name(),
        "Networks": container.network_settings.networks.keys().cloned().collect::<Vec<_>>().join(","),
        "Ports": ps::ports(&container.ports),
        "Project": project,
        "Publishers": publishers.collect::<Vec<_>>(),
        "RunningFor": units::ago(created),
        "Service": container.service(),
        "State": container.state,
        "Status": container.status,
    })
}

/// `Up 5 seconds (healthy)`.
fn health(status: &str) -> &str {
    match status.split_once('(').map(|(_, rest)| rest.trim_end_matches(')')) {
        Some("healthy") => "healthy",
        Some("unhealthy") => "unhealthy",
        Some("health: starting") => "starting",
        _ => "",
    }
}

/// `Exited (1) 5 seconds ago`.
fn exit_code(status: &str) -> i64 {
    let inner = status.strip_prefix("Exited (").and_then(|rest| rest.split(')').next());
    inner.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// List the images of the project's containers
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Format: table or json
    #[arg(long, default_value = "table")]
    format: String,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run_images(session: &Session, args: &ProjectArgs, images: Images) -> Result<Exit> {
    let client = session.client().await?;
    let containers = observe::containers(&client, &args.name()?, OneOff::Include, true).await?;
    let mut rows = Vec::new();
    for container in containers {
        if !images.services.is_empty() && !images.services.iter().any(|name| name == container.service()) {
            continue;
        }
        let image = client.image_inspect(&container.image).await?;
        let (repository, tag) = match container.image.starts_with("sha256:") {
            true => (String::new(), String::new()),
            false => {
                let (name, tag) = crate::commands::pull::split(&container.image);
                (name.to_owned(), tag.to_owned())
            }
        };
        let platform =
            [&image.os, &image.architecture, &image.variant].into_iter().filter(|part| !part.is_empty());
        let platform = platform.cloned().collect::<Vec<_>>().join("/");
        rows.push((container.short_name().to_owned(), repository, tag, platform, image));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    if images.quiet {
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.4.id.trim_start_matches("sha256:")).collect();
        ids.into_iter().for_each(|id| println!("{id}"));
        return Ok(Exit::Success);
    }
    if images.format == "json" {
        let each = rows.iter().map(|(container, repository, tag, platform, image)| {
            json!({
                "ID": image.id, "ContainerName": container, "Repository": repository, "Tag": tag, "Platform": platform,
                "Size": image.size, "LastTagTime": image.metadata.last_tag_time,
            })
        });
        println!("{}", Value::Array(each.collect()));
        return Ok(Exit::Success);
    }
    let none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
    let lines = rows.iter().map(|(container, repository, tag, platform, image)| {
        vec![
            container.clone(),
            none(repository),
            none(tag),
            platform.clone(),
            short(&image.id).to_owned(),
            units::size(image.size),
            image.created.as_ref().map(|at| units::ago(at.0)).unwrap_or_default(),
        ]
    });
    let heading = ["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"];
    print!("{}", table(heading.map(str::to_owned).to_vec(), lines.collect()));
    Ok(Exit::Success)
}

/// List the projects the engine has
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Also those of which nothing runs
    #[arg(short, long)]
    all: bool,
    /// Filter: name=…
    #[arg(long)]
    filter: Vec<String>,
    /// Format: table or json
    #[arg(long, default_value = "table")]
    format: String,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run_ls(session: &Session, ls: Ls) -> Result<Exit> {
    let client = session.client().await?;
    let wanted = filter::parse(&ls.filter)?;
    if let Some(unknown) = wanted.unknown_key(&["name"]) {
        bail!("invalid filter '{unknown}'; it is name=NAME");
    }
    let mut filters = berth_api::Filters::new();
    filters.add("label", "com.docker.compose.project");
    filters.add("label", "com.docker.compose.config-hash");
    let options = ListContainers { all: ls.all, filters, ..ListContainers::default() };
    let mut projects: BTreeMap<String, Vec<ContainerSummary>> = BTreeMap::new();
    for container in client.container_list(&options).await? {
        let name = container.label("com.docker.compose.project").to_owned();
        let fits = |pattern: &String| name.contains(pattern.as_str());
        if wanted.get("name").is_empty() || wanted.get("name").iter().any(fits) {
            projects.entry(name).or_default().push(container);
        }
    }
    if ls.quiet {
        projects.keys().for_each(|name| println!("{name}"));
        return Ok(Exit::Success);
    }
    let status = |containers: &[ContainerSummary]| {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for container in containers {
            *states.entry(&container.state).or_default() += 1;
        }
        states.iter().map(|(state, count)| format!("{state}({count})")).collect::<Vec<_>>().join(", ")
    };
    let files = |containers: &[ContainerSummary]| {
        let files: BTreeSet<&str> = containers
            .iter()
            .map(|container| container.label("com.docker.compose.project.config_files"))
            .collect();
        files.into_iter().collect::<Vec<_>>().join(",")
    };
    if ls.format == "json" {
        let each = projects.iter().map(|(name, containers)| {
            json!({"Name": name, "Status": status(containers), "ConfigFiles": files(containers)})
        });
        println!("{}", Value::Array(each.collect()));
        return Ok(Exit::Success);
    }
    let rows =
        projects.iter().map(|(name, containers)| vec![name.clone(), status(containers), files(containers)]);
    print!("{}", table(["NAME", "STATUS", "CONFIG FILES"].map(str::to_owned).to_vec(), rows.collect()));
    Ok(Exit::Success)
}

/// Show the processes of containers
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run_top(session: &Session, args: &ProjectArgs, top: Top) -> Result<Exit> {
    let client = session.client().await?;
    let containers = observe::containers(&client, &args.name()?, OneOff::Include, false).await?;
    let mut titles: Vec<String> = vec!["SERVICE".to_owned(), "#".to_owned()];
    let mut rows: Vec<BTreeMap<String, String>> = Vec::new();
    for container in containers {
        if !top.services.is_empty() && !top.services.iter().any(|name| name == container.service()) {
            continue;
        }
        let listed = client.container_top(&container.id, "").await?;
        for title in &listed.titles {
            if !titles.contains(title) {
                titles.push(title.clone());
            }
        }
        for process in listed.processes {
            let mut row: BTreeMap<String, String> = listed.titles.iter().cloned().zip(process).collect();
            row.insert("SERVICE".to_owned(), container.service().to_owned());
            row.insert("#".to_owned(), container.number().to_string());
            rows.push(row);
        }
    }
    // The command may be of any length: it comes last.
    if let Some(command) = titles.iter().position(|title| title == "CMD" || title == "COMMAND") {
        let command = titles.remove(command);
        titles.push(command);
    }
    let lines = rows.iter().map(|row| {
        titles.iter().map(|title| row.get(title).cloned().unwrap_or_else(|| "-".to_owned())).collect()
    });
    if !rows.is_empty() {
        print!("{}", table(titles.clone(), lines.collect()));
    }
    Ok(Exit::Success)
}

/// Show where a port of a service is published
#[derive(Debug, Args)]
pub(crate) struct Port {
    /// tcp or udp
    #[arg(long, default_value = "tcp")]
    protocol: String,
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// Service
    service: String,
    /// Port in the container
    port: u16,
}

pub(crate) async fn run_port(session: &Session, args: &ProjectArgs, port: Port) -> Result<Exit> {
    let client = session.client().await?;
    let found = logs::container_of(&client, &args.name()?, &port.service, port.index, false).await?;
    let Some(container) = found else { bail!("service {:?} is not running", port.service) };
    let protocol = port.protocol.to_lowercase();
    let published = container
        .ports
        .iter()
        .find(|there| there.private_port == port.port && there.kind == protocol && there.public_port != 0);
    match published {
        Some(there) => println!("{}:{}", there.ip, there.public_port),
        None => bail!("no port {}/{protocol} for container {}", port.port, container.short_name()),
    }
    Ok(Exit::Success)
}

/// List the volumes of the project's containers
#[derive(Debug, Args)]
pub(crate) struct Volumes {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run_volumes(session: &Session, args: &ProjectArgs, volumes: Volumes) -> Result<Exit> {
    let client = session.client().await?;
    let containers = observe::containers(&client, &args.name()?, OneOff::Include, true).await?;
    let chosen = containers.iter().filter(|container| {
        volumes.services.is_empty() || volumes.services.iter().any(|name| name == container.service())
    });
    let names: BTreeSet<String> = chosen
        .flat_map(|container| &container.mounts)
        .filter(|mount| mount.kind == "volume")
        .map(|mount| mount.name.clone())
        .collect();
    let mut rows = Vec::new();
    for name in names {
        let volume = client.volume_inspect(&name).await?;
        rows.push(json!({"Name": volume.name, "Driver": volume.driver, "Mountpoint": volume.mountpoint, "Scope": volume.scope}));
    }
    let columns: &[Column] = &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")];
    let style = Style { format: volumes.format.as_deref(), only: volumes.quiet.then_some("Name") };
    print!("{}", render(style, columns, &[("MOUNTPOINT", "Mountpoint")], &rows)?);
    Ok(Exit::Success)
}

/// Show the use of resources
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    look: stats::Look,
    /// Service
    service: Option<String>,
}

pub(crate) async fn run_stats(session: &Session, args: &ProjectArgs, wanted: Stats) -> Result<Exit> {
    let client = session.client().await?;
    let mut containers =
        observe::containers(&client, &args.name()?, OneOff::Include, wanted.look.all).await?;
    containers
        .retain(|container| wanted.service.as_ref().is_none_or(|service| service == container.service()));
    if containers.is_empty() {
        bail!("no containers for this project run");
    }
    let names: Vec<String> =
        containers.into_iter().map(|container| container.short_name().to_owned()).collect();
    stats::show(&client, &wanted.look, &names).await
}
