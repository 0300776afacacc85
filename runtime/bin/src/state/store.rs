//! The state directory, and one container in it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use berth_cgroup::resctrl::{Group, Place, Resctrl};
use berth_cgroup::{Cgroup, FreezerState, Unit};
use berth_core::{ChildFailure, ContainerState, Newborn, run_all_hooks, run_hooks};
use berth_spec::{CompileContext, ContainerPlan, HookPlans, oci};
use berth_sys::{Errno, Pid, pidfd};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Process, Record, Status, start_time};
use crate::bundle::Bundle;
use crate::diagnose::Root;
use crate::log::Log;

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const FIFO: &str = "exec.fifo";
/// No failure that a container tells is longer, as JSON.
const MAX_FAILURE: u64 = 64 * 1024;
/// The longest id, as the file system has it.
const MAX_ID: usize = 255;

/// All containers.
pub(crate) struct Store {
    root: PathBuf,
    systemd: bool,
    unprivileged: bool,
    /// The place was given by the caller.
    named: bool,
}

/// One container.
pub(crate) struct Container {
    directory: PathBuf,
    pub(crate) record: Record,
    /// Its maker may lack cgroups.
    pub(crate) unprivileged: bool,
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), systemd: false, unprivileged: false, named: false }
    }

    /// New containers get their cgroup from systemd, or not. Existing ones remember whose it is.
    pub(crate) fn with_systemd(self, systemd: bool) -> Self {
        Self { systemd, ..self }
    }

    /// The caller has named the place.
    pub(crate) fn with_name(self, named: bool) -> Self {
        Self { named, ..self }
    }

    /// New containers may be without a cgroup.
    pub(crate) fn with_unprivileged(self, unprivileged: bool) -> Self {
        Self { unprivileged, ..self }
    }

    /// Takes the id for a new container.
    pub(crate) fn reserve(&self, id: &str, bundle: &Bundle) -> anyhow::Result<Container> {
        let directory = self.directory(id)?;
        let unit = self.systemd.then(|| planned_unit(&bundle.spec, id)).transpose()?;
        let mut builder = DirBuilder::new();
        // The container's user reaches its FIFO by a descriptor; other users of the host have no business here. They
        // could hold it open, and `start` would wait for them.
        builder.mode(0o700);
        match builder.create(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => builder
                .recursive(true)
                .create(&self.root)
                .and_then(|()| builder.recursive(false).create(&directory)),
            other => other,
        }
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => berth_core::Error::Exists { id: id.to_owned() }.into(),
            _ => anyhow::Error::from(error).context(format!("mkdir {}", directory.display())),
        })?;
        let record = first_record(id, bundle, unit);
        let container = Container { directory, record, unprivileged: self.unprivileged };
        let config = container.directory.join(CONFIG);
        // Nobody reads it before there is a pid in the record.
        let written = container.save().and_then(|()| {
            fs::write(&config, &bundle.text).with_context(|| format!("write {}", config.display()))
        });
        match written {
            Ok(()) => Ok(container),
            Err(error) => {
                container.forget()?;
                Err(error)
            }
        }
    }

    /// A container that somebody else looks after (a shim): known by its bundle and its first process, and with no
    /// place in the state directory.
    pub(crate) fn adopt(&self, id: &str, bundle: &Bundle, pid: Pid) -> anyhow::Result<Container> {
        let unit = self.systemd.then(|| planned_unit(&bundle.spec, id)).transpose()?;
        let mut record = first_record(id, bundle, unit);
        record.pid = pid.as_raw();
        record.start_time =
            start_time(pid.as_raw()).with_context(|| format!("no process has the id {pid}"))?;
        // What it sees as its root, wherever that came from.
        record.rootfs = PathBuf::from(format!("/proc/{pid}/root"));
        Ok(Container { directory: bundle.directory.clone(), record, unprivileged: self.unprivileged })
    }

    /// An existing container.
    pub(crate) fn load(&self, id: &str) -> anyhow::Result<Container> {
        let directory = self.directory(id)?;
        let path = directory.join(RECORD);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(berth_core::Error::NoContainer { id: id.to_owned() }.into());
            }
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let record = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(Container { directory, record, unprivileged: self.unprivileged })
    }

    /// All containers by id. One that is deleted meanwhile is left out.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            // Nobody has made a container yet; but a place that somebody names should be there.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.named => return Ok(Vec::new()),
            other => other.with_context(|| format!("read {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("read {}", self.root.display()))?.file_name();
            ids.extend(name.into_string());
        }
        ids.sort_unstable();
        Ok(ids.iter().filter_map(|id| self.load(id).ok()).collect())
    }

    /// Removes what a `create` that was killed in its first moment has left: a directory without a record.
    pub(crate) fn sweep(&self, id: &str) -> anyhow::Result<()> {
        let directory = self.directory(id)?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("remove {}", directory.display())),
        }
    }

    fn directory(&self, id: &str) -> anyhow::Result<PathBuf> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if id.is_empty() || id.len() > MAX_ID || id == "." || id == ".." || !id.chars().all(allowed) {
            bail!("invalid container ID format: {id:?} (use letters, digits, and _ + - .)");
        }
        Ok(self.root.join(id))
    }
}

