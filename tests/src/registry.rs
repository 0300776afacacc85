//! Debian's docker-registry on a loopback port of its own.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running registry with an empty store; it ends when dropped.
#[derive(Debug)]
pub struct Registry {
    _dir: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Registry {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not listen within [`PATIENCE`](crate::PATIENCE).
    #[must_use]
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts one that knows only `captain` with the password `ahoy`; what it knows them by is kept in `dir`.
    ///
    /// # Panics
    /// As [`Registry::with`], and if the file cannot be written.
    #[must_use]
    pub fn with_login(dir: &Path) -> Self {
        let password = dir.join("htpasswd");
        // By bcrypt, made for the tests.
        let hash = "captain:$2y$05$abcdefghijklmnopqrstuupc2Bh/BcdpJnf0yyNxNgehaXaZ8mK5m";
        std::fs::write(&password, hash).expect("a password file");
        Self::with(&format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", password.display()))
    }

    /// Starts one with further lines of configuration.
    ///
    /// # Panics
    /// If it does not listen within [`PATIENCE`](crate::PATIENCE).
    #[must_use]
    pub fn with(more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("berth-registry").tempdir().expect("temporary directory");
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{more}",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).expect("write the registry's configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry (package docker-registry)");
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < crate::PATIENCE, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { _dir: dir, child, port }
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The full name of `repository` here.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("localhost:{}/{repository}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A loopback port that was free a moment ago. Below the range that the kernel takes for outgoing connections, and
/// another one at each call, so that nobody takes it before its server does.
///
/// # Panics
/// If the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let mut candidates = std::iter::repeat_with(|| {
        let step = CALLS.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + std::process::id().wrapping_mul(97).wrapping_add(step) % 10_000;
        u16::try_from(port).expect("below 30000")
    });
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.by_ref().take(10_000).find(free).expect("a free loopback port")
}
