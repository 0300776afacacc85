//! Building: from a request to an image.
//!
//! ```text
//! open context -> parse -> arguments -> graph -> stages, side by side ([`crate::step`]):
//!     FROM -> triggers -> instructions:  config only: `stage`
//!                                        files:       `files`   \  key -> cache hit, or
//!                                        RUN:         `run`     /  snapshot -> work -> commit -> record
//! -> labels -> image and tags
//! ```
//!
//! A stage refers to earlier ones only. Workers take the stages in the order of the file; one that needs a stage which
//! is not done waits for it, or does it itself if nobody has begun: that there is always somebody who can go on follows
//! from the order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::Kind;
use berth_dockerfile_parser::{LineRange, Program, ignore, lint};
use berth_oci::{DiffId, Digest, ImageId, Platform, Reference};
use berth_store::NewImage;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::builder::Shared;
use crate::cache::{Cache, Record, Selected};
use crate::context::{self, Opened};
use crate::fault::{At, Fault, store};
use crate::fetch::Fetcher;
use crate::graph::{self, Graph};
use crate::memory::Memory;
use crate::request::Secret;
use crate::rootdir::RootDir;
use crate::source::Source;
use crate::stage::{Arguments, StageState};
use crate::step::StageRun;
use crate::transfer::CacheRecords;
use crate::{
    BuildError, BuildEvent, BuildIo, BuildRequest, BuiltImage, Context, Event, Excerpt, Place, failed,
    transfer,
};

/// So many stages are worked at, at most. How many steps really run at a time is up to the slots.
const MAX_WORKERS: usize = 32;

/// One build under way.
pub(crate) struct Solver<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) request: &'a BuildRequest,
    pub(crate) io: &'a BuildIo,
    pub(crate) handle: &'a Handle,
    pub(crate) context: &'a Opened,
    pub(crate) arguments: &'a Arguments,
    pub(crate) lexer: Lexer,
    pub(crate) program: &'a Program,
    pub(crate) graph: &'a Graph,
    pub(crate) cache: Cache,
    pub(crate) selected: Selected,
    pub(crate) memory: Memory,
    pub(crate) platform: Platform,
    /// Fixed time of everything made (`SOURCE_DATE_EPOCH`).
    pub(crate) epoch: Option<Timestamp>,
    /// Tells this build from others.
    pub(crate) id: String,
    /// Cancelled with the build, or when a step fails.
    pub(crate) stop: CancellationToken,
    /// Number of each stage's first step.
    pub(crate) first_steps: Vec<usize>,
    /// Which of the stages to build each stage is.
    pub(crate) positions: Vec<usize>,
    pub(crate) total: usize,
    stages: Vec<StageCell>,
    /// Trees of stages, images and named contexts that files were taken from.
    sources: Mutex<HashMap<String, Arc<Source>>>,
    named: BTreeMap<String, NamedContext>,
    /// Cache mounts that steps used.
    cache_mounts: Mutex<BTreeSet<String>>,
    /// What steps of this build made or found.
    made: Mutex<HashMap<Digest, Record>>,
}

/// What `--build-context` gives.
enum NamedContext {
    Tree(Arc<Source>),
    Image(String),
}

