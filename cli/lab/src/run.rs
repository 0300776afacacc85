//! Runs an experiment: containers, changes and samples of one run after the other.
//!
//! ```text
//! create all ─▶ t = 0 ─┬─ per container: wait for its start time ─▶ start ─▶ sample ─▶ wait for its end ─┐
//!                      └─ changes at their times ────────────────────────────────────────────────────────┴─▶ logs, remove
//! ```
//!
//! Containers are removed whatever happens; those of a lab that was killed carry the label [`LABEL`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_client::Client;
use berth_client::api::container::{
    ContainerConfig, CreateRequest, HostConfig, Resources, ThrottleDevice, UpdateRequest,
};
use berth_client::api::options::{ListContainers, Logs, RemoveContainer, WaitCondition};
use berth_client::api::stdcopy::Stream;
use futures_util::future::{join_all, try_join_all};

use crate::error::{Error, Result};
use crate::experiment::{Action, Cell, Change, Container, Experiment, Limits, Scenario, Throttle};
use crate::facts::Facts;
use crate::plan::{PlannedRun, plan};
use crate::record::{AppliedChange, ContainerRecord, EngineFacts, Recording, Run};
use crate::sample::{Counters, Group, Sampler};
use crate::tool;

/// How long an engine may take to learn that a container has ended.
const HEARD_OF: Duration = Duration::from_secs(30);

/// The label every container of the lab carries; its value tells which lab.
pub const LABEL: &str = "berth.lab";

/// An engine to run on.
#[derive(Debug, Clone)]
pub struct Engine {
    /// What it is called in the report.
    pub name: String,
    /// The way to it.
    pub client: Client,
}

/// What a container printed, in one run.
#[derive(Debug)]
pub struct Output {
    /// `ENGINE-SETTING-REPETITION-CONTAINER`, for a file name.
    pub name: String,
    /// Standard output, then standard error.
    pub text: String,
}

/// What a run gives besides its record.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Its place in the plan.
    pub planned: PlannedRun,
    /// How many runs are planned.
    pub total: usize,
    /// Which one this was, from 1.
    pub number: usize,
    /// The record.
    pub run: &'a Run,
    /// What the containers printed.
    pub outputs: Vec<Output>,
}

impl Engine {
    fn failed(&self, what: impl Into<String>) -> impl FnOnce(berth_client::Error) -> Error {
        let (engine, what) = (self.name.clone(), what.into());
        move |source| Error::Engine { engine, what, source }
    }

    /// What the engine is.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn facts(&self) -> Result<EngineFacts> {
        let version = self.client.version().await.map_err(self.failed("tell its version"))?;
        let info = self.client.info().await.map_err(self.failed("tell what it has"))?;
        let product = match version.components.first().map(|component| component.name.as_str()) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => version.platform.name,
        };
        Ok(EngineFacts {
            name: self.name.clone(),
            version: format!("{product} {}", version.version).trim().to_owned(),
            cgroup: format!("{}, version {}", info.cgroup_driver, info.cgroup_version),
        })
    }

    /// Removes what a lab left on this engine.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn clean_up(&self, lab: &str) -> Result<()> {
        let mut options = ListContainers { all: true, ..ListContainers::default() };
        options.filters.add("label", format!("{LABEL}={lab}"));
        let left = self.client.container_list(&options).await.map_err(self.failed("list containers"))?;
        let remove = left.iter().map(|container| self.remove(&container.id));
        join_all(remove).await.into_iter().collect()
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainer { volumes: true, force: true, link: false };
        match self.client.container_remove(id, options).await {
            Err(error) if !error.is_not_found() => Err(self.failed("remove a container")(error)),
            _ => Ok(()),
        }
    }
}

/// A laboratory: an experiment and the engines it is run on.
#[derive(Debug)]
pub struct Lab<'a> {
    /// What is run.
    pub experiment: &'a Experiment,
    /// On what.
    pub engines: &'a [Engine],
    /// Tells the containers of this lab from others'.
    pub id: String,
}

