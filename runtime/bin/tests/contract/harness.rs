//! A bundle made of busybox, the runtime under test, and the proof that nothing is left behind.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

const APPLETS: &[&str] = &[
    "sh", "true", "false", "cat", "ls", "sleep", "id", "hostname", "env", "kill", "echo", "stat", "touch",
    "mkdir", "mv", "grep", "ps", "pwd", "tty", "printf", "test", "head", "readlink", "mknod", "chown",
];

/// Who calls the runtime where root does not: `nobody`.
pub(crate) const USER: u32 = 65534;

/// One container of the runtime under test.
pub(crate) struct Case {
    directory: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
    /// The start of the command line: our own program, or one that starts it as somebody else.
    launcher: Vec<OsString>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub(crate) fn fails_with(self, text: &str) {
        assert_ne!(self.code, 0, "{self:?}");
        assert!(self.err.contains(text), "{text:?} is not in {self:?}");
    }

    /// It fails, with any runtime; with ours it is this exit code and these words.
    #[track_caller]
    pub(crate) fn refuses(self, code: i32, text: &str) {
        assert_ne!(self.code, 0, "{self:?}");
        if is_ours() {
            assert_eq!(self.code, code, "{self:?}");
            assert!(self.err.contains(text), "{text:?} is not in {self:?}");
        }
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            code: status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: unescape(&String::from_utf8_lossy(&output.stderr)),
        }
    }
}

/// Messages stand quoted in log lines.
fn unescape(text: &str) -> String {
    text.replace("\\\"", "\"")
}

/// Everything below, without following links.
fn chown(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| chown(&entry.unwrap().path(), id));
    }
}

/// Another runtime, or ours as it was built to be used, or ours as cargo builds it for tests.
fn runtime() -> PathBuf {
    let built = || Some(PathBuf::from(std::env::var_os("BERTH_BIN_DIR")?).join("berth-runtime"));
    let named = std::env::var_os("BERTH_TEST_RUNTIME").map(PathBuf::from);
    named.or_else(built).unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_berth-runtime")))
}

/// True if the runtime under test is ours: for what ours has and runc has not. (Where they differ and the specification
/// says who is right, docs/decisions/0016 has the reason.)
pub(crate) fn is_ours() -> bool {
    std::env::var_os("BERTH_TEST_RUNTIME").is_none()
}

impl Case {
    /// A bundle whose process is `args`.
    pub(crate) fn new(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new().prefix("berth-contract-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let id = format!("contract-{}-{number}", std::process::id());
        let config = config(args, &id);
        Self { directory, id, config, launcher: vec![runtime().into()] }
    }

    /// A bundle whose process is a shell script.
    pub(crate) fn script(text: &str) -> Self {
        Self::new(&["/bin/sh", "-c", text])
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Appends to a list of the configuration, e.g. `/mounts`.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
    }

    /// The runtime's command with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(&self.launcher[0]);
        command
            .args(&self.launcher[1..])
            .arg("--root")
            .arg(self.path().join("state"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// From now on a user without privileges calls the runtime, and owns the bundle. `before` runs first, as root, in a
    /// mount namespace of its own.
    pub(crate) fn become_user(&mut self, before: &str) {
        // The checkout need not be open to everybody.
        let program = self.path().join("runtime");
        fs::copy(runtime(), &program).unwrap();
        self.config["linux"]["cgroupsPath"].take();
        chown(self.path(), USER);
        let user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all");
        let script = format!("{before}\nexec {user} {} \"$@\"", program.display());
        let words = ["unshare", "--mount", "sh", "-ec", &script, "sh"];
        self.launcher = words.iter().map(OsString::from).collect();
    }

    /// Runs a command on the container: `verb` and flags, then the id, then `rest`.
    pub(crate) fn call(&self, verb: &[&str], rest: &[&str]) -> Said {
        let mut args = verb.to_vec();
        let bundle = self.path().to_str().unwrap().to_owned();
        if matches!(verb[0], "create" | "run") {
            args.extend(["--bundle", &bundle]);
        }
        args.push(&self.id);
        args.extend(rest);
        self.command(&args).output().unwrap().into()
    }

    /// Runs a command whose container stays, so that no pipe of ours is held open by it.
    pub(crate) fn call_detached(&self, verb: &[&str]) -> Said {
        let (out, err) = (self.path().join("out"), self.path().join("err"));
        let mut args = verb.to_vec();
        let bundle = self.path().to_str().unwrap().to_owned();
        args.extend(["--bundle", &bundle, &self.id]);
        let status = self
            .command(&args)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .status()
            .unwrap();
        let read = |path: &Path| unescape(&fs::read_to_string(path).unwrap());
        Said { code: status.code().unwrap_or(-1), out: read(&out), err: read(&err) }
    }

    pub(crate) fn run(&self) -> Said {
        self.call(&["run"], &[])
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state"], &[]).ok()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the status is this.
    #[track_caller]
    pub(crate) fn wait_for(&self, status: &str) {
        for _ in 0..500 {
            if self.status() == status {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the container never became {status}: {}", self.state());
    }

    /// Mounts, cgroups and state of this container.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.path().to_str().unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(place)).map(str::to_owned));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for parent in ["", "berth"] {
                let path = hierarchy.path().join(parent).join(&self.id);
                found.extend(path.exists().then(|| path.display().to_string()));
            }
        }
        let state = fs::read_dir(self.path().join("state"));
        found.extend(state.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()));
        found
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let deleted = self.call(&["delete", "--force"], &[]);
        if !std::thread::panicking() {
            assert_eq!(deleted.code, 0, "{deleted:?}");
            if is_ours() {
                assert_eq!(self.leftovers(), Vec::<String>::new());
            }
        }
    }
}

fn config(args: &[&str], id: &str) -> Value {
    let caps = json!([
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_DAC_OVERRIDE"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "COLOUR=blue"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "contract",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] }
        ],
        "linux": {
            "cgroupsPath": format!("/berth/{id}"),
            "resources": {},
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": ["/proc/uptime", "/sys/firmware", "/proc/no-such-file"],
            "readonlyPaths": ["/proc/sys", "/proc/no-such-directory"]
        }
    })
}
