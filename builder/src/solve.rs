//! One platform's image.
//!
//! ```text
//! stages, side by side ([`crate::step`]):
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::Kind;
use berth_dockerfile_parser::{LineRange, Program, ignore};
use berth_oci::{DiffId, Digest, ImageId, Platform, Reference};
use berth_store::NewImage;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::cache::{Cache, CacheRecords, Record, Selected};
use crate::context::{self, Opened};
use crate::fault::{At, Fault, store};
use crate::graph::{self, Graph};
use crate::memory::Memory;
use crate::placed::Placed;
use crate::rootdir::RootDir;
use crate::shared::Shared;
use crate::source::Source;
use crate::stage::StageState;
use crate::start::excerpt;
use crate::step::StageRun;
use crate::transfer;
use crate::{BuildError, BuildEvent, BuildIo, BuildRequest, Event, Place};

/// So many stages are worked at, at most. How many steps really run at a time is up to the slots.
const MAX_WORKERS: usize = 32;

/// One platform's build under way.
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
    pub(crate) named: &'a BTreeMap<String, NamedContext>,
    pub(crate) cache: Cache,
    pub(crate) selected: Selected,
    pub(crate) placed: Placed,
    pub(crate) memory: Memory,
    pub(crate) platform: Platform,
    /// Stands before the names of stages; of a build for one platform it is empty.
    pub(crate) prefix: String,
    /// Fixed time of everything made (`SOURCE_DATE_EPOCH`).
    pub(crate) epoch: Option<Timestamp>,
    /// Tells this build from others.
    pub(crate) id: String,
    /// Cancelled with the build, or when a step fails.
    pub(crate) stop: CancellationToken,
    pub(crate) numbers: Numbers,
    pub(crate) work: Work,
}

/// How far a [`Solver`] is.
pub(crate) struct Work {
    stages: Vec<StageCell>,
    /// Trees of stages and images that files were taken from.
    sources: Mutex<HashMap<String, Arc<Source>>>,
    /// Images by what was asked for; who asks for the same meanwhile waits for the answer.
    images: Mutex<HashMap<String, Arc<Mutex<Option<ImageId>>>>>,
    /// Cache mounts that steps used.
    cache_mounts: Mutex<BTreeSet<String>>,
    /// What steps of this build made or found.
    made: Mutex<HashMap<Digest, Record>>,
}

impl Work {
    pub(crate) fn new(program: &Program) -> Self {
        let stages = program.stages.iter().map(|_| StageCell::default()).collect();
        Self {
            stages,
            sources: Mutex::default(),
            images: Mutex::default(),
            cache_mounts: Mutex::default(),
            made: Mutex::default(),
        }
    }
}

/// Steps are numbered in the order of the file, whatever order they run in.
#[derive(Clone, Default)]
pub(crate) struct Numbers {
    /// Steps of other platforms, before these.
    before: usize,
    stages_before: usize,
    /// Number of each stage's first step.
    pub(crate) first_steps: Vec<usize>,
    /// Which of the stages to build each stage is.
    pub(crate) positions: Vec<usize>,
    /// How many steps there are.
    pub(crate) total: usize,
    count: usize,
}

impl Numbers {
    /// Whether nothing has a number yet.
    pub(crate) fn is_first(&self) -> bool {
        self.count == 0
    }

    /// Goes on to the next platform.
    pub(crate) fn next(&mut self, program: &Program, graph: &Graph) -> Self {
        let before = self.before + self.total;
        let stages_before = self.stages_before + self.count;
        let mut first_steps = vec![0; program.stages.len()];
        let mut positions = vec![0; program.stages.len()];
        let mut next = before + 1 + program.global_args.len();
        for (position, index) in graph.order.iter().enumerate() {
            first_steps[*index] = next;
            positions[*index] = stages_before + position;
            next += 1 + program.stages[*index].instructions.len();
        }
        let (total, count) = (next - 1 - before, graph.order.len());
        *self = Self { before, stages_before, first_steps, positions, total, count };
        self.clone()
    }

    /// The place of an instruction before all stages.
    fn global(&self, number: usize) -> Place {
        Place { step: self.before + number, stage: self.stages_before }
    }

    /// A step's number among those of its platform.
    pub(crate) fn shown(&self, step: usize) -> usize {
        step - self.before
    }
}