/// What is known of a container before it is made.
fn first_record(id: &str, bundle: &Bundle, unit: Option<Unit>) -> Record {
    let annotations = bundle.spec.annotations().clone().unwrap_or_default();
    Record {
        oci_version: bundle.spec.version().clone(),
        id: id.to_owned(),
        pid: 0,
        start_time: 0,
        early: false,
        bundle: bundle.directory.clone(),
        rootfs: bundle.rootfs(),
        created: jiff::Timestamp::now().to_string(),
        cgroup: unit.as_ref().map_or_else(|| planned_cgroup(&bundle.spec, id), |unit| unit.path().to_owned()),
        unit,
        rdt: planned_rdt(&bundle.spec, id),
        annotations: annotations.into_iter().collect::<BTreeMap<_, _>>(),
        later_hooks: has_later_hooks(&bundle.spec),
        own_mounts: has_own_mounts(&bundle.spec),
        limits: None,
    }
}

/// Waits until the startContainer hooks have run and the program is loaded: the end of file. A failure comes as data.
fn await_program(fifo: OwnedFd) -> anyhow::Result<()> {
    fcntl(&fifo, FcntlArg::F_SETFL(OFlag::O_RDONLY)).context("prepare the start FIFO")?;
    let mut told = Vec::new();
    File::from(fifo).take(MAX_FAILURE).read_to_end(&mut told).context("read the start FIFO")?;
    if told.is_empty() {
        return Ok(());
    }
    let failure: ChildFailure = serde_json::from_slice(&told).context("the start FIFO")?;
    Err(berth_core::Error::Child(failure).into())
}

fn has_own_mounts(spec: &oci::Spec) -> bool {
    let listed = spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref()).flatten();
    listed.into_iter().any(|namespace| namespace.typ() == oci::LinuxNamespaceType::Mount)
}

/// Where the container's cgroup will be; berth-core decides the same.
fn planned_cgroup(spec: &oci::Spec, id: &str) -> PathBuf {
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    match asked {
        Some(path) if !path.as_os_str().is_empty() => Path::new("/").join(path),
        _ => Path::new("/berth").join(id),
    }
}

/// Where its group of resctrl will be, for whoever has to take it away if the creation is killed. That it cannot be made is
/// told when it is.
fn planned_rdt(spec: &oci::Spec, id: &str) -> Option<Place> {
    let asked = spec.linux().as_ref()?.intel_rdt().as_ref()?;
    let class = asked.clos_id().as_deref().filter(|name| !name.is_empty());
    Some(Resctrl::find().ok()?.place(id, class, asked.enable_monitoring().unwrap_or(false)))
}

fn planned_unit(spec: &oci::Spec, id: &str) -> anyhow::Result<Unit> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    Ok(Unit::new(asked.as_deref(), id, spec.annotations().iter().flatten())?)
}

