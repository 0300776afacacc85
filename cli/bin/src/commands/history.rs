//! `berth history`.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::ps::{short, truncated};
use crate::exit::Exit;
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

pub(crate) async fn run(session: &Session, args: History) -> Result<Exit> {
    let items = session.client().await?.image_history(&args.image).await?;
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let created = Timestamp::from_second(item.created).unwrap_or_default();
            let by = item.created_by.replace('\t', " ");
            json!({
                "ID": if args.no_trunc { &item.id } else { short(&item.id) },
                "CreatedAt": created.to_string(),
                "CreatedSince": if item.created > 0 { units::ago(created) } else { "N/A".to_owned() },
                "CreatedBy": if args.no_trunc { by } else { truncated(&by, 45) },
                "Size": units::size(item.size),
                "Comment": item.comment,
            })
        })
        .collect();
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("ID") };
    print!("{}", render(style, COLUMNS, &[("CREATED AT", "CreatedAt")], &rows)?);
    Ok(Exit::Success)
}
