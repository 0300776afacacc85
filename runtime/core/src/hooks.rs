//! Hooks: programs that get the container's state on standard input (config.md, "POSIX-platform Hooks").

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_spec::HookPlan;
use serde::Serialize;

use crate::error::Error;

/// The container's state as hooks and seccomp agents get it (runtime.md, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running`, `stopped`.
    pub status: &'static str,
    /// Its init, as the host sees it; 0 when there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Annotations of config.json.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// How often a hook with a timeout is looked after.
const POLL: Duration = Duration::from_millis(2);

/// Runs hooks one after the other, in `directory` if there is one; the first failure ends it.
///
/// # Errors
/// [`Error::Hook`] for the hook that could not be started, failed, or took too long.
pub fn run_hooks(
    kind: &'static str,
    hooks: &[HookPlan],
    state: &ContainerState,
    directory: Option<&Path>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(state)
        .map_err(|source| Error::Json { path: PathBuf::from("the container's state"), source })?;
    for (index, hook) in hooks.iter().enumerate() {
        run(hook, &text, directory).map_err(|problem| Error::Hook {
            kind,
            index,
            path: hook.path.clone(),
            problem,
        })?;
    }
    Ok(())
}

fn run(hook: &HookPlan, state: &[u8], directory: Option<&Path>) -> Result<(), String> {
    let os = |text: &std::ffi::CString| OsStr::from_bytes(text.as_bytes()).to_owned();
    let mut command = Command::new(&hook.path);
    if let Some(name) = hook.args.first() {
        command.arg0(os(name));
    }
    command.args(hook.args.iter().skip(1).map(os)).env_clear();
    for entry in &hook.env {
        let text = entry.as_bytes();
        if let Some(at) = text.iter().position(|b| *b == b'=') {
            command.env(OsStr::from_bytes(&text[..at]), OsStr::from_bytes(&text[at + 1..]));
        }
    }
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its state.
        stdin.write_all(state).ok();
    }
    let status = match hook.timeout {
        None => child.wait().map_err(|e| format!("cannot be waited for: {e}"))?,
        Some(limit) => wait_at_most(&mut child, limit)?,
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What it printed is an explanation only.
        stderr.take(4096).read_to_string(&mut said).ok();
    }
    Err(format!("{status}, stderr: {}", said.trim_end()))
}

fn wait_at_most(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus, String> {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(POLL),
            Ok(None) => {
                // It has ended by itself in this very moment if the kill fails.
                child.kill().ok();
                child.wait().ok();
                return Err(format!("killed after its timeout of {} s", limit.as_secs()));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}
