//! One engine with a busybox image, and short words for what tests do with it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_api::container::{ContainerInspect, CreateRequest};
use berth_api::options::{Import, Logs, RemoveContainer, StopContainer, WaitCondition};
use berth_engine::{Engine, EngineConfig, EngineError, ExecClient, ExecReader};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Lab {
    pub(crate) engine: Arc<Engine>,
    pub(crate) dir: Arc<tempfile::TempDir>,
}

/// A test that fails leaves nothing behind either.
impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let engine = Arc::clone(&self.engine);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let all = berth_api::options::ListContainers { all: true, ..Default::default() };
                let options = RemoveContainer { force: true, volumes: true, link: false };
                for container in engine.list_containers(&all).await.unwrap_or_default() {
                    engine.remove_container(&container.id, options).await.ok();
                }
                engine.shutdown(true).await.ok();
            });
        });
    }
}

fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let shim = test.ancestors().nth(2).unwrap().join("berth-shim");
    assert!(shim.exists(), "{} is missing: cargo build -p berth-shim", shim.display());
    shim
}

fn config(dir: &Path) -> EngineConfig {
    EngineConfig::new(dir.join("root"), dir.join("run"), shim())
}

/// A root file system with busybox, accounts and a directory that volumes are mounted over.
fn rootfs() -> Vec<u8> {
    let busybox = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, uid: u64, content: &[u8], link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, path, content).unwrap();
        } else {
            tar.append_link(&mut header, path, link).unwrap();
        }
    };
    use tar::EntryType as T;
    for dir in ["bin/", "etc/", "tmp/", "proc/", "sys/", "dev/", "data/", "root/"] {
        put(dir, T::Directory, if dir == "tmp/" { 0o1777 } else { 0o755 }, 0, &[], "");
    }
    put("bin/busybox", T::Regular, 0o755, 0, &busybox, "");
    let applets = [
        "sh", "cat", "echo", "true", "false", "sleep", "id", "env", "ls", "hostname", "mount", "touch",
        "stat", "ip", "nc", "kill", "ps", "head", "seq", "readlink", "grep", "wc", "dd", "mkdir", "ln", "rm",
        "ulimit", "stty", "test",
    ];
    for applet in applets {
        put(&format!("bin/{applet}"), T::Symlink, 0o777, 0, &[], "busybox");
    }
    put(
        "etc/passwd",
        T::Regular,
        0o644,
        0,
        b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
        "",
    );
    put("etc/group", T::Regular, 0o644, 0, b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n", "");
    put("data/preset", T::Regular, 0o640, 1000, b"from the image\n", "");
    tar.into_inner().unwrap()
}

impl Lab {
    pub(crate) async fn new() -> Self {
        if let Ok(filter) = std::env::var("BERTH_TEST_LOG") {
            // A second test of the same process finds it set already.
            tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
        }
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let engine = Engine::start(config(dir.path())).await.unwrap();
        let lab = Self { engine, dir };
        lab.import("busybox", &["CMD [\"sh\"]", "ENV PATH=/bin"]).await;
        lab
    }

    pub(crate) async fn import(&self, name: &str, changes: &[&str]) {
        let (sender, mut messages) = tokio::sync::mpsc::channel(8);
        let options = Import {
            source: "-".into(),
            repo: name.into(),
            changes: changes.iter().map(|text| (*text).to_owned()).collect(),
            ..Import::default()
        };
        let tar = std::io::Cursor::new(rootfs());
        let import = self.engine.import_image(options, tar, sender, CancellationToken::new());
        let (done, first) = tokio::join!(import, messages.recv());
        done.unwrap();
        assert!(first.unwrap().status.unwrap().starts_with("sha256:"));
    }

