//! `berth build --check`: what is wrong with a Dockerfile, and what is not as it should be. No engine is needed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use berth_dockerfile_parser::lint::{self, Environment};
use berth_dockerfile_parser::{ignore, span};

use super::Build;
use crate::exit::Exit;

pub(super) async fn run(args: &Build) -> Result<Exit> {
    let (name, text) = read(&args.context, args.file.as_deref())?;
    let given = super::build_args(&args.build_arg).into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
    examine(&name, &text, &args.context, &given, &args.target)
}

/// Prints what is wrong with a Dockerfile; anything at all is a failure.
pub(crate) fn examine(
    name: &str,
    text: &str,
    context: &str,
    given: &BTreeMap<String, String>,
    target: &str,
) -> Result<Exit> {
    let program = berth_dockerfile_parser::read(text);
    let errors: Vec<String> = program.errors().map(|error| error.render(name, text)).collect();
    if !errors.is_empty() {
        println!(
            "{}",
            errors.join(
                "
"
            )
        );
        bail!(
            "Check complete, {} {} found.",
            errors.len(),
            if errors.len() == 1 { "error" } else { "errors" }
        );
    }
    let ignore_file = std::fs::read_to_string(Path::new(context).join(".dockerignore"));
    let patterns = ignore::read(&ignore_file.unwrap_or_default());
    let platform = berth_oci::Platform::host();
    let predefined = ["TARGETPLATFORM", "BUILDPLATFORM"].map(|name| (name.to_owned(), platform.to_string()));
    let mut predefined: BTreeMap<String, String> = predefined.into();
    for name in ["OS", "ARCH", "VARIANT", "OSVERSION"] {
        for prefix in ["TARGET", "BUILD"] {
            predefined.insert(format!("{prefix}{name}"), String::new());
        }
    }
    predefined.insert("TARGETSTAGE".to_owned(), target.to_owned());
    let environment = Environment {
        build_args: given,
        predefined: &predefined,
        ignore: &patterns,
        stages: None,
        // No engine is asked: what an image brings is not known here.
        image_env: &|_| None,
        is_image_name: &|name| name == "scratch" || berth_oci::Reference::parse(name).is_ok(),
    };
    let found = lint::check(&program, &environment);
    for warning in &found {
        println!("{}", warning.render(name, text));
    }
    let first = found.iter().map(|w| span::position(text, w.span.start).0).min();
    match (found.len(), first) {
        (0, _) => {
            println!("Check complete, no warnings found.");
            Ok(Exit::Success)
        }
        (count, _) => {
            bail!("Check complete, {count} {} found.", if count == 1 { "warning" } else { "warnings" })
        }
    }
}

/// A Dockerfile, with its name for messages.
pub(crate) fn read(context: &str, file: Option<&Path>) -> Result<(String, String)> {
    let root = Path::new(context);
    let path = match file {
        Some(file) if file == Path::new("-") => {
            let text = std::io::read_to_string(std::io::stdin()).context("cannot read the Dockerfile")?;
            return Ok(("-".to_owned(), text));
        }
        Some(file) if file.exists() || file.is_absolute() => file.to_owned(),
        Some(file) => root.join(file),
        None => root.join("Dockerfile"),
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))
}
