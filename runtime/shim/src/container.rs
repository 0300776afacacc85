//! The container itself: berth-core's and berth-cgroup's operations in the shim protocol's words.

use std::{
    fs::File,
    io::{self, BufReader},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use berth_cgroup::{Cgroup, CgroupError, OomWatch, Unit};
use berth_core::{
    ConsoleSink, CreateRequest, CreatedContainer, ExecChild, ExecRequest, Gate, RootfsSource, Stdio,
};
use berth_shim_protocol::{
    Create, Failure, FailureKind, MOUNT_PLACEHOLDER, NETNS_PLACEHOLDER, Rootfs, Runtime, Stats, StdinMode,
    files, oci,
};
use berth_spec::ExecFilter;
use berth_sys::{
    mountfd::{Overlay, overlay},
    pidfd::{self, ExitStatus},
};
use nix::{errno::Errno, libc::SIGKILL, unistd::Pid};

use crate::{
    foreign::Foreign,
    mapped,
    record::{self, Leftovers},
    stats,
    stdio::{Console, has_terminal},
};

/// What lands in the upper directory of a build step becomes a layer: nothing that a plain lower directory would not
/// understand. And the kernel need not flush the whole file system when the step ends.
const VOLATILE: &[(&str, Option<&str>)] =
    &[("redirect_dir", Some("off")), ("metacopy", Some("off")), ("index", Some("off")), ("volatile", None)];

/// Who has made it.
enum Made {
    /// Our own runtime.
    Own(Box<CreatedContainer>),
    /// Another one.
    Foreign(Box<Foreign>),
}

/// A container that was created.
pub(crate) struct Container {
    made: Made,
    spec: oci::Spec,
    /// config.json names it by its number here.
    _netns: Option<OwnedFd>,
    oom_kills: u64,
}

impl Container {
    /// Make everything of it but its program. Also our ends of its streams.
    pub(crate) fn create(create: &Create, fds: Vec<OwnedFd>, dir: &Path) -> Result<(Self, Console), Failure> {
        let (spec, netns, mounts) = read_spec(create, fds)?;
        // Intent before effect: from here on a shim that is killed leaves something to sweep up.
        let unit = planned_unit(create, &spec)?;
        let planned = match &unit {
            Some(unit) => Some(unit.path().to_owned()),
            None => spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()),
        };
        let planned = planned.map(|cgroup| Leftovers { cgroup, unit: unit.clone() });
        if let Some(leftovers) = &planned {
            record::write(dir, files::STATE, leftovers).map_err(system)?;
        }
        let result = match &create.runtime {
            None => make(create, &spec, unit.clone()),
            Some(runtime) => make_foreign(create, runtime, &spec, unit.clone(), &mounts, dir),
        };
        // The container has them now, or nobody.
        drop(mounts);
        let (made, console) = match result {
            Ok(made) => made,
            Err(failure) => {
                if let Err(error) = record::remove(dir, files::STATE) {
                    eprintln!("{error}");
                }
                return Err(failure);
            }
        };
        let container = Self { made, spec, _netns: netns, oom_kills: 0 };
        let made = Leftovers { cgroup: container.cgroup().path().to_owned(), unit };
        if planned.as_ref() != Some(&made)
            && let Err(error) = record::write(dir, files::STATE, &made)
        {
            container.remove();
            return Err(system(error));
        }
        Ok((container, console))
    }

    /// Run its program; returns when that was loaded.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        match &mut self.made {
            Made::Own(core) => {
                let started = core.start().map_err(|error| core_failure(&error));
                complain(&core.warnings);
                started
            }
            Made::Foreign(foreign) => foreign.start(),
        }
    }

    fn cgroup(&self) -> &Cgroup {
        match &self.made {
            Made::Own(core) => &core.cgroup,
            Made::Foreign(foreign) => &foreign.cgroup,
        }
    }

    fn pidfd(&self) -> &OwnedFd {
        match &self.made {
            Made::Own(core) => &core.pidfd,
            Made::Foreign(foreign) => &foreign.pidfd,
        }
    }

    /// Run one more process in it. Without `piped` its streams are /dev/null, without `stdin` its standard input.
    pub(crate) fn exec(
        &mut self,
        process: &oci::Process,
        piped: bool,
        stdin: bool,
    ) -> Result<(ExecChild, Console), Failure> {
        let (stdio, mut console) = match (has_terminal(process), piped) {
            (true, _) => (Stdio::Terminal(ConsoleSink::Return), Console::None),
            (false, true) => pipes(stdin)?,
            (false, false) => nothing()?,
        };
        let mut child = match &mut self.made {
            Made::Foreign(foreign) => foreign.exec(process, stdio)?,
            Made::Own(core) => {
                let request = ExecRequest {
                    init: core.pidfd.as_fd(),
                    cgroup: &core.cgroup,
                    rdt: core.rdt.as_ref(),
                    beside_init: true,
                    spec: &self.spec,
                    filter: ExecFilter::Compiled(core.filter().cloned()),
                    state: core.state(),
                    process,
                    stdio,
                    preserve_fds: 0,
                    die_with_parent: true,
                    trace: None,
                    observe_seccomp: false,
                };
                berth_core::exec(request).map_err(|error| core_failure(&error))?
            }
        };
        complain(&child.warnings);
        if let Some(master) = child.console.take() {
            console = Console::Terminal(master);
        }
        Ok((child, console))
    }

    pub(crate) fn pid(&self) -> i32 {
        match &self.made {
            Made::Own(core) => core.pid.as_raw(),
            Made::Foreign(foreign) => foreign.pid.as_raw(),
        }
    }

    /// How init ended, if it has; reaps it.
    pub(crate) fn try_wait(&self) -> Option<ExitStatus> {
        pidfd::wait(self.pidfd(), false).ok().flatten()
    }

    pub(crate) fn kill(&self, signal: i32) -> Result<(), Errno> {
        pidfd::send_signal(self.pidfd(), signal)
    }

    /// Send a signal to every process of the cgroup.
    pub(crate) fn kill_all(&self, signal: i32) -> Result<(), Failure> {
        if signal == SIGKILL {
            return self.cgroup().kill_all().map_err(system);
        }
        for pid in self.pids()? {
            // By pidfd, for nix knows no real-time signals. It may have ended since it was listed.
            match pidfd::open(Pid::from_raw(pid)).and_then(|pidfd| pidfd::send_signal(pidfd, signal)) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(Errno::EINVAL) => {
                    return Err(Failure::new(FailureKind::Invalid, format!("invalid signal: {signal}")));
                }
                Err(errno) => return Err(system(format!("sending signal {signal} to {pid}: {errno}"))),
            }
        }
        Ok(())
    }

    /// Kill what init left behind: nobody, if it had a pid namespace of its own.
    pub(crate) fn kill_rest(&self) -> Result<(), CgroupError> {
        self.cgroup().kill_all()
    }

    pub(crate) fn pause(&self) -> Result<(), Failure> {
        self.cgroup().freeze().map_err(system)
    }

    pub(crate) fn resume(&self) -> Result<(), Failure> {
        self.cgroup().thaw().map_err(system)
    }

    pub(crate) fn update(&self, resources: &oci::LinuxResources) -> Result<(), Failure> {
        self.cgroup().set(resources).map_err(system)
    }

    pub(crate) fn stats(&self) -> Result<Stats, Failure> {
        self.cgroup().stats().map(stats::translate).map_err(system)
    }

    pub(crate) fn pids(&self) -> Result<Vec<i32>, Failure> {
        self.cgroup().pids().map_err(system)
    }

    /// A notification of out-of-memory kills. A host that cannot give one only costs us the event.
    pub(crate) fn oom_watch(&self) -> Option<OomWatch> {
        self.cgroup().oom_watch().unwrap_or_else(|error| {
            eprintln!("no notice will be given of out-of-memory kills: {error}");
            None
        })
    }

    /// Whether the kernel has killed a process for want of memory since this was asked last.
    pub(crate) fn new_oom_kills(&mut self) -> bool {
        let before = self.oom_kills;
        // Without the counter there is nothing to report.
        self.oom_kills = self.cgroup().oom_kills().unwrap_or(before);
        self.oom_kills > before
    }

    /// Undo everything, past errors, which are returned.
    pub(crate) fn remove(self) -> Vec<String> {
        let mut problems = Vec::new();
        // ESRCH: it was reaped, and what it left was killed, as usual.
        if self.kill(SIGKILL).is_ok() {
            if let Err(errno) = pidfd::wait(self.pidfd(), true) {
                problems.push(format!("waiting for init: {errno}"));
            }
            problems.extend(self.kill_rest().err().map(|error| error.to_string()));
        }
        match self.made {
            Made::Own(core) => problems.extend(core.remove().iter().map(ToString::to_string)),
            Made::Foreign(foreign) => problems.extend(foreign.remove()),
        }
        problems
    }
}

