//! `RUN`: a container over the step's snapshot, run to its end.

use std::path::{Path, PathBuf};

use berth_dockerfile_parser::heredoc;
use berth_dockerfile_parser::instruction::{Network, Run};
use berth_oci::{DiffId, Platform};
use berth_runtime_client::protocol::{Create, FailureKind, Log, Rootfs, StdinMode, files};
use berth_runtime_client::{Output, RunRequest, bundle, run_to_completion};
use berth_store::Snapshot;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::context;
use crate::fault::{At, Fault};
use crate::mounts::{self, StepMount};
use crate::request::NetworkMode;
use crate::rootdir::RootDir;
use crate::spec::{self, StepProcess};
use crate::stage::StageState;
use crate::start::fresh_id;
use crate::step::StageRun;
use crate::traces::MountPoints;
use crate::users::Accounts;
use crate::{BuildError, BuildEvent, OutputStream};

/// Digits of an id that are shown.
const SHORT: usize = 12;

/// What a `RUN` executes.
pub(crate) struct Command {
    args: Vec<String>,
    /// A script from a heredoc that begins with `#!`: it is executed itself, from here.
    script: Option<(String, String)>,
}

/// Where such scripts appear in the container.
const SCRIPTS: &str = "/dev/pipes";

/// The command line of a `RUN`, heredocs resolved. Pure.
pub(crate) fn command(state: &StageState, run: &Run) -> Command {
    let command = &run.command;
    let text = command.words.first().cloned().unwrap_or_default();
    let plain = |text: String| {
        let args = if command.shell { state.with_shell(text) } else { command.words.clone() };
        Command { args, script: None }
    };
    let Some(first) = command.heredocs.first() else { return plain(text) };
    if heredoc::parse_word(&text).is_none() {
        // The shell itself reads the heredocs.
        let bodies = command.heredocs.iter().map(|doc| format!("\n{}{}", doc.body, doc.name));
        return plain(bodies.fold(text, |all, body| all + &body));
    }
    let body = first.text();
    if !body.starts_with("#!") {
        return plain(body);
    }
    let path = format!("{SCRIPTS}/{}", first.name);
    Command { args: state.with_shell(path), script: Some((first.name.clone(), body)) }
}

/// The history of a `RUN`.
pub(crate) fn created_by(state: &StageState, command: &Command) -> String {
    format!("RUN {}{} # buildkit", state.argument_prefix(), command.args.join(" "))
}

/// The end of the shim's own log: the directory it is in goes with the step.
fn last_words(dir: &Path) -> Option<String> {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(dir.join(files::SHIM_LOG)).ok()?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("; ");
    (!last.is_empty()).then_some(last)
}

/// What a step may do and see.
struct Confinement {
    network: NetworkMode,
    insecure: bool,
    devices: Vec<String>,
}

