//! `exec`: one more process in a running container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use berth_cgroup::Cgroup;
use berth_core::{ExecRequest, Trace};
use berth_spec::{ExecFilter, oci};
use berth_sys::{Pid, pidfd};
use clap::Args;
use serde_json::{Value, json};

use super::announce;
use crate::activation;
use crate::diagnose::missing_libraries;
use crate::foreground::{self, Listeners, Signals};
use crate::json;
use crate::log::Log;
use crate::state::{Container, Status, Store};
use crate::streams;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    cwd: Option<String>,
    /// Environment variable NAME=VALUE, in addition to the container's
    #[arg(short, long)]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User as uid[:gid]
    #[arg(short, long)]
    user: Option<String>,
    /// Supplementary group
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// File with the whole process as JSON
    #[arg(short, long)]
    process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(short, long)]
    detach: bool,
    /// File that receives the pid
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long)]
    pidfd_socket: Option<PathBuf>,
    /// Cgroup below the container's to run in, as PATH, or CONTROLLER,…:PATH on version 1 (may be repeated)
    #[arg(long)]
    cgroup: Vec<String>,
    /// SELinux label
    #[arg(long)]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long)]
    apparmor: Option<String>,
    /// The process and its children cannot gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Capability, in addition to the container's
    #[arg(short, long)]
    cap: Vec<String>,
    /// Pass this many descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Go on although the container is paused; the process stands still until it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        self.execute(store, log).context("exec failed")
    }

    fn execute(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        let cgroup = container.cgroup()?;
        let status = container.status_in(cgroup.as_ref());
        match status {
            Status::Stopped | Status::Creating => bail!("cannot exec in a {} container", status.name()),
            Status::Paused if !self.ignore_paused => {
                bail!("cannot exec in a paused container (use --ignore-paused to override)")
            }
            Status::Created | Status::Running | Status::Paused => {}
        }
        let init = container.init()?.context("cannot exec in a stopped container")?;
        let spec = container.spec()?;
        let process = self.process(&container, &spec)?;
        let terminal = process.terminal().unwrap_or(false);
        let stdio = streams::choose(terminal, self.console_socket.as_deref(), self.detach)?;
        let signals = if self.detach { None } else { Some(Signals::block()?) };
        let cgroup = self.cgroup(&container, cgroup)?;
        let rdt = container.rdt()?;
        let mut child = berth_core::exec(ExecRequest {
            init: std::os::fd::AsFd::as_fd(&init),
            cgroup: &cgroup,
            rdt: rdt.as_ref(),
            beside_init: self.cgroup.is_empty(),
            spec: &spec,
            filter: ExecFilter::Profile,
            state: container.oci_state(status),
            process: &process,
            stdio,
            preserve_fds: self.preserve_fds + activation::inherited(),
            die_with_parent: false,
            trace: log.wants_debug().then_some(Trace(&|line| log.debug(line))),
            observe_seccomp: !self.detach && log.wants_debug(),
        })?;
        for warning in &child.warnings {
            log.warn(warning);
        }
        let (file, socket) = (self.pid_file.as_deref(), self.pidfd_socket.as_deref());
        if let Err(error) = announce(file, socket, child.pid, &child.pidfd) {
            // Both fail only if it has ended and been reaped already.
            pidfd::send_signal(&child.pidfd, nix::libc::SIGKILL).ok();
            pidfd::wait(&child.pidfd, true).ok();
            return Err(error);
        }
        let Some(signals) = signals else { return Ok(0) };
        let listeners = Listeners { watch: child.watch.take(), notify: None };
        let status = foreground::serve(&signals, &child.pidfd, child.console.take(), listeners, log)?;
        if let Some(root) = container.root()
            && let Some(problem) = missing_libraries(&root, &process, status.shell_code())
        {
            log.explain(&problem);
        }
        Ok(u8::try_from(status.shell_code()).unwrap_or(u8::MAX))
    }

    /// The process: a whole one from a file, or the container's own with the flags applied.
    fn process(&self, container: &Container, spec: &oci::Spec) -> anyhow::Result<oci::Process> {
        let mut process = self.asked(container, spec)?;
        activation::announce(&mut process);
        Ok(process)
    }

    fn asked(&self, container: &Container, spec: &oci::Spec) -> anyhow::Result<oci::Process> {
        if let Some(path) = &self.process {
            let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            // Go's decoder makes a missing user root.
            let mut value: Value = json::parse(&text).with_context(|| path.display().to_string())?;
            berth_spec::respell_scheduler(&mut value);
            if let Some(process) = value.as_object_mut() {
                process.entry("user").or_insert_with(|| json!({ "uid": 0, "gid": 0 }));
            }
            return json::parse(value.to_string().as_bytes()).with_context(|| path.display().to_string());
        }
        if self.command.is_empty() {
            bail!("no program was given (or give --process)");
        }
        let own = spec.process().as_ref();
        let own = own.with_context(|| format!("container {} has no process", container.record.id))?;
        let mut process = own.clone();
        self.apply(&mut process)?;
        Ok(process)
    }

    fn apply(&self, process: &mut oci::Process) -> anyhow::Result<()> {
        process.set_args(Some(self.command.clone())).set_terminal(Some(self.tty));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(Path::new("/").join(cwd));
        }
        let mut env = process.env().clone().unwrap_or_default();
        // What is in it already is not repeated.
        let more: Vec<_> = self.env.iter().filter(|text| !env.contains(text)).cloned().collect();
        env.extend(more);
        process.set_env(Some(env));
        if let Some(user) = &self.user {
            let (uid, gid) = match user.split_once(':') {
                Some((uid, gid)) => (uid, Some(gid)),
                None => (user.as_str(), None),
            };
            let number = |text: &str| {
                text.parse::<u32>().with_context(|| format!("--user {user:?}: give numbers, uid[:gid]"))
            };
            process.user_mut().set_uid(number(uid)?);
            if let Some(gid) = gid {
                process.user_mut().set_gid(number(gid)?);
            }
        }
        if !self.additional_gids.is_empty() {
            process.user_mut().set_additional_gids(Some(self.additional_gids.clone()));
        }
        if !self.cap.is_empty() {
            self.add_capabilities(process)?;
        }
        if let Some(label) = &self.process_label {
            process.set_selinux_label(Some(label.clone()));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        Ok(())
    }

    fn add_capabilities(&self, process: &mut oci::Process) -> anyhow::Result<()> {
        let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
        let added = |set: &Option<oci::Capabilities>| -> anyhow::Result<Option<oci::Capabilities>> {
            let mut set = set.clone().unwrap_or_default();
            for name in &self.cap {
                set.insert(capability(name)?);
            }
            Ok(Some(set))
        };
        let (bounding, effective) = (added(sets.bounding())?, added(sets.effective())?);
        let permitted = added(sets.permitted())?;
        // What is not inheritable cannot be ambient.
        if sets.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
            let ambient = added(sets.ambient())?;
            sets.set_ambient(ambient);
        }
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        process.set_capabilities(Some(sets));
        Ok(())
    }
}

