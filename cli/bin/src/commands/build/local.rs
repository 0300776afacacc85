//! Builds on this machine: the engine gets directories and files as descriptors and reads them in place.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use berth_api::build::{LocalBuild, LocalContext};
use berth_client::Client;
use clap::Args;
use serde_json::json;

use super::options::{self, Handed, is_url};
use super::show::{self, Built, Progress};
use super::{Build, dockerfile, is_archive};
use crate::credentials;
use crate::exit::Exit;

/// Flags that docker's classic build does not have.
#[derive(Debug, Args)]
pub(crate) struct More {
    /// Another context: NAME=DIRECTORY, NAME=docker-image://IMAGE or NAME=URL
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Stages whose steps run anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh: default or ID=SOCKET
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    /// What steps may ask for: security.insecure, network.host, device[=NAME]
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Where the result goes: type=image|registry|local|tar|oci|docker,dest=PATH
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Push the image to its registry
    #[arg(long)]
    push: bool,
    /// Load the image into the engine, where it is anyhow
    #[arg(long, hide = true)]
    load: bool,
    /// Cache to take results from: type=registry,ref=IMAGE or type=local,src=DIRECTORY
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Where the cache goes: type=inline, type=registry,ref=IMAGE or type=local,dest=DIRECTORY; mounts=true takes cache mounts along
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Write what became of the build to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    progress: Progress,
    /// Tell of each step that is not in the cache which input changed
    #[arg(long)]
    explain: bool,
    /// Check the Dockerfile instead of building it
    #[arg(long)]
    pub(super) check: bool,
}

impl More {
    /// Whether an engine that is not Berth, or not here, cannot do it.
    fn is_needed(&self) -> Option<&'static str> {
        let lists: [(&str, &[String]); 7] = [
            ("--build-context", &self.build_context),
            ("--no-cache-filter", &self.no_cache_filter),
            ("--secret", &self.secret),
            ("--ssh", &self.ssh),
            ("--allow", &self.allow),
            ("--output", &self.output),
            ("--cache-to", &self.cache_to),
        ];
        lists.into_iter().find(|(_, list)| !list.is_empty()).map(|(name, _)| name)
    }
}

/// Builds; none if the engine wants an archive.
pub(super) async fn run(client: &Client, args: &Build) -> Result<Option<Exit>> {
    let mut handed = Handed::default();
    let more = &args.more;
    if !matches!(client.host(), berth_client::Host::Unix(_)) {
        return refuse(more).map(|()| None);
    }
    let (context, dockerfile, dockerfile_text) = source(args, &mut handed)?;
    let outputs = options::outputs(&more.output, more.push, &mut handed)?;
    let mut build_options = super::options(args)?;
    build_options.tags.extend(outputs.names);
    build_options.dockerfile = dockerfile;
    let name = match args.tag.first() {
        Some(tag) => tag.clone(),
        None => name(args),
    };
    let build = LocalBuild {
        options: build_options,
        auths: credentials::for_build()?,
        name,
        context,
        dockerfile_text,
        named_contexts: options::contexts(&more.build_context, &mut handed)?,
        no_cache_filter: more.no_cache_filter.clone(),
        secrets: options::secrets(&more.secret)?,
        ssh: options::agents(&more.ssh)?,
        allow: more.allow.clone(),
        outputs: outputs.outputs,
        rewrite_timestamp: outputs.rewrite_timestamp,
        cache_from: options::caches("--cache-from", &more.cache_from, false, &mut handed)?,
        cache_to: options::caches("--cache-to", &more.cache_to, true, &mut handed)?,
    };
    let Some(messages) = client.local_build(&build, &handed.0).await? else {
        return refuse(more).map(|()| None);
    };
    let progress = if args.quiet { Progress::Quiet } else { more.progress };
    let built = show::show(messages, progress, more.explain).await?;
    finish(args, &build.options.tags, &built)?;
    Ok(Some(Exit::Success))
}