/// config.json with its placeholders replaced, and the descriptors that they now name: the network namespace, mounts.
fn read_spec(
    create: &Create,
    fds: Vec<OwnedFd>,
) -> Result<(oci::Spec, Option<OwnedFd>, Vec<OwnedFd>), Failure> {
    let path = create.bundle.join(files::CONFIG);
    let invalid =
        |problem: String| Failure::new(FailureKind::Invalid, format!("{}: {problem}", path.display()));
    let file = File::open(&path).map_err(|error| invalid(error.to_string()))?;
    let mut spec: oci::Spec =
        serde_json::from_reader(BufReader::new(file)).map_err(|error| invalid(error.to_string()))?;
    if spec.process().as_ref().is_some_and(has_terminal) != create.terminal {
        return Err(invalid("process.terminal is not what the engine says".to_owned()));
    }
    if let (Rootfs::Path(rootfs), Some(root)) = (&create.rootfs, spec.root_mut().as_mut()) {
        root.set_path(rootfs.clone());
    }
    let own = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let mut fds = fds.into_iter();
    let mut netns = None;
    let placeholder = Path::new(NETNS_PLACEHOLDER);
    let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        if namespace.path().as_deref() == Some(placeholder) {
            let missing = || invalid("a network namespace is named but was not sent".to_owned());
            let sent = fds.next().ok_or_else(missing)?;
            namespace.set_path(Some(own(&sent)));
            netns = Some(sent);
        }
    }
    let handed: Vec<OwnedFd> = fds.collect();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let source = mount.source().as_deref().and_then(Path::to_str);
        let Some(number) = source.and_then(|source| source.strip_prefix(MOUNT_PLACEHOLDER)) else { continue };
        let missing = || invalid(format!("mount {number} is named but was not sent"));
        let sent = number.parse().ok().and_then(|number: usize| handed.get(number)).ok_or_else(missing)?;
        mount.set_source(Some(own(sent)));
    }
    Ok((spec, netns, handed))
}

