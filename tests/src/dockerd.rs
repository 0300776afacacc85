//! Debian's dockerd in namespaces of its own, as the engine that `berth` must also drive.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::cgroups;
use crate::cli::{Cli, Frontend};

/// A running dockerd with its containerd; both end, with all they made, when dropped.
#[derive(Debug)]
pub struct Dockerd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Dockerd {
    /// Starts one on an empty store, in a network and a mount namespace of its own, so that its bridge, its
    /// firewall rules and its mounts go away with it.
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options.
    ///
    /// # Panics
    /// As [`Dockerd::start`].
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("berth-dockerd").tempdir().expect("temporary directory");
        let log = std::fs::File::create(dir.path().join("dockerd.log")).expect("dockerd's log file");
        let path = |name: &str| dir.path().join(name).display().to_string();
        // `ip link set lo up` first: a new network namespace has even that down.
        let script = "ip link set lo up && exec \"$@\"";
        let child = Command::new("unshare")
            .args(["--net", "--mount", "--kill-child=SIGTERM", "--fork", "sh", "-c", script, "sh", "dockerd"])
            .args(["--data-root", &path("root"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--host", &format!("unix://{}", path("docker.sock"))])
            .args(["--cgroup-parent", &cgroups::parent_of(dir.path())])
            .args(options)
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log file"))
            .stderr(log)
            .spawn()
            .expect("start dockerd (package docker.io)");
        let dockerd = Self { dir, child };
        let begin = Instant::now();
        while dockerd.cli(Frontend::Docker).run(&["version"]).code != 0 {
            assert!(begin.elapsed() < PATIENCE, "dockerd does not serve; {}", dockerd.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        dockerd
    }

    /// A command line for it.
    #[must_use]
    pub fn cli(&self, frontend: Frontend) -> Cli {
        Cli::new(frontend, &format!("unix://{}", self.dir.path().join("docker.sock").display()))
    }

    /// A scratch directory that lives as long as the daemon.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("scratch").join(name);
        std::fs::create_dir_all(&path).expect("scratch directory");
        path
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("dockerd.log")).unwrap_or_default()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let cli = self.cli(Frontend::Docker);
        let ids = cli.run(&["ps", "-aq"]).stdout;
        for id in ids.lines() {
            drop(cli.run(&["rm", "-fv", id]));
        }
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).ok();
        }
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE {
                self.child.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // dockerd makes the parent group of its containers and leaves it.
        cgroups::remove(&cgroups::parent_of(self.dir.path()));
    }
}
