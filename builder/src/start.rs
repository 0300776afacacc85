//! From a request to images: what a build's platforms have in common is done once, then there is a [`Solver`] for each.
//!
//! ```text
//! open context -> parse -> for each platform: arguments -> graph -> [`Solver`]
//! -> tags
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::{LineRange, Program, lint};
use berth_oci::{Digest, Platform, Reference};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::arguments::Arguments;
use crate::cache::{Cache, CacheRecords, Selected};
use crate::context::{self, Opened};
use crate::fault::store;
use crate::fetch::Fetcher;
use crate::graph::Graph;
use crate::memory::Memory;
use crate::placed::Placed;
use crate::request::Secret;
use crate::shared::Shared;
use crate::solve::{NamedContext, Numbers, Solver, Work};
use crate::stats::Stats;
use crate::{BuildError, BuildEvent, BuildIo, BuildRequest, BuiltImage, Context, Event, Excerpt, failed};

/// Does a build. Blocking.
pub(crate) fn build(
    shared: &Shared,
    mut request: BuildRequest,
    io: &BuildIo,
    handle: &Handle,
) -> Result<BuiltImage, BuildError> {
    // Nothing that this build makes or uses may be collected before it ends.
    let _lease = shared.store.lease();
    let files = std::mem::replace(&mut request.context, Context::Empty);
    failed::clear(shared);
    let around = Surroundings {
        shared,
        io,
        handle,
        secrets: request.secrets.clone(),
        ssh: request.ssh.clone(),
        kept: Mutex::default(),
    };
    let opened = context::open(files, &request.dockerfile, &around)?;
    let program = parse(&opened)?;
    let mut named = BTreeMap::new();
    for (name, context) in std::mem::take(&mut request.named_contexts) {
        named.insert(name.clone(), named_context(&name, context, &around)?);
    }
    let mut platforms = std::mem::take(&mut request.platforms);
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    let several = platforms.len() > 1;
    let common =
        Common { shared, request: &request, io, handle, opened: &opened, program: &program, named: &named };
    let (mut images, mut records, mut numbers) = (Vec::new(), Vec::new(), Numbers::default());
    let mut built = Ok(());
    for platform in platforms {
        match common.image(&platform, several, &mut numbers) {
            Ok((id, made)) => {
                images.push((platform, id));
                records.push(made);
            }
            Err(error) => {
                built = Err(error);
                break;
            }
        }
    }
    let named_stats = named.values().filter_map(|context| match context {
        NamedContext::Tree(tree) => tree.stats.as_ref(),
        NamedContext::Image(_) => None,
    });
    opened.source.stats.iter().chain(named_stats).for_each(Stats::save);
    built?;
    common.tag(images, CacheRecords::join(records))
}

/// Reads the Dockerfile.
fn parse(opened: &Opened) -> Result<Program, BuildError> {
    let program = berth_dockerfile_parser::read(&opened.dockerfile);
    let Some(error) = program.first_error() else { return Ok(program) };
    let file = opened.dockerfile_name.clone();
    let line = berth_dockerfile_parser::span::position(&opened.dockerfile, error.span.start).0;
    let text = program.excerpt(LineRange::new(line, error.lines.end.max(line)));
    let excerpt = Some(Excerpt { file, line, text });
    Err(BuildError::Dockerfile { message: error.to_string(), excerpt })
}

/// What all platforms of a build have in common.
struct Common<'a> {
    shared: &'a Shared,
    request: &'a BuildRequest,
    io: &'a BuildIo,
    handle: &'a Handle,
    opened: &'a Opened,
    program: &'a Program,
    named: &'a BTreeMap<String, NamedContext>,
}

