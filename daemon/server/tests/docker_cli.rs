//! The unmodified docker CLI against a berthd of its own. Needs root, the docker CLI, a static busybox and a
//! berth-shim beside berthd (`cargo build -p berth-shim`); without one of them it says so and passes.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

const BERTHD: &str = env!("CARGO_BIN_EXE_berthd");

/// A berthd in directories of its own; ended with all that it made when dropped.
struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(dir.path());
        Self { dir, child }
    }

    /// Ends the daemon as an update would, and starts it again.
    fn restart(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert!(!self.socket().exists(), "the socket goes with the daemon");
        self.child = spawn(self.dir.path());
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/berth.sock")
    }

    fn docker(&self, args: &[&str]) -> Outcome {
        self.docker_with(args, b"")
    }

    fn docker_with(&self, args: &[&str], input: &[u8]) -> Outcome {
        let mut child = Command::new("docker")
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.dir.path().join("docker-config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // A command that does not read its input breaks the pipe.
        writer.join().unwrap().ok();
        Outcome::of(args, output)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = ask_to_end(&self.socket()) {
            eprintln!("berthd does not end by itself: {error}");
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

/// `POST /berth/shutdown?containers=stop`: the daemon ends and leaves nothing on the host.
fn ask_to_end(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(
        b"POST /berth/shutdown?containers=stop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    )?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    assert_eq!(&status, b"HTTP/1.1 204");
    Ok(())
}

fn spawn(dir: &Path) -> Child {
    let mut child = Command::new(BERTHD)
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--run-root")
        .arg(dir.join("run"))
        .args(["--ready-fd", "1", "--log-level", "warn"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    let read = child.stdout.take().unwrap().read(&mut ready).unwrap();
    assert_eq!(read, 1, "berthd ended before it served");
    child
}

struct Outcome {
    line: String,
    code: i32,
    out: String,
    err: String,
}

impl Outcome {
    fn of(args: &[&str], output: Output) -> Self {
        Self {
            line: format!("docker {}", args.join(" ")),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    fn ok(self) -> String {
        self.fails(0).out
    }

    #[track_caller]
    fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}{}", self.line, self.out, self.err);
        self
    }
}

fn require() {
    let shim = Path::new(BERTHD).with_file_name("berth-shim");
    let missing = [
        (!nix::unistd::geteuid().is_root(), "root"),
        (!shim.exists(), "berth-shim"),
        (!Path::new("/bin/busybox").exists(), "busybox"),
        (Command::new("docker").arg("--version").output().is_err(), "docker"),
    ];
    let missing: Vec<_> = missing.iter().filter(|(missing, _)| *missing).map(|(_, what)| what).collect();
    assert!(missing.is_empty(), "this test needs {missing:?}");
}

/// A root file system with a shell, as a tar archive.
fn busybox_tar(dir: &Path) -> Vec<u8> {
    let root = dir.join("bb");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "ls", "id", "true", "false", "hostname", "touch"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap().stdout
}

#[test]
fn the_docker_cli_works() {
    require();
    let mut daemon = Daemon::start();
    let tar = busybox_tar(daemon.dir.path());
    let id = daemon.docker_with(&["import", "-c", "CMD [\"sh\"]", "-", "bb:1"], &tar).ok();
    assert!(id.trim().starts_with("sha256:"), "{id}");
    run(&daemon);
    lifecycle(&daemon);
    files(&daemon);
    build(&daemon);
    objects(&daemon);
    live_restore(&mut daemon);
}

fn run(daemon: &Daemon) {
    assert_eq!(daemon.docker(&["run", "--rm", "bb:1", "echo", "hi"]).ok(), "hi\n");
    daemon.docker(&["run", "--rm", "bb:1", "sh", "-c", "exit 7"]).fails(7);
    let missing = daemon.docker(&["run", "--rm", "bb:1", "nosuch"]).fails(127);
    assert!(missing.err.contains("executable file not found in $PATH"), "{}", missing.err);
    daemon.docker(&["run", "--rm", "bb:1", "/etc/passwd"]).fails(126);
    assert_eq!(daemon.docker_with(&["run", "-i", "--rm", "bb:1", "cat"], b"abc").ok(), "abc");
    let both = daemon.docker(&["run", "--rm", "bb:1", "sh", "-c", "echo out; echo err >&2"]).fails(0);
    assert_eq!((both.out.as_str(), both.err.as_str()), ("out\n", "err\n"));
    daemon.docker(&["run", "--rm", "nosuchimage.invalid/x:1", "true"]).fails(125);
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

fn lifecycle(daemon: &Daemon) {
    daemon.docker(&["run", "-d", "--name", "web", "bb:1", "sh", "-c", "echo up; sleep 1000"]).ok();
    assert!(daemon.docker(&["ps"]).ok().contains("web"));
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Status}}", "web"]).ok(), "running\n");
    assert_eq!(daemon.docker(&["exec", "web", "echo", "in"]).ok(), "in\n");
    daemon.docker(&["exec", "web", "sh", "-c", "exit 3"]).fails(3);
    assert_eq!(daemon.docker_with(&["exec", "-i", "web", "cat"], b"piped").ok(), "piped");
    assert_eq!(daemon.docker(&["logs", "web"]).ok(), "up\n");
    assert!(daemon.docker(&["top", "web"]).ok().contains("sleep 1000"));
    daemon.docker(&["pause", "web"]).ok();
    daemon.docker(&["unpause", "web"]).ok();
    daemon.docker(&["stats", "--no-stream", "web"]).ok();
    daemon.docker(&["rename", "web", "net"]).ok();
    daemon.docker(&["rm", "net"]).fails(1);
    daemon.docker(&["stop", "-t", "0", "net"]).ok();
    assert_eq!(daemon.docker(&["wait", "net"]).ok(), "137\n");
    daemon.docker(&["start", "net"]).ok();
    daemon.docker(&["rm", "-f", "net"]).ok();
    let gone = daemon.docker(&["inspect", "net"]).fails(1);
    assert!(gone.err.contains("No such object: net"), "{}", gone.err);
}

fn files(daemon: &Daemon) {
    let file = daemon.dir.path().join("f");
    fs::write(&file, "content").unwrap();
    let file = file.to_str().unwrap();
    daemon.docker(&["create", "--name", "box", "bb:1"]).ok();
    daemon.docker(&["cp", file, "box:/etc/g"]).ok();
    let back = format!("{file}.back");
    daemon.docker(&["cp", "box:/etc/g", &back]).ok();
    assert_eq!(fs::read_to_string(&back).unwrap(), "content");
    assert!(daemon.docker(&["diff", "box"]).ok().contains("A /etc/g"));
    daemon.docker(&["commit", "box", "bb:2"]).ok();
    assert_eq!(daemon.docker(&["run", "--rm", "bb:2", "cat", "/etc/g"]).ok(), "content");
    daemon.docker(&["rm", "box"]).ok();
}

fn build(daemon: &Daemon) {
    let context = daemon.dir.path().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(
        context.join("Dockerfile"),
        "FROM bb:1\nCOPY f /f\nRUN cat /f >/g && echo built\nCMD [\"cat\",\"/g\"]\n",
    )
    .unwrap();
    fs::write(context.join("f"), "from the context").unwrap();
    let context = context.to_str().unwrap();
    let out = daemon.docker(&["build", "-t", "built:1", context]).ok();
    assert!(out.contains("Successfully tagged built:1"), "{out}");
    assert_eq!(daemon.docker(&["run", "--rm", "built:1"]).ok(), "from the context");
    fs::write(Path::new(context).join("Dockerfile"), "FROM bb:1\nRUN exit 9\n").unwrap();
    let failed = daemon.docker(&["build", context]);
    assert_eq!(failed.code, 9, "{}", failed.err);
}

fn objects(daemon: &Daemon) {
    daemon.docker(&["volume", "create", "data"]).ok();
    daemon.docker(&["run", "--rm", "-v", "data:/d", "bb:1", "sh", "-c", "echo kept >/d/x"]).ok();
    assert_eq!(daemon.docker(&["run", "--rm", "-v", "data:/d", "bb:1", "cat", "/d/x"]).ok(), "kept\n");
    daemon.docker(&["volume", "rm", "data"]).ok();
    daemon.docker(&["network", "create", "mine"]).ok();
    assert!(daemon.docker(&["network", "ls"]).ok().contains("mine"));
    daemon.docker(&["run", "--rm", "--network", "mine", "bb:1", "true"]).ok();
    daemon.docker(&["network", "rm", "mine"]).ok();
    assert!(daemon.docker(&["info"]).ok().contains("Server Version"));
    daemon.docker(&["system", "df"]).ok();
    let events = daemon.docker(&["events", "--since", "1", "--until", "0s", "--format", "{{.Action}}"]).ok();
    assert!(events.lines().any(|action| action == "die"), "{events}");
}

fn live_restore(daemon: &mut Daemon) {
    daemon.docker(&["run", "-d", "--name", "stays", "bb:1", "sleep", "1000"]).ok();
    daemon.docker(&["run", "-d", "--name", "ends", "bb:1", "sh", "-c", "sleep 1; exit 5"]).ok();
    daemon.restart();
    assert_eq!(daemon.docker(&["exec", "stays", "echo", "still"]).ok(), "still\n");
    assert_eq!(daemon.docker(&["wait", "ends"]).ok(), "5\n");
}