    /// The daemon dies without a word, and another one takes its place.
    pub(crate) async fn restart_daemon(self) -> Self {
        let dir = Arc::clone(&self.dir);
        self.engine.shutdown(false).await.unwrap();
        drop(self);
        // Tasks of the old engine let go of the store's lock when they end.
        for _ in 0..200 {
            match Engine::start(config(dir.path())).await {
                Ok(engine) => return Self { engine, dir },
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("{:?}", Engine::start(config(dir.path())).await.err());
    }

    /// Creates a container of `{"Cmd": …, …}` and starts nothing.
    pub(crate) async fn create(&self, name: &str, json: &str) -> String {
        self.try_create(name, json).await.unwrap()
    }

    pub(crate) async fn try_create(&self, name: &str, json: &str) -> Result<String, EngineError> {
        let mut request: CreateRequest = serde_json::from_str(json).unwrap();
        if request.config.image.is_empty() {
            request.config.image = "busybox".into();
        }
        Ok(self.engine.create_container(name, "", request).await?.id)
    }

    pub(crate) async fn start(&self, name: &str, json: &str) -> String {
        let id = self.create(name, json).await;
        self.engine.start_container(&id).await.unwrap();
        id
    }

    pub(crate) async fn wait(&self, name: &str) -> i64 {
        let wait = self.engine.wait_container(name, WaitCondition::NotRunning).await.unwrap();
        tokio::time::timeout(PATIENCE, wait).await.unwrap().status_code
    }

    /// What a container has written, both streams.
    pub(crate) async fn output(&self, name: &str) -> String {
        let options = Logs { stdout: true, stderr: true, ..Logs::default() };
        self.read_logs(name, options).await
    }

    pub(crate) async fn read_logs(&self, name: &str, options: Logs) -> String {
        let mut logs = self.engine.container_logs(name, options).await.unwrap();
        let mut text = Vec::new();
        while let Some(item) = tokio::time::timeout(PATIENCE, logs.next()).await.unwrap() {
            text.extend_from_slice(&item.unwrap().1);
        }
        String::from_utf8(text).unwrap()
    }

    /// Runs a shell command with these options to its end.
    pub(crate) async fn run(&self, script: &str, options: &str) -> (i64, String) {
        let mut json: serde_json::Value = serde_json::from_str(options).unwrap();
        json["Cmd"] = serde_json::json!(["sh", "-c", script]);
        let id = self.start("", &json.to_string()).await;
        let code = self.wait(&id).await;
        let output = self.output(&id).await;
        self.remove(&id).await;
        (code, output)
    }

    pub(crate) async fn inspect(&self, name: &str) -> ContainerInspect {
        self.engine.inspect_container(name, false).await.unwrap()
    }

    pub(crate) async fn stop(&self, name: &str) {
        self.engine.stop_container(name, &StopContainer { timeout: Some(0), signal: None }).await.unwrap();
    }

    pub(crate) async fn remove(&self, name: &str) {
        let options = RemoveContainer { force: true, volumes: true, link: false };
        self.engine.remove_container(name, options).await.unwrap();
    }

    /// Removes all containers, ends the engine, and looks for what is left.
    pub(crate) async fn finish(self) {
        let all = berth_api::options::ListContainers { all: true, ..Default::default() };
        for container in self.engine.list_containers(&all).await.unwrap() {
            self.remove(&container.id).await;
        }
        for dir in ["root/containers", "root/snapshots", "run/containers"] {
            let left: Vec<_> = std::fs::read_dir(self.dir.path().join(dir))
                .unwrap()
                .flatten()
                .map(|e| e.file_name())
                .collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        self.engine.shutdown(true).await.unwrap();
    }

    /// Runs an exec to its end: exit code and output, without frames.
    pub(crate) async fn exec(&self, container: &str, json: &str) -> (i64, String) {
        let config: berth_api::exec::ExecConfig = serde_json::from_str(json).unwrap();
        let tty = config.tty;
        let id = self.engine.create_exec(container, config).await.unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.engine.start_exec(&id, None, exec_client(theirs, b"hello", tty)).await.unwrap();
        let bytes = read_to_end(ours).await;
        let bytes = bytes.strip_prefix(b"hello").unwrap().to_vec();
        let code = self.engine.inspect_exec(&id).await.unwrap().exit_code.unwrap();
        let text = if tty { bytes } else { unframe(&bytes) };
        (code, String::from_utf8_lossy(&text).into_owned())
    }
}

/// Who reads an exec's output at the other end of this stream.
pub(crate) fn exec_client(stream: UnixStream, greeting: &[u8], tty: bool) -> ExecClient {
    let reads = if tty { ExecReader::Raw } else { ExecReader::Framed };
    ExecClient { stream: stream.into(), greeting: greeting.to_vec(), ahead: Vec::new(), reads }
}

pub(crate) async fn read_to_end(mut stream: UnixStream) -> Vec<u8> {
    let read = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    read.await.unwrap()
}

pub(crate) async fn write(stream: &UnixStream, bytes: &[u8]) {
    let (mut stream, bytes) = (stream.try_clone().unwrap(), bytes.to_vec());
    tokio::task::spawn_blocking(move || stream.write_all(&bytes).unwrap()).await.unwrap();
}

/// The bytes of all frames.
pub(crate) fn unframe(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = berth_api::stdcopy::Decoder::new();
    decoder.push(bytes);
    let mut all = Vec::new();
    while let Some((_, bytes)) = decoder.next_frame().unwrap() {
        all.extend(bytes);
    }
    assert!(!decoder.has_rest());
    all
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut test: impl FnMut() -> F) {
    for _ in 0..3000 {
        if test().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {what}");
}