/// What `--build-context` gives.
pub(crate) enum NamedContext {
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

impl Solver<'_> {
    pub(crate) fn build(&self) -> Result<(Digest, CacheRecords), BuildError> {
        for (i, instruction) in self.program.global_args.iter().enumerate() {
            let text = instruction.original.replace('\n', " ");
            let total = self.numbers.total;
            let what = BuildEvent::StepStart { n: i + 1, total, stage: String::new(), text };
            self.io.events.tell(Event { place: Some(self.numbers.global(i + 1)), what });
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
            transfer::inline(
                &mut state.config,
                &self.work.made.lock().unwrap_or_else(PoisonError::into_inner),
            );
        }
        if let Some(epoch) = self.epoch {
            state.config.created = Some(epoch);
        }
        let images = self.shared.store.images();
        let id =
            images.put(NewImage { config: state.config.to_bytes(), ..NewImage::default() }).map_err(store)?;
        self.warn_unused_arguments();
        self.emit(BuildEvent::Built { id: id.clone() });
        let made = self.work.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<(Digest, Record)> = made.iter().map(|(k, r)| (k.clone(), r.clone())).collect();
        records.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        let mounts =
            self.work.cache_mounts.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        Ok((id, CacheRecords { records, mounts }))
    }

    /// Notes that a step used a cache mount.
    pub(crate) fn note_mount(&self, name: &str) {
        self.work.cache_mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
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
        let cell = &self.work.stages[index];
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
        let cell = &self.work.stages[index];
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
        self.work.made.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(crate) fn note_made(&self, key: Digest, record: &Record) {
        self.work.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record.clone());
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
        self.io.events.tell(Event { place: None, what });
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

    /// Finds or pulls an image, once for each build.
    pub(crate) fn image(&self, name: &str, platform: &Platform, pull: bool) -> Result<ImageId, Fault> {
        let name = match self.named.get(name) {
            Some(NamedContext::Image(image)) => image,
            _ => name,
        };
        let question = format!("{name} {platform} {pull}");
        let cell = Arc::clone(
            self.work.images.lock().unwrap_or_else(PoisonError::into_inner).entry(question).or_default(),
        );
        let mut answer = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = &*answer {
            return Ok(id.clone());
        }
        let id = self.find_image(name, platform, pull)?;
        Ok(answer.insert(id).clone())
    }

    fn find_image(&self, name: &str, platform: &Platform, pull: bool) -> Result<ImageId, Fault> {
        // An image's own id, as another build's result is given.
        if let Ok(id) = ImageId::parse(name)
            && self.shared.store.images().get(&id).map_err(store)?.is_some()
        {
            return Ok(id);
        }
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

    /// What `--from` names: a named context, a stage before this one, or an image.
    pub(crate) fn origin(&self, index: usize, name: &str, by_number: bool) -> Result<Origin, Fault> {
        if let Some(NamedContext::Tree(tree)) = self.named.get(name) {
            return Ok(Origin::Open(Arc::clone(tree)));
        }
        let stages = &self.program.stages;
        if !self.named.contains_key(name)
            && let Some(stage) = graph::stage_named(stages, index, name, by_number).map_err(Fault::said)?
        {
            // A trigger of an image may name a stage that nothing else needs.
            let layers = self.stage(stage)?.layers().to_vec();
            return Ok(Origin::Layers { layers, name: format!("stage \"{name}\"") });
        }
        if name == "scratch" {
            return Ok(Origin::Layers { layers: Vec::new(), name: "scratch".into() });
        }
        let id = self.image(name, &self.platform, false)?;
        let layers = self.shared.store.images().config_of(&id)?.diff_ids().to_vec();
        Ok(Origin::Layers { layers, name: format!("image \"{name}\"") })
    }

    /// The build context.
    pub(crate) fn context_files(&self) -> Origin {
        Origin::Open(Arc::clone(&self.context.source))
    }

    /// The tree itself.
    pub(crate) fn open(&self, origin: &Origin) -> Result<Arc<Source>, Fault> {
        let (layers, name) = match origin {
            Origin::Open(source) => return Ok(Arc::clone(source)),
            Origin::Layers { layers, name } => (layers, name),
        };
        let key = layers.iter().fold(name.clone(), |key, layer| format!("{key} {layer}"));
        let mut sources = self.work.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sources.get(&key) {
            return Ok(Arc::clone(known));
        }
        let root = if layers.is_empty() {
            // The directory stays alive through its descriptor.
            let empty = context::scratch_dir(&self.shared.dirs.builds.join("tmp"))?;
            RootDir::open_host(empty.path()).at("open", empty.path())?
        } else {
            RootDir::new(self.shared.store.snapshots().mount_ro(layers)?)
        };
        let source = Arc::new(Source::new(root, ignore::Matcher::default(), true, name.clone()));
        sources.insert(key, Arc::clone(&source));
        Ok(source)
    }
}

/// A tree that files are taken from.
#[derive(Clone)]
pub(crate) enum Origin {
    /// One that may change.
    Open(Arc<Source>),
    /// A stage or an image. It never changes, and is opened only when somebody looks into it: its layers tell its content.
    Layers {
        layers: Vec<DiffId>,
        /// For messages.
        name: String,
    },
}

impl Origin {
    /// Its layers, if it never changes.
    pub(crate) fn layers(&self) -> Option<&[DiffId]> {
        match self {
            Self::Open(_) => None,
            Self::Layers { layers, .. } => Some(layers),
        }
    }
}