impl Lab<'_> {
    /// Runs everything; `after` is called with each run.
    ///
    /// # Errors
    /// If an engine refuses, a container cannot be sampled, or `after` fails. Containers are removed all the same.
    pub async fn run(&self, mut after: impl FnMut(Finished<'_>) -> Result<()>) -> Result<Recording> {
        let experiment = self.experiment;
        let facts = Facts::gather();
        let began = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let engines = try_join_all(self.engines.iter().map(Engine::facts)).await?;
        let sampler = Sampler::start(experiment.rate)?;
        let planned = plan(self.engines.len(), experiment.cells.len(), experiment.repetitions);
        let mut runs = Vec::with_capacity(planned.len());
        for (index, planned_run) in planned.iter().enumerate() {
            let one = self.one(*planned_run, &sampler).await;
            let removed = self.engines[planned_run.engine].clean_up(&self.id).await;
            let (run, outputs) = one?;
            removed?;
            let (total, number) = (planned.len(), index + 1);
            after(Finished { planned: *planned_run, total, number, run: &run, outputs })?;
            runs.push(run);
        }
        Ok(Recording {
            name: experiment.name.clone(),
            began,
            facts,
            engines,
            cells: experiment.cells.iter().map(|cell| cell.values.clone()).collect(),
            settle: experiment.settle.as_secs_f64(),
            sampling_cost: sampler.finish(),
            rate: experiment.rate,
            runs,
        })
    }

    async fn one(&self, planned: PlannedRun, sampler: &Sampler) -> Result<(Run, Vec<Output>)> {
        let engine = &self.engines[planned.engine];
        let cell = &self.experiment.cells[planned.cell];
        let mut stage = Stage {
            engine,
            sampler,
            ids: BTreeMap::new(),
            created: Vec::new(),
            origin: Instant::now(),
            limit: time_limit(self.experiment.duration, &cell.scenario),
        };
        for (number, container) in cell.scenario.containers.iter().enumerate() {
            stage.create(&self.id, planned, number, container).await?;
        }
        stage.origin = Instant::now();
        let machine = sampler.watch(Counters::of_machine(), stage.origin);
        let containers = cell.scenario.containers.iter().enumerate();
        let containers = try_join_all(containers.map(|(number, container)| stage.live(number, container)));
        let (lived, changes) = tokio::try_join!(containers, stage.make(&cell.scenario.changes))?;
        let machine = machine.finish();
        let mut outputs = Vec::new();
        let mut records = Vec::new();
        for (container, mut record) in cell.scenario.containers.iter().zip(lived) {
            let (stdout, stderr) = stage.logs(&container.name).await?;
            record.tool = tool::parse(&stdout, &stderr);
            outputs.push(Output {
                name: output_name(engine, cell, planned, &container.name),
                text: stdout + &stderr,
            });
            records.push(record);
        }
        let PlannedRun { engine, cell, repetition } = planned;
        Ok((Run { engine, cell, repetition, containers: records, changes, machine }, outputs))
    }
}

fn output_name(engine: &Engine, cell: &Cell, planned: PlannedRun, container: &str) -> String {
    let values = cell.values.iter().map(|(name, value)| format!("{name}-{value}"));
    let number = (planned.repetition + 1).to_string();
    let parts: Vec<String> =
        std::iter::once(engine.name.clone()).chain(values).chain([number, container.to_owned()]).collect();
    parts
        .join("_")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect()
}

/// When a run is given up: its containers' own times, twice over, and some patience for slow machines.
fn time_limit(duration: Duration, scenario: &Scenario) -> Duration {
    let latest = scenario.containers.iter().filter_map(|container| container.stop.or(Some(container.start)));
    (duration + latest.max().unwrap_or_default()) * 2 + Duration::from_secs(60)
}

