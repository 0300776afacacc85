//! Boots a kernel whose only cgroup hierarchy is version 2 and runs real cases in it.
//!
//! ```text
//!  apt-get download ─▶ kernel + modules (cached) ─┐
//!  cargo rustc +crt-static ─▶ vm_guest ───────────┼─▶ initramfs ─▶ qemu (TCG) ─▶ serial console ─▶ ok / not ok
//!  tests/vm/init, cases/*.sh, static binaries ────┘
//! ```
//!
//! The machine under the tests has cgroup v1; this is how the other half of the engine is tested everywhere, without
//! virtualisation hardware. Further cases: `tests/vm/cases/README.md`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Results of vm_guest.
const GUEST_CASES: usize = 16;
/// A boot under TCG takes 10 to 20 s on an idle machine; this is for a busy one.
const PATIENCE: Duration = Duration::from_secs(240);
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

#[test]
fn cgroup_v2_machine() {
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

fn run() -> Result<()> {
    let start = Instant::now();
    let kernel = Kernel::obtain()?;
    let mut image = Image::default();
    let guest = build_guest()?;
    image.file("bin/vm_guest", 0o755, &guest)?;
    image.file("bin/busybox", 0o755, &busybox()?)?;
    image.file("init", 0o755, &sources().join("init"))?;
    kernel.add_modules(&mut image)?;
    let expected = GUEST_CASES + add_cases(&mut image)?;
    let scratch = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
    let initramfs = scratch.path().join("initramfs");
    fs::write(&initramfs, image.finish())?;
    println!("# prepared in {:.1} s", start.elapsed().as_secs_f32());
    let tally = boot(&kernel.image, &initramfs)?;
    println!(
        "{} passed, {} failed in {:.1} s",
        tally.passed,
        tally.failed.len(),
        start.elapsed().as_secs_f32()
    );
    ensure!(tally.failed.is_empty(), "failed in the machine:\n{}", tally.failed.join("\n"));
    ensure!(
        tally.passed >= expected,
        "{} results came, {expected} were expected; the console said:\n{}",
        tally.passed,
        tally.console.join("\n")
    );
    Ok(())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn sources() -> PathBuf {
    workspace().join("tests/vm")
}

/// Runs a command and gives its standard output.
fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A distribution kernel, unpacked in the user's cache.
struct Kernel {
    image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    fn obtain() -> Result<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .unwrap_or_else(|| workspace().join("target"))
            .join("berth-vm");
        let unpacked = cache.join("kernel");
        if !unpacked.join("boot").is_dir() {
            download(&cache, &unpacked)?;
        }
        let image = fs::read_dir(unpacked.join("boot"))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
            .with_context(|| {
                format!("no kernel below {}; remove it to download again", unpacked.display())
            })?;
        let mut modules = BTreeMap::new();
        find_modules(&unpacked.join("lib/modules"), &mut modules)?;
        Ok(Self { image, modules })
    }

    /// The modules of `tests/vm/modules` and what they depend on, in loading order.
    fn add_modules(&self, image: &mut Image) -> Result<()> {
        let mut order = Vec::new();
        for name in fs::read_to_string(sources().join("modules"))?.lines() {
            self.add_module(name, &mut order)?;
        }
        let mut list = String::new();
        for name in &order {
            image.file(&format!("modules/{name}.ko"), 0o644, &self.modules[name])?;
            list += &format!("{name}.ko\n");
        }
        image.entry("modules/order", 0o100_644, list.as_bytes());
        Ok(())
    }

    fn add_module(&self, name: &str, order: &mut Vec<String>) -> Result<()> {
        let name = name.replace('-', "_");
        // What is not a file is built into the kernel.
        let Some(path) = self.modules.get(&name) else { return Ok(()) };
        if order.contains(&name) {
            return Ok(());
        }
        let bytes = fs::read(path)?;
        for needed in depends(&bytes) {
            self.add_module(&needed, order)?;
        }
        order.push(name);
        Ok(())
    }
}

/// `depends=a,b` of a module's .modinfo section.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let rest = &module[at + key.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn find_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_modules(&path, found)?;
        } else if let Some(name) =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko").map(str::to_owned))
        {
            found.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn download(cache: &Path, unpacked: &Path) -> Result<()> {
    println!("# downloading {KERNEL_PACKAGE} into {}", cache.display());
    fs::create_dir_all(cache)?;
    let depends = output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|version| format!("linux-image-{version}"))
        .with_context(|| format!("{KERNEL_PACKAGE} is not in the package lists: run apt-get update"))?;
    let scratch = tempfile::Builder::new().prefix("download-").tempdir_in(cache)?;
    // Root downloads as itself: apt's own user cannot write here, which it would warn about.
    let sandbox = ["-o", "APT::Sandbox::User=root"];
    output(
        Command::new("apt-get").args(sandbox).args(["-q", "download", &package]).current_dir(scratch.path()),
    )?;
    let archive = fs::read_dir(scratch.path())?.next().context("apt-get downloaded nothing")??.path();
    let fresh = scratch.path().join("kernel");
    output(Command::new("dpkg").arg("-x").arg(&archive).arg(&fresh))?;
    fs::rename(&fresh, unpacked).context("move the kernel into the cache")?;
    Ok(())
}

