//! `RUN --mount=type=ssh`: a socket for the step, behind which the user's ssh agent answers. The step gets a socket of
//! its own, so that its owner and mode can be what the mount says.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::fault::{At, Fault};

/// Where the socket is, unless the mount says otherwise: BuildKit's place.
pub(crate) fn target(number: usize) -> String {
    format!("/run/buildkit/ssh_agent.{number}")
}

/// Forwards connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    task: JoinHandle<()>,
}

impl Forward {
    /// Listens in `dir` under `name` and speaks to the agent at `agent`.
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        agent: &Path,
        (uid, gid): (u32, u32),
        mode: u32,
        handle: &Handle,
    ) -> Result<Self, Fault> {
        std::os::unix::net::UnixStream::connect(agent).map_err(|error| {
            Fault::said(format!("the ssh agent at {} does not answer: {error}", agent.display()))
        })?;
        // By descriptor: the path of a socket must be short, and this directory's may not be.
        let directory = fs::File::open(dir).at("open", dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        let entered = handle.enter();
        let listener = UnixListener::bind(&path).at("listen at", dir.join(name))?;
        drop(entered);
        chown(&path, Some(uid), Some(gid)).at("set owner of", dir.join(name))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("set mode of", dir.join(name))?;
        let agent = agent.to_owned();
        let task = handle.spawn(async move {
            while let Ok((step, _)) = listener.accept().await {
                tokio::spawn(forward(step, agent.clone()));
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut step: UnixStream, agent: PathBuf) {
    let result = match UnixStream::connect(&agent).await {
        Ok(mut agent) => tokio::io::copy_bidirectional(&mut step, &mut agent).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "forwarding to the ssh agent");
    }
}
