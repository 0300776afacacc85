//! `berth search`.

use anyhow::Result;
use berth_api::image::SearchResult;
use clap::Args;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::{Column, Style, render};
use crate::session::Session;

/// Longest description in a table.
const DESCRIPTION: usize = 45;

/// Search Docker Hub, or the registry that the term begins with
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// What to look for: TERM or REGISTRY/TERM
    term: String,
    /// Filter: stars=N, is-official=true
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format: a template
    #[arg(long)]
    format: Option<String>,
    /// At most so many results
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    limit: i64,
    /// Whole descriptions
    #[arg(long)]
    no_trunc: bool,
}

const COLUMNS: &[Column] =
    &[("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")];

pub(crate) async fn run(session: &Session, args: Search) -> Result<Exit> {
    let filters = filter::parse(&args.filter)?;
    let found = session.client().await?.image_search(&args.term, args.limit, &filters).await?;
    let rows: Vec<Value> = found.iter().map(|one| row(one, args.no_trunc)).collect();
    let style = Style { format: args.format.as_deref(), only: None };
    print!("{}", render(style, COLUMNS, &[], &rows)?);
    Ok(Exit::Success)
}

fn row(found: &SearchResult, whole: bool) -> Value {
    let line = found.description.replace(['\n', '\r'], " ");
    let short: String = line.chars().take(DESCRIPTION - 1).collect();
    json!({
        "Name": found.name,
        "Description": if whole || line.chars().count() <= DESCRIPTION { line } else { format!("{short}…") },
        "StarCount": found.star_count.to_string(),
        "IsOfficial": if found.is_official { "[OK]" } else { "" },
    })
}
