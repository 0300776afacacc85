//! `berth events`.

use anyhow::{Result, bail};
use berth_api::event::Event;
use berth_api::options;
use berth_api::when::{self, When};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::OneFormat;
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
    // An event may be long in coming: what is wrong with the command line is said now.
    let format = args.format.as_deref().map(OneFormat::parse).transpose()?;
    let options = options::Events {
        since: args.since.as_deref().map(point_in_time).transpose()?.flatten(),
        until: args.until.as_deref().map(point_in_time).transpose()?.flatten(),
        filters: filter::parse(&args.filter)?,
    };
    let mut stream = session.client().await?.events(&options).await?;
    while let Some(event) = stream.next().await? {
        println!("{}", shown(&event, format.as_ref())?);
    }
    Ok(Exit::Success)
}

fn shown(event: &Event, format: Option<&OneFormat>) -> Result<String> {
    if let Some(format) = format {
        return format.render(&fields(event, matches!(format, OneFormat::Json))?);
    }
    let at = Timestamp::from_nanosecond(i128::from(event.time_nano)).unwrap_or_default();
    let attributes: Vec<String> = event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Ok(format!("{at} {} {} {} ({})", event.kind, event.action, event.actor.id, attributes.join(", ")))
}

/// What an event has: as JSON by the names on the wire, for a template by those of docker's type.
fn fields(event: &Event, json: bool) -> Result<Value> {
    let mut value = serde_json::to_value(event)?;
    let Some(map) = value.as_object_mut() else { return Ok(value) };
    let from = event.actor.attributes.get("image").cloned().unwrap_or_default();
    let older = [("status", "Status", &event.action), ("id", "ID", &event.actor.id), ("from", "From", &from)];
    for (wire, name, value) in older {
        if !json {
            map.insert(name.into(), json!(value));
        } else if matches!(event.kind.as_str(), "container" | "image") && !value.is_empty() {
            map.insert(wire.into(), json!(value));
        }
    }
    for (wire, name) in [("scope", "Scope"), ("time", "Time"), ("timeNano", "TimeNano")] {
        if !json && let Some(value) = map.remove(wire) {
            map.insert(name.into(), value);
        }
    }
    Ok(value)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_know_dockers_names() {
        let event: Event = serde_json::from_str(
            r#"{"Type":"container","Action":"die","Actor":{"ID":"0","Attributes":{"image":"box","exitCode":"3"}},
                "scope":"local","time":1,"timeNano":1000000002}"#,
        )
        .expect("an event");
        let show = |format: &str| shown(&event, Some(&OneFormat::parse(format)?));
        for (format, expected) in [
            (
                "{{.Status}} {{.ID}} {{.From}} {{.Scope}} {{.Time}} {{.TimeNano}}",
                "die 0 box local 1 1000000002",
            ),
            ("{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.none}}", "3 <no value>"),
        ] {
            assert_eq!(show(format).expect("renders"), expected);
        }
        assert_eq!(show("json").expect("renders"), show("{{json .}}").expect("renders"));
        assert!(show("json").expect("renders").contains(r#""status":"die""#));
        assert!(OneFormat::parse("{{.Status").is_err());
    }
}