impl Common<'_> {
    /// Makes the image of one platform.
    fn image(
        &self,
        platform: &Platform,
        several: bool,
        numbers: &mut Numbers,
    ) -> Result<(Digest, CacheRecords), BuildError> {
        let Self { shared, request, io, handle, opened, program, named } = *self;
        let invalid = |message: String| BuildError::Invalid { message };
        let given: BTreeMap<String, String> =
            request.build_args.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
        let target = request.target.as_deref();
        let target_name = target.or_else(|| program.stages.last()?.name.as_deref());
        let escape = program.syntax.escape;
        let arguments =
            Arguments::new(given, platform, target_name, &program.global_args, escape).map_err(invalid)?;
        let graph = Graph::new(program, target, &arguments.globals).map_err(|error| {
            let excerpt = error.lines.map(|lines| excerpt(opened, program, lines));
            BuildError::Dockerfile { message: error.message, excerpt }
        })?;
        if numbers.is_first() {
            warn(shared, io, program, &graph, &arguments, opened)?;
        }
        let mut name = request.name.clone().or_else(|| request.tags.first().map(Reference::familiar));
        if several {
            name = Some(format!("{} {platform}", name.unwrap_or_else(|| opened.dockerfile_name.clone())));
        }
        let builds = &shared.dirs.builds;
        let solver = Solver {
            shared,
            request,
            io,
            handle,
            context: opened,
            arguments: &arguments,
            program,
            graph: &graph,
            named,
            lexer: Lexer::new(escape),
            cache: Cache::new(builds),
            selected: Selected::new(builds),
            placed: Placed::new(builds),
            memory: Memory::recall(builds, name.as_deref().unwrap_or(&opened.dockerfile_name)),
            platform: platform.clone(),
            prefix: if several { format!("{platform} ") } else { String::new() },
            epoch: source_date_epoch(&arguments).map_err(invalid)?,
            id: fresh_id(),
            stop: io.cancel.child_token(),
            numbers: numbers.next(program, &graph),
            work: Work::new(program),
        };
        let built = solver.build();
        solver.memory.save();
        built
    }

    /// Names the image for this machine, or the first if there is none.
    fn tag(&self, images: Vec<(Platform, Digest)>, records: CacheRecords) -> Result<BuiltImage, BuildError> {
        let host = Platform::host();
        let (_, id) = images.iter().find(|(platform, _)| host.matches(platform)).unwrap_or(&images[0]);
        let id = id.clone();
        for tag in &self.request.tags {
            self.shared.store.images().tag(tag, &id).map_err(store)?;
            let what = BuildEvent::Tagged { reference: tag.familiar() };
            self.io.events.tell(Event { place: None, what });
        }
        Ok(BuiltImage { id, images, records })
    }
}

/// Tells what is not as it should be; an error if the Dockerfile wants it to be one.
fn warn(
    shared: &Shared,
    io: &BuildIo,
    program: &Program,
    graph: &Graph,
    arguments: &Arguments,
    opened: &Opened,
) -> Result<(), BuildError> {
    let images = shared.store.images();
    // Only images that are here already: nothing is pulled for a warning.
    let look = |name: &str| {
        let image = images.resolve(name).ok()?;
        let config = images.config_of(&image.id).ok()?;
        Some(config.config.map(|config| config.env).unwrap_or_default())
    };
    let seen: RefCell<HashMap<String, Option<Vec<String>>>> = RefCell::default();
    let image_env = |name: &str| {
        let mut seen = seen.borrow_mut();
        seen.entry(name.to_owned()).or_insert_with(|| look(name)).clone()
    };
    let environment = lint::Environment {
        build_args: &arguments.given,
        predefined: &arguments.predefined,
        ignore: &opened.ignore,
        stages: Some(&graph.order),
        image_env: &image_env,
        is_image_name: &|name| name == "scratch" || Reference::parse(name).is_ok(),
    };
    let found = lint::check(program, &environment);
    for warning in &found {
        let text = format!("{warning} (line {})", warning.lines.start);
        io.events.tell(Event { place: None, what: BuildEvent::Warning { text } });
    }
    let rules: BTreeSet<&str> = found.iter().filter_map(|warning| warning.rule).collect();
    if program.warnings_are_errors() && !rules.is_empty() {
        let rules: Vec<&str> = rules.into_iter().collect();
        let message = format!("lint violation found for rules: {}", rules.join(", "));
        return Err(BuildError::Invalid { message });
    }
    Ok(())
}

/// What contexts are opened with.
pub(crate) struct Surroundings<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) io: &'a BuildIo,
    handle: &'a Handle,
    secrets: BTreeMap<String, Secret>,
    ssh: BTreeMap<String, PathBuf>,
    kept: Mutex<Vec<TempDir>>,
}

impl Surroundings<'_> {
    /// Keeps a directory until the build ends.
    pub(crate) fn keep(&self, dir: TempDir) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(dir);
    }

    pub(crate) fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            shared: self.shared,
            handle: self.handle,
            stop: &self.io.cancel,
            secrets: &self.secrets,
            ssh: &self.ssh,
        }
    }
}

fn named_context(
    name: &str,
    context: Context,
    around: &Surroundings<'_>,
) -> Result<NamedContext, BuildError> {
    if let Context::Image(image) = context {
        return Ok(NamedContext::Image(image));
    }
    let source = context::open_named(name, context, around)?;
    Ok(NamedContext::Tree(Arc::new(source)))
}

pub(crate) fn excerpt(opened: &Opened, program: &Program, lines: LineRange) -> Excerpt {
    Excerpt { file: opened.dockerfile_name.clone(), line: lines.start, text: program.excerpt(lines) }
}

fn source_date_epoch(arguments: &Arguments) -> Result<Option<Timestamp>, String> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let text = arguments.given.get(NAME).or_else(|| arguments.globals.get(NAME));
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let time = text.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map(Some).ok_or_else(|| format!("invalid SOURCE_DATE_EPOCH: {text}: it must be seconds since 1970"))
}

/// An id like a container's: 64 hexadecimal digits, never used before.
pub(crate) fn fresh_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = format!("{} {} {count}", std::process::id(), Timestamp::now().as_nanosecond());
    Digest::of(seed.as_bytes()).hex().to_owned()
}
