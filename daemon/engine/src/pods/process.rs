//! Further processes of a pod's container, and clients of its first one.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use berth_api::stdcopy;
use berth_runtime_client::Shim;
use berth_runtime_client::protocol::{Attach, Exec, Framing, WindowSize, files};
use berth_spec::oci;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::AsyncReadExt as _;

use super::life::DEATH;
use super::registry::PodContainer;
use crate::containers::bare;
use crate::containers::signal::SIGKILL;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};
use crate::ids;

/// So much of each stream of a collected exec is kept; the rest is dropped.
const CAPTURED: usize = 16 << 20;

/// Which streams a client is joined to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// What it sends goes to the process.
    pub stdin: bool,
    /// It gets what the process writes to its standard output.
    pub stdout: bool,
    /// And to its standard error.
    pub stderr: bool,
}

/// A client's way to a process: a stream of the shim's, framed as Docker does unless there is a terminal.
#[derive(Debug)]
pub struct PodProcess {
    /// The stream. Half-closing it ends the process' standard input; the other end closes with the output.
    pub stream: OwnedFd,
    /// There is a terminal: output comes as it is, without frames.
    pub tty: bool,
    shim: Shim,
    /// None: the container's own process.
    exec: Option<String>,
}

/// What a collected exec wrote, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
}

impl PodProcess {
    /// Sets the size of its terminal; without one nothing happens.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = WindowSize { rows, cols: columns };
        let resized = match &self.exec {
            Some(exec) => self.shim.resize_exec(exec, size).await,
            None => self.shim.resize(size).await,
        };
        Ok(resized?)
    }

    /// The exit code of an exec, as soon as it has one; of a container's own process nobody is told.
    ///
    /// # Errors
    /// When its container ended without anybody seeing how the process did.
    pub async fn wait(&self) -> Result<i32> {
        let Some(exec) = &self.exec else { return Ok(0) };
        let record = self.shim.wait_exec(exec).await?;
        self.forget(exec);
        Ok(record.code)
    }

    fn forget(&self, exec: &str) {
        if let Err(error) = self.shim.forget_exec(exec) {
            tracing::debug!(exec, %error, "removing the record of an exec");
        }
    }

    /// Kills an exec; when this returns it is gone, with its record, unless the kernel holds it.
    async fn end(self) {
        let Some(exec) = &self.exec else { return };
        // What it has still to say is for nobody. The shim may have closed its end already.
        shutdown(self.stream.as_raw_fd(), Shutdown::Both).ok();
        if let Err(error) = self.shim.kill_exec(exec, SIGKILL).await {
            tracing::debug!(exec, %error, "killing an exec that took too long");
        }
        match tokio::time::timeout(DEATH, self.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(exec, %error, "an exec that was killed"),
            Err(_) => tracing::warn!(exec, "an exec that was killed does not end: it hangs in the kernel"),
        }
    }
}

impl Engine {
    /// Runs one more process in a container, as its user and with its limits, and joins its streams.
    ///
    /// # Errors
    /// When there is no such container, it does not run, or the program cannot be run.
    pub async fn exec_in_pod(
        self: &Arc<Self>,
        id: &str,
        command: Vec<String>,
        tty: bool,
        streams: Streams,
    ) -> Result<PodProcess> {
        let container = self.pods.container(id)?;
        if command.is_empty() {
            return Err(EngineError::invalid("no command to execute was given"));
        }
        let shim = container.shim()?;
        let process = {
            let container = Arc::clone(&container);
            self.blocking(move |engine| engine.pod_exec_process(&container, command, tty)).await?
        };
        let (stream, theirs) = pair()?;
        let exec_id = ids::random();
        let attach = attach(tty, streams);
        let request = Exec { exec_id: exec_id.clone(), process, console_size: None, attach: Some(attach) };
        shim.exec(request, Some(theirs.as_fd())).await.map_err(|error| {
            let message = format!("failed to exec in container: {}", bare(&error.to_string()));
            EngineError::new(EngineError::from(error).kind(), message)
        })?;
        Ok(PodProcess { stream, tty, shim, exec: Some(exec_id) })
    }

