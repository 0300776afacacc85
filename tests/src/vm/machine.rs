//! The machine itself: qemu without virtualisation hardware, and its console.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The longest suite takes three minutes on an idle machine; this is for a very busy one.
const PATIENCE: Duration = Duration::from_secs(1500);

/// What the console said.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases that were `ok`.
    pub passed: usize,
    /// What the others said.
    pub failed: Vec<String>,
    /// All that came.
    pub console: Vec<String>,
}

/// A machine that runs; ended with its guard.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has usually powered itself off; both calls are then without effect.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Machine {
    /// Boots. `arguments` are for the kernel, `devices` for qemu.
    ///
    /// # Errors
    /// There is no qemu.
    pub fn start(kernel: &Path, initramfs: &Path, arguments: &str, devices: &[&str]) -> Result<Self> {
        // The kernel's tests of its own ciphers take long in emulation, and hang it when the machine is busy; that of its
        // timer then fails.
        let quick = "quiet mitigations=off random.trust_cpu=on cryptomgr.notests no_timer_check";
        let command_line = format!("console=ttyS0 panic=-1 {quick} {arguments}");
        let arguments: [OsString; 16] = [
            "-machine".into(),
            "accel=tcg".into(),
            "-cpu".into(),
            "max".into(),
            "-smp".into(),
            "2".into(),
            "-m".into(),
            "1536".into(),
            "-nographic".into(),
            "-no-reboot".into(),
            "-kernel".into(),
            kernel.into(),
            "-initrd".into(),
            initramfs.into(),
            "-append".into(),
            command_line.into(),
        ];
        let mut child = Command::new("qemu-system-x86_64")
            .args(arguments)
            .args(devices)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start qemu-system-x86_64: install qemu-system-x86")?;
        let console = child.stdout.take().expect("piped above");
        let (send, lines) = mpsc::channel();
        // It ends with the console.
        std::thread::spawn(move || {
            let mut reader = BufReader::new(console);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line of its console; none if it is off.
    ///
    /// # Errors
    /// Nothing came until the deadline.
    pub fn line(&self, deadline: Instant) -> Result<Option<String>> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("the machine says nothing any more"),
        }
    }

    /// Cuts its power; what it had said until then.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn cut(mut self) -> Result<Vec<String>> {
        self.child.kill().context("end qemu")?;
        self.child.wait().context("wait for qemu")?;
        Ok(self.lines.iter().collect())
    }
}

/// Boots, and reads results until the machine is off. `arguments` are for the kernel.
///
/// # Errors
/// There is no qemu, or the machine does not end.
pub fn boot(kernel: &Path, initramfs: &Path, arguments: &str) -> Result<Tally> {
    let machine = Machine::start(kernel, initramfs, arguments, &["-nic", "none"])?;
    let deadline = Instant::now() + PATIENCE;
    let mut tally = Tally::default();
    loop {
        let line = match machine.line(deadline) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(tally),
            Err(_) => {
                bail!("the machine did not end within {PATIENCE:?}; it said:\n{}", tally.console.join("\n"))
            }
        };
        if let Some(why) = line.strip_prefix("not ok ") {
            tally.failed.push(why.to_owned());
        } else if line.starts_with("ok ") {
            tally.passed += 1;
        }
        if line.starts_with("ok ") || line.starts_with("not ok ") || line.starts_with('#') {
            writeln!(std::io::stdout(), "{line}").ok();
        }
        tally.console.push(line);
    }
}
