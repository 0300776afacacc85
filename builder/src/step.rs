//! A stage at work: its instructions one after the other, each layer from the cache or made.
//!
//! ```text
//! key -> already made in this build -> cache hit -> an equal step runs: wait, look again
//!                                                -> slot -> snapshot -> work -> commit -> record
//! ```

use std::cell::Cell;

use berth_dockerfile_parser::instruction::{Instruction, Kind};
use berth_dockerfile_parser::program;
use berth_oci::{DiffId, Digest, Platform};
use berth_store::{Retime, Snapshot};
use jiff::Timestamp;

use crate::cache::Record;
use crate::fault::{At, Fault};
use crate::graph::Base;
use crate::key::KeyInputs;
use crate::recover::SNAPSHOT;
use crate::solve::Solver;
use crate::stage::StageState;
use crate::start::fresh_id;
use crate::tick;
use crate::{BuildError, BuildEvent, Event, Place, failed};

/// A layer that a step wants.
pub(crate) struct Product<'a> {
    /// The layers that the work sees below it.
    pub(crate) below: &'a [DiffId],
    /// What it is made of.
    pub(crate) key: &'a KeyInputs,
    /// The step, as history tells it.
    pub(crate) description: String,
    /// The time of what is made; none: that of the stage.
    pub(crate) time: Option<Timestamp>,
    /// What it depends on if most of what lies below makes no difference; see [`crate::placed`]. Asked only when
    /// nothing is remembered by the key.
    pub(crate) place: &'a dyn Fn() -> Result<Option<Digest>, Fault>,
}

impl<'a> Product<'a> {
    /// One that depends on all that lies below.
    pub(crate) fn new(below: &'a [DiffId], key: &'a KeyInputs, description: String) -> Self {
        Self { below, key, description, time: None, place: &|| Ok(None) }
    }
}

/// One stage under way.
pub(crate) struct StageRun<'a> {
    pub(crate) solver: &'a Solver<'a>,
    pub(crate) index: usize,
    /// Number of the step at work, in the whole build.
    step: Cell<usize>,
    /// Number of the instruction at work, in this stage; triggers count.
    instruction: Cell<usize>,
    pub(crate) state: StageState,
}

impl<'a> StageRun<'a> {
    /// Does a whole stage.
    pub(crate) fn complete(solver: &'a Solver<'a>, index: usize) -> Result<StageState, BuildError> {
        let stage = &solver.program.stages[index];
        let state = StageState::scratch(&solver.platform);
        let step = Cell::new(solver.numbers.first_steps[index]);
        let mut run = Self { solver, index, step, instruction: Cell::new(0), state };
        run.begin(&stage.original);
        let placed = |run: &Self, fault, lines| {
            let error = solver.place(fault, lines);
            run.emit(BuildEvent::StepFailed { message: error.to_string() });
            error
        };
        run.base().map_err(|fault| placed(&run, fault, stage.lines))?;
        run.end();
        let triggers = std::mem::take(&mut run.state.triggers);
        if !triggers.is_empty() {
            run.emit(BuildEvent::Triggers { count: triggers.len() });
        }
        for text in &triggers {
            let result = match program::trigger(text) {
                Ok(instruction) => run.instruction(&instruction),
                Err(error) => Err(Fault::said(format!("ONBUILD {text}: {error}"))),
            };
            result.map_err(|fault| placed(&run, fault, stage.lines))?;
        }
        for instruction in &stage.instructions {
            if solver.stop.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            run.step.set(run.step.get() + 1);
            run.begin(&instruction.original);
            run.instruction(instruction).map_err(|fault| placed(&run, fault, instruction.lines))?;
            run.end();
        }
        run.emit(BuildEvent::StageDone);
        Ok(run.state)
    }

    pub(crate) fn emit(&self, what: BuildEvent) {
        let place = Place { step: self.step.get(), stage: self.solver.numbers.positions[self.index] };
        self.solver.io.events.tell(Event { place: Some(place), what });
    }

    fn begin(&self, text: &str) {
        let solver = self.solver;
        let stage = solver.program.stages[self.index].name.clone();
        let stage = stage.unwrap_or_else(|| format!("stage-{}", self.index));
        self.emit(BuildEvent::StepStart {
            n: solver.numbers.shown(self.step.get()),
            total: solver.numbers.total,
            stage: format!("{}{stage}", solver.prefix),
            text: text.replace('\n', " "),
        });
    }

    fn end(&self) {
        self.emit(BuildEvent::StepDone { id: Digest::of(&self.state.config.to_bytes()) });
    }

