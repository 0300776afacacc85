//! podman and conmon on our runtime, with stores and namespaces of their own.

use std::process::Command;

use crate::cli::{Outcome, bin_dir, finish, on_terminal};
use crate::namespaces::Namespaces;
use crate::{base, cgroups};

/// A podman that has the image `busybox`. Its containers end with it.
#[derive(Debug)]
pub struct Podman {
    dir: tempfile::TempDir,
    namespaces: Namespaces,
}

impl Podman {
    /// Makes the store.
    ///
    /// # Panics
    /// If podman refuses.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("berth-podman").tempdir().expect("temporary directory");
        let namespaces = Namespaces::new(dir.path());
        let podman = Self { dir, namespaces };
        std::fs::write(podman.dir.path().join("containers.conf"), podman.configuration())
            .expect("write containers.conf");
        let archive = podman.dir.path().join("busybox.tar");
        std::fs::write(&archive, base::busybox_tar()).expect("write the base image");
        let archive = archive.display().to_string();
        podman.ok(&["import", "-q", "--change", "ENV PATH=/usr/bin:/bin", &archive, "busybox"]);
        podman
    }

    /// Our runtime by name, so that podman asks it for messages in JSON, as it asks runc.
    fn configuration(&self) -> String {
        let runtime = bin_dir().join("berth-runtime");
        format!(
            "[engine]\nruntime = \"berth-runtime\"\nruntime_supports_json = [\"berth-runtime\"]\n\
             [engine.runtimes]\nberth-runtime = [{:?}]\n",
            runtime.display().to_string()
        )
    }

    fn command(&self, args: &[&str]) -> Command {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        // nsenter takes no environment: env(1) sets it inside.
        let mut command = self.namespaces.command("env");
        command.arg(format!("CONTAINERS_CONF={}", path("containers.conf"))).arg("podman");
        command.args(["--root", &path("root"), "--runroot", &path("runroot"), "--tmpdir", &path("tmp")]);
        command.args(["--cgroup-manager", "cgroupfs"]);
        let (verb, rest) = args.split_first().expect("a podman command");
        command.arg(verb);
        if matches!(*verb, "run" | "create") {
            command.args(["--network", "none", "--cgroup-parent", &cgroups::parent_of(self.dir.path())]);
        }
        command.args(rest);
        command
    }

    /// Runs it with nothing on standard input.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, b"")
    }

    /// Runs it with `input` on standard input.
    #[must_use]
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Outcome {
        finish(self.command(args), input, format!("podman {}", args.join(" ")))
    }

    /// Runs it on a terminal.
    #[must_use]
    pub fn run_on_terminal(&self, args: &[&str], input: &[u8]) -> Outcome {
        finish(on_terminal(&self.command(args)), input, format!("podman {}", args.join(" ")))
    }

    /// Runs it, expects success, gives its output.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).success()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let outcome = self.run(&["rm", "--all", "--force", "--time", "0"]);
        cgroups::remove(&cgroups::parent_of(self.dir.path()));
        if !std::thread::panicking() {
            outcome.success();
        }
    }
}