fn has_later_hooks(spec: &oci::Spec) -> bool {
    let some = |hooks: &Option<Vec<oci::Hook>>| hooks.as_ref().is_some_and(|list| !list.is_empty());
    spec.hooks().as_ref().is_some_and(|hooks| some(hooks.poststart()) || some(hooks.poststop()))
}

/// Writes beside and renames: a reader sees the old file or the new one. No sync: it lies on tmpfs, and a reboot ends
/// every container anyhow.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("write {}", path.display()))
}

impl Container {
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&self.record).context("state.json")?;
        write(&self.directory.join(RECORD), &text)
    }

    /// Makes the FIFO at which the container will wait, and opens it as `berth_core` wants it.
    pub(crate) fn make_gate(&self) -> anyhow::Result<OwnedFd> {
        let path = self.fifo();
        let mode = Mode::from_bits_truncate(0o622);
        mkfifo(&path, mode).with_context(|| format!("mkfifo {}", path.display()))?;
        // Against the umask: the container's user writes to it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622))
            .with_context(|| format!("chmod {}", path.display()))?;
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        open(&path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
    }

    fn fifo(&self) -> PathBuf {
        self.directory.join(FIFO)
    }

    /// Its first process exists, and makes the rest.
    pub(crate) fn born(&mut self, born: &Newborn<'_>) -> anyhow::Result<()> {
        self.record.early = true;
        self.created(born.pid, born.cgroup.path(), born.rdt)
    }

    /// The container exists: its first process has this pid.
    pub(crate) fn created(&mut self, pid: Pid, cgroup: &Path, rdt: Option<&Group>) -> anyhow::Result<()> {
        self.record.pid = pid.as_raw();
        self.record.start_time = start_time(pid.as_raw()).unwrap_or(0);
        self.record.cgroup = cgroup.to_owned();
        self.record.rdt = rdt.map(|group| group.place().clone());
        self.save()
    }

    pub(crate) fn status(&self) -> Status {
        self.early_status().unwrap_or_else(|| Self::running_or_paused(self.cgroup().ok().flatten().as_ref()))
    }

    /// The same, for whoever has opened its cgroup.
    pub(crate) fn status_in(&self, cgroup: Option<&Cgroup>) -> Status {
        self.early_status().unwrap_or_else(|| Self::running_or_paused(cgroup))
    }

    fn running_or_paused(cgroup: Option<&Cgroup>) -> Status {
        match cgroup.and_then(|cgroup| cgroup.freezer_state().ok()) {
            Some(FreezerState::Frozen | FreezerState::Freezing) => Status::Paused,
            Some(FreezerState::Thawed) | None => Status::Running,
        }
    }

    /// One that its cgroup does not tell.
    fn early_status(&self) -> Option<Status> {
        if self.record.pid == 0 {
            return Some(Status::Creating);
        }
        let process = Process::of(self.record.pid).filter(|found| found.start_time == self.record.start_time);
        match process {
            None => return Some(Status::Stopped),
            Some(process) if self.record.early && process.is_forked => return Some(Status::Creating),
            Some(_) => {}
        }
        self.fifo().exists().then_some(Status::Created)
    }

    /// Its cgroup; `None` if that is gone.
    pub(crate) fn cgroup(&self) -> anyhow::Result<Option<Cgroup>> {
        let layout = berth_cgroup::detect()?;
        if self.record.cgroup.as_os_str().is_empty() {
            return Ok(Some(Cgroup::none(&layout)));
        }
        let opened = match &self.record.unit {
            Some(unit) => Cgroup::open_in_unit(&layout, unit),
            None => Cgroup::open(&layout, &self.record.cgroup),
        };
        match opened {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Its share of caches and memory bandwidth; `None` if it has none, or its group is gone.
    pub(crate) fn rdt(&self) -> anyhow::Result<Option<Group>> {
        let place = self.record.rdt.as_ref();
        Ok(place.map_or(Ok(None), Resctrl::open)?)
    }

    /// Its cgroup, which must be there.
    pub(crate) fn live_cgroup(&self) -> anyhow::Result<Cgroup> {
        self.cgroup()?.ok_or_else(|| self.has_no_cgroup())
    }

    pub(crate) fn has_no_cgroup(&self) -> anyhow::Error {
        anyhow::anyhow!("the cgroup {} is gone", self.record.cgroup.display())
    }

    /// The configuration it was created with.
    pub(crate) fn spec(&self) -> anyhow::Result<oci::Spec> {
        let path = self.directory.join(CONFIG);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(berth_spec::parse(&text).with_context(|| path.display().to_string())?.0)
    }

    /// Its first process; `None` if that has ended.
    pub(crate) fn init(&self) -> anyhow::Result<Option<OwnedFd>> {
        if self.record.pid == 0 {
            return Ok(None);
        }
        let pidfd = match pidfd::open(Pid::from_raw(self.record.pid)) {
            Err(Errno::ESRCH) => return Ok(None),
            other => other.with_context(|| format!("pidfd_open {}", self.record.pid))?,
        };
        // Asked after the open: the number cannot go to another process now.
        Ok((start_time(self.record.pid) == Some(self.record.start_time)).then_some(pidfd))
    }

    /// The root of its first process, as that sees it.
    pub(crate) fn root(&self) -> Option<Root> {
        Root::open(Path::new(&format!("/proc/{}/root", self.record.pid)))
    }

    /// Who made it: the name of the owner of its directory, or `#` and the number of one without a name.
    pub(crate) fn owner(&self) -> String {
        // One that is deleted meanwhile has no owner any more.
        let Ok(metadata) = fs::metadata(&self.directory) else { return String::new() };
        let number = metadata.uid().to_string();
        // A static program cannot ask the other places of nsswitch.conf(5) for names.
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let mut found = named.filter(|fields| fields.get(2) == Some(&number.as_str()));
        found.next().map_or_else(|| format!("#{number}"), |fields| fields[0].to_owned())
    }

    /// Its state as hooks get it.
    pub(crate) fn oci_state(&self, status: Status) -> ContainerState {
        ContainerState {
            oci_version: self.record.oci_version.clone(),
            id: self.record.id.clone(),
            status: status.name(),
            pid: if status == Status::Stopped { 0 } else { self.record.pid },
            bundle: self.record.bundle.clone(),
            annotations: self.record.annotations.clone(),
        }
    }

    /// Lets a created container run; its first process.
    pub(crate) fn start(&self) -> anyhow::Result<OwnedFd> {
        match self.status() {
            Status::Created => {}
            Status::Stopped => bail!("cannot start a container that has stopped"),
            Status::Creating => bail!("cannot start a container that is still being created"),
            Status::Running | Status::Paused => bail!("cannot start an already running container"),
        }
        let init = self.init()?.context("cannot start a container that has stopped")?;
        let path = self.fifo();
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fifo = open(&path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
        // Our end is open now, so that the container can open its own and answer.
        let mut fds =
            [PollFd::new(fifo.as_fd(), PollFlags::POLLIN), PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        while let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
            if errno != Errno::EINTR {
                return Err(errno).context("poll");
            }
        }
        let mut byte = [0];
        if nix::unistd::read(&fifo, &mut byte) != Ok(1) {
            bail!("the container's first process ended before it was started");
        }
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        await_program(fifo)?;
        let hooks = self.hooks(|hooks| hooks.poststart())?.map_or(Vec::new(), |hooks| hooks.poststart);
        let state = self.oci_state(Status::Running);
        run_hooks("poststart", &hooks, &state, Some(&self.record.bundle)).inspect_err(|_| {
            // runtime.md, "Lifecycle", step 9. It has ended by itself if this fails.
            pidfd::send_signal(&init, nix::libc::SIGKILL).ok();
        })?;
        Ok(init)
    }

    /// The compiled hooks, if the configuration has any of the kind asked for.
    fn hooks(
        &self,
        kind: impl Fn(&oci::Hooks) -> &Option<Vec<oci::Hook>>,
    ) -> anyhow::Result<Option<HookPlans>> {
        if !self.record.later_hooks {
            return Ok(None);
        }
        let spec = self.spec()?;
        let listed = spec.hooks().as_ref().and_then(|hooks| kind(hooks).as_ref());
        if listed.is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        Ok(Some(self.plan(&spec)?.hooks))
    }

    /// Its configuration, compiled again.
    pub(crate) fn plan(&self, spec: &oci::Spec) -> anyhow::Result<ContainerPlan> {
        let context = CompileContext {
            bundle: self.record.bundle.clone(),
            rootless: false,
            cgroup: berth_cgroup::detect()?.mounts(),
            cgroup_path: self.record.cgroup.clone(),
            known_capabilities: None,
            selinux: true,
        };
        Ok(berth_spec::compile(spec, &context)?)
    }

    /// A path beside what is kept of it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Undoes all that is left of a container whose first process has ended: processes, cgroup, poststop hooks,
    /// directory. Goes on past errors. A poststop hook that fails is a warning (runtime.md, "Lifecycle", step 13).
    pub(crate) fn destroy(self, log: &Log) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        match self.cgroup() {
            Ok(Some(cgroup)) => {
                if cgroup.pids().is_ok_and(|pids| !pids.is_empty())
                    && let Err(error) = cgroup.kill_all()
                {
                    problems.push(error.to_string());
                }
                if let Err(errors) = cgroup.remove() {
                    problems.extend(errors.iter().map(ToString::to_string));
                }
            }
            // systemd takes the cgroup of a dead scope away, but remembers one that failed.
            Ok(None) => {
                let stopped = self.record.unit.as_ref().map_or(Ok(()), Unit::stop);
                problems.extend(stopped.err().map(|error| error.to_string()));
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
        let removed = self.rdt().and_then(|group| Ok(group.map_or(Ok(()), Group::remove)?));
        problems.extend(removed.err().map(|error| format!("{error:#}")));
        // One that was never created has not stopped either.
        if self.record.pid != 0 {
            if !self.record.own_mounts {
                berth_core::unmount_root(&self.record.rootfs);
            }
            match self.hooks(|hooks| hooks.poststop()) {
                Ok(hooks) => {
                    let list = hooks.map_or(Vec::new(), |hooks| hooks.poststop);
                    for error in run_all_hooks("poststop", &list, &self.oci_state(Status::Stopped)) {
                        log.warn(&error.to_string());
                    }
                }
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        problems.extend(self.forget().err().map(|error| format!("{error:#}")));
        if problems.is_empty() { Ok(()) } else { bail!(problems.join("; ")) }
    }

    /// Removes the directory only.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.directory).with_context(|| format!("remove {}", self.directory.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(directory: &Path) -> Bundle {
        let spec = oci::Spec::default();
        let text = serde_json::to_vec(&spec).unwrap();
        Bundle { directory: directory.to_owned(), spec, text, warnings: Vec::new() }
    }

    #[test]
    fn ids_cannot_leave_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("state"));
        for id in ["", ".", "..", "a/b", "../x", "a b", "ä"] {
            assert!(store.reserve(id, &bundle(root.path())).is_err(), "{id:?}");
        }
        assert!(!root.path().join("state").exists());
    }

    #[test]
    fn an_id_is_taken_once_and_given_back() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("state"));
        let first = store.reserve("one", &bundle(root.path())).unwrap();
        assert_eq!(first.status(), Status::Creating);
        let again = store.reserve("one", &bundle(root.path())).err().unwrap().to_string();
        assert!(again.contains("already exists"), "{again}");
        assert_eq!(store.list().unwrap().len(), 1);
        first.forget().unwrap();
        assert!(store.load("one").err().unwrap().to_string().contains("does not exist"));
    }

    #[test]
    fn a_dead_process_is_stopped() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let mut container = store.reserve("c", &bundle(root.path())).unwrap();
        let own = Pid::this();
        container.created(own, Path::new("/berth-no-such-cgroup"), None).unwrap();
        assert_eq!(store.load("c").unwrap().status(), Status::Running);
        container.record.start_time += 1;
        assert_eq!(container.status(), Status::Stopped, "the number belongs to another process now");
        assert!(container.init().unwrap().is_none());
    }
}
