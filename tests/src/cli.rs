//! A command line under test: the docker CLI or `berth`, pointed at one engine.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Which program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// The unmodified docker CLI of this machine.
    Docker,
    /// Our own command line.
    Berth,
}

/// One program with one engine's address.
#[derive(Clone, Debug)]
pub struct Cli {
    frontend: Frontend,
    host: String,
    environment: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its arguments, for messages.
    pub command: String,
    /// Its exit code; a death by signal is 128 + signal, as a shell says it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The directory of the built binaries: `BERTH_BIN_DIR`, else beside the test executable.
///
/// # Panics
/// If the test executable's own path cannot be found.
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("BERTH_BIN_DIR") {
        return dir.into();
    }
    let exe = std::env::current_exe().expect("own path");
    exe.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_path_buf()
}

impl Cli {
    /// A command line for the engine at `host` (`unix://…`).
    #[must_use]
    pub fn new(frontend: Frontend, host: &str) -> Self {
        Self { frontend, host: host.to_owned(), environment: Vec::new() }
    }

    /// The same with a variable in its environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Which program this is.
    #[must_use]
    pub fn frontend(&self) -> Frontend {
        self.frontend
    }

    /// The engine's address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The command with these arguments, not yet started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.frontend {
            Frontend::Docker => Command::new("docker"),
            Frontend::Berth => Command::new(bin_dir().join("berth")),
        };
        command.arg("-H").arg(&self.host).args(args);
        command.env("DOCKER_BUILDKIT", "0").env_remove("DOCKER_HOST").env_remove("BERTH_HOST");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end with nothing on standard input.
    ///
    /// # Panics
    /// If the program cannot be started, or does not end within two minutes.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, b"")
    }

    /// Runs it to its end with `input` on standard input, then end of file.
    ///
    /// # Panics
    /// As [`Cli::run`].
    #[must_use]
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Outcome {
        finish(self.command(args), input, args.join(" "))
    }

    /// Runs it on a terminal of its own, with `input` typed on it, and gives what the terminal showed.
    ///
    /// # Panics
    /// As [`Cli::run`].
    #[must_use]
    pub fn run_on_terminal(&self, args: &[&str], input: &[u8]) -> Outcome {
        let mut script = on_terminal(&self.command(args));
        script.env("DOCKER_BUILDKIT", "0");
        finish(script, input, args.join(" "))
    }

    /// Runs it, expects success, gives standard output without its last newline.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).success()
    }

    /// Runs `probe` until it holds.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    #[track_caller]
    pub fn eventually(&self, what: &str, mut probe: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !probe(self) {
            assert!(begin.elapsed() < PATIENCE, "did not happen within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

/// The same command on a terminal of its own (without its environment).
#[must_use]
pub fn on_terminal(inner: &Command) -> Command {
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qefc", &words.join(" "), "/dev/null"]).env("TERM", "xterm");
    script
}

/// Starts `command`, feeds it, waits for it. `shown` stands for it in messages.
///
/// # Panics
/// If the program cannot be started, or does not end within two minutes.
#[must_use]
pub fn finish(mut command: Command, input: &[u8], shown: String) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program may end before it has read everything: that is its right, not an error of the test.
    let feeder = std::thread::spawn(move || stdin.write_all(&input).ok());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(120)).is_err() {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    });
    let output = child.wait_with_output().expect("wait for the command");
    done.send(()).ok();
    watchdog.join().expect("watchdog");
    feeder.join().expect("feeder");
    let code = output.status.code().unwrap_or_else(|| {
        128 + std::os::unix::process::ExitStatusExt::signal(&output.status).unwrap_or_default()
    });
    Outcome {
        command: shown,
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Outcome {
    /// Standard output without its last newline, if it succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn success(self) -> String {
        self.expect_code(0).stdout.trim_end_matches('\n').to_owned()
    }

    /// Itself, if it ended with `code`.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        let Self { command, stdout, stderr, .. } = &self;
        assert!(
            self.code == code,
            "`{command}` ended with {}, not {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
            self.code
        );
        self
    }

    /// Itself, if `text` is on one of its outputs.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn expect_text(self, text: &str) -> Self {
        let Self { command, stdout, stderr, .. } = &self;
        assert!(
            stdout.contains(text) || stderr.contains(text),
            "`{command}` does not say {text:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        );
        self
    }
}
