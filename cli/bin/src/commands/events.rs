//! `berth events`.

use anyhow::{Result, bail};
use berth_api::event::Event;
use berth_client::Query;
use clap::Args;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::json;

use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::render_one;
use crate::output::units::parse_duration;
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
    let query = Query::new()
        .maybe("since", args.since.as_deref().map(point_in_time).transpose()?)
        .maybe("until", args.until.as_deref().map(point_in_time).transpose()?)
        .maybe("filters", filter::parse(&args.filter)?);
    let mut stream = client.get_stream("/events", &query).await?;
    let mut buffer = Vec::new();
    while let Some(chunk) = stream.next().await {
        buffer.extend_from_slice(&chunk?);
        let mut events = serde_json::Deserializer::from_slice(&buffer).into_iter::<Event>();
        let mut used = 0;
        loop {
            match events.next() {
                Some(Ok(event)) => {
                    used = events.byte_offset();
                    println!("{}", shown(&event, args.format.as_deref())?);
                }
                Some(Err(e)) if !e.is_eof() => bail!("an event is not understood: {e}"),
                _ => break,
            }
        }
        buffer.drain(..used);
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

/// A `--since` or `--until`: seconds, RFC 3339, or a span back from now, as the API wants it.
pub(crate) fn point_in_time(text: &str) -> Result<String> {
    if text.parse::<f64>().is_ok() || text.parse::<Timestamp>().is_ok() {
        return match text.parse::<Timestamp>() {
            Ok(at) => Ok(format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())),
            Err(_) => Ok(text.to_owned()),
        };
    }
    let Ok(nanoseconds) = parse_duration(text) else {
        bail!("{text:?} is no time: expected seconds since 1970, 2026-01-31T12:00:00Z, or a span such as 10m");
    };
    let at = Timestamp::now().as_nanosecond() - i128::from(nanoseconds);
    Ok(format!("{}.{:09}", at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(point_in_time("1700000000.5").expect("valid"), "1700000000.5");
        assert_eq!(point_in_time("2023-11-14T22:13:20Z").expect("valid"), "1700000000.000000000");
        let ago: f64 = point_in_time("10m").expect("valid").parse().expect("a number");
        assert!((Timestamp::now().as_second() as f64 - 600.0 - ago).abs() < 5.0);
        assert!(point_in_time("yesterday").is_err());
    }
}