/// The systemd unit that a container is to be in.
fn planned_unit(create: &Create, spec: &oci::Spec) -> Result<Option<Unit>, Failure> {
    if !create.systemd_cgroup {
        return Ok(None);
    }
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    Unit::new(asked, &create.id, spec.annotations().iter().flatten()).map(Some).map_err(system)
}

fn make(create: &Create, spec: &oci::Spec, unit: Option<Unit>) -> Result<(Made, Console), Failure> {
    let rootfs = match &create.rootfs {
        Rootfs::Path(_) => RootfsSource::Path,
        Rootfs::Overlay { lower, upper, work, volatile, users } => {
            let options = if *volatile { VOLATILE } else { &[] };
            let lower: Vec<&Path> = lower.iter().map(AsRef::as_ref).collect();
            let request = Overlay { lower: &lower, upper: Some(upper), work: Some(work), options, attrs: 0 };
            RootfsSource::Detached(match users {
                Some(users) => mapped::overlay(&request, &mapped::namespace(users, spec)?)?,
                None => overlay(&request).map_err(system)?,
            })
        }
    };
    let (stdio, mut console) = streams(create)?;
    let request = CreateRequest {
        unit,
        id: &create.id,
        bundle: &create.bundle,
        spec,
        rootfs,
        stdio,
        gate: Gate::InProcess,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        die_with_parent: true,
        unprivileged: false,
        trace: None,
        observe_seccomp: false,
    };
    let mut core = berth_core::create(request).map_err(|error| core_failure(&error))?;
    if let Some(master) = core.console.take() {
        console = Console::Terminal(master);
    }
    complain(&core.config_warnings().collect::<Vec<_>>());
    complain(&std::mem::take(&mut core.warnings));
    Ok((Made::Own(Box::new(core)), console))
}

