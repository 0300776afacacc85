//! What each step of the plan does. `run` is the only dispatcher; every arm is one small function elsewhere.

pub(crate) mod bind;
pub(crate) mod capabilities;
mod console;
mod copy_up;
mod devices;
mod explain;
mod identity;
mod kernel;
pub(crate) mod mounts;
mod no_pivot;
mod program;
mod restrict;
mod root;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use berth_spec::InitStep;
use berth_sys::Errno;
use berth_sys::procfs::{Descriptors, Procfs};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Context, Fault};
use crate::hooks::{ContainerState, run_hooks};
use crate::init::Init;
use crate::protocol::FromChild;

/// What steps leave for later steps.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// The container's root: a mount before the pivot, `/` afterwards.
    root: Option<OwnedFd>,
    procfs: Option<Procfs>,
    /// Through which the start FIFO is opened, by a user and under a filter that may not let us make a procfs any more.
    descriptors: Option<Descriptors>,
    /// An empty read-only tmpfs, of which masked directories get a bind each.
    mask: Option<OwnedFd>,
    /// The directory that the last node or link was made in, for the next one.
    directory: Option<(PathBuf, OwnedFd)>,
    /// The program as [`InitStep::ResolveExecutable`] found it.
    program: Option<CString>,
}

impl Stage {
    /// The container's root; for a process that is inside already it is `/`.
    fn root(&mut self) -> Result<BorrowedFd<'_>, Fault> {
        if self.root.is_none() {
            self.root = Some(open_root().at(|| "open /".into())?);
        }
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| Fault::new("there is no root yet"))
    }

    /// A procfs that nobody can have tampered with.
    pub(crate) fn procfs(&mut self) -> Result<&Procfs, Fault> {
        if self.procfs.is_none() {
            self.procfs = Some(Procfs::open().at(|| "open procfs".into())?);
        }
        self.procfs.as_ref().ok_or_else(|| Fault::new("there is no procfs"))
    }

    /// What steps after the start still need.
    fn kept(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let descriptors = self.descriptors.as_ref().map(AsFd::as_fd);
        [self.root.as_ref().map(AsFd::as_fd), descriptors].into_iter().flatten()
    }

    /// Makes ready for the opening of the start FIFO.
    pub(crate) fn prepare_gate(&mut self) -> Result<(), Fault> {
        self.descriptors = Some(self.procfs()?.descriptors().at(|| "open /proc/thread-self/fd".into())?);
        Ok(())
    }
}

fn open_root() -> Result<OwnedFd, Errno> {
    open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

impl Init<'_> {
    /// Runs one step.
    pub(crate) fn run(&mut self, step: &InitStep) -> Result<(), Fault> {
        if !matches!(step, InitStep::Device(_) | InitStep::Symlink(_)) {
            self.stage.directory = None;
        }
        match step {
            InitStep::OomScoreAdj(score) => self.oom_score_adj(*score),
            InitStep::LoopbackUp => {
                berth_sys::net::loopback_up().at(|| "bring the loopback device up".into())
            }
            InitStep::NewKeyring => self.new_keyring(),
            InitStep::RootPropagation(propagation) => root::propagation(*propagation, "/"),
            InitStep::MountRoot => self.mount_root(),
            InitStep::Mount(mount) => self.mount(mount),
            InitStep::Device(device) => devices::device(&mut self.stage, device),
            InitStep::Symlink(link) => devices::symlink(&mut self.stage, link),
            InitStep::CreateRuntimeHooks => self.ask_for_hooks(),
            InitStep::CreateContainerHooks => self.own_hooks("createContainer"),
            InitStep::PivotRoot { mount_namespace } => self.pivot_root(*mount_namespace),
            InitStep::CreateWorkingDirectory(path) => self.create_working_directory(path),
            InitStep::Console(terminal) => self.console(*terminal, true),
            InitStep::ExecConsole(terminal) => self.console(*terminal, false),
            InitStep::RemountReadonly(path) => restrict::remount_readonly(self.stage.root()?, path),
            InitStep::RootMountPropagation(change) => root::propagation(*change, "the container's root"),
            InitStep::ReadonlyRoot => restrict::readonly_root(self.stage.root()?),
            InitStep::Hostname(name) => {
                nix::unistd::sethostname(name).at(|| format!("set the host name to {name:?}"))
            }
            InitStep::Domainname(name) => {
                berth_sys::process::set_domainname(name).at(|| format!("set the domain name to {name:?}"))
            }
            InitStep::Sysctls(sysctls) => self.sysctls(sysctls),
            InitStep::ReadonlyPaths(paths) => restrict::readonly_paths(self.stage.root()?, paths),
            InitStep::MaskPaths(paths) => self.mask_paths(paths),
            InitStep::Personality(personality) => kernel::personality(*personality),
            InitStep::MemoryPolicy(policy) => kernel::memory_policy(policy),
            InitStep::Rlimits(limits) => self.rlimits(limits),
            InitStep::Scheduler(scheduler) => kernel::scheduler(scheduler),
            InitStep::IoPriority(priority) => kernel::io_priority(*priority),
            InitStep::AppArmor(profile) => self.apparmor(profile),
            InitStep::SelinuxLabel(label) => self.selinux(label),
            InitStep::NoNewPrivileges => {
                berth_sys::seccomp::set_no_new_privs().at(|| "set no_new_privs".into())
            }
            InitStep::Seccomp => self.seccomp(),
            InitStep::BoundingCapabilities(set) => capabilities::bound(*set),
            InitStep::User(user) => identity::user(user),
            InitStep::WorkingDirectory(path) => identity::working_directory(path),
            InitStep::Capabilities(plan) => capabilities::set(plan),
            InitStep::ResolveExecutable => self.resolve_executable(),
            InitStep::WaitForStart => self.wait_for_start(),
            InitStep::StartContainerHooks => self.own_hooks("startContainer"),
            InitStep::Exec => match self.exec()? {},
        }
    }

    /// A problem that does not stop us. If nobody listens there is nobody to tell.
    fn warn(&self, text: String) {
        self.link.send(&FromChild::Warning(text), None).ok();
    }

    /// The same for what is of interest only to who asked.
    pub(crate) fn trace(&self, line: String) {
        self.link.send(&FromChild::Trace(line), None).ok();
    }

    fn ask_for_hooks(&self) -> Result<(), Fault> {
        self.link.send(&FromChild::RunHooks, None).at(|| "ask for the runtime's hooks".into())?;
        self.link.wait_for_go().at(|| "wait for the runtime's hooks".into())
    }

    /// createContainer hooks run in the root that is not entered yet, startContainer hooks with what the program gets.
    fn own_hooks(&mut self, kind: &'static str) -> Result<(), Fault> {
        let Some(container) = &self.container else { return Ok(()) };
        let failed = |error: crate::Error| Fault::new(error.to_string());
        let state = ContainerState {
            status: "created",
            pid: std::process::id().cast_signed(),
            ..container.state.clone()
        };
        if kind == "createContainer" {
            let hooks = &container.plan.hooks.create_container;
            nix::unistd::fchdir(self.stage.root()?).at(|| "enter the container's root".into())?;
            return run_hooks(kind, hooks, &state, None).map_err(failed);
        }
        let mut hooks = container.plan.hooks.start_container.clone();
        for hook in &mut hooks {
            hook.env.get_or_insert_with(|| self.environment());
        }
        run_hooks(kind, &hooks, &state, None).map_err(failed)
    }
}
