//! A cgroup that exists.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use crate::dir::Dir;
use crate::oom::OomWatch;
use crate::plan::{Plan, directories, relative};
use crate::systemd::{Placeholder, rounded};
use crate::{CgroupError, Layout, Stats, Unit, delegation, signals, stats, tree};

/// Whether the processes of a cgroup run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// Running.
    Thawed,
    /// On the way.
    Freezing,
    /// Stopped.
    Frozen,
}

/// A container's cgroup in all hierarchies that take part.
#[derive(Debug)]
pub struct Cgroup {
    layout: Layout,
    version: u8,
    path: PathBuf,
    dirs: Vec<Dir>,
    /// The systemd unit whose cgroup this is.
    unit: Option<Unit>,
    /// What keeps the unit alive until the container's process is in it.
    placeholder: Option<Placeholder>,
    /// A limit of processes too low for those that make the container: it is set when they are gone.
    postponed: Option<LinuxResources>,
}

/// Processes while a container is made: the placeholder, one in between that enters namespaces, and init.
const MAKERS: i64 = 3;

impl Cgroup {
    /// Makes the cgroup `path` (below each hierarchy's root) and sets the limits. What a failure leaves half made is
    /// removed again.
    ///
    /// # Errors
    /// A directory cannot be made, or a limit is invalid or refused.
    pub fn create(layout: &Layout, path: &Path, resources: &LinuxResources) -> Result<Self, CgroupError> {
        let (resources, postponed) = postpone(resources);
        let plan = Plan::new(layout, path, &resources)?;
        let mut made = Vec::new();
        let result = tree::make(layout, path, &mut made).and_then(|()| {
            let dirs =
                places(layout, path).map(|(directory, controllers)| Dir::made(&directory, controllers));
            let group = Self::of(layout, path, dirs.collect::<Result<_, _>>()?);
            if group.dirs.iter().any(|dir| !made.contains(&dir.path)) {
                group.refuse_foreign()?;
            }
            group.apply(&plan)?;
            Ok(Self { postponed, ..group })
        });
        result.inspect_err(|_| tree::unmake(&made))
    }

    /// The same through systemd: a scope with these limits, and what systemd has no property for. Forks, so the caller
    /// has one thread. Until [`Self::populated`] a process of no other use keeps the scope alive.
    ///
    /// # Errors
    /// As [`Self::create`], and what systemd refuses.
    pub fn create_in_unit(
        layout: &Layout,
        unit: &Unit,
        resources: &LinuxResources,
    ) -> Result<Self, CgroupError> {
        if layout.version() == 1 && !unit.is_joined_by_birth() {
            return Err(CgroupError::Systemd {
                operation: "start",
                unit: unit.name().to_owned(),
                problem: "an unprivileged user's systemd has no say on a host with cgroup version 1"
                    .to_owned(),
                hint: Some("leave --systemd-cgroup out"),
            });
        }
        let (resources, postponed) = postpone(resources);
        let resources = rounded(&resources);
        let plan = Plan::new(layout, unit.path(), &resources)?;
        // A unit that is gone may have left a directory, which systemd would take as it is.
        if let Ok(group) = Self::open(layout, unit.path()) {
            group.refuse_foreign()?;
        }
        let placeholder = unit.start(layout.version(), &resources)?;
        // Hierarchies and controllers that systemd does not know are left to us.
        let mut made = Vec::new();
        let result = tree::make(layout, unit.path(), &mut made).and_then(|()| {
            let group = Self::open_in_unit(layout, unit)?;
            group.apply(&plan)?;
            Ok(group)
        });
        match result {
            Ok(group) => Ok(Self { placeholder: Some(placeholder), postponed, ..group }),
            Err(error) => {
                drop(placeholder);
                if let Err(error) = unit.stop() {
                    tracing::warn!(%error, "a unit stays behind");
                }
                tree::unmake(&made);
                Err(error)
            }
        }
    }

