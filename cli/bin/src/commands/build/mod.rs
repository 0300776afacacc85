//! `berth build`. To an engine on this machine directories go as descriptors ([`local`]); any other gets the context
//! packed as an archive, as docker does it.

pub(crate) mod check;
mod classic;
pub(super) mod local;
pub(super) mod options;
mod show;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use berth_api::build::BuildOptions;
use berth_api::progress::ProgressMessage;
use berth_client::{Client, JsonStream, Upload};
use berth_dockerfile_parser::ignore::{self, Matcher};
use clap::Args;
use tokio::io::AsyncReadExt;

pub(super) use self::options::{Handed, is_url};
pub(super) use self::show::{Progress, show};
use crate::credentials;
use crate::exit::Exit;
use crate::flags::environment;
use crate::output::progress::{self, Show};
use crate::output::units;
use crate::session::Session;
use crate::tarball::{self, Archive, Making, Owners, Packing, Tree};

/// Build an image of a Dockerfile
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Dockerfile; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Value of an ARG; NAME alone passes ours on
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Stage to build
    #[arg(long, default_value = "")]
    target: String,
    /// Run every step anew
    #[arg(long)]
    no_cache: bool,
    /// Pull base images even if they are there
    #[arg(long)]
    pull: bool,
    /// Print only the id
    #[arg(short, long)]
    quiet: bool,
    /// Network of the steps
    #[arg(long, default_value = "")]
    network: String,
    /// Platform: os/architecture[/variant]; several, with commas between, make an image each and an index
    #[arg(long, default_value = "")]
    platform: String,
    /// Memory limit of a step
    #[arg(short, long, value_name = "BYTES", value_parser = units::parse_memory)]
    memory: Option<i64>,
    /// Processor time of a step per period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory)]
    shm_size: Option<i64>,
    /// Line for /etc/hosts: name:address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Remove the containers of steps
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rm: bool,
    /// Remove them after a failure too
    #[arg(long)]
    force_rm: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Memory and swap limit of a step
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory_or_unlimited, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Processors of a step, as a number such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = units::parse_cpus, conflicts_with = "cpu_quota")]
    cpus: Option<i64>,
    /// Weight of a step's processor time
    #[arg(long)]
    cpu_shares: Option<i64>,
    /// Period of the processor time in microseconds
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Processors of a step by number: 0-2,7
    #[arg(long, default_value = "")]
    cpuset_cpus: String,
    /// Memory nodes of a step
    #[arg(long, default_value = "")]
    cpuset_mems: String,
    /// Parent cgroup of the steps
    #[arg(long, default_value = "")]
    cgroup_parent: String,
    #[command(flatten)]
    classic: classic::Classic,
    #[command(flatten)]
    more: local::More,
    /// Directory, URL, or - for a Dockerfile or an archive on standard input
    context: String,
}

/// What is sent, and what it says of the Dockerfile.
struct Sent {
    upload: Upload,
    making: Option<Making>,
    dockerfile: String,
    remote: String,
}

pub(crate) async fn run(session: &Session, args: Build) -> Result<Exit> {
    if args.more.check {
        return check::run(&args).await;
    }
    let client = session.client().await?;
    if let Some(exit) = local::run(&client, &args).await? {
        return Ok(exit);
    }
    let context = context(&args).await?;
    let options = BuildOptions { dockerfile: context.dockerfile, remote: context.remote, ..options(&args)? };
    let stream = begin(&client, &options, context.upload, context.making).await?;
    let id =
        if args.quiet { quietly(stream).await? } else { id_of(&progress::show(stream, Show::All).await?) };
    if args.quiet {
        println!("{}", id.as_deref().unwrap_or_default());
    }
    if let Some(path) = &args.iidfile {
        let id = id.context("the engine does not tell the image's id")?;
        std::fs::write(path, id).with_context(|| format!("--iidfile {}", path.display()))?;
    }
    Ok(Exit::Success)
}

/// What both ways have in common.
fn options(args: &Build) -> Result<BuildOptions> {
    const PERIOD: i64 = 100_000;
    const NANO: i64 = 1_000_000_000;
    let quota = args.cpus.map(|nano| nano * (PERIOD / 1000) / (NANO / 1000)).or(args.cpu_quota);
    args.classic.apply(BuildOptions {
        tags: args.tag.clone(),
        extra_hosts: args.add_host.iter().map(|line| line.replacen('=', ":", 1)).collect(),
        quiet: args.quiet,
        no_cache: args.no_cache,
        pull: args.pull,
        remove: args.rm,
        force_remove: args.force_rm,
        memory: args.memory.unwrap_or(0),
        memory_swap: args.memory_swap.unwrap_or(0),
        cpu_quota: quota.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(if args.cpus.is_some() { PERIOD } else { 0 }),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        shm_size: args.shm_size.unwrap_or(0),
        build_args: build_args(&args.build_arg),
        labels: args.label.iter().map(|label| environment::pair(label)).collect(),
        network_mode: args.network.clone(),
        platform: args.platform.clone(),
        target: args.target.clone(),
        ..BuildOptions::default()
    })
}