/// One run while it happens.
struct Stage<'a> {
    engine: &'a Engine,
    sampler: &'a Sampler,
    /// Ids by container.
    ids: BTreeMap<String, String>,
    /// How long creating took, in the order of the experiment.
    created: Vec<Duration>,
    /// Time 0.
    origin: Instant,
    limit: Duration,
}

impl Stage<'_> {
    async fn create(
        &mut self,
        lab: &str,
        planned: PlannedRun,
        number: usize,
        container: &Container,
    ) -> Result<()> {
        let begin = Instant::now();
        let request = request(lab, container);
        let name = format!("{lab}-{}-{}-{number}-{}", planned.cell, planned.repetition, container.name);
        let answer = self.engine.client.container_create(&name, "", &request).await;
        let answer = answer.map_err(self.engine.failed(format!("create container {:?}", container.name)))?;
        self.created.push(begin.elapsed());
        self.ids.insert(container.name.clone(), answer.id);
        Ok(())
    }

    fn id(&self, container: &str) -> &str {
        self.ids.get(container).map_or("", String::as_str)
    }

    async fn until(&self, at: Duration) {
        tokio::time::sleep_until((self.origin + at).into()).await;
    }

    /// A container from its start to its end.
    async fn live(&self, number: usize, container: &Container) -> Result<ContainerRecord> {
        let (client, id, name) = (&self.engine.client, self.id(&container.name), &container.name);
        let failed = |what: &str| self.engine.failed(format!("{what} container {name:?}"));
        let wait = client.container_wait(id, WaitCondition::NextExit).await.map_err(failed("wait for"))?;
        self.until(container.start).await;
        let begin = Instant::now();
        client.container_start(id, "").await.map_err(failed("start"))?;
        let start_ms = begin.elapsed().as_secs_f64() * 1e3;
        let started = self.origin.elapsed().as_secs_f64();
        let running = client.container_inspect(id, false).await.map_err(failed("inspect"))?;
        let watch = match running.state.pid {
            // It has ended already: there is nothing left to sample.
            0 => None,
            pid => match self.watch(name, pid)? {
                None => self.has_ended(name, pid).await?,
                watch => watch,
            },
        };
        let mut exit = std::pin::pin!(wait.exit());
        let latest = self.origin + container.stop.unwrap_or(self.limit);
        let exit = match tokio::time::timeout_at(latest.into(), &mut exit).await {
            Ok(exit) => exit,
            Err(_) => {
                watch.iter().for_each(crate::sample::Watch::read_now);
                match client.container_kill(id, "").await {
                    // It ended by itself in this moment.
                    Err(error) if !error.is_conflict() => return Err(failed("kill")(error)),
                    _ => exit.await,
                }
            }
        };
        let exit = exit.map_err(failed("wait for"))?;
        let ended = self.origin.elapsed().as_secs_f64();
        let state = client.container_inspect(id, false).await.map_err(failed("inspect"))?.state;
        Ok(ContainerRecord {
            name: name.clone(),
            create_ms: self.created[number].as_secs_f64() * 1e3,
            start_ms,
            started,
            ended,
            exit_code: exit.status_code,
            oom_killed: state.oom_killed,
            error: state.error,
            tool: None,
            samples: watch.map(crate::sample::Watch::finish).unwrap_or_default(),
        })
    }

    /// Samples the group of a container's process; nothing if the process has gone meanwhile.
    fn watch(&self, container: &str, pid: i64) -> Result<Option<crate::sample::Watch>> {
        let counters = Group::of(pid).and_then(|group| Counters::open(&group, pid));
        match counters {
            Ok(counters) => Ok(Some(self.sampler.watch(counters, self.origin))),
            Err(_) if !std::path::Path::new(&format!("/proc/{pid}")).exists() => Ok(None),
            Err(reason) => Err(Error::Sampling { container: container.to_owned(), pid, reason }),
        }
    }

    /// A process that is not here must have ended, which the engine may learn later than we; otherwise it is on another
    /// machine.
    async fn has_ended(&self, container: &str, pid: i64) -> Result<Option<crate::sample::Watch>> {
        let latest = Instant::now() + HEARD_OF;
        loop {
            let inspected = self.engine.client.container_inspect(self.id(container), false).await;
            let state =
                inspected.map_err(self.engine.failed(format!("inspect container {container:?}")))?.state;
            if !state.running || state.pid != pid {
                return Ok(None);
            }
            if Instant::now() > latest {
                let reason =
                    "there is no such process here; the lab must run on the engine's machine".to_owned();
                return Err(Error::Sampling { container: container.to_owned(), pid, reason });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the changes at their times.
    async fn make(&self, changes: &[Change]) -> Result<Vec<AppliedChange>> {
        let mut made = Vec::new();
        for change in changes {
            self.until(change.at).await;
            let at = self.origin.elapsed().as_secs_f64();
            let (client, id) = (&self.engine.client, self.id(&change.container));
            let (verb, result) = match &change.action {
                Action::Update(limits) => {
                    let request = UpdateRequest { resources: resources(limits), ..UpdateRequest::default() };
                    ("update", client.container_update(id, &request).await.map(drop))
                }
                Action::Pause => ("pause", client.container_pause(id).await),
                Action::Unpause => ("unpause", client.container_unpause(id).await),
                Action::Kill => ("kill", client.container_kill(id, "").await),
            };
            let what = format!("{verb} {}", change.container);
            result.map_err(self.engine.failed(what.clone()))?;
            made.push(AppliedChange { at, done: self.origin.elapsed().as_secs_f64(), what });
        }
        Ok(made)
    }

    /// What a container printed: standard output and standard error.
    async fn logs(&self, container: &str) -> Result<(String, String)> {
        let failed = || self.engine.failed(format!("read the log of container {container:?}"));
        let options = Logs { stdout: true, stderr: true, ..Logs::default() };
        let client = &self.engine.client;
        let mut stream = client.container_logs(self.id(container), &options, false).await.map_err(failed())?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some((channel, bytes)) = stream.next_output().await.map_err(failed())? {
            match channel {
                Stream::Stderr => stderr.extend_from_slice(&bytes),
                _ => stdout.extend_from_slice(&bytes),
            }
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((text(stdout), text(stderr)))
    }
}

fn request(lab: &str, container: &Container) -> CreateRequest {
    let tmpfs: BTreeMap<String, String> =
        container.tmpfs.iter().map(|path| (path.clone(), String::new())).collect();
    let given = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    CreateRequest {
        config: ContainerConfig {
            image: container.image.clone(),
            cmd: given(&container.command),
            env: given(&container.environment),
            labels: BTreeMap::from([(LABEL.to_owned(), lab.to_owned())]),
            ..ContainerConfig::default()
        },
        host_config: Some(HostConfig {
            network_mode: container.network.clone(),
            tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
            resources: resources(&container.limits),
            ..HostConfig::default()
        }),
        networking_config: None,
    }
}

fn resources(limits: &Limits) -> Resources {
    let throttle = |throttle: &Option<Throttle>| {
        let throttle = throttle.as_ref()?;
        Some(vec![ThrottleDevice { path: throttle.device.clone(), rate: throttle.rate }])
    };
    let bytes = |bytes: Option<u64>| bytes.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    Resources {
        nano_cpus: limits.cpus.map_or(0, |cpus| (cpus * 1e9).round() as i64),
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        cpuset_cpus: limits.cpuset.clone().unwrap_or_default(),
        memory: bytes(limits.memory),
        memory_swap: limits.memory_swap.unwrap_or(0),
        memory_reservation: bytes(limits.memory_reservation),
        pids_limit: limits.pids,
        blkio_device_read_bps: throttle(&limits.read_bps),
        blkio_device_write_bps: throttle(&limits.write_bps),
        blkio_device_read_iops: throttle(&limits.read_iops),
        blkio_device_write_iops: throttle(&limits.write_iops),
        ..Resources::default()
    }
}