fn make_foreign(
    create: &Create,
    runtime: &Runtime,
    spec: &oci::Spec,
    unit: Option<Unit>,
    mounts: &[OwnedFd],
    dir: &Path,
) -> Result<(Made, Console), Failure> {
    let (stdio, mut console) = streams(create)?;
    let (foreign, master) = Foreign::create(create, runtime, spec.clone(), unit, mounts, dir, stdio)?;
    if let Some(master) = master {
        console = Console::Terminal(master);
    }
    Ok((Made::Foreign(Box::new(foreign)), console))
}

/// The streams that init gets, and our ends of them.
fn streams(create: &Create) -> Result<(Stdio, Console), Failure> {
    match create.terminal {
        true => Ok((Stdio::Terminal(ConsoleSink::Return), Console::None)),
        false => pipes(create.stdin != StdinMode::Closed),
    }
}

/// The process' ends of three pipes, and ours.
fn pipes(stdin: bool) -> Result<(Stdio, Console), Failure> {
    let failed = |error: io::Error| system(format!("making pipes: {error}"));
    let (stdin, feed): (OwnedFd, _) = match stdin {
        true => {
            let (reader, writer) = io::pipe().map_err(failed)?;
            (reader.into(), Some(writer))
        }
        false => (File::open("/dev/null").map_err(failed)?.into(), None),
    };
    let ((stdout, out), (stderr, err)) = (io::pipe().map_err(failed)?, io::pipe().map_err(failed)?);
    let console = Console::Pipes { stdin: feed, stdout, stderr };
    Ok((Stdio::Fds { stdin, stdout: out.into(), stderr: err.into() }, console))
}

/// For a process that nobody listens to.
fn nothing() -> Result<(Stdio, Console), Failure> {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let failed = |error: io::Error| system(format!("opening /dev/null: {error}"));
    let (stdin, stdout, stderr) = (null().map_err(failed)?, null().map_err(failed)?, null().map_err(failed)?);
    Ok((Stdio::Fds { stdin, stdout, stderr }, Console::None))
}

/// Warnings go to shim.log.
fn complain(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

pub(crate) fn core_failure(error: &berth_core::Error) -> Failure {
    let message = error.to_string();
    let kind = match error.kind() {
        berth_core::FailureKind::NotFound => FailureKind::NotFound,
        berth_core::FailureKind::PermissionDenied => FailureKind::PermissionDenied,
        berth_core::FailureKind::IsDirectory => FailureKind::IsDirectory,
        berth_core::FailureKind::Other if message.contains("exec format error") => FailureKind::NotExecutable,
        berth_core::FailureKind::Other => FailureKind::System,
    };
    Failure::new(kind, message)
}

pub(crate) fn system(error: impl ToString) -> Failure {
    Failure::new(FailureKind::System, error.to_string())
}
