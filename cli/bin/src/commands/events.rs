//! `berth events`.

use anyhow::{Result, bail};
use berth_api::event::Event;
use berth_api::options;
use berth_api::when::{self, When};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::render_one;
use crate::session::Session;

/// Show what happens in the engine
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Filter: key=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// From this time on: a timestamp, or 10m
    #[arg(long)]
    since: Option<String>,
    /// Up to this time
    #[arg(long)]
    until: Option<String>,
    /// Format: json or a template
    #[arg(long)]
    format: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Events) -> Result<Exit> {
    let client = session.client().await?;
    let options = options::Events {
        since: args.since.as_deref().map(point_in_time).transpose()?.flatten(),
        until: args.until.as_deref().map(point_in_time).transpose()?.flatten(),
        filters: filter::parse(&args.filter)?,
    };
    let mut stream = client.events(&options).await?;
    while let Some(event) = stream.next().await? {
        println!("{}", shown(&event, args.format.as_deref())?);
    }
    Ok(Exit::Success)
}

fn shown(event: &Event, format: Option<&str>) -> Result<String> {
    if let Some(format) = format {
        let mut value = serde_json::to_value(event)?;
        if let Some(map) = value.as_object_mut() {
            map.insert("Status".into(), json!(event.action));
            map.insert("ID".into(), json!(event.actor.id));
        }
        return render_one(format, &value);
    }
    let at = Timestamp::from_nanosecond(i128::from(event.time_nano)).unwrap_or_default();
    let attributes: Vec<String> = event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Ok(format!("{at} {} {} {} ({})", event.kind, event.action, event.actor.id, attributes.join(", ")))
}

/// A `--since` or `--until`: seconds, RFC 3339, or a span back from now.
pub(crate) fn point_in_time(text: &str) -> Result<Option<When>> {
    match when::parse(text, Timestamp::now()) {
        Ok(at) => Ok(at),
        Err(_) => {
            bail!(
                "{text:?} is no time: expected seconds since 1970, 2026-01-31T12:00:00Z, or a span such as 10m"
            )
        }
    }
}
