//! `berth history`.

use anyhow::Result;
use berth_api::ApiVersion;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::ps::{short, truncated};
use crate::exit::Exit;
use crate::flags::platform;
use crate::output::list::{Column, Style, render};
use crate::output::units;
use crate::session::Session;

/// Show how an image was made
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Whole ids and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Sizes and dates for people; =false gives bytes and times
    #[arg(
        short = 'H',
        long,
        default_value_t = true,
        hide_default_value = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        value_name = "BOOL"
    )]
    human: bool,
    /// Of this platform's image: os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Image
    image: String,
}

const COLUMNS: &[Column] = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];
/// The same with the times themselves.
const PLAIN: &[Column] = &[
    ("IMAGE", "ID"),
    ("CREATED AT", "CreatedAt"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// Since when engines have the history of one platform.
const SINCE: ApiVersion = ApiVersion::new(1, 48);

pub(crate) async fn run(session: &Session, args: History) -> Result<Exit> {
    let client = session.client().await?;
    let platform = platform::for_engine(&client, args.platform.as_slice(), SINCE).await?.pop();
    let items = client.image_history(&args.image, platform.as_deref().unwrap_or_default()).await?;
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let created = Timestamp::from_second(item.created).unwrap_or_default();
            let by = item.created_by.replace('\t', " ");
            json!({
                "ID": if args.no_trunc { &item.id } else { short(&item.id) },
                "CreatedAt": created.to_string(),
                "CreatedSince": match item.created > 0 {
                    true if args.human => units::ago(created),
                    true => created.to_string(),
                    false => "N/A".to_owned(),
                },
                "CreatedBy": if args.no_trunc { by } else { truncated(&by, 45) },
                "Size": if args.human { units::size(item.size) } else { item.size.to_string() },
                "Comment": item.comment,
            })
        })
        .collect();
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("ID") };
    let (columns, more) = match args.human {
        true => (COLUMNS, [("CREATED AT", "CreatedAt")]),
        false => (PLAIN, [("CREATED", "CreatedSince")]),
    };
    print!("{}", render(style, columns, &more, &rows)?);
    Ok(Exit::Success)
}
