//! `berth ps`.

use std::borrow::Cow;

use anyhow::Result;
use berth_api::container::{ContainerLine, PortSummary};
use berth_api::options::ListContainers;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::{Column, Row, Style, asks_for, render};
use crate::output::units;
use crate::session::Session;

/// List containers
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Filter: key=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// The newest N, running or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<i64>,
    /// The newest one
    #[arg(short, long)]
    latest: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Sizes
    #[arg(short, long)]
    size: bool,
}

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

const HEADINGS: &[Column] = &[
    ("CREATED AT", "CreatedAt"),
    ("STATE", "State"),
    ("SIZE", "Size"),
    ("LABELS", "Labels"),
    ("MOUNTS", "Mounts"),
    ("NETWORKS", "Networks"),
];

pub(crate) async fn run(session: &Session, args: Ps) -> Result<Exit> {
    let client = session.client().await?;
    let limit = if args.latest { Some(1) } else { args.last };
    let options = ListContainers {
        all: args.all || limit.is_some(),
        limit: limit.unwrap_or(0),
        size: args.size || asks_for(args.format.as_deref(), "Size"),
        filters: filter::parse(&args.filter)?,
        ..ListContainers::default()
    };
    let list = client.container_list_json(&options).await?;
    let containers: Vec<ContainerLine<'_>> = list.read()?;
    // Where this machine's time zone has to be looked for, that takes longer than all the rest.
    let dated = asks_for(args.format.as_deref(), "CreatedAt");
    let rows = containers.into_iter().map(|container| Shown { container, whole: args.no_trunc, dated });
    let mut columns = COLUMNS.to_vec();
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("ID") };
    print!("{}", render(style, &columns, HEADINGS, rows)?);
    Ok(Exit::Success)
}

/// A container as it is shown.
struct Shown<'a> {
    container: ContainerLine<'a>,
    /// Ids and commands are not cut.
    whole: bool,
    /// Its day and hour are asked for.
    dated: bool,
}

/// What a row has, in docker's order.
const FIELDS: [&str; 15] = [
    "ID",
    "Image",
    "Command",
    "CreatedAt",
    "RunningFor",
    "Ports",
    "State",
    "Status",
    "Size",
    "Names",
    "Labels",
    "LocalVolumes",
    "Platform",
    "Mounts",
    "Networks",
];

impl Row for Shown<'_> {
    fn text(&self, field: &str) -> Cow<'_, str> {
        let container = &self.container;
        let created = || Timestamp::from_second(container.created).unwrap_or_default();
        match field {
            "ID" if self.whole => (&*container.id).into(),
            "ID" => short(&container.id).into(),
            "Image" => container.image.strip_prefix("sha256:").map_or(&*container.image, short).into(),
            "Command" if self.whole => format!("\"{}\"", &*container.command).into(),
            "Command" => format!("\"{}\"", truncated(&container.command, 20)).into(),
            "CreatedAt" => units::local(created()).into(),
            "RunningFor" => units::ago(created()).into(),
            "Ports" => ports(&container.ports).into(),
            "State" => (&*container.state).into(),
            "Status" => (&*container.status).into(),
            "Size" => {
                let (own, all) = (units::size(container.size_rw), units::size(container.size_root_fs));
                format!("{own} (virtual {all})").into()
            }
            "Names" => joined(container.names.iter().map(|name| name.trim_start_matches('/'))),
            "Labels" => {
                let labels = container.labels.iter().map(|(key, value)| format!("{}={}", &**key, &**value));
                labels.collect::<Vec<_>>().join(",").into()
            }
            "LocalVolumes" => {
                container.mounts.iter().filter(|mount| &*mount.driver == "local").count().to_string().into()
            }
            "Mounts" => {
                joined(container.mounts.iter().map(|m| if m.name.is_empty() { &*m.source } else { &*m.name }))
            }
            "Networks" => joined(container.network_settings.networks.keys().map(|name| &**name)),
            _ => "".into(),
        }
    }

    fn fields(&self) -> Value {
        let shown = |field: &&str| *field != "Platform" && (self.dated || *field != "CreatedAt");
        let value = |field: &str| if shown(&field) { self.text(field).into() } else { Value::Null };
        FIELDS.iter().map(|field| ((*field).to_owned(), value(field))).collect()
    }
}

/// Mostly there is one.
fn joined<'a>(mut texts: impl Iterator<Item = &'a str>) -> Cow<'a, str> {
    let first = texts.next().unwrap_or_default();
    texts.fold(first.into(), |all, next| format!("{all},{next}").into())
}

/// The twelve characters of an id that people see.
pub(crate) fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// At most `most` characters, the last of them an ellipsis where some are missing.
pub(crate) fn truncated(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// `0.0.0.0:8080->80/tcp, 443/tcp`; neighbouring ports are one range.
pub(crate) fn ports(ports: &[PortSummary]) -> String {
    let mut sorted: Vec<&PortSummary> = ports.iter().collect();
    sorted.sort_by(|a, b| {
        (&a.ip, &a.kind, a.private_port, a.public_port).cmp(&(&b.ip, &b.kind, b.private_port, b.public_port))
    });
    let mut groups: Vec<(&PortSummary, &PortSummary)> = Vec::new();
    for port in sorted {
        match groups.last_mut() {
            Some((_, last))
                if last.ip == port.ip
                    && last.kind == port.kind
                    && last.private_port + 1 == port.private_port
                    && (last.public_port + 1 == port.public_port
                        || (last.public_port == 0 && port.public_port == 0)) =>
            {
                *last = port;
            }
            _ => groups.push((port, port)),
        }
    }
    let range = |a: u16, b: u16| if a == b { a.to_string() } else { format!("{a}-{b}") };
    let shown = groups.iter().map(|(first, last)| {
        let private = range(first.private_port, last.private_port);
        if first.public_port == 0 {
            return format!("{private}/{}", first.kind);
        }
        let ip = if first.ip.contains(':') { format!("[{}]", first.ip) } else { first.ip.clone() };
        format!("{ip}:{}->{private}/{}", range(first.public_port, last.public_port), first.kind)
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_ports() {
        let port = |ip: &str, private, public| PortSummary {
            ip: ip.into(),
            private_port: private,
            public_port: public,
            kind: "tcp".into(),
        };
        assert_eq!(ports(&[port("0.0.0.0", 80, 8080), port("", 443, 0)]), "443/tcp, 0.0.0.0:8080->80/tcp");
        assert_eq!(ports(&[port("::", 81, 8081), port("::", 80, 8080)]), "[::]:8080-8081->80-81/tcp");
    }

    #[test]
    fn shortening() {
        assert_eq!(truncated("sh -c 'a very long command'", 20), "sh -c 'a very long …");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