async fn begin(
    client: &Client,
    options: &BuildOptions,
    upload: Upload,
    making: Option<Making>,
) -> Result<JsonStream<ProgressMessage>> {
    let answer = client.build(options, &credentials::for_build()?, upload).await;
    match making {
        Some(making) => making.judge(answer).await,
        None => Ok(answer?),
    }
}

/// Builds what is in a directory or behind a URL; the Dockerfile may be elsewhere, or be given as its text.
pub(crate) async fn of_context(
    client: &Client,
    options: BuildOptions,
    context: &str,
    file: Option<&Path>,
    given: Option<Vec<u8>>,
) -> Result<JsonStream<ProgressMessage>> {
    let sent = if is_remote(context) {
        let dockerfile = file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let (upload, remote) = (Upload::empty(), context.to_owned());
        Sent { upload, making: None, dockerfile: dockerfile.unwrap_or_default(), remote }
    } else {
        of_directory(Path::new(context), file, given, Packing::Plain)?
    };
    let options = BuildOptions { dockerfile: sent.dockerfile, remote: sent.remote, ..options };
    begin(client, &options, sent.upload, sent.making).await
}

fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "git@", "github.com/"].iter().any(|start| context.starts_with(start))
}

fn build_args(flags: &[String]) -> BTreeMap<String, Option<String>> {
    let own = |name: &str| (name.to_owned(), std::env::var(name).ok());
    let pair = |flag: &String| match flag.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => own(flag),
    };
    let mut all: BTreeMap<_, _> = flags.iter().map(pair).collect();
    // As buildx has it.
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        all.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(Some(epoch));
    }
    all
}

fn id_of(aux: &[serde_json::Value]) -> Option<String> {
    aux.iter().rev().find_map(|value| value.get("ID")?.as_str()).map(str::to_owned)
}

/// Keeps what is built to itself, unless it fails.
pub(crate) async fn quietly(mut stream: JsonStream<ProgressMessage>) -> Result<Option<String>> {
    let (mut said, mut aux) = (String::new(), Vec::new());
    while let Some(message) = stream.next().await? {
        if let Some(error) = &message.error {
            eprint!("{said}");
            return Err(progress::failure(&message, error).into());
        }
        said.extend(message.stream);
        aux.extend(message.aux);
    }
    // A daemon that is asked to be quiet tells the id as its only line.
    Ok(id_of(&aux).or_else(|| said.lines().rev().find(|line| line.starts_with("sha256:")).map(str::to_owned)))
}

async fn context(args: &Build) -> Result<Sent> {
    let (file, path) = (args.file.as_deref(), args.context.as_str());
    let packing = if args.classic.compress { Packing::Gzip } else { Packing::Plain };
    if path == "-" {
        if file == Some(Path::new("-")) {
            bail!("invalid argument: can't use stdin for both build context and dockerfile");
        }
        return from_stdin(file, packing).await;
    }
    if is_remote(path) {
        let dockerfile = file.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Sent { upload: Upload::empty(), making: None, dockerfile, remote: path.to_owned() });
    }
    let given = match file {
        Some(file) if file == Path::new("-") => {
            let mut text = Vec::new();
            tokio::io::stdin().read_to_end(&mut text).await.context("cannot read the Dockerfile")?;
            Some(text)
        }
        _ => None,
    };
    of_directory(Path::new(path), file, given, packing)
}

/// An archive goes on as it comes; anything else is a Dockerfile.
async fn from_stdin(file: Option<&Path>, packing: Packing) -> Result<Sent> {
    let mut stdin = tokio::io::stdin();
    let mut head = Vec::new();
    (&mut stdin).take(512).read_to_end(&mut head).await.context("cannot read standard input")?;
    if is_archive(&head) {
        let upload = Upload::from_reader(Cursor::new(head).chain(stdin));
        let dockerfile = file.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Sent { upload, making: None, dockerfile, remote: String::new() });
    }
    stdin.read_to_end(&mut head).await.context("cannot read standard input")?;
    let (upload, making) =
        tarball::pack(packing, move |archive| tarball::append_bytes(archive, "Dockerfile", &head));
    Ok(Sent { upload, making: Some(making), dockerfile: String::new(), remote: String::new() })
}