    fn base(&mut self) -> Result<(), Fault> {
        let solver = self.solver;
        let node = &solver.graph.nodes[self.index];
        let platform = match &node.platform {
            Some(text) => Platform::parse(text).map_err(|e| Fault::said(e.to_string()))?,
            None => solver.platform.clone(),
        };
        self.state = match &node.base {
            Base::Scratch => StageState::scratch(&platform),
            Base::Stage(earlier) => solver.stage(*earlier)?.derive(),
            Base::Image(name) => match solver.named_tree(name)? {
                Some(tree) => {
                    let layer = self.layer_of(&tree, "/")?;
                    let mut state = StageState::scratch(&platform);
                    state.add_layer(layer, format!("FROM {name}"));
                    state
                }
                None => {
                    let id = solver.image(name, &platform, solver.request.pull)?;
                    StageState::on(solver.shared.store.images().config_of(&id)?)
                }
            },
        };
        if let Some(epoch) = solver.epoch {
            self.state.fix_clock(epoch);
        }
        Ok(())
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        self.instruction.set(self.instruction.get() + 1);
        let solver = self.solver;
        if self.state.metadata(instruction, &solver.lexer, solver.arguments).map_err(Fault::said)? {
            return Ok(());
        }
        match &instruction.kind {
            Kind::Copy(copy) => self.copy(copy),
            Kind::Add(add) => self.add(add),
            Kind::Workdir(path) => self.workdir(&path.text),
            Kind::Run(run) => self.run(run),
            _ => Ok(()),
        }
    }

    pub(crate) fn expand(&self, word: &str) -> Result<String, Fault> {
        self.solver.lexer.word(word, &self.state.env[..]).map_err(|e| Fault::said(e.to_string()))
    }

    /// The key of a step on top of a file system.
    pub(crate) fn key(&self, instruction: &str, parent: &str) -> KeyInputs {
        let mut key = KeyInputs::new(instruction, parent);
        if self.solver.request.rewrite_timestamp
            && let Some(epoch) = self.solver.epoch
        {
            key.add("times up to", epoch.as_second().to_string());
        }
        key
    }

    /// Whether this stage's steps run whatever the cache says.
    fn ignores_cache(&self) -> bool {
        let name = self.solver.program.stages[self.index].name.as_deref();
        let filter = &self.solver.request.no_cache_filter;
        self.solver.request.no_cache
            || filter.iter().any(|wanted| {
                name.is_some_and(|name| name.eq_ignore_ascii_case(wanted))
                    || *wanted == self.index.to_string()
            })
    }

    /// Adds a layer to the stage: from the cache, or by doing the work in a fresh snapshot. The snapshot's upper
    /// directory becomes the layer; if the work fails it is removed.
    pub(crate) fn layer(
        &mut self,
        key: &KeyInputs,
        created_by: String,
        work: impl FnOnce(&Self, &Snapshot) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let below = self.state.layers().to_vec();
        self.layer_of_product(&Product::new(&below, key, created_by), work)
    }

    fn finish(&mut self, record: Record, created_by: String) {
        if self.solver.epoch.is_none() {
            self.state.go_on_from(record.created);
        }
        self.state.add_layer(record.layer, created_by);
    }

    /// As [`Self::layer`], of a product that says more about itself.
    pub(crate) fn layer_of_product(
        &mut self,
        product: &Product<'_>,
        work: impl FnOnce(&Self, &Snapshot) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let record = self.made(product, work)?;
        self.finish(record, product.description.clone());
        Ok(())
    }

