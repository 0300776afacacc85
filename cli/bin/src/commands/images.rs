//! `berth images`.

use anyhow::Result;
use berth_api::image::ImageSummary;
use berth_api::options::ListImages;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ps::short, tree};
use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::{Column, Style, asks_for, render};
use crate::output::units;
use crate::session::Session;

/// List images
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Also intermediate ones
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter: key=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Show the platforms of each image below it
    #[arg(long, conflicts_with_all = ["digests", "format", "quiet"])]
    tree: bool,
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

const COLUMNS: &[Column] = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

const HEADINGS: &[Column] =
    &[("DIGEST", "Digest"), ("CREATED AT", "CreatedAt"), ("CONTAINERS", "Containers")];

/// What docker shows where there is no name, tag or digest.
pub(super) const NONE: &str = "<none>";

pub(crate) async fn run(session: &Session, args: Images) -> Result<Exit> {
    let client = session.client().await?;
    let mut filters = filter::parse(&args.filter)?;
    if let Some(name) = args.name {
        filters.add("reference", name);
    }
    let (all, digests, manifests) = (args.all, args.digests, args.tree);
    let options = ListImages { all, filters, digests, manifests, ..ListImages::default() };
    let images = client.image_list(&options).await?;
    if args.tree {
        print!("{}", tree::table(&images, args.no_trunc));
        return Ok(Exit::Success);
    }
    let digests = args.digests || args.format.as_ref().is_some_and(|format| format.contains(".Digest"));
    let dated = asks_for(args.format.as_deref(), "CreatedAt");
    let rows: Vec<Value> =
        images.iter().flat_map(|image| rows(image, args.no_trunc, digests, dated)).collect();
    let mut columns = COLUMNS.to_vec();
    if args.digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("ID") };
    print!("{}", render(style, &columns, HEADINGS, &rows)?);
    Ok(Exit::Success)
}

/// A row for each name of an image; with digests, for each pair of name and digest.
fn rows(image: &ImageSummary, whole: bool, digests: bool, dated: bool) -> Vec<Value> {
    let created = Timestamp::from_second(image.created).unwrap_or_default();
    let row = |(repository, tag, digest): (&str, &str, &str)| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": if whole { &image.id } else { short(&image.id) },
            "Digest": digest,
            "CreatedAt": dated.then(|| units::local(created)),
            "CreatedSince": units::ago(created),
            "Size": units::size(image.size),
            "VirtualSize": units::size(image.size),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() },
        })
    };
    names(image, digests).into_iter().map(row).collect()
}

pub(super) fn names(image: &ImageSummary, digests: bool) -> Vec<(&str, &str, &str)> {
    let known: Vec<(&str, &str)> = image
        .repo_digests
        .iter()
        .filter_map(|name| name.split_once('@'))
        .filter(|(name, _)| *name != NONE)
        .collect();
    let mut names = Vec::new();
    for (repository, tag) in image.repo_tags.iter().filter_map(|name| name.rsplit_once(':')) {
        if repository == NONE {
            continue;
        }
        let its: Vec<&str> = known.iter().filter(|(name, _)| *name == repository).map(|(_, d)| *d).collect();
        match its.as_slice() {
            its @ [_, ..] if digests => names.extend(its.iter().map(|digest| (repository, tag, *digest))),
            _ => names.push((repository, tag, NONE)),
        }
    }
    if names.is_empty() {
        names.extend(known.iter().map(|(name, digest)| (*name, NONE, *digest)));
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let image = |tags: &[&str], digests: &[&str]| ImageSummary {
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            repo_digests: digests.iter().map(|d| (*d).to_owned()).collect(),
            ..ImageSummary::default()
        };
        assert_eq!(
            names(&image(&["r:5000/a:1", "b:2"], &["b@sha256:0"]), true),
            [("r:5000/a", "1", NONE), ("b", "2", "sha256:0")]
        );
        assert_eq!(names(&image(&["<none>:<none>"], &["<none>@<none>"]), false), [(NONE, NONE, NONE)]);
        assert_eq!(names(&image(&[], &["a@sha256:0"]), false), [("a", NONE, "sha256:0")]);
    }
}
