//! Building: from a request to an image, stage by stage.
//!
//! ```text
//! open context -> parse -> arguments -> graph -> for each needed stage, in order:
//!     FROM -> triggers -> instructions:  config only: `stage`
//!                                        files:       `files`   \  key -> cache hit, or
//!                                        RUN:         `run`     /  snapshot -> work -> commit -> record
//! -> labels -> image and tags
//! ```
//!
//! One stage after the other; a stage only refers to earlier ones, so that independent ones could run side by side.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{Instruction, Kind};
use berth_dockerfile_parser::{LineRange, Program, ignore, program};
use berth_oci::{DiffId, Digest, ImageId, Platform, Reference};
use berth_store::{NewImage, Snapshot};
use jiff::Timestamp;
use tokio::runtime::Handle;

use crate::builder::Shared;
use crate::cache::Cache;
use crate::context::{self, Opened};
use crate::fault::{At, Fault, store};
use crate::graph::{self, Base, Graph};
use crate::key::KeyInputs;
use crate::rootdir::RootDir;
use crate::source::Source;
use crate::stage::{Arguments, StageState};
use crate::{BuildError, BuildEvent, BuildIo, BuildRequest, BuiltImage, Context, Excerpt};

/// One build under way.
pub(crate) struct Solver<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) request: &'a BuildRequest,
    pub(crate) io: &'a BuildIo,
    pub(crate) handle: &'a Handle,
    pub(crate) context: &'a Opened,
    pub(crate) arguments: &'a Arguments,
    pub(crate) lexer: Lexer,
    program: &'a Program,
    graph: &'a Graph,
    cache: Cache,
    platform: Platform,
    /// Fixed time of everything made (`SOURCE_DATE_EPOCH`).
    epoch: Option<Timestamp>,
    done: RefCell<HashMap<usize, StageState>>,
    /// Trees of stages and images that files were taken from.
    sources: RefCell<HashMap<String, Rc<Source>>>,
    step: std::cell::Cell<usize>,
    total: usize,
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
    let scratch = shared.dirs.builds.join("tmp");
    let opened = context::open(files, &request.dockerfile, &scratch, &io.cancel)?;
    let program = berth_dockerfile_parser::read(&opened.dockerfile);
    if let Some(error) = program.first_error() {
        let file = opened.dockerfile_name.clone();
        let line = berth_dockerfile_parser::span::position(&opened.dockerfile, error.span.start).0;
        let text = program.excerpt(LineRange::new(line, error.lines.end.max(line)));
        let excerpt = Some(Excerpt { file, line, text });
        return Err(BuildError::Dockerfile { message: error.to_string(), excerpt });
    }
    for warning in program.warnings() {
        (io.events)(BuildEvent::Warning { text: format!("{warning} (line {})", warning.lines.start) });
    }
    let invalid = |message: String| BuildError::Invalid { message };
    let mut rules: Vec<&str> = program.warnings().filter_map(|warning| warning.rule).collect();
    rules.dedup();
    if program.warnings_are_errors() && !rules.is_empty() {
        return Err(invalid(format!("lint violation found for rules: {}", rules.join(", "))));
    }
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
    let steps: usize = graph.order.iter().map(|i| 1 + program.stages[*i].instructions.len()).sum();
    let epoch = source_date_epoch(&arguments).map_err(invalid)?;
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
        platform,
        epoch,
        done: RefCell::default(),
        sources: RefCell::default(),
        step: std::cell::Cell::new(0),
        total: program.global_args.len() + steps,
    };
    solver.build()
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
        for instruction in &self.program.global_args {
            self.begin_step(&instruction.original);
        }
        for stage in &self.graph.order {
            self.stage(*stage)?;
        }
        let mut state =
            self.done.borrow_mut().remove(&self.graph.target).expect("the target is in the order");
        for (key, value) in &self.request.labels {
            state.label(key.clone(), value.clone());
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
        Ok(BuiltImage { id })
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

    pub(crate) fn emit(&self, event: BuildEvent) {
        (self.io.events)(event);
    }

    fn begin_step(&self, text: &str) {
        self.step.set(self.step.get() + 1);
        let text = text.replace('\n', " ");
        self.emit(BuildEvent::StepStart { n: self.step.get(), total: self.total, text });
    }

    fn end_step(&self, state: &StageState) {
        self.emit(BuildEvent::StepDone { id: Digest::of(&state.config.to_bytes()) });
    }

    /// Gives a fault its place.
    fn place(&self, fault: Fault, lines: LineRange) -> BuildError {
        let here = || Some(excerpt(self.context, self.program, lines));
        match fault {
            Fault::Said(message) => BuildError::Step { message, excerpt: here() },
            Fault::Build(BuildError::Run { command, code, oom_killed, excerpt: None }) => {
                BuildError::Run { command, code, oom_killed, excerpt: here() }
            }
            Fault::Build(error) => error,
        }
    }

    fn stage(&self, index: usize) -> Result<(), BuildError> {
        if self.done.borrow().contains_key(&index) {
            return Ok(());
        }
        let stage = &self.program.stages[index];
        self.begin_step(&stage.original);
        let mut state = self.base(index).map_err(|fault| self.place(fault, stage.lines))?;
        self.end_step(&state);
        let triggers = std::mem::take(&mut state.triggers);
        if !triggers.is_empty() {
            self.emit(BuildEvent::Triggers { count: triggers.len() });
        }
        for text in &triggers {
            let result = match program::trigger(text) {
                Ok(instruction) => self.instruction(index, &mut state, &instruction),
                Err(error) => Err(Fault::said(format!("ONBUILD {text}: {error}"))),
            };
            result.map_err(|fault| self.place(fault, stage.lines))?;
        }
        for instruction in &stage.instructions {
            if self.io.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            self.begin_step(&instruction.original);
            self.instruction(index, &mut state, instruction)
                .map_err(|fault| self.place(fault, instruction.lines))?;
            self.end_step(&state);
        }
        self.done.borrow_mut().insert(index, state);
        Ok(())
    }

    fn base(&self, index: usize) -> Result<StageState, Fault> {
        let node = &self.graph.nodes[index];
        let platform = match &node.platform {
            Some(text) => Platform::parse(text).map_err(|e| Fault::said(e.to_string()))?,
            None => self.platform.clone(),
        };
        match &node.base {
            Base::Scratch => Ok(StageState::scratch(&platform)),
            Base::Stage(earlier) => {
                let done = self.done.borrow();
                Ok(done.get(earlier).expect("a stage's base comes before it").derive())
            }
            Base::Image(name) => {
                let id = self.image(name, &platform, self.request.pull)?;
                let config = self.shared.store.images().config_of(&id)?;
                Ok(StageState::on(config))
            }
        }
    }

    /// Finds or pulls an image.
    fn image(&self, name: &str, platform: &Platform, pull: bool) -> Result<ImageId, Fault> {
        let reference = Reference::parse(name).map_err(|e| Fault::said(format!("{e}: {name}")))?;
        self.handle.block_on(async {
            tokio::select! {
                found = self.io.resolver.resolve(&reference, Some(platform), pull) => {
                    found.map_err(|e| Fault::said(e.to_string()))
                }
                () = self.io.cancel.cancelled() => Err(BuildError::Cancelled.into()),
            }
        })
    }

    fn instruction(
        &self,
        index: usize,
        state: &mut StageState,
        instruction: &Instruction,
    ) -> Result<(), Fault> {
        if state.metadata(instruction, &self.lexer, self.arguments).map_err(Fault::said)? {
            return Ok(());
        }
        match &instruction.kind {
            Kind::Copy(copy) => self.copy(index, state, copy),
            Kind::Add(add) => self.add(state, add),
            Kind::Workdir(path) => self.workdir(state, &path.text),
            Kind::Run(run) => self.run(index, state, run),
            _ => Ok(()),
        }
    }

    pub(crate) fn expand(&self, state: &StageState, word: &str) -> Result<String, Fault> {
        self.lexer.word(word, &state.env[..]).map_err(|e| Fault::said(e.to_string()))
    }

    /// Adds a layer to the stage: from the cache, or by doing the work in a fresh snapshot. The snapshot's upper
    /// directory becomes the layer; if the work fails it is removed.
    pub(crate) fn layer(
        &self,
        state: &mut StageState,
        key: &KeyInputs,
        created_by: String,
        work: impl FnOnce(&Snapshot) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let below = state.layers().to_vec();
        self.layer_on(&below, state, key, created_by, work)
    }

    /// As [`Self::layer`], but the work sees other layers than the stage's own below it (`--link`: none).
    pub(crate) fn layer_on(
        &self,
        below: &[DiffId],
        state: &mut StageState,
        key: &KeyInputs,
        created_by: String,
        work: impl FnOnce(&Snapshot) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let layers = self.shared.store.layers();
        if !self.request.no_cache
            && let Some(record) = self.cache.get(&key.digest())
            && layers.contains(&record.layer)
        {
            self.emit(BuildEvent::Cached);
            state.add_layer(record.layer, self.epoch.unwrap_or(record.created), created_by);
            return Ok(());
        }
        if self.io.cancel.is_cancelled() {
            return Err(BuildError::Cancelled.into());
        }
        let (layer, size) = self.work_in_snapshot(below, work)?;
        let now = Timestamp::now();
        self.cache.put(key, &layer, size, now)?;
        state.add_layer(layer, self.epoch.unwrap_or(now), created_by);
        Ok(())
    }

    fn work_in_snapshot(
        &self,
        below: &[DiffId],
        work: impl FnOnce(&Snapshot) -> Result<(), Fault>,
    ) -> Result<(DiffId, u64), Fault> {
        let snapshots = self.shared.store.snapshots();
        let name = format!("build-{}", fresh_id());
        let snapshot = snapshots.create(&name, below)?;
        let result = work(&snapshot).and_then(|()| Ok(snapshots.commit(&name, None)?));
        match result {
            Ok(layer) => Ok((layer.diff_id, layer.size)),
            Err(fault) => {
                if let Err(error) = snapshots.remove(&name) {
                    tracing::warn!(snapshot = name, %error, "the snapshot of a failed step stays behind");
                }
                Err(fault)
            }
        }
    }

    /// The tree that `--from` names: a stage before this one, or an image.
    pub(crate) fn source_named(
        &self,
        index: usize,
        name: &str,
        by_number: bool,
    ) -> Result<Rc<Source>, Fault> {
        let stages = &self.program.stages;
        if let Some(stage) = graph::stage_named(stages, index, name, by_number).map_err(Fault::said)? {
            // A trigger of an image may name a stage that nothing else needs.
            self.stage(stage)?;
            let layers = self.done.borrow()[&stage].layers().to_vec();
            return self.tree(format!("stage {stage}"), &layers, format!("stage \"{name}\""));
        }
        if name == "scratch" {
            return self.tree("scratch".into(), &[], "scratch".into());
        }
        let id = self.image(name, &self.platform, false)?;
        let layers = self.shared.store.images().config_of(&id)?.diff_ids().to_vec();
        self.tree(format!("image {id}"), &layers, format!("image \"{name}\""))
    }

    fn tree(&self, key: String, layers: &[DiffId], name: String) -> Result<Rc<Source>, Fault> {
        if let Some(known) = self.sources.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let root = if layers.is_empty() {
            // The directory stays alive through its descriptor.
            let empty = context::scratch_dir(&self.shared.dirs.builds.join("tmp"))?;
            RootDir::open_host(empty.path()).at("open", empty.path())?
        } else {
            RootDir::new(self.shared.store.snapshots().mount_ro(layers)?)
        };
        let source = Rc::new(Source::new(root, ignore::Matcher::default(), true, name));
        self.sources.borrow_mut().insert(key, Rc::clone(&source));
        Ok(source)
    }
}