fn refuse(more: &More) -> Result<()> {
    match more.is_needed() {
        Some(flag) => bail!("{flag} needs a Berth engine on this machine"),
        None => Ok(()),
    }
}

/// What the build is called from one time to the next.
fn name(args: &Build) -> String {
    let place = std::fs::canonicalize(&args.context).unwrap_or_else(|_| PathBuf::from(&args.context));
    let file = args.file.as_deref().unwrap_or(Path::new("Dockerfile"));
    format!("{} {} {}", place.display(), file.display(), args.target)
}

fn finish(args: &Build, tags: &[String], built: &Built) -> Result<()> {
    if args.quiet {
        println!("{}", built.id);
    }
    if let Some(path) = &args.iidfile {
        std::fs::write(path, &built.id).with_context(|| format!("--iidfile {}", path.display()))?;
    }
    if let Some(path) = &args.more.metadata_file {
        let mut metadata = json!({ "containerimage.config.digest": built.id });
        if let Some(digest) = &built.digest {
            metadata["containerimage.digest"] = json!(digest);
        }
        if !tags.is_empty() {
            metadata["image.name"] = json!(tags.join(","));
        }
        let text = serde_json::to_string_pretty(&metadata)?;
        std::fs::write(path, text).with_context(|| format!("--metadata-file {}", path.display()))?;
    }
    Ok(())
}

/// The context, the Dockerfile's name in it, and its text if it is not there.
pub(super) fn source(args: &Build, handed: &mut Handed) -> Result<(LocalContext, String, Option<String>)> {
    let given = args.file.as_deref();
    let in_context = || given.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    let from_stdin = given == Some(Path::new("-"));
    if args.context == "-" {
        if from_stdin {
            bail!("invalid argument: can't use stdin for both build context and dockerfile");
        }
        let mut bytes = Vec::new();
        let mut stdin = std::io::stdin().lock();
        (&mut stdin).take(512).read_to_end(&mut bytes).context("cannot read standard input")?;
        if !is_archive(&bytes) {
            stdin.read_to_end(&mut bytes).context("cannot read standard input")?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Ok((LocalContext::Empty, String::new(), Some(text)));
        }
        use std::io::{Seek, Write};
        let mut spool = tempfile::tempfile().context("cannot make a file for the context")?;
        spool.write_all(&bytes)?;
        std::io::copy(&mut stdin, &mut spool).context("cannot read the context")?;
        spool.rewind()?;
        return Ok((LocalContext::Archive(handed.add(spool)), in_context(), None));
    }
    let text = match from_stdin {
        false => None,
        true => Some(std::io::read_to_string(std::io::stdin()).context("cannot read the Dockerfile")?),
    };
    place(&args.context, given.filter(|_| !from_stdin), text, handed)
}

/// The context in a directory or behind a URL, the Dockerfile's name in it, and its text if it is not there. A `text`
/// that is given stands for the Dockerfile.
pub(crate) fn place(
    context: &str,
    given: Option<&Path>,
    text: Option<String>,
    handed: &mut Handed,
) -> Result<(LocalContext, String, Option<String>)> {
    if is_url(context) {
        let name = given.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok((LocalContext::Url(context.to_owned()), name, text));
    }
    let path = Path::new(context);
    let root = path
        .canonicalize()
        .with_context(|| format!("unable to prepare context: path {:?} not found", path.display()))?;
    if !root.is_dir() {
        bail!("unable to prepare context: {} is not a directory", path.display());
    }
    let context = LocalContext::Directory(handed.directory(&root)?);
    if text.is_some() {
        return Ok((context, String::new(), text));
    }
    // `dockerfile` in small letters will do, too: the engine looks for it.
    if given.is_none() && !root.join("Dockerfile").exists() && root.join("dockerfile").exists() {
        return Ok((context, "Dockerfile".to_owned(), None));
    }
    let (inside, outside) = dockerfile(&root, given)?;
    let outside = outside.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((context, inside.unwrap_or_default(), outside))
}
