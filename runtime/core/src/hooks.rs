//! Hooks: programs that get the container's state on standard input (config.md, "POSIX-platform Hooks").

use std::ffi::OsStr;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use berth_spec::HookPlan;
use berth_sys::{Errno, Pid, pidfd};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

/// How often a hook is looked after where the kernel, or a seccomp filter, gives no descriptor of it.
const POLL: Duration = Duration::from_millis(2);
/// How much of what a failed hook said is told.
const MOST_SAID: usize = 4096;

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
    hooks.iter().enumerate().try_for_each(|(index, hook)| run_one(kind, index, hook, state, directory))
}

/// Runs hooks one after the other, past failures, which are returned (runtime.md, "Lifecycle", on poststop hooks).
#[must_use]
pub fn run_all_hooks(kind: &'static str, hooks: &[HookPlan], state: &ContainerState) -> Vec<Error> {
    let run = |(index, hook)| run_one(kind, index, hook, state, None).err();
    hooks.iter().enumerate().filter_map(run).collect()
}

fn run_one(
    kind: &'static str,
    index: usize,
    hook: &HookPlan,
    state: &ContainerState,
    directory: Option<&Path>,
) -> Result<(), Error> {
    let text = serde_json::to_vec(state)
        .map_err(|source| Error::Json { path: PathBuf::from("the container's state"), source })?;
    run(hook, &text, directory).map_err(|problem| Error::Hook {
        kind,
        index,
        path: hook.path.clone(),
        problem,
    })
}

fn run(hook: &HookPlan, state: &[u8], directory: Option<&Path>) -> Result<(), String> {
    let os = |text: &std::ffi::CString| OsStr::from_bytes(text.as_bytes()).to_owned();
    let mut command = Command::new(&hook.path);
    if let Some(name) = hook.args.first() {
        command.arg0(os(name));
    }
    command.args(hook.args.iter().skip(1).map(os));
    if let Some(env) = &hook.env {
        command.env_clear();
        for entry in env {
            let text = entry.as_bytes();
            if let Some(at) = text.iter().position(|b| *b == b'=') {
                command.env(OsStr::from_bytes(&text[..at]), OsStr::from_bytes(&text[at + 1..]));
            }
        }
    }
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let unstarted = |error: std::io::Error| format!("cannot be started: {error}");
    let mut input = Input::new(state).map_err(unstarted)?;
    command.stdin(input.for_hook().map_err(unstarted)?).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(unstarted)?;
    // It holds the hook's end of the pipe.
    drop(command);
    let (status, said) = attend(&mut child, hook.timeout, &mut input)?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{}, stderr: {}", told(status), String::from_utf8_lossy(&said).trim_end()))
}

/// How a program ended, in the words of Go's os/exec, which callers of runc look for.
fn told(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(nix::libc::SIGSYS)) => "signal: bad system call".to_owned(),
        (None, Some(nix::libc::SIGKILL)) => "signal: killed".to_owned(),
        _ => status.to_string(),
    }
}

/// The state on its way to a hook, which need not read it: neither a full pipe nor a closed one may stop us.
struct Input<'a> {
    /// Keeps the pipe open. Without a reader, what sets up a container would die of SIGPIPE, as its program may.
    reader: PipeReader,
    writer: Option<PipeWriter>,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(state: &'a [u8]) -> std::io::Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { reader, writer: Some(writer), rest: state })
    }

    fn for_hook(&self) -> std::io::Result<Stdio> {
        self.reader.try_clone().map(Stdio::from)
    }

    /// Gives as much as the pipe takes; after the last of it the hook sees the end.
    fn feed(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        while !self.rest.is_empty() {
            match writer.write(self.rest) {
                Ok(written) => self.rest = &self.rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.writer = None;
    }
}

/// Waits for a hook, feeds it, and takes in what it prints meanwhile, so that a full pipe stops nobody. What it leaves in
/// the background may keep the pipe: that is not waited for.
fn attend(
    child: &mut Child,
    limit: Option<Duration>,
    input: &mut Input<'_>,
) -> Result<(ExitStatus, Vec<u8>), String> {
    let fault = |error: std::io::Error| format!("cannot be waited for: {error}");
    let mut stderr = child.stderr.take();
    if let Some(pipe) = &stderr {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| fault(errno.into()))?;
    }
    let pid = Pid::from_raw(child.id().cast_signed());
    let ended = pidfd::open(pid).ok();
    let begin = Instant::now();
    let mut said = Vec::new();
    loop {
        input.feed();
        let status = child.try_wait().map_err(fault)?;
        if stderr.as_mut().is_some_and(|pipe| take_in(pipe, &mut said)) {
            stderr = None;
        }
        if let Some(status) = status {
            return Ok((status, said));
        }
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            // It has ended by itself in this very moment if the kill fails.
            child.kill().ok();
            child.wait().ok();
            return Err(format!("killed after its timeout of {} s", limit.unwrap_or_default().as_secs()));
        }
        let pause = if ended.is_some() { left } else { Some(left.unwrap_or(POLL).min(POLL)) };
        // Rounded up: at the end of the time it must be over.
        let pause = pause.map_or(PollTimeout::NONE, |pause| {
            PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let heard = ended.iter().map(AsFd::as_fd).chain(stderr.iter().map(AsFd::as_fd));
        let mut fds: Vec<_> = heard.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        fds.extend(input.writer.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        match poll(&mut fds, pause) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault(errno.into())),
        }
    }
}

/// Reads what there is. True at the end of it.
fn take_in(pipe: &mut impl Read, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; MOST_SAID];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return true,
            Ok(length) => said.extend(&buffer[..length.min(MOST_SAID - said.len())]),
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}