impl StageRun<'_> {
    pub(crate) fn run(&mut self, run: &Run) -> Result<(), Fault> {
        let request = self.solver.request;
        let denied =
            |what: &str| Err(Fault::said(format!("{what} is not allowed (build with --allow {what})")));
        if run.insecure && !request.allow.insecure {
            return denied("security.insecure");
        }
        let network = match run.network {
            Network::Default => request.network_mode.clone(),
            Network::None => NetworkMode::None,
            Network::Host if !request.allow.host_network && request.network_mode != NetworkMode::Host => {
                return denied("network.host");
            }
            Network::Host => NetworkMode::Host,
        };
        let command = command(&self.state, run);
        if command.args.is_empty() {
            return Err(Fault::said("arguments are required: RUN [] names no program"));
        }
        let mounts = self.step_mounts(run)?;
        let mut key = self.key("RUN", &self.state.filesystem_key());
        key.add("command", command.args.join("\0"));
        if let Some((_, body)) = &command.script {
            key.add("script", body);
        }
        for entry in &self.state.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            key.add(format!("env {name}"), value);
        }
        key.add("user", self.state.user());
        key.add("workdir", self.state.working_dir());
        key.add("network", format!("{network:?}"));
        key.add("insecure", run.insecure.to_string());
        for mount in &mounts {
            mount.add_to_key(&mut key);
        }
        let created_by = created_by(&self.state, &command);
        let devices = self.devices(run)?;
        for device in &devices {
            key.add(format!("device {device}"), "");
        }
        let confinement = Confinement { network, insecure: run.insecure, devices };
        self.layer(&key, created_by, |run, snapshot| run.execute(snapshot, &command, &mounts, &confinement))
    }

    fn execute(
        &self,
        snapshot: &Snapshot,
        command: &Command,
        mounts: &[StepMount],
        confinement: &Confinement,
    ) -> Result<(), Fault> {
        let id = fresh_id();
        let dir = self.solver.shared.dirs.run.join(&id);
        std::fs::create_dir_all(&dir).at("create directory", &dir)?;
        let result = self.execute_in(&dir, &id, snapshot, command, mounts, confinement);
        if let Err(error) = bundle::remove(&dir) {
            tracing::warn!(%error, "a step's run directory stays behind");
        }
        result
    }

    fn execute_in(
        &self,
        dir: &Path,
        id: &str,
        snapshot: &Snapshot,
        command: &Command,
        mounts: &[StepMount],
        confinement: &Confinement,
    ) -> Result<(), Fault> {
        let shared = self.solver.shared;
        let network = &confinement.network;
        let sandbox = shared.sandboxes.acquire(network).map_err(|e| Fault::said(e.to_string()))?;
        let (user, points) = {
            let root = self.below(&snapshot.layers)?;
            let accounts = Accounts::read(&root).at("read", "/etc/passwd")?;
            let user = accounts.process(self.state.user()).map_err(Fault::said)?;
            let targets = mounts.iter().map(|mount| mount.target.clone());
            let own = ["/etc/hosts", "/etc/resolv.conf"].map(PathBuf::from);
            let points =
                MountPoints::look(&root, own.into_iter().chain(targets)).at("look for", "mount points")?;
            (user, points)
        };
        let mut hosts = sandbox.hosts();
        for entry in &self.solver.request.extra_hosts {
            if let Some((name, address)) = entry.split_once(':') {
                hosts.push_str(&format!("{address}\t{name}\n"));
            }
        }
        let mut binds = mounts::prepare(self, dir, mounts)?;
        for (name, text, target) in
            [("hosts", hosts, "/etc/hosts"), ("resolv.conf", sandbox.resolv_conf(), "/etc/resolv.conf")]
        {
            let path = dir.join(name);
            std::fs::write(&path, text).at("write", &path)?;
            binds.mounts.push(mounts::bind(&path, target, true)?);
        }
        if let Some((name, body)) = &command.script {
            binds.mounts.push(mounts::script(dir, name, body, SCRIPTS)?);
        }
        let mut env = self.state.env.clone();
        env.extend(self.solver.arguments.proxies());
        env.append(&mut binds.env);
        let insecure = confinement.insecure;
        let cwd = self.state.working_dir();
        let process = StepProcess { args: &command.args, env, cwd, user: &user, insecure };
        let with_netns = sandbox.netns().is_some();
        let mut spec = spec::step_spec(id, self.solver.request, process, binds.mounts, with_netns)?;
        if !confinement.devices.is_empty() {
            let injected = shared.devices.inject(&confinement.devices, &mut spec);
            injected.map_err(|e| Fault::said(e.to_string()))?;
        }
        bundle::write(dir, &spec).map_err(|e| Fault::said(e.to_string()))?;
        let netns = sandbox
            .netns()
            .map(|fd| fd.try_clone_to_owned())
            .transpose()
            .at("duplicate", "network namespace")?;
        self.container(dir, id, snapshot, netns, &command.args)?;
        drop(binds.held);
        // What the runtime had to make for the container. It was not there below, so that it is in the upper directory
        // as it is, and nothing has to be hidden when it goes.
        let root = RootDir::open_host(&snapshot.upper).at("open", &snapshot.upper)?;
        Ok(points.remove(&root).at("remove", "mount points")?)
    }

    /// What lies below a step, read-only.
    fn below(&self, layers: &[DiffId]) -> Result<RootDir, Fault> {
        if layers.is_empty() {
            let empty = context::scratch_dir(&self.solver.shared.dirs.builds.join("tmp"))?;
            return Ok(RootDir::open_host(empty.path()).at("open", empty.path())?);
        }
        Ok(RootDir::new(self.solver.shared.store.snapshots().mount_ro(layers)?))
    }

    /// What programs of the stage's platform would need here.
    fn emulation(&self) -> Option<String> {
        let (wanted, host) = (self.state.config.platform(), Platform::host());
        (wanted.architecture != host.architecture).then(|| {
            format!(
                "; programs for {wanted} need an emulator on this {} machine: install one (qemu-user-static and \
                 binfmt-support), or run the step in a stage of FROM --platform=$BUILDPLATFORM",
                host.architecture
            )
        })
    }

    fn container(
        &self,
        dir: &Path,
        id: &str,
        snapshot: &Snapshot,
        netns: Option<std::os::fd::OwnedFd>,
        args: &[String],
    ) -> Result<(), Fault> {
        let container = id[..SHORT].to_owned();
        self.emit(BuildEvent::Running { container: container.clone() });
        let (output, mut received) = mpsc::channel::<(Output, Bytes)>(64);
        let request = RunRequest {
            dir: dir.to_owned(),
            create: Create {
                id: id.to_owned(),
                bundle: dir.to_owned(),
                rootfs: Rootfs::Overlay {
                    lower: snapshot.lower.clone(),
                    upper: snapshot.upper.clone(),
                    work: snapshot.work.clone(),
                    volatile: true,
                    users: None,
                },
                terminal: false,
                console_size: None,
                stdin: StdinMode::Closed,
                log: Log::default(),
                systemd_cgroup: false,
                runtime: None,
                restore: None,
            },
            netns,
            output,
            cancel: self.solver.stop.clone(),
        };
        let outcome = self.solver.handle.block_on(async {
            let run = run_to_completion(&self.solver.shared.spawner, request);
            let forward = async {
                while let Some((stream, bytes)) = received.recv().await {
                    let stream = match stream {
                        Output::Stdout => OutputStream::Stdout,
                        Output::Stderr => OutputStream::Stderr,
                    };
                    self.emit(BuildEvent::Output { stream, bytes });
                    self.solver.io.events.room().await;
                }
            };
            tokio::join!(run, forward).0
        });
        if self.solver.stop.is_cancelled() {
            return Err(BuildError::Cancelled.into());
        }
        let record = outcome.map_err(|error| {
            let last = last_words(dir).map(|words| format!(" ({words})")).unwrap_or_default();
            let help = self.emulation().filter(|_| error.kind() == Some(FailureKind::NotExecutable));
            Fault::said(format!("cannot run {}: {error}{last}{}", args.join(" "), help.unwrap_or_default()))
        })?;
        self.emit(BuildEvent::Removed { container });
        if record.code == 0 && record.error.is_none() {
            return Ok(());
        }
        Err(BuildError::Run {
            command: args.join(" "),
            code: record.code,
            oom_killed: record.oom_killed,
            image: None,
            excerpt: None,
        }
        .into())
    }
}
