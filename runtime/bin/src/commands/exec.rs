//! `exec`: one more process in a running container.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use berth_core::ExecRequest;
use berth_spec::oci;
use berth_sys::pidfd;
use clap::Args;
use serde_json::{Value, json};

use super::write_pid_file;
use crate::diagnose::missing_libraries;
use crate::foreground::{self, Signals};
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
        let status = container.status();
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
        let cgroup = container.live_cgroup()?;
        let mut child = berth_core::exec(ExecRequest {
            init: std::os::fd::AsFd::as_fd(&init),
            cgroup: &cgroup,
            spec: &spec,
            state: container.oci_state(status),
            process: &process,
            stdio,
            preserve_fds: self.preserve_fds,
            die_with_parent: false,
            observe_seccomp: !self.detach && log.is_debug(),
        })?;
        for warning in &child.warnings {
            log.warn(warning);
        }
        if let Some(path) = &self.pid_file
            && let Err(error) = write_pid_file(path, child.pid.as_raw())
        {
            // Both fail only if it has ended and been reaped already.
            pidfd::send_signal(&child.pidfd, nix::libc::SIGKILL).ok();
            pidfd::wait(&child.pidfd, true).ok();
            return Err(error);
        }
        let Some(signals) = signals else { return Ok(0) };
        let status =
            foreground::serve(&signals, &child.pidfd, child.console.take(), child.watch.take(), log)?;
        if let Some(root) = container.root()
            && let Some(problem) = missing_libraries(&root, &process, status.shell_code())
        {
            log.warn(&problem);
        }
        Ok(u8::try_from(status.shell_code()).unwrap_or(u8::MAX))
    }

    /// The process: a whole one from a file, or the container's own with the flags applied.
    fn process(&self, container: &Container, spec: &oci::Spec) -> anyhow::Result<oci::Process> {
        if let Some(path) = &self.process {
            let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            return json::parse(&text).with_context(|| path.display().to_string());
        }
        if self.command.is_empty() {
            bail!("no program was given (or give --process)");
        }
        let own = spec.process().as_ref();
        let own = own.with_context(|| format!("container {} has no process", container.record.id))?;
        let mut value = serde_json::to_value(own).context("process")?;
        self.apply(&mut value)?;
        serde_json::from_value(value).context("process")
    }

    fn apply(&self, process: &mut Value) -> anyhow::Result<()> {
        process["args"] = json!(self.command);
        process["terminal"] = json!(self.tty);
        if let Some(cwd) = &self.cwd {
            process["cwd"] = json!(Path::new("/").join(cwd));
        }
        extend(&mut process["env"], &self.env);
        if let Some(user) = &self.user {
            let (uid, gid) = match user.split_once(':') {
                Some((uid, gid)) => (uid, Some(gid)),
                None => (user.as_str(), None),
            };
            let number = |text: &str| {
                text.parse::<u32>().with_context(|| format!("--user {user:?}: give numbers, uid[:gid]"))
            };
            process["user"]["uid"] = json!(number(uid)?);
            if let Some(gid) = gid {
                process["user"]["gid"] = json!(number(gid)?);
            }
        }
        if !self.additional_gids.is_empty() {
            process["user"]["additionalGids"] = json!(self.additional_gids);
        }
        if !self.cap.is_empty() {
            for set in ["bounding", "effective", "permitted"] {
                extend(&mut process["capabilities"][set], &self.cap);
            }
        }
        if let Some(label) = &self.process_label {
            process["selinuxLabel"] = json!(label);
        }
        if let Some(profile) = &self.apparmor {
            process["apparmorProfile"] = json!(profile);
        }
        if self.no_new_privs {
            process["noNewPrivileges"] = json!(true);
        }
        Ok(())
    }
}

/// Appends to a list that may not exist yet; what is in it already is not repeated.
fn extend(list: &mut Value, more: &[String]) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        for text in more {
            let value = json!(text);
            if !list.contains(&value) {
                list.push(value);
            }
        }
    }
}