    /// The cgroup a process is in, on version 2. A container's process may have moved to a group below the one it was
    /// given, or, where it sees all groups, to any other.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of_process(layout: &Layout, pid: Pid) -> Result<Self, CgroupError> {
        let file = Path::new("/proc").join(pid.to_string()).join("cgroup");
        let text = std::fs::read_to_string(&file).map_err(|error| CgroupError::io("read", &file, error))?;
        // cgroups(7): hierarchy number, controllers, path; cgroup2 has number 0 and no controllers.
        let path = text.lines().find_map(|line| line.strip_prefix("0::"));
        Self::open(layout, Path::new(path.unwrap_or("/")))
    }

    /// Opens that of a unit.
    ///
    /// # Errors
    /// None of its directories exists.
    pub fn open_in_unit(layout: &Layout, unit: &Unit) -> Result<Self, CgroupError> {
        Ok(Self { unit: Some(unit.clone()), ..Self::open(layout, unit.path())? })
    }

    /// Hands the cgroup to a user, who may then make groups below and move processes between them (version 2; cgroups(7),
    /// "Delegation"). The limits stay out of their reach.
    ///
    /// # Errors
    /// The owner cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<(), CgroupError> {
        match (self.version, self.dirs.first()) {
            (2, Some(dir)) => delegation::hand_over(dir, uid),
            _ => Ok(()),
        }
    }

    /// [`Self::populated`] has something to do, which the container's program should not see undone.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.placeholder.is_some() || self.postponed.is_some()
    }

    /// The container's process is inside now, and all that helped to make it may go.
    ///
    /// # Errors
    /// A limit that had to wait for this is refused.
    pub fn populated(&mut self) -> Result<(), CgroupError> {
        self.placeholder = None;
        self.postponed.take().map_or(Ok(()), |limits| self.set(&limits))
    }

    /// Opens one made earlier; directories that are gone are left out.
    ///
    /// # Errors
    /// None of its directories exists.
    pub fn open(layout: &Layout, path: &Path) -> Result<Self, CgroupError> {
        let mut dirs = Vec::new();
        let mut missing = None;
        for (directory, controllers) in places(layout, path) {
            match Dir::find(&directory, controllers) {
                Ok(dir) => dirs.push(dir),
                Err(error) if error.is_not_found() => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if dirs.is_empty() => Err(error),
            _ => Ok(Self::of(layout, path, dirs)),
        }
    }

    fn of(layout: &Layout, path: &Path, dirs: Vec<Dir>) -> Self {
        Self { path: Path::new("/").join(relative(path)), dirs, ..Self::none(layout) }
    }

    /// No cgroup at all: a container of a user who may make none. It shares its caller's, has no limits, and cannot be
    /// paused.
    #[must_use]
    pub fn none(layout: &Layout) -> Self {
        let (layout, version) = (layout.clone(), layout.version());
        Self {
            layout,
            version,
            path: PathBuf::new(),
            dirs: Vec::new(),
            unit: None,
            placeholder: None,
            postponed: None,
        }
    }

    /// The same cgroup with its directories replaced by ones below them, by controller; the empty name is for all.
    ///
    /// # Errors
    /// A path that leads out, a controller that is not mounted, or a directory that does not exist.
    pub fn below(mut self, paths: &BTreeMap<String, PathBuf>) -> Result<Self, CgroupError> {
        for (controller, path) in paths {
            let inside = path.strip_prefix("/").unwrap_or(path);
            if inside
                .components()
                .any(|component| !matches!(component, Component::Normal(_) | Component::CurDir))
            {
                return Err(CgroupError::Below(format!("bad sub cgroup path: {}", path.display())));
            }
            let wanted = |dir: &Dir| controller.is_empty() || dir.has(controller);
            if !self.dirs.iter().any(wanted) {
                return Err(CgroupError::Below(format!("unknown controller {controller}")));
            }
            for dir in self.dirs.iter_mut().filter(|dir| wanted(dir)) {
                *dir = Dir::open(&dir.path.join(inside), dir.controllers.clone()).map_err(|error| {
                    CgroupError::Below(format!("error adding pid of the new process to cgroups: {error}"))
                })?;
            }
        }
        Ok(self)
    }

    /// A directory that was there before may belong to somebody else: a second container in it would be killed,
    /// frozen and limited with the first.
    fn refuse_foreign(&self) -> Result<(), CgroupError> {
        let in_use = |problem: String| CgroupError::InUse { path: self.path.clone(), problem };
        let pids = self.pids()?;
        if !pids.is_empty() {
            return Err(in_use(format!("is not empty: {} process(es) found", pids.len())));
        }
        let frozen = self.freezer().is_ok_and(|dir| {
            signals::state(dir, self.version).is_ok_and(|state| state != FreezerState::Thawed)
        });
        if frozen { Err(in_use("unexpectedly frozen".to_owned())) } else { Ok(()) }
    }

    /// The path below each hierarchy's root.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directories by controller, for runc's state.json (`""` is cgroup2).
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for dir in &self.dirs {
            if dir.controllers.is_empty() {
                paths.insert(String::new(), dir.path.clone());
            }
            paths.extend(dir.controllers.iter().map(|controller| (controller.clone(), dir.path.clone())));
        }
        paths
    }

    /// The cgroup2 directory for CLONE_INTO_CGROUP: there is one on version 2 and on hybrid hosts.
    #[must_use]
    pub fn dir_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.is_joined_by_request() {
            return None;
        }
        self.dirs.iter().find(|dir| dir.controllers.is_empty()).map(Dir::fd)
    }

    /// True if a process that is born in [`Self::dir_fd`] is in all of the cgroup: version 2.
    #[must_use]
    pub fn is_joined_by_birth(&self) -> bool {
        self.version == 2 && !self.is_joined_by_request()
    }

    /// True if only systemd can move a process here ([`Self::add`], from outside): the unit of an unprivileged user.
    #[must_use]
    pub fn is_joined_by_request(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| !unit.is_joined_by_birth())
    }

    /// Moves the calling, single-threaded process here, except into cgroup2, where it is born ([`Self::dir_fd`]). On
    /// version 1 by writing `0` to each `tasks`: for itself a thread needs neither the global lock nor the grace
    /// period that `cgroup.procs` costs.
    ///
    /// # Errors
    /// The kernel refuses, or the cgroup is gone.
    pub fn join_self(&self) -> Result<(), CgroupError> {
        let version_1 = self.dirs.iter().filter(|dir| !dir.controllers.is_empty());
        version_1.into_iter().try_for_each(|dir| dir.write("tasks", "0"))
    }

    /// Moves another process here. Slow on version 1: prefer [`Self::join_self`].
    ///
    /// # Errors
    /// The process or the cgroup is gone.
    pub fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        if let Some(unit) = self.unit.as_ref().filter(|_| self.is_joined_by_request()) {
            let directory = self.dirs.first().map_or(Path::new(""), |dir| dir.path.as_path());
            let own = directories(&self.layout, &self.path);
            let below = own.first().and_then(|own| directory.strip_prefix(own).ok()).unwrap_or(Path::new(""));
            return unit.attach(below, pid);
        }
        self.dirs.iter().try_for_each(|dir| dir.write("cgroup.procs", &pid.to_string()))
    }

    /// Changes limits; fields that are `None` stay.
    ///
    /// # Errors
    /// A limit is invalid or refused; earlier ones may have been set.
    pub fn set(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        self.check_memory(resources)?;
        let Some(unit) = &self.unit else {
            return self.apply(&Plan::new(&self.layout, &self.path, resources)?);
        };
        let resources = rounded(resources);
        let plan = Plan::new(&self.layout, &self.path, &resources)?;
        if self.version == 2 {
            unit.set(self.version, &resources)?;
        } else {
            self.while_frozen(|| unit.set(self.version, &resources))?;
        }
        self.apply(&plan)
    }

    /// `memory.checkBeforeUpdate`: a limit below what is in use would end processes on version 2.
    fn check_memory(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(memory) =
            resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let Some(dir) = self.dirs.first().filter(|_| self.version == 2) else { return Ok(()) };
        let usage: i64 = dir.read("memory.current")?.trim().parse().unwrap_or(0);
        let limits = [("swap", "memory+swap", memory.swap()), ("limit", "memory", memory.limit())];
        for (field, words, limit) in limits {
            if let Some(limit) = limit.filter(|limit| (1..=usage).contains(limit)) {
                return Err(CgroupError::invalid(
                    format!("linux.resources.memory.{field}"),
                    format!("rejecting {words} limit {limit} <= usage {usage} (checkBeforeUpdate)"),
                ));
            }
        }
        Ok(())
    }

    /// On version 1 systemd refuses all devices for a moment whenever it sets anything: nobody should notice.
    fn while_frozen(&self, work: impl FnOnce() -> Result<(), CgroupError>) -> Result<(), CgroupError> {
        if self.freezer_state()? != FreezerState::Thawed {
            return work();
        }
        self.freeze()?;
        let result = work();
        self.thaw()?;
        result
    }

    fn apply(&self, plan: &Plan) -> Result<(), CgroupError> {
        let mut again = Vec::new();
        // Rules of devices are many writes to one file.
        let (mut open, mut last) = (None, None);
        for write in &plan.writes {
            let file = (write.directory, write.file.as_str());
            if last.replace(file) != Some(file) {
                open = None;
            }
            let path = &plan.directories[write.directory];
            let Some(dir) = self.dirs.iter().find(|dir| dir.path == *path) else {
                return Err(CgroupError::io("open", path, ErrorKind::NotFound));
            };
            match dir.write_to(&mut open, &write.file, &write.value) {
                Err(error) if write.optional && error.is_not_found() => {
                    tracing::debug!(%error, "limit without effect on this kernel");
                }
                // Pairs such as memory and memory+swap, or quota and period, bound each other: one that is refused
                // now may fit once its partner has moved.
                Err(error) if error.is_invalid_value() => again.push((dir, write)),
                other => other?,
            }
        }
        for (dir, write) in again {
            dir.write(&write.file, &write.value)?;
        }
        match (&plan.device_program, self.dirs.first()) {
            (Some(program), Some(dir)) => set_devices(dir, program),
            _ => Ok(()),
        }
    }

    fn controller(&self, name: &str) -> Option<&Dir> {
        match self.version {
            2 => self.dirs.first(),
            _ => self.dirs.iter().find(|dir| dir.has(name)),
        }
    }

    fn freezer(&self) -> Result<&Dir, CgroupError> {
        self.controller("freezer").ok_or_else(|| CgroupError::NoController {
            field: "pause".to_owned(),
            controller: "freezer",
            hint: "mount the freezer hierarchy, or give the container a cgroup",
        })
    }

    /// Freezes, waiting until all processes stand still.
    ///
    /// # Errors
    /// There is no freezer, or the processes do not stop within two seconds (they are thawed again).
    pub fn freeze(&self) -> Result<(), CgroupError> {
        signals::freeze(self.freezer()?, self.version)
    }

    /// Thaws.
    ///
    /// # Errors
    /// There is no freezer, or the cgroup is gone.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        signals::thaw(self.freezer()?, self.version)
    }

    /// Frozen or not.
    ///
    /// # Errors
    /// There is no freezer, or the cgroup is gone.
    pub fn freezer_state(&self) -> Result<FreezerState, CgroupError> {
        signals::state(self.freezer()?, self.version)
    }

    /// SIGKILL for every process in the cgroup and below; returns when the signal has been sent to all.
    ///
    /// # Errors
    /// The cgroup cannot be read, or a signal is refused.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let freezer = self.controller("freezer");
        match freezer.or(self.dirs.first()) {
            Some(dir) => signals::kill_all(dir, self.version, freezer),
            None => Ok(()),
        }
    }

    /// Process ids, of the cgroup and all below it.
    ///
    /// # Errors
    /// The cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        match self.controller("freezer").or(self.dirs.first()) {
            Some(dir) => signals::pids(&dir.path),
            None => Ok(Vec::new()),
        }
    }

    /// Reads all counters.
    ///
    /// # Errors
    /// A counter that exists cannot be read.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(|controller| self.controller(controller), self.version)
    }

    /// Processes ended by the OOM killer in this cgroup and below.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        self.controller("memory").map_or(Ok(0), |dir| stats::oom_kills(dir, self.version))
    }

    /// A descriptor to poll for out-of-memory events; `None` if the host has no memory controller.
    ///
    /// # Errors
    /// The notification cannot be registered.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>, CgroupError> {
        match (self.controller("memory"), self.version) {
            (None, _) => Ok(None),
            (Some(dir), 2) if dir.read_optional("memory.events")?.is_none() => Ok(None),
            (Some(dir), 2) => OomWatch::v2(dir).map(Some),
            (Some(dir), _) => OomWatch::v1(dir).map(Some),
        }
    }

    /// Removes the directories (children first), retrying while the kernel still answers EBUSY. Goes on past errors.
    ///
    /// # Errors
    /// Every directory that could not be removed.
    pub fn remove(self) -> Result<(), Vec<CgroupError>> {
        let mut errors = Vec::new();
        drop(self.placeholder);
        errors.extend(self.unit.and_then(|unit| unit.stop().err()));
        for dir in self.dirs {
            let path = dir.path.clone();
            drop(dir);
            if let Err(error) = tree::remove(&path) {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Its directories and their controllers: `name=systemd` for a named hierarchy, none for cgroup2.
fn places(layout: &Layout, path: &Path) -> impl Iterator<Item = (PathBuf, Vec<String>)> {
    let version_1 = layout.taking_part().map(|hierarchy| match &hierarchy.name {
        Some(name) => vec![format!("name={name}")],
        None => hierarchy.controllers.clone(),
    });
    directories(layout, path).into_iter().zip(version_1.chain(layout.unified().map(|_| Vec::new())))
}

/// The limits to begin with, and the one that has to wait.
fn postpone(resources: &LinuxResources) -> (LinuxResources, Option<LinuxResources>) {
    let mut now = resources.clone();
    let pids = resources.pids().filter(|pids| (0..MAKERS).contains(&pids.limit()));
    let later = pids.map(|pids| {
        now.set_pids(None);
        let mut later = LinuxResources::default();
        later.set_devices(None);
        later.set_pids(Some(pids));
        later
    });
    (now, later)
}

/// Puts the new program in before the old ones come out: both must allow for a moment, never neither.
fn set_devices(dir: &Dir, program: &[berth_sys::bpf::BpfInsn]) -> Result<(), CgroupError> {
    let failed = |operation| {
        let path = dir.path.clone();
        move |errno: nix::errno::Errno| CgroupError::Device { operation, path, source: errno.into() }
    };
    let old = berth_sys::bpf::attached_device_programs(dir.fd()).map_err(failed("list"))?;
    let new = berth_sys::bpf::load_device_program(program).map_err(failed("load"))?;
    berth_sys::bpf::attach_device(dir.fd(), &new).map_err(failed("attach"))?;
    for program in old {
        berth_sys::bpf::detach_device(dir.fd(), &program).map_err(failed("detach"))?;
    }
    Ok(())
}
