//! A container of busybox in a directory of its own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use berth_runtime_client::{
    Shim, ShimSpawner, bundle,
    protocol::{Attach, Create, Exec, Framing, Log, LogFile, Rootfs, StdinMode, files, oci},
};
use berth_spec::defaults::{NamespaceMode, docker_spec};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "true", "stty", "head", "seq", "tr", "wc", "yes", "mount", "id", "env",
    "kill",
];
/// Nothing in these tests takes as long, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The program under test: `BERTH_SHIM`, else it is built on first use into the directory of this test program.
pub(crate) fn spawner() -> ShimSpawner {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| match std::env::var_os("BERTH_SHIM") {
        Some(binary) => Some(binary.into()),
        None => build(),
    });
    ShimSpawner::new(binary.clone().expect("berth-shim must build"))
}

fn build() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--package", "berth-shim", "--target-dir"])
        .arg(profile_dir.parent().unwrap());
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    build.status().unwrap().success().then(|| profile_dir.join("berth-shim"))
}

/// A container to be; its directory goes with it.
pub(crate) struct Container {
    dir: TempDir,
    pub(crate) run: PathBuf,
    pub(crate) log: PathBuf,
    cgroup: PathBuf,
    spec: oci::Spec,
    pub(crate) create: Create,
}

fn to_file(path: &Path, max_size: u64, max_file: u32) -> Log {
    let path = path.to_path_buf();
    Log { file: Some(LogFile { path, max_size, max_file, ..LogFile::default() }), forward: None }
}

