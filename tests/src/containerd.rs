//! containerd with its runc shim (v2) on our runtime, in namespaces of its own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::cli::{Outcome, bin_dir, finish, on_terminal};
use crate::namespaces::Namespaces;
use crate::{base, cgroups};

/// A running containerd; it ends, with its containers, when dropped.
#[derive(Debug)]
pub struct Containerd {
    dir: tempfile::TempDir,
    namespaces: Namespaces,
    child: Child,
}

impl Containerd {
    /// Starts one without the CRI plug-in.
    ///
    /// # Panics
    /// If it does not serve within thirty seconds.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("berth-containerd").tempdir().expect("temporary directory");
        base::busybox_rootfs(&dir.path().join("rootfs"));
        let namespaces = Namespaces::new(dir.path());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("containerd.sock")
        );
        std::fs::write(path("config.toml"), configuration).expect("write containerd's configuration");
        let log = std::fs::File::create(path("containerd.log")).expect("containerd's log file");
        let child = namespaces
            .command("containerd")
            .args(["--config", &path("config.toml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Self { dir, namespaces, child };
        let begin = Instant::now();
        while containerd.run(&["version"]).code != 0 {
            let log = containerd.dir.path().join("containerd.log");
            assert!(
                begin.elapsed() < PATIENCE,
                "containerd does not serve: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = self.namespaces.command("ctr");
        command.arg("--address").arg(self.dir.path().join("containerd.sock")).args(args);
        command
    }

    /// `ctr` with these arguments.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Outcome {
        finish(self.ctr(args), b"", format!("ctr {}", args.join(" ")))
    }

    /// The same on a terminal, with `input` typed on it.
    #[must_use]
    pub fn run_on_terminal(&self, args: &[&str], input: &[u8]) -> Outcome {
        finish(on_terminal(&self.ctr(args)), input, format!("ctr {}", args.join(" ")))
    }

    /// The same, expecting success.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).success()
    }

    /// The words of `ctr run` for a container `id` of busybox on our runtime, with further flags and its command.
    #[must_use]
    pub fn container(&self, id: &str, flags: &[&str], command: &[&str]) -> Vec<String> {
        let runtime = bin_dir().join("berth-runtime").display().to_string();
        let rootfs = self.dir.path().join("rootfs").display().to_string();
        let cgroup = format!("{}/{id}", cgroups::parent_of(self.dir.path()));
        let fixed = ["--runc-binary", &runtime, "--cgroup", &cgroup];
        let words = [&["run"], flags, &fixed, &["--rootfs", &rootfs, id], command];
        words.concat().into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in self.run(&["container", "ls", "-q"]).stdout.lines() {
            drop(self.run(&["task", "rm", "--force", id]));
            drop(self.run(&["container", "rm", id]));
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
        cgroups::remove(&cgroups::parent_of(self.dir.path()));
    }
}
