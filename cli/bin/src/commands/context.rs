//! `berth context`: engines by name. What there is, is docker's too (see `contexts`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::each;
use crate::autostart;
use crate::contexts::{self, DEFAULT, Meta, Store, TLS_FILES};
use crate::exit::Exit;
use crate::output::list::{Column, Style, render, render_one};
use crate::session::Session;

/// Commands for engines by name
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    Create(Create),
    /// Write a context to an archive
    Export(Export),
    /// Take a context from an archive
    Import(Import),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Print the name of the current context
    Show,
    Update(Update),
    /// Make a context the current one
    Use(Name),
}

/// Give an engine a name
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What is said about it
    #[arg(long, default_value = "")]
    description: String,
    /// Where it is: host=ADDRESS[,ca=FILE][,cert=FILE][,key=FILE]
    #[arg(long, value_name = "KEY=VALUE,…")]
    docker: Option<String>,
    /// Take the engine of another context
    #[arg(long, value_name = "CONTEXT", conflicts_with = "docker")]
    from: Option<String>,
    /// Name
    name: String,
}

/// Change what is known of an engine
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// What is said about it
    #[arg(long)]
    description: Option<String>,
    /// Where it is: host=ADDRESS[,ca=FILE][,cert=FILE][,key=FILE]
    #[arg(long, value_name = "KEY=VALUE,…")]
    docker: Option<String>,
    /// Context
    name: String,
}

/// Show all about contexts
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Format: json or a template
    #[arg(short, long)]
    format: Option<String>,
    /// Contexts; the current one if none is named
    names: Vec<String>,
}

/// List contexts
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove contexts
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The current one as well
    #[arg(short, long)]
    force: bool,
    /// Contexts
    #[arg(required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Context
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Context
    name: String,
    /// File; `-` is standard output, and NAME.dockercontext what is meant if there is none
    file: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Name
    name: String,
    /// File; `-` is standard input
    file: String,
}

pub(crate) async fn run(session: &Session, command: ContextCommand) -> Result<Exit> {
    let store = Store::open()?;
    match command {
        ContextCommand::Create(args) => create(&store, args),
        ContextCommand::Export(args) => export(&store, &args),
        ContextCommand::Import(args) => import(&store, args),
        ContextCommand::Inspect(args) => inspect(session, &store, args),
        ContextCommand::Ls(args) => ls(session, &store, &args),
        ContextCommand::Rm(args) => rm(&store, &args).await,
        ContextCommand::Show => {
            println!("{}", session.context());
            Ok(Exit::Success)
        }
        ContextCommand::Update(args) => update(&store, args),
        ContextCommand::Use(Name { name }) => choose(&store, &name),
    }
}