    /// The container's own process, with another command. Blocking.
    fn pod_exec_process(
        &self,
        container: &PodContainer,
        command: Vec<String>,
        tty: bool,
    ) -> Result<oci::Process> {
        let path = self.pod_run_dir(&container.sandbox, &container.id).join(files::CONFIG);
        let text = std::fs::read(&path).during("read", &path)?;
        let spec: oci::Spec = serde_json::from_slice(&text)
            .map_err(|error| EngineError::internal(format!("{}: {error}", path.display())))?;
        let missing = || EngineError::internal(format!("{} names no process", path.display()));
        let mut process = spec.process().clone().ok_or_else(missing)?;
        process.set_args(Some(command)).set_terminal(Some(tty)).set_console_size(None);
        if tty
            && let Some(env) = process.env_mut()
            && !env.iter().any(|entry| entry.starts_with("TERM="))
        {
            env.push("TERM=xterm".to_owned());
        }
        Ok(process)
    }

    /// Joins a client to a container's own process.
    ///
    /// # Errors
    /// When there is no such container, or it does not run.
    pub async fn attach_to_pod(&self, id: &str, streams: Streams) -> Result<PodProcess> {
        let container = self.pods.container(id)?;
        let shim = container.shim()?;
        let (tty, reads) = (container.record().spec.tty, container.record().spec.stdin);
        let (stream, theirs) = pair()?;
        let streams = Streams { stdin: streams.stdin && reads, ..streams };
        shim.attach(attach(tty, streams), &theirs).await?;
        Ok(PodProcess { stream, tty, shim, exec: None })
    }

    /// Runs a process in a container and collects what it writes, up to 16 MiB of each stream.
    ///
    /// # Errors
    /// See [`Self::exec_in_pod`]; [`Kind::Timeout`] when it took longer than `limit` and was killed.
    pub async fn exec_sync_in_pod(
        self: &Arc<Self>,
        id: &str,
        command: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput> {
        let streams = Streams { stdin: false, stdout: true, stderr: true };
        let words = command.join(" ");
        let process = self.exec_in_pod(id, command, false, streams).await?;
        let mut killer = KillOnDrop(Some(process));
        let Some(process) = killer.0.as_ref() else { return Ok(ExecOutput::default()) };
        let collected = async {
            let stream = process.stream.try_clone().during("take the stream of", "an exec")?;
            let (stdout, stderr) = collect(stream).await?;
            Ok(ExecOutput { stdout, stderr, code: process.wait().await? })
        };
        let collected = match limit {
            None => collected.await,
            Some(limit) => match tokio::time::timeout(limit, collected).await {
                Ok(collected) => collected,
                Err(_) => {
                    // Whoever is told that it was killed may look for it at once.
                    if let Some(process) = killer.0.take() {
                        process.end().await;
                    }
                    let seconds = limit.as_secs();
                    return Err(EngineError::new(
                        Kind::Timeout,
                        format!(
                            "command {words:?} timed out: it took longer than {seconds} s and was killed"
                        ),
                    ));
                }
            },
        };
        killer.0 = None;
        collected
    }
}

/// An exec that nobody waits for any more is killed: after its time, and when the client has gone.
struct KillOnDrop(Option<PodProcess>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            tokio::spawn(process.end());
        }
    }
}

fn attach(tty: bool, streams: Streams) -> Attach {
    Attach {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !tty,
        framing: if tty { Framing::Raw } else { Framing::Stdcopy },
        detach_keys: Vec::new(),
        initial_stdin: Vec::new(),
        hold: false,
        exit_code: false,
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().during("make a pair of sockets for", "a process")?;
    ours.set_nonblocking(true).during("configure", "a socket")?;
    Ok((ours.into(), theirs.into()))
}

/// Both streams to their ends.
async fn collect(stream: OwnedFd) -> Result<(Vec<u8>, Vec<u8>)> {
    let failed =
        |error: std::io::Error| EngineError::internal(format!("reading the output of an exec: {error}"));
    let mut stream = tokio::net::UnixStream::from_std(UnixStream::from(stream)).map_err(failed)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut piece = vec![0; 64 << 10];
    let mut header = [0; stdcopy::HEADER];
    loop {
        match stream.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok((stdout, stderr)),
            Err(error) => return Err(failed(error)),
        }
        let mut left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let target = if header[0] == 2 { &mut stderr } else { &mut stdout };
        while left > 0 {
            let size = left.min(piece.len());
            let read = stream.read(&mut piece[..size]).await.map_err(failed)?;
            if read == 0 {
                return Ok((stdout, stderr));
            }
            let space = CAPTURED - target.len();
            target.extend_from_slice(&piece[..read.min(space)]);
            left -= read;
        }
    }
}