fn no_capabilities() -> oci::LinuxCapabilities {
    let mut none = oci::LinuxCapabilities::default();
    let empty = || Some(oci::Capabilities::new());
    none.set_bounding(empty()).set_effective(empty()).set_inheritable(empty());
    none.set_permitted(empty()).set_ambient(empty());
    none
}

/// By its name in capabilities(7).
fn capability(name: &str) -> anyhow::Result<oci::Capability> {
    let upper = name.to_uppercase();
    upper
        .trim_start_matches("CAP_")
        .parse()
        .ok()
        .with_context(|| format!("--cap {name:?}: there is no such capability"))
}

impl Exec {
    /// The container's cgroup, or one below it. A first process that sees all groups may have left it for another, and
    /// it is gone then.
    fn cgroup(&self, container: &Container, own: Option<Cgroup>) -> anyhow::Result<Cgroup> {
        let layout = berth_cgroup::detect()?;
        match own {
            None if self.cgroup.is_empty() && layout.version() == 2 => {
                Ok(Cgroup::of_process(&layout, Pid::from_raw(container.record.pid))?)
            }
            None => Err(container.has_no_cgroup()),
            Some(own) => Ok(own.below(&sub_cgroups(&self.cgroup)?)?),
        }
    }
}

/// `--cgroup` as path by controller; the empty name is all of them.
fn sub_cgroups(arguments: &[String]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut paths = BTreeMap::new();
    for argument in arguments {
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() != 1 {
                bail!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
            }
            paths.insert(String::new(), argument.into());
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                bail!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
            }
            if paths.insert(controller.to_owned(), path.into()).is_some() {
                bail!("invalid --cgroup argument(s): controller {controller} specified multiple times");
            }
        }
    }
    Ok(paths)
}
