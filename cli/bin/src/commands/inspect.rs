//! `berth inspect`, also of one kind only.

use anyhow::Result;
use berth_client::Client;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure, code_of, describe};
use crate::output::list::render_one;
use crate::session::Session;

/// What can be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// In the order in which a name is looked for.
const KINDS: [Kind; 4] = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume];

/// Show all about containers, images, networks or volumes
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Only things of this kind
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    #[command(flatten)]
    what: What,
}

// The names, and how to show what they mean.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// Format: json or a template
    #[arg(short, long)]
    format: Option<String>,
    /// Sizes of containers
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

// What `network inspect` takes.
#[derive(Debug, Args)]
pub(crate) struct OfNetwork {
    #[command(flatten)]
    pub(crate) what: What,
    /// Of no effect: there are no services of a cluster to show
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(session: &Session, args: Inspect) -> Result<Exit> {
    of(session, args.kind, args.what).await
}

/// Inspects things of one kind, or of any.
pub(crate) async fn of(session: &Session, kind: Option<Kind>, what: What) -> Result<Exit> {
    let client = session.client().await?;
    let kinds = kind.map_or(KINDS.to_vec(), |kind| vec![kind]);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &what.names {
        match find(&client, &kinds, name, what.size).await {
            Ok(Some(value)) => found.push(value),
            Ok(None) => {
                let kind = kind.map_or("object".to_owned(), |kind| format!("{kind:?}").to_lowercase());
                failures.push(format!("Error: No such {kind}: {name}"));
            }
            Err(error) => failures.push(describe(&error.into())),
        }
    }
    match what.format.as_deref() {
        Some(format) => {
            let shown: Vec<Result<String>> = found.iter().map(|value| render_one(format, value)).collect();
            // As docker: whoever takes lines gets one, unless the template is none.
            if shown.first().is_none_or(|first| first.as_ref().is_err_and(|error| code_of(error) == 1)) {
                println!();
            }
            for one in shown {
                match one {
                    Ok(text) => println!("{text}"),
                    Err(error) if failures.is_empty() => return Err(error),
                    // What was not found is told as well.
                    Err(error) => {
                        failures.insert(0, describe(&error));
                        break;
                    }
                }
            }
        }
        None => println!("{}", pretty(&found)?),
    }
    match failures.is_empty() {
        true => Ok(Exit::Success),
        false => Err(Failure { message: failures.join("\n"), code: 1 }.into()),
    }
}

async fn find(
    client: &Client,
    kinds: &[Kind],
    name: &str,
    size: bool,
) -> berth_client::Result<Option<Value>> {
    for kind in kinds {
        let found = match kind {
            Kind::Container => client.container_inspect_raw(name, size).await,
            Kind::Image => client.image_inspect_raw(name).await,
            Kind::Network => client.network_inspect_raw(name, false).await,
            Kind::Volume => client.volume_inspect_raw(name).await,
        };
        match found {
            Ok(value) => return Ok(Some(value)),
            // What is no name of an image, such as `Web`, may still be one of a volume.
            Err(error) if error.is_not_found() => {}
            Err(error) if kinds.len() > 1 && error.status().is_some_and(|status| status.as_u16() == 400) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// A list with four blanks a level, as docker has it.
fn pretty(values: &[Value]) -> Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    values.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::pretty;

    #[test]
    fn four_blanks() {
        assert_eq!(pretty(&[]).expect("serialises"), "[]");
        assert_eq!(
            pretty(&[json!({"a": [1]})]).expect("serialises"),
            "[\n    {\n        \"a\": [\n            1\n        ]\n    }\n]"
        );
    }
}