/// Builds the guest's program: static, so that it needs nothing of a distribution around it.
fn build_guest() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let listing = output(
        Command::new(cargo)
            .current_dir(workspace())
            .args(["rustc", "-q", "-p", "berth-cgroup", "--example", "vm_guest", "--message-format=json"])
            .args(["--", "-C", "target-feature=+crt-static"]),
    )?;
    let path = listing
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo named no executable")?;
    ensure!(is_static(&path)?, "{} is not statically linked", path.display());
    Ok(path)
}

fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/initramfs-tools/bin/busybox"];
    for path in places.map(PathBuf::from) {
        if path.is_file() && is_static(&path)? {
            return Ok(path);
        }
    }
    bail!("no static busybox: install busybox-static")
}

/// An ELF file without an interpreter (program header PT_INTERP, elf(5)).
fn is_static(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let word = |at: usize, size: usize| -> Option<u64> {
        let mut value = [0u8; 8];
        value[..size].copy_from_slice(bytes.get(at..at + size)?);
        Some(u64::from_le_bytes(value))
    };
    let headers = || {
        let (offset, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
        (0..count).map(|at| word((offset + at * size) as usize, 4)).collect::<Option<Vec<_>>>()
    };
    const PT_INTERP: u64 = 3;
    Ok(bytes.starts_with(b"\x7fELF") && headers().is_some_and(|types| !types.contains(&PT_INTERP)))
}

/// Puts the scripts of `tests/vm/cases` in whose binaries are there; gives the number of results to expect.
fn add_cases(image: &mut Image) -> Result<usize> {
    let mut expected = 0;
    let mut scripts: Vec<_> =
        fs::read_dir(sources().join("cases"))?.flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    scripts.sort();
    for script in scripts {
        let text = fs::read_to_string(&script)?;
        let header = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let needs: Vec<&str> = header("# needs:").split_whitespace().collect();
        let missing: Vec<_> = needs.iter().filter(|need| binary(need).is_none()).collect();
        if !missing.is_empty() {
            let why = format!("{name} is left out: no {missing:?} in BERTH_BIN_DIR");
            ensure!(std::env::var_os("BERTH_VM_STRICT").is_none(), "{why}");
            println!("# {why}");
            continue;
        }
        for need in needs {
            if let Some(path) = binary(need) {
                image.file(&format!("bin/{need}"), 0o755, &path)?;
                image.libraries_of(&path)?;
            }
        }
        let count = header("# expect:").trim().parse::<usize>();
        expected += count.with_context(|| format!("{name} has no line '# expect: N'"))?;
        image.file(&format!("cases/{name}"), 0o755, &script)?;
    }
    Ok(expected)
}

fn binary(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("BERTH_BIN_DIR")?).join(name);
    path.exists().then_some(path)
}

/// An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
    directories: Vec<String>,
    libraries: Vec<String>,
    inode: u32,
}

impl Image {
    /// The shared libraries and the loader of a dynamically linked program, where the loader looks for them.
    fn libraries_of(&mut self, program: &Path) -> Result<()> {
        let output = Command::new("ldd").arg(program).output().context("ldd")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let name = path.trim_start_matches('/').to_owned();
            if !self.libraries.contains(&name) {
                self.file(&name, 0o755, Path::new(path))?;
                self.libraries.push(name);
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &str, mode: u32, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        self.entry(name, 0o100_000 | mode, &content);
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        // A directory comes before what is in it.
        for (at, _) in name.match_indices('/') {
            let parent = &name[..at];
            if !self.directories.iter().any(|known| known == parent) {
                self.directories.push(parent.to_owned());
                self.raw(parent, 0o040_755, &[]);
            }
        }
        self.raw(name, mode, content);
    }

    fn raw(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).expect("files of an initramfs are small");
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        for mount_point in ["proc", "sys", "dev", "tmp", "run", "var", "root", "etc"] {
            self.raw(mount_point, 0o040_755, &[]);
        }
        self.raw("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    console: Vec<String>,
}

/// The machine; ended with its guard.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has usually powered itself off; both calls are then without effect.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn boot(kernel: &Path, initramfs: &Path) -> Result<Tally> {
    let arguments: [OsString; 18] = [
        "-machine".into(),
        "accel=tcg".into(),
        "-cpu".into(),
        "max".into(),
        "-smp".into(),
        "2".into(),
        "-m".into(),
        "1024".into(),
        "-nographic".into(),
        "-no-reboot".into(),
        "-nic".into(),
        "none".into(),
        "-kernel".into(),
        kernel.into(),
        "-initrd".into(),
        initramfs.into(),
        "-append".into(),
        "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off random.trust_cpu=on".into(),
    ];
    let mut child = Command::new("qemu-system-x86_64")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start qemu-system-x86_64: install qemu-system-x86")?;
    let console = child.stdout.take().expect("piped above");
    let machine = Machine(child);
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut reader = BufReader::new(console);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    let tally = listen(&lines);
    drop(machine);
    drop(lines);
    reader.join().ok();
    tally
}

/// Reads the console until the machine is off or patience is over.
fn listen(lines: &mpsc::Receiver<String>) -> Result<Tally> {
    let deadline = Instant::now() + PATIENCE;
    let mut tally = Tally::default();
    loop {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(tally),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the machine did not end within {PATIENCE:?}; it said:\n{}", tally.console.join("\n"));
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