/// A stage that is waited for.
#[derive(Default)]
struct StageCell {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
enum Progress {
    #[default]
    NotBegun,
    Begun,
    Done(Box<StageState>),
    /// The error went to whoever began it.
    Failed,
}

/// Does a build. Blocking.
pub(crate) fn solve(
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
    let program = berth_dockerfile_parser::read(&opened.dockerfile);
    if let Some(error) = program.first_error() {
        let file = opened.dockerfile_name.clone();
        let line = berth_dockerfile_parser::span::position(&opened.dockerfile, error.span.start).0;
        let text = program.excerpt(LineRange::new(line, error.lines.end.max(line)));
        let excerpt = Some(Excerpt { file, line, text });
        return Err(BuildError::Dockerfile { message: error.to_string(), excerpt });
    }
    let invalid = |message: String| BuildError::Invalid { message };
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let given: BTreeMap<String, String> =
        request.build_args.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
    let target_name = request.target.as_deref().or_else(|| program.stages.last()?.name.as_deref());
    let escape = program.syntax.escape;
    let arguments =
        Arguments::new(given, &platform, target_name, &program.global_args, escape).map_err(invalid)?;
    let graph = Graph::new(&program, request.target.as_deref(), &arguments.globals).map_err(|error| {
        let excerpt = error.lines.map(|lines| excerpt(&opened, &program, lines));
        BuildError::Dockerfile { message: error.message, excerpt }
    })?;
    warn(shared, io, &program, &graph, &arguments, &opened)?;
    let epoch = source_date_epoch(&arguments).map_err(invalid)?;
    let mut named = BTreeMap::new();
    for (name, context) in std::mem::take(&mut request.named_contexts) {
        named.insert(name.clone(), named_context(&name, context, &around)?);
    }
    let (first_steps, positions, total) = number_steps(&program, &graph);
    let name = request.name.clone().or_else(|| request.tags.first().map(Reference::familiar));
    let name = name.unwrap_or_else(|| opened.dockerfile_name.clone());
    let solver = Solver {
        shared,
        request: &request,
        io,
        handle,
        context: &opened,
        arguments: &arguments,
        lexer: Lexer::new(escape),
        program: &program,
        graph: &graph,
        cache: Cache::new(&shared.dirs.builds),
        selected: Selected::new(&shared.dirs.builds),
        memory: Memory::recall(&shared.dirs.builds, &name),
        platform,
        epoch,
        id: fresh_id(),
        stop: io.cancel.child_token(),
        first_steps,
        positions,
        total,
        stages: program.stages.iter().map(|_| StageCell::default()).collect(),
        sources: Mutex::default(),
        named,
        cache_mounts: Mutex::default(),
        made: Mutex::default(),
    };
    let built = solver.build();
    solver.memory.save();
    if let Some(stats) = &opened.source.stats {
        stats.save();
    }
    built
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
    let image_env = |name: &str| {
        let image = images.resolve(name).ok()?;
        let config = images.config_of(&image.id).ok()?;
        Some(config.config.map(|config| config.env).unwrap_or_default())
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
        (io.events)(Event { place: None, what: BuildEvent::Warning { text } });
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

/// Steps are numbered in the order of the file, whatever order they run in.
fn number_steps(program: &Program, graph: &Graph) -> (Vec<usize>, Vec<usize>, usize) {
    let mut first_steps = vec![0; program.stages.len()];
    let mut positions = vec![0; program.stages.len()];
    let mut next = 1 + program.global_args.len();
    for (position, index) in graph.order.iter().enumerate() {
        first_steps[*index] = next;
        positions[*index] = position;
        next += 1 + program.stages[*index].instructions.len();
    }
    (first_steps, positions, next - 1)
}

fn excerpt(opened: &Opened, program: &Program, lines: LineRange) -> Excerpt {
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

impl Solver<'_> {
    fn build(&self) -> Result<BuiltImage, BuildError> {
        for (i, instruction) in self.program.global_args.iter().enumerate() {
            let text = instruction.original.replace('\n', " ");
            let what = BuildEvent::StepStart { n: i + 1, total: self.total, stage: String::new(), text };
            (self.io.events)(Event { place: Some(Place { step: i + 1, stage: 0 }), what });
        }
        self.build_stages()?;
        let mut state = match self.stage(self.graph.target) {
            Ok(state) => state,
            Err(fault) => return Err(self.place(fault, LineRange::new(1, 1))),
        };
        for (key, value) in &self.request.labels {
            state.label(key.clone(), value.clone());
        }
        if self.request.inline_cache {
            transfer::inline(&mut state.config, &self.made.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if let Some(epoch) = self.epoch {
            state.config.created = Some(epoch);
        }
        let images = self.shared.store.images();
        let id =
            images.put(NewImage { config: state.config.to_bytes(), ..NewImage::default() }).map_err(store)?;
        self.warn_unused_arguments();
        self.emit(BuildEvent::Built { id: id.clone() });
        for tag in &self.request.tags {
            images.tag(tag, &id).map_err(store)?;
            self.emit(BuildEvent::Tagged { reference: tag.familiar() });
        }
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<(Digest, Record)> = made.iter().map(|(k, r)| (k.clone(), r.clone())).collect();
        records.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        let mounts =
            self.cache_mounts.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        Ok(BuiltImage { id, records: CacheRecords { records, mounts } })
    }

    /// Notes that a step used a cache mount.
    pub(crate) fn note_mount(&self, name: &str) {
        self.cache_mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// Does all stages that are needed. The first error stops the others.
    fn build_stages(&self) -> Result<(), BuildError> {
        let order = &self.graph.order;
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), BuildError> {
            while let Some(index) = order.get(next.fetch_add(1, Ordering::SeqCst)) {
                self.begin(*index).inspect_err(|_| self.stop.cancel())?;
            }
            Ok(())
        };
        if order.len() == 1 {
            return work();
        }
        let results: Vec<Result<(), BuildError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..order.len().min(MAX_WORKERS)).map(|_| scope.spawn(work)).collect();
            let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        });
        let errors: Vec<BuildError> = results.into_iter().filter_map(Result::err).collect();
        let mut cancelled = None;
        for error in errors {
            match error {
                BuildError::Cancelled => cancelled = Some(BuildError::Cancelled),
                cause => return Err(cause),
            }
        }
        cancelled.map_or(Ok(()), Err)
    }

    /// Does a stage, unless somebody has begun it.
    fn begin(&self, index: usize) -> Result<(), BuildError> {
        let cell = &self.stages[index];
        {
            let mut progress = cell.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*progress, Progress::NotBegun) {
                return Ok(());
            }
            *progress = Progress::Begun;
        }
        let result = StageRun::complete(self, index);
        let (progress, result) = match result {
            Ok(state) => (Progress::Done(Box::new(state)), Ok(())),
            Err(error) => (Progress::Failed, Err(error)),
        };
        *cell.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        cell.changed.notify_all();
        result
    }

    /// A stage, done.
    pub(crate) fn stage(&self, index: usize) -> Result<StageState, Fault> {
        self.begin(index)?;
        let cell = &self.stages[index];
        let mut progress = cell.progress.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*progress {
                Progress::Done(state) => return Ok((**state).clone()),
                Progress::Failed => return Err(BuildError::Cancelled.into()),
                Progress::NotBegun | Progress::Begun => {}
            }
            progress = cell.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What an equal step of this build made.
    pub(crate) fn made_here(&self, key: &Digest) -> Option<Record> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(crate) fn note_made(&self, key: Digest, record: &Record) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record.clone());
    }