/// tar, or one of the compressions that engines unpack: gzip, bzip2, xz, zstd.
fn is_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magics.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

/// The context in a directory. A Dockerfile from elsewhere goes in under a name of its own, which the engine is told
/// to leave out of the context again.
fn of_directory(dir: &Path, file: Option<&Path>, given: Option<Vec<u8>>, packing: Packing) -> Result<Sent> {
    let root = dir
        .canonicalize()
        .with_context(|| format!("unable to prepare context: path {:?} not found", dir.display()))?;
    if !root.is_dir() {
        bail!("unable to prepare context: {} is not a directory", dir.display());
    }
    let (inside, outside) = match (given, file) {
        (Some(text), _) => (None, Some(text)),
        (None, file) => dockerfile(&root, file)?,
    };
    let ignore_text = match std::fs::read_to_string(root.join(".dockerignore")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.context("cannot read .dockerignore")?),
    };
    let mut patterns = ignore::read(ignore_text.as_deref().unwrap_or_default());
    // The engine needs both; it leaves them out itself if it is told to.
    patterns.push("!.dockerignore".to_owned());
    patterns.extend(inside.as_ref().map(|name| format!("!{name}")));
    let extra = outside.map(|text| (format!(".dockerfile.{:016x}", std::process::id()), text));
    if extra.is_some() {
        patterns.push(".dockerignore".to_owned());
    }
    let ignore =
        Matcher::new(&patterns).map_err(|error| anyhow!("error checking context: .dockerignore: {error}"))?;
    let dockerfile = extra.as_ref().map_or(inside.unwrap_or_default(), |(name, _)| name.clone());
    let (upload, making) = tarball::pack(packing, move |archive| {
        if let Some((name, text)) = &extra {
            own_dockerfile(archive, name, text, ignore_text.as_deref())?;
        }
        let tree = Tree { root: &root, prefix: Path::new(""), ignore: &ignore, owners: Owners::Root };
        tree.append(archive)
    });
    Ok(Sent { upload, making: Some(making), dockerfile, remote: String::new() })
}

fn own_dockerfile(archive: &mut Archive, name: &str, text: &[u8], ignore: Option<&str>) -> Result<()> {
    let ignore = match ignore {
        Some(ignore) => format!("{ignore}\n{name}\n"),
        None => format!(".dockerignore\n{name}\n"),
    };
    tarball::append_bytes(archive, ".dockerignore", ignore.as_bytes())?;
    tarball::append_bytes(archive, name, text)
}

/// The Dockerfile's name within the context, or its text if it lies elsewhere.
fn dockerfile(root: &Path, file: Option<&Path>) -> Result<(Option<String>, Option<Vec<u8>>)> {
    let path = match file {
        None => root.join("Dockerfile"),
        // As docker has it: seen from here, else from the context.
        Some(file) if file.exists() || file.is_absolute() => file.to_owned(),
        Some(file) => root.join(file),
    };
    let failed =
        || format!("unable to prepare context: unable to evaluate the Dockerfile {}", path.display());
    // Only the directory: the file itself may be a link, which the engine follows inside the context.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(failed)?;
    let full = dir.canonicalize().with_context(failed)?.join(name);
    if !full.exists() {
        bail!(
            "unable to prepare context: there is no file {}: name the Dockerfile with -f, or the directory that has one",
            path.display()
        );
    }
    match full.strip_prefix(root) {
        Ok(relative) => Ok((Some(relative.to_str().with_context(failed)?.to_owned()), None)),
        Err(_) => Ok((None, Some(std::fs::read(&full).with_context(failed)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_dockerfile_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = dockerfile(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("Dockerfile: name the Dockerfile with -f"), "{error}");
    }

    #[test]
    fn archives_are_known_by_their_first_bytes() {
        assert!(is_archive(b"\x1f\x8b\x08rest"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar));
        assert!(!is_archive(b"FROM busybox\n"));
    }

    #[test]
    fn where_the_dockerfile_lies() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("context").canonicalize().unwrap_or_else(|_| dir.path().join("context"));
        std::fs::create_dir_all(root.join("sub")).expect("mkdir");
        std::fs::write(root.join("sub/d"), "inside").expect("write");
        std::fs::write(dir.path().join("d"), "outside").expect("write");
        let root = root.canonicalize().expect("exists");
        assert_eq!(
            dockerfile(&root, Some(Path::new("sub/d"))).expect("there"),
            (Some("sub/d".to_owned()), None)
        );
        assert_eq!(
            dockerfile(&root, Some(&dir.path().join("d"))).expect("there"),
            (None, Some(b"outside".to_vec()))
        );
        assert!(dockerfile(&root, None).is_err());
    }
}