    /// What the work makes on top of some layers: remembered, or done now.
    pub(crate) fn made(
        &self,
        product: &Product<'_>,
        work: impl FnOnce(&Self, &Snapshot) -> Result<(), Fault>,
    ) -> Result<Record, Fault> {
        let solver = self.solver;
        let digest = product.key.digest();
        let ignores_cache = self.ignores_cache();
        // Builds that ignore the cache share work within themselves only.
        let flight = if ignores_cache { format!("{} {digest}", solver.id) } else { digest.to_string() };
        let mut waited = false;
        let lead = loop {
            let found = solver
                .made_here(&digest)
                .or_else(|| if ignores_cache { None } else { solver.cache.get(&digest) });
            if let Some(record) = found.filter(|record| solver.shared.store.layers().contains(&record.layer))
            {
                solver.cache.touch(&digest);
                self.note(product.key, &record);
                self.emit(BuildEvent::Cached);
                return Ok(record);
            }
            match solver.shared.flights.lead(&flight) {
                Some(lead) => break lead,
                None => {
                    if !std::mem::replace(&mut waited, true) {
                        self.emit(BuildEvent::Waiting);
                    }
                    solver.shared.flights.wait(&flight, &solver.stop);
                }
            }
            if solver.stop.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
        };
        let place = (product.place)()?;
        let placed = place.as_ref().filter(|_| !ignores_cache).and_then(|place| solver.placed.get(place));
        let placed = placed.filter(|(layer, ..)| solver.shared.store.layers().contains(layer));
        let (layer, size, created) = match placed {
            Some(placed) => {
                self.emit(BuildEvent::Cached);
                placed
            }
            None => {
                let (layer, size) = self.make(product, ignores_cache, work)?;
                (layer, size, product.time.unwrap_or(self.state.clock()))
            }
        };
        let record = Record {
            layer,
            created,
            size,
            description: product.description.clone(),
            made: Timestamp::UNIX_EPOCH,
            used: Timestamp::UNIX_EPOCH,
            uses: 0,
            inputs: Vec::new(),
        };
        solver.make_room(&record)?;
        let record = solver.cache.put(&solver.shared.store, product.key, record)?;
        if let Some(place) = place {
            solver.placed.put(&place, &record);
        }
        self.note(product.key, &record);
        drop(lead);
        Ok(record)
    }

    /// Remembers what a step was made of and what came of it.
    fn note(&self, key: &KeyInputs, record: &Record) {
        self.solver.note_made(key.digest(), record);
        self.solver.memory.note(&self.memory_name(), key);
    }

    fn memory_name(&self) -> String {
        format!("{}/{}", self.stage_name(), self.instruction.get())
    }

    /// Does the work, when it is its turn.
    fn make(
        &self,
        product: &Product<'_>,
        ignores_cache: bool,
        work: impl FnOnce(&Self, &Snapshot) -> Result<(), Fault>,
    ) -> Result<(DiffId, u64), Fault> {
        let reasons = match ignores_cache {
            true => vec!["the cache is not to be used".to_owned()],
            false => self.solver.memory.explain(&self.memory_name(), product.key),
        };
        self.emit(BuildEvent::Missed { reasons });
        let _slot = self.solver.shared.slots.take(&self.solver.stop).ok_or(BuildError::Cancelled)?;
        self.work_in_snapshot(product, work)
    }

    /// Tells the stages of a file apart, also when others are put before them.
    fn stage_name(&self) -> String {
        let stage = &self.solver.program.stages[self.index];
        stage.name.clone().unwrap_or_else(|| {
            let last = self.index + 1 == self.solver.program.stages.len();
            if last { "the last stage".to_owned() } else { self.index.to_string() }
        })
    }

    /// What the work of a step makes, begun at `since` and now at its end, gets this time.
    fn retime(&self, since: Timestamp, to: Timestamp) -> Retime {
        let pair = |time: Timestamp| (time.as_second(), i64::from(time.subsec_nanosecond()));
        let to = to.as_second();
        match self.solver.epoch.filter(|_| self.solver.request.rewrite_timestamp) {
            // Then nothing may be newer, whoever made it.
            Some(epoch) => {
                let to = epoch.as_second();
                Retime { since: (to, 1), until: (i64::MAX, 0), to }
            }
            None => Retime { since: pair(since), until: pair(Timestamp::now()), to },
        }
    }

    fn work_in_snapshot(
        &self,
        product: &Product<'_>,
        work: impl FnOnce(&Self, &Snapshot) -> Result<(), Fault>,
    ) -> Result<(DiffId, u64), Fault> {
        let to = product.time.unwrap_or(self.state.clock());
        let snapshots = self.solver.shared.store.snapshots();
        let name = format!("{SNAPSHOT}{}", fresh_id());
        let since = tick::now().at("read", "clock")?;
        let snapshot = snapshots.create(&name, product.below)?;
        let result =
            work(self, &snapshot).and_then(|()| Ok(snapshots.commit(&name, Some(self.retime(since, to)))?));
        let mut fault = match result {
            Ok(layer) => return Ok((layer.diff_id, layer.size)),
            Err(fault) => fault,
        };
        if let Fault::Build(BuildError::Run { image, .. }) = &mut fault {
            *image = failed::keep(self.solver.shared, &name, &self.state);
        }
        if let Err(error) = snapshots.remove(&name) {
            tracing::warn!(snapshot = name, %error, "the snapshot of a failed step stays behind");
        }
        Err(fault)
    }
}
