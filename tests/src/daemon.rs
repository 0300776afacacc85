//! A private `berthd`: its own root, run root, socket, bridge and firewall table.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::base;
use crate::cli::{Cli, Frontend, bin_dir};
use crate::host::{self, Host};

/// A running `berthd` that takes its containers and itself away when dropped.
#[derive(Debug)]
pub struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
    /// Process in whose network namespace it runs; none: in ours.
    host: Option<u32>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Daemon {
    /// Starts one on an empty store.
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    #[must_use]
    pub fn start() -> Self {
        Self::with_arguments(&[])
    }

    /// Starts one on a host of its own that has the image `busybox`.
    ///
    /// # Panics
    /// If it does not serve, or refuses the image.
    #[must_use]
    pub fn on(host: &Host) -> Self {
        Self::on_with_environment(host, &[])
    }

    /// The same with variables in its environment.
    ///
    /// # Panics
    /// If it does not serve, or refuses the image.
    #[must_use]
    pub fn on_with_environment(host: &Host, environment: &[(&str, &str)]) -> Self {
        let daemon = Self::start_in(Some(host.pid()), &[], environment);
        daemon.cli(Frontend::Docker).import_busybox("busybox");
        daemon
    }

    /// Starts one with further arguments, on an empty store. They hold also for [`Self::start_again`].
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    #[must_use]
    pub fn with_arguments(arguments: &[&str]) -> Self {
        Self::start_in(None, arguments, &[])
    }

    /// Starts one on a host of its own, with further arguments, on an empty store.
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    #[must_use]
    pub fn on_with_arguments(host: &Host, arguments: &[&str]) -> Self {
        Self::start_in(Some(host.pid()), arguments, &[])
    }

    fn start_in(host: Option<u32>, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("berth-test").tempdir().expect("temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let child = spawn(dir.path(), host, &arguments, &environment);
        let daemon = Self { dir, child, host, arguments, environment };
        daemon.wait_until_it_serves();
        daemon
    }

    /// Starts one that has the image `busybox`.
    ///
    /// # Panics
    /// If it does not serve, or refuses the image.
    #[must_use]
    pub fn with_busybox() -> Self {
        let daemon = Self::start();
        daemon.cli(Frontend::Docker).import_busybox("busybox");
        daemon
    }

    /// The address of its socket.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/berth.sock")
    }

    /// Its `--root`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Its `--run-root`.
    #[must_use]
    pub fn run_root(&self) -> PathBuf {
        self.dir.path().join("run")
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

    /// A command line for it.
    #[must_use]
    pub fn cli(&self, frontend: Frontend) -> Cli {
        Cli::new(frontend, &self.host())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL: no farewell of any kind.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill -9 berthd");
        self.child.wait().expect("reap berthd");
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn terminate(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal berthd");
        assert!(self.ends_within(PATIENCE), "berthd did not end on SIGTERM; {}", self.log());
    }

    /// Has it end and take away everything it made, its networks too.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn shut_down(&mut self) {
        let answer = self.ask_to_shut_down();
        assert!(self.ends_within(PATIENCE), "berthd did not shut down: {answer:?}; {}", self.log());
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let begin = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) => return true,
                Ok(None) if begin.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
                _ => return false,
            }
        }
    }

    /// Starts it again on the same roots.
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.host, &self.arguments, &self.environment);
        self.wait_until_it_serves();
    }

    /// Sends a request to the API and gives the answer's status and body.
    ///
    /// # Panics
    /// If the daemon does not answer.
    #[must_use]
    pub fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).expect("connect to berthd");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: berth\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("send a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read an answer");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    /// Stops all containers and ends the daemon, with everything it made (`berth system shutdown --containers`).
    fn ask_to_shut_down(&self) -> std::io::Result<String> {
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket())?;
        stream.write_all(b"POST /berth/shutdown?containers=stop HTTP/1.1\r\nHost: berth\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn wait_until_it_serves(&self) {
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(begin.elapsed() < PATIENCE, "berthd does not serve; {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote on standard error.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("berthd.log")).unwrap_or_default();
        format!("its log:\n{text}")
    }
}

/// Starts the daemon with everything it owns below `dir`.
fn spawn(dir: &Path, host: Option<u32>, arguments: &[String], environment: &[(String, String)]) -> Child {
    let program = bin_dir().join("berthd");
    let mut command = match host {
        // nsenter becomes the daemon: the process id is the daemon's.
        Some(pid) => host::inside(pid, &program.display().to_string()),
        None => Command::new(program),
    };
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("berthd.log"));
    command
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--run-root")
        .arg(dir.join("run"))
        // A socket beside the harness' own is named by its place.
        .args(
            arguments.iter().map(|argument| argument.replace("RUN_ROOT", &dir.join("run").to_string_lossy())),
        )
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("the daemon's log file"))
        .spawn()
        .expect("start berthd")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let answer = self.ask_to_shut_down();
        let ended = self.ends_within(PATIENCE);
        if !ended {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            return;
        }
        assert!(ended, "berthd did not shut down: {answer:?}\n{}", self.log());
        let left = leftovers(self.dir.path());
        assert!(left.is_empty(), "left behind by the daemon: {left:?}\n{}", self.log());
    }
}

/// Mounts and cgroups that still name a directory or a container of ours.
fn leftovers(dir: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.to_string_lossy();
    mounts.lines().filter(|line| line.contains(&*dir)).map(str::to_owned).collect()
}

impl Cli {
    /// Imports busybox under `name`.
    ///
    /// # Panics
    /// If the engine refuses it.
    pub fn import_busybox(&self, name: &str) {
        let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let args = ["import", "--change", "CMD [\"sh\"]", "--change", path, "-", name];
        drop(self.run_with_input(&args, &base::busybox_tar()).success());
    }
}