pub(crate) fn container(args: &[&str]) -> Container {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("berth-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
        fs::create_dir_all(lower.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", lower.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", lower.join("bin").join(applet)).unwrap();
    }
    let (upper, work, run) = (dir.path().join("upper"), dir.path().join("work"), dir.path().join("run"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let log = dir.path().join("json.log");
    let cgroup = PathBuf::from("/").join(&id);
    let spec = docker_spec()
        .args(args.iter().copied())
        .env(["PATH=/bin", "HOME=/"])
        .cgroup_path(Some(cgroup.clone()))
        .cgroup(NamespaceMode::Host)
        .build();
    let create = Create {
        id,
        bundle: run.clone(),
        rootfs: Rootfs::Overlay { lower: vec![lower], upper, work, volatile: false, users: None },
        terminal: false,
        console_size: None,
        stdin: StdinMode::Closed,
        log: to_file(&log, 0, 1),
        systemd_cgroup: false,
        runtime: None,
        restore: None,
    };
    Container { dir, run, log, cgroup, spec, create }
}

/// A shell script.
pub(crate) fn script(text: &str) -> Container {
    container(&["sh", "-c", text])
}

/// A test that failed must not leave its container running; when init dies the shim cleans up.
impl Drop for Container {
    fn drop(&mut self) {
        for cgroup in self.cgroups() {
            let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }
}

impl Container {
    pub(crate) fn stdin(mut self, stdin: StdinMode) -> Self {
        self.create.stdin = stdin;
        self
    }

    pub(crate) fn terminal(mut self) -> Self {
        self.create.terminal = true;
        self.with_process(|process| {
            process.set_terminal(Some(true));
        })
    }

    pub(crate) fn log(mut self, max_size: u64, max_file: u32) -> Self {
        self.create.log = to_file(&self.log, max_size, max_file);
        self
    }

    pub(crate) fn with_process(mut self, change: impl FnOnce(&mut oci::Process)) -> Self {
        change(self.spec.process_mut().as_mut().unwrap());
        self
    }

    pub(crate) fn with_linux(mut self, change: impl FnOnce(&mut oci::Linux)) -> Self {
        change(self.spec.linux_mut().as_mut().unwrap());
        self
    }

    pub(crate) fn memory(self, bytes: i64) -> Self {
        self.with_linux(|linux| {
            let mut memory = oci::LinuxMemory::default();
            memory.set_limit(Some(bytes));
            linux.resources_mut().as_mut().unwrap().set_memory(Some(memory));
        })
    }

    /// config.json's text.
    pub(crate) fn config(&self) -> String {
        serde_json::to_string(&self.spec).unwrap()
    }

    /// A shim without a container.
    pub(crate) async fn spawned(&self) -> Shim {
        bundle::write(&self.run, &self.spec).unwrap();
        spawner().spawn(&self.run).await.unwrap()
    }

    pub(crate) async fn created(&self) -> Shim {
        let shim = self.spawned().await;
        shim.create(self.create.clone(), None).await.unwrap();
        shim
    }

    pub(crate) async fn started(&self) -> Shim {
        let shim = self.created().await;
        shim.start().await.unwrap();
        shim
    }

    /// What is in the log, stream and text.
    pub(crate) fn logged(&self) -> Vec<(String, String)> {
        entries(&self.log)
    }

    /// The container's cgroup directories that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let name = self.cgroup.strip_prefix("/").unwrap();
        let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        mounts
            .chain(["/sys/fs/cgroup".into()])
            .map(|mount| mount.join(name))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Whether a shim of this run directory lives.
    fn is_served(&self) -> bool {
        let run = self.run.to_str().unwrap();
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        processes.into_iter().any(|line| {
            let line = String::from_utf8_lossy(&line);
            line.contains("berth-shim\0serve") && line.contains(run)
        })
    }

    /// The shim and everything of the container are gone, but for records.
    pub(crate) async fn assert_gone(&self) {
        wait_until("the shim ends", || !self.is_served()).await;
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
        for entry in fs::read_dir(&self.run).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // The place of the root file system is part of the bundle, and empty on the host.
            let bundle =
                name == files::CONFIG || (name == "rootfs" && fs::remove_dir(self.run.join(&name)).is_ok());
            let record = bundle || name == files::EXIT || files::exec_id_of(&name).is_some();
            let text = fs::read_to_string(self.run.join(&name)).unwrap_or_default();
            assert!(record, "{name} is left in the run directory: {text}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "a mount is left");
    }

    /// Wait for the end and check that nothing is left. The exit code.
    pub(crate) async fn finished(&self, shim: &Shim) -> i32 {
        let record = timeout(LONG, shim.wait()).await.expect("the container ends").unwrap();
        self.assert_gone().await;
        record.code
    }
}

pub(crate) fn entries(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let parse = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        (entry["stream"].as_str().unwrap().to_owned(), entry["log"].as_str().unwrap().to_owned())
    };
    text.lines().map(parse).collect()
}

pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < until, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A stream that is attached to the container.
pub(crate) async fn attach(shim: &Shim, attach: Attach) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    shim.attach(attach, &theirs).await.unwrap();
    ours
}

/// A stream that is attached to a new exec.
pub(crate) async fn exec(shim: &Shim, id: &str, process: oci::Process, attach: Attach) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let exec = Exec { exec_id: id.to_owned(), process, console_size: None, attach: Some(attach) };
    shim.exec(exec, Some(std::os::fd::AsFd::as_fd(&theirs))).await.unwrap();
    ours
}

pub(crate) fn process(args: &[&str]) -> oci::Process {
    let mut process = oci::Process::default();
    let owned = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    process.set_args(owned(args)).set_env(owned(&["PATH=/bin", "HOME=/"])).set_rlimits(None);
    process
}

pub(crate) fn raw() -> Attach {
    Attach::output(Framing::Raw)
}

pub(crate) fn interactive(framing: Framing) -> Attach {
    Attach { stdin: true, ..Attach::output(framing) }
}

pub(crate) async fn read_to_end(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the stream ends").unwrap();
    bytes
}

pub(crate) async fn read_text(stream: &mut UnixStream) -> String {
    String::from_utf8(read_to_end(stream).await).unwrap()
}

/// Read until this text has come.
pub(crate) async fn expect(stream: &mut UnixStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&seen).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        let length = timeout(LONG, stream.read(&mut buffer))
            .await
            .unwrap_or_else(|_| panic!("{text:?} not in {so_far:?}"));
        match length.unwrap() {
            0 => panic!("the stream ended, {text:?} is not in {so_far:?}"),
            length => seen.extend_from_slice(&buffer[..length]),
        }
    }
}

pub(crate) async fn write(stream: &mut UnixStream, text: &[u8]) {
    timeout(LONG, stream.write_all(text)).await.expect("the container reads").unwrap();
}

/// stdcopy frames taken apart: stdout and stderr.
pub(crate) fn demultiplex(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        assert!(matches!(header[0], 1 | 2) && header[1..4] == [0; 3], "a frame's header: {header:?}");
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        let (data, rest) = rest.split_at(length);
        if header[0] == 1 { &mut out } else { &mut err }.extend_from_slice(data);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a header");
    (out, err)
}
