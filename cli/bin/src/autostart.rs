//! With no engine on the default socket, start one: the first command on a fresh machine just works.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where an engine listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/berth/berth.sock";

/// How long a new engine may take until it listens.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts `berthd` in the background and waits until it listens at `socket`; says so if it is to be `told`.
pub(crate) fn start(socket: &Path, told: bool) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "Cannot connect to the engine at unix://{}: it is not running, and only root can start it. \
             Try: sudo berth info",
            socket.display()
        );
    }
    let program = program();
    let run = socket.parent().context("the socket's directory")?;
    std::fs::create_dir_all(run).with_context(|| format!("cannot make {}", run.display()))?;
    let log_path = run.join("berthd.log");
    let log =
        std::fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    if told {
        eprintln!(
            "berth: no engine is running; starting {} (log: {})",
            program.display(),
            log_path.display()
        );
    }
    let mut child = Command::new(&program)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log file")?)
        .stderr(log)
        // Its own process group: a ctrl-c that ends us must not end the engine.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let begin = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        if let Some(status) = child.try_wait().context("cannot watch berthd")? {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            bail!("berthd ended at once ({status}):\n{}", log.trim_end());
        }
        if begin.elapsed() > PATIENCE {
            bail!("berthd was started but does not listen; see {}", log_path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// `berthd` beside our own executable, else wherever `PATH` has it.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("berthd"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("berthd"))
}