/// A TLS file's name and what is in it.
type Tls = Vec<(&'static str, Vec<u8>)>;

/// Where an engine is, and the TLS files for it.
fn endpoint(text: &str) -> Result<(String, Tls)> {
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in text.split(',') {
        let (key, value) =
            pair.split_once('=').with_context(|| format!("--docker {pair}: KEY=VALUE is expected"))?;
        given.insert(key, value);
    }
    let host = given.remove("host").filter(|host| !host.is_empty());
    let host = host.context("--docker needs host=ADDRESS")?;
    host.parse::<berth_client::Host>()?;
    let mut tls = Vec::new();
    for (key, file) in ["ca", "cert", "key"].into_iter().zip(TLS_FILES) {
        if let Some(path) = given.remove(key) {
            tls.push((file, std::fs::read(path).with_context(|| format!("cannot read {path}"))?));
        }
    }
    if let Some(key) = given.into_keys().next() {
        bail!("--docker {key}: there are host, ca, cert and key");
    }
    Ok((host.to_owned(), tls))
}

/// The TLS files that a context has.
fn files_of(store: &Store, name: &str) -> Result<Tls> {
    let found = TLS_FILES.iter().filter_map(|file| Some((*file, store.tls_file(name, file)?)));
    found
        .map(|(file, path)| {
            Ok((file, std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
        })
        .collect()
}

fn refuse_known(store: &Store, name: &str) -> Result<()> {
    contexts::check_name(name)?;
    if store.load(name).is_ok() {
        bail!("context {name:?} already exists");
    }
    Ok(())
}

fn create(store: &Store, args: Create) -> Result<Exit> {
    refuse_known(store, &args.name)?;
    let (host, tls) = match (&args.docker, &args.from) {
        (Some(text), _) => endpoint(text)?,
        (None, Some(other)) => (store.load(other)?.endpoints.docker.host, files_of(store, other)?),
        (None, None) => bail!("where is it? --docker host=ADDRESS tells, or --from CONTEXT"),
    };
    let mut meta = Meta { name: args.name, ..Meta::default() };
    meta.metadata.description = args.description;
    meta.endpoints.docker.host = host;
    store.save(&meta, &tls)?;
    println!("{}", meta.name);
    eprintln!("Successfully created context {:?}", meta.name);
    Ok(Exit::Success)
}

fn update(store: &Store, args: Update) -> Result<Exit> {
    let mut meta = store.load(&args.name)?;
    if let Some(description) = args.description {
        meta.metadata.description = description;
    }
    let mut tls = files_of(store, &args.name)?;
    if let Some(text) = args.docker {
        (meta.endpoints.docker.host, tls) = endpoint(&text)?;
        store.remove(&args.name)?;
    }
    store.save(&meta, &tls)?;
    println!("{}", meta.name);
    eprintln!("Successfully updated context {:?}", meta.name);
    Ok(Exit::Success)
}

fn choose(store: &Store, name: &str) -> Result<Exit> {
    if name != DEFAULT {
        store.load(name)?;
    }
    store.choose(name)?;
    println!("{name}");
    eprintln!("Current context is now {name:?}");
    Ok(Exit::Success)
}

async fn rm(store: &Store, args: &Rm) -> Result<Exit> {
    let current = store.current()?;
    each(&args.names, async |name: &str| {
        if name == DEFAULT {
            bail!("context \"default\" cannot be removed");
        }
        store.load(name)?;
        if name == current {
            if !args.force {
                bail!("context {name:?} is in use, set -f flag to force remove");
            }
            store.choose(DEFAULT)?;
        }
        store.remove(name)
    })
    .await
}

/// All contexts, the default one first.
fn all(store: &Store) -> Result<Vec<Meta>> {
    let mut default = Meta { name: DEFAULT.to_owned(), ..Meta::default() };
    default.metadata.description = "The engine of this machine".to_owned();
    default.endpoints.docker.host = format!("unix://{}", autostart::DEFAULT_SOCKET);
    Ok(std::iter::once(default).chain(store.all()?).collect())
}

const COLUMNS: &[Column] = &[
    ("NAME", "Shown"),
    ("DESCRIPTION", "Description"),
    ("DOCKER ENDPOINT", "DockerEndpoint"),
    ("ERROR", "Error"),
];

fn ls(session: &Session, store: &Store, args: &Ls) -> Result<Exit> {
    let row = |meta: Meta| {
        let current = meta.name == session.context();
        let problem = match meta.name.as_str() {
            DEFAULT => String::new(),
            name => store.host(name).err().map(|error| format!("{error:#}")).unwrap_or_default(),
        };
        json!({
            "Name": meta.name,
            "Shown": if current { format!("{} *", meta.name) } else { meta.name.clone() },
            "Description": meta.metadata.description,
            "DockerEndpoint": meta.endpoints.docker.host,
            "Current": current,
            "Error": problem,
        })
    };
    let rows: Vec<Value> = all(store)?.into_iter().map(row).collect();
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("Name") };
    print!("{}", render(style, COLUMNS, &[], &rows)?);
    Ok(Exit::Success)
}

fn inspect(session: &Session, store: &Store, args: Inspect) -> Result<Exit> {
    let names = if args.names.is_empty() { vec![session.context().to_owned()] } else { args.names };
    let known = all(store)?;
    let mut shown = Vec::new();
    for name in names {
        let meta = known.iter().find(|meta| meta.name == name);
        let meta = meta.with_context(|| format!("context {name:?} does not exist"))?;
        let files: Vec<&str> =
            TLS_FILES.into_iter().filter(|file| store.tls_file(&name, file).is_some()).collect();
        let mut value = serde_json::to_value(meta)?;
        value["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
        value["Storage"] = json!({"MetadataPath": store.meta_dir(&name), "TLSPath": store.tls_dir(&name)});
        shown.push(value);
    }
    match args.format {
        None => println!("{}", serde_json::to_string_pretty(&shown)?),
        Some(format) => {
            for value in &shown {
                println!("{}", render_one(&format, value)?);
            }
        }
    }
    Ok(Exit::Success)
}

fn export(store: &Store, args: &Export) -> Result<Exit> {
    let meta = store.load(&args.name)?;
    let path = args.file.clone().unwrap_or_else(|| format!("{}.dockercontext", args.name));
    let to: Box<dyn Write> = match path.as_str() {
        "-" => Box::new(std::io::stdout().lock()),
        path => Box::new(File::create_new(path).with_context(|| format!("cannot make {path}"))?),
    };
    let mut archive = tar::Builder::new(to);
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name == "meta.json" { 0o644 } else { 0o600 });
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes)
    };
    let written = add("meta.json", &serde_json::to_vec(&meta)?);
    let written = files_of(store, &args.name)?.iter().fold(written, |before, (file, bytes)| {
        before.and_then(|()| add(&format!("tls/docker/{file}"), bytes))
    });
    written.and_then(|()| archive.into_inner()?.flush()).with_context(|| format!("cannot write {path}"))?;
    if path != "-" {
        eprintln!("Written file {path:?}");
    }
    Ok(Exit::Success)
}

/// An archive is no larger than a few certificates.
const LARGEST: u64 = 10 << 20;

fn import(store: &Store, args: Import) -> Result<Exit> {
    refuse_known(store, &args.name)?;
    let from: Box<dyn Read> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(File::open(path).with_context(|| format!("cannot open {path}"))?),
    };
    let (mut meta, mut tls) = (None, Vec::new());
    let failed = || format!("{} is no archive of a context", args.file);
    let mut archive = tar::Archive::new(from.take(LARGEST));
    for entry in archive.entries().with_context(failed)? {
        let mut entry = entry.with_context(failed)?;
        let path = entry.path().with_context(failed)?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).with_context(failed)?;
        if path == "meta.json" {
            meta = Some(serde_json::from_slice::<Meta>(&bytes).with_context(failed)?);
        } else if let Some(file) =
            TLS_FILES.into_iter().find(|file| path.strip_prefix("tls/docker/") == Some(file))
        {
            tls.push((file, bytes));
        }
    }
    let meta = Meta { name: args.name, ..meta.with_context(failed)? };
    store.save(&meta, &tls)?;
    println!("{}", meta.name);
    eprintln!("Successfully imported context {:?}", meta.name);
    Ok(Exit::Success)
}
