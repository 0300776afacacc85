//! Starting shims, and finding those that an earlier daemon started.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use berth_shim_protocol::{ExitRecord, Phase, files};
use tokio::process::{Child, Command};

use crate::{
    ClientError, Shim,
    link::Link,
    records::{read_execs, read_exit, remove_all},
};

/// Starts shims, and finds those that an earlier daemon started.
#[derive(Clone, Debug)]
pub struct ShimSpawner {
    binary: PathBuf,
}

/// What became of a container while no daemon was there.
#[derive(Debug)]
pub enum Reconnected {
    /// Its shim lives; ask [`Shim::state`] for where it stands.
    Alive(Shim),
    /// It has ended, and this is how.
    Exited(ExitRecord),
    /// Its shim was killed, or the host was restarted. What was left of the container has been swept up.
    Lost,
}

impl ShimSpawner {
    /// A spawner of this program; an absolute path.
    pub fn new(shim_binary: PathBuf) -> Self {
        Self { binary: shim_binary }
    }

    /// Start a shim for the container of this run directory, which must exist; records of an earlier run in it
    /// are removed. Returns without waiting for the shim: a shim that does not come up shows at the first
    /// request as [`ClientError::Gone`]. It inherits its control connection as standard input, so there is no
    /// moment at which it exists and cannot be reached. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn spawn(&self, dir: &Path) -> Result<Shim, ClientError> {
        remove_all(dir)?;
        let failed = |source| ClientError::Spawn { binary: self.binary.clone(), source };
        let (link, inherited) = Link::pair().map_err(failed)?;
        let log_path = dir.join(files::SHIM_LOG);
        let log = File::options()
            .append(true)
            .create(true)
            .open(&log_path)
            .map_err(|source| ClientError::File { operation: "create", path: log_path, source })?;
        // No pre_exec, uid or gid: only then does the standard library use posix_spawn, whose cost does not
        // grow with the daemon's memory.
        let child = Command::new(&self.binary)
            .arg("serve")
            .arg(dir)
            .env_clear()
            .stdin(Stdio::from(inherited))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(failed)?;
        tokio::spawn(reap(child, dir.to_path_buf()));
        Ok(Shim::new(link, dir.to_path_buf(), Default::default()))
    }

    /// Find the container of this run directory again.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub async fn reconnect(&self, dir: &Path) -> Result<Reconnected, ClientError> {
        match Link::connect(dir, files::SOCKET) {
            Ok(link) => {
                let shim = Shim::new(link, dir.to_path_buf(), read_execs(dir)?);
                match shim.state().await {
                    Ok(state) if state.phase != Phase::Exited => return Ok(Reconnected::Alive(shim)),
                    // It ended between our connecting and asking: the record tells.
                    Ok(_) | Err(ClientError::Gone { .. } | ClientError::Send { .. }) => {}
                    Err(other) => return Err(other),
                }
            }
            Err(error) => tracing::debug!(dir = %dir.display(), %error, "no shim listens"),
        }
        if let Some(record) = read_exit(dir)? {
            return Ok(Reconnected::Exited(record));
        }
        self.sweep(dir).await?;
        Ok(Reconnected::Lost)
    }

    /// Remove what a shim that was killed left of its container: processes that outlived it, its cgroup, its
    /// socket. For [`Reconnected::Lost`] this has been done. Harmless where there is nothing.
    ///
    /// # Errors
    /// When the shim program, which does it, cannot be run or reports that something is left.
    pub async fn sweep(&self, dir: &Path) -> Result<(), ClientError> {
        let output = Command::new(&self.binary)
            .arg("sweep")
            .arg(dir)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|source| ClientError::Spawn { binary: self.binary.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let source = io::Error::other(complaint);
        Err(ClientError::File {
            operation: "sweep up what a lost container left in",
            path: dir.into(),
            source,
        })
    }
}

/// A shim is the daemon's child as long as the daemon lives; init's afterwards.
async fn reap(mut child: Child, dir: PathBuf) {
    let status = child.wait().await;
    if !status.as_ref().is_ok_and(ExitStatus::success) {
        tracing::warn!(dir = %dir.display(), ?status, "a shim ended abnormally");
    }
}