    /// Keeps the cache within its bounds before something is added to it.
    pub(crate) fn make_room(&self, record: &Record) -> Result<(), BuildError> {
        crate::prune::make_room(self.shared, record.size)
    }

    fn warn_unused_arguments(&self) {
        let mut declared: BTreeSet<&str> = BTreeSet::new();
        let stages = self.program.stages.iter().flat_map(|stage| &stage.instructions);
        for instruction in self.program.global_args.iter().chain(stages) {
            if let Kind::Arg(pairs) = &instruction.kind {
                declared.extend(pairs.iter().map(|pair| pair.key.as_str()));
            }
        }
        let predefined = |name: &str| {
            let upper = name.to_uppercase();
            upper.ends_with("_PROXY")
                || upper.starts_with("BUILDKIT_")
                || upper == "SOURCE_DATE_EPOCH"
                || self.arguments.globals.contains_key(name)
        };
        let given = self.arguments.given.keys().map(String::as_str);
        let unused: Vec<&str> = given.filter(|name| !declared.contains(name) && !predefined(name)).collect();
        if !unused.is_empty() {
            let text = format!("One or more build-args [{}] were not consumed", unused.join(" "));
            self.emit(BuildEvent::Warning { text });
        }
    }

    fn emit(&self, what: BuildEvent) {
        (self.io.events)(Event { place: None, what });
    }

    /// Gives a fault its place.
    pub(crate) fn place(&self, fault: Fault, lines: LineRange) -> BuildError {
        let here = || Some(excerpt(self.context, self.program, lines));
        match fault {
            Fault::Said(message) => BuildError::Step { message, excerpt: here() },
            Fault::Build(BuildError::Run { command, code, oom_killed, image, excerpt: None }) => {
                BuildError::Run { command, code, oom_killed, image, excerpt: here() }
            }
            Fault::Build(error) => error,
        }
    }

    /// Finds or pulls an image.
    pub(crate) fn image(&self, name: &str, platform: &Platform, pull: bool) -> Result<ImageId, Fault> {
        let name = match self.named.get(name) {
            Some(NamedContext::Image(image)) => image,
            _ => name,
        };
        let reference = Reference::parse(name).map_err(|e| Fault::said(format!("{e}: {name}")))?;
        self.handle.block_on(async {
            tokio::select! {
                found = self.io.resolver.resolve(&reference, Some(platform), pull) => {
                    found.map_err(|e| Fault::said(e.to_string()))
                }
                () = self.stop.cancelled() => Err(BuildError::Cancelled.into()),
            }
        })
    }

    /// The tree of a named context; none if there is none of that name, or it is an image.
    pub(crate) fn named_tree(&self, name: &str) -> Result<Option<Arc<Source>>, Fault> {
        match self.named.get(name) {
            Some(NamedContext::Tree(tree)) => Ok(Some(Arc::clone(tree))),
            _ => Ok(None),
        }
    }

    /// What `--from` names: a named context, a stage before this one, or an image. The layers that it consists of tell
    /// its content, where there are some.
    pub(crate) fn source_named(&self, index: usize, name: &str, by_number: bool) -> Result<From, Fault> {
        if let Some(NamedContext::Tree(tree)) = self.named.get(name) {
            return Ok(From { layers: None, source: Arc::clone(tree) });
        }
        let stages = &self.program.stages;
        if !self.named.contains_key(name)
            && let Some(stage) = graph::stage_named(stages, index, name, by_number).map_err(Fault::said)?
        {
            // A trigger of an image may name a stage that nothing else needs.
            let layers = self.stage(stage)?.layers().to_vec();
            return self.tree(layers, format!("stage \"{name}\""));
        }
        if name == "scratch" {
            return self.tree(Vec::new(), "scratch".into());
        }
        let id = self.image(name, &self.platform, false)?;
        let layers = self.shared.store.images().config_of(&id)?.diff_ids().to_vec();
        self.tree(layers, format!("image \"{name}\""))
    }

    fn tree(&self, layers: Vec<DiffId>, name: String) -> Result<From, Fault> {
        let key = layers.iter().fold(name.clone(), |key, layer| format!("{key} {layer}"));
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sources.get(&key) {
            return Ok(From { layers: Some(layers), source: Arc::clone(known) });
        }
        let root = if layers.is_empty() {
            // The directory stays alive through its descriptor.
            let empty = context::scratch_dir(&self.shared.dirs.builds.join("tmp"))?;
            RootDir::open_host(empty.path()).at("open", empty.path())?
        } else {
            RootDir::new(self.shared.store.snapshots().mount_ro(&layers)?)
        };
        let source = Arc::new(Source::new(root, ignore::Matcher::default(), true, name));
        sources.insert(key, Arc::clone(&source));
        Ok(From { layers: Some(layers), source })
    }
}

/// A tree that files are taken from.
pub(crate) struct From {
    /// Its layers, if it is a stage or an image: it never changes.
    pub(crate) layers: Option<Vec<DiffId>>,
    pub(crate) source: Arc<Source>,
}
