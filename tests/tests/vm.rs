//! Boots a kernel whose only cgroup hierarchy is version 2 and runs real cases in it: once with nothing else, once under
//! systemd.
//!
//! ```text
//!  apt-get download ─▶ kernel + modules (cached) ─┐
//!  cargo rustc +crt-static ─▶ vm_guest ───────────┼─▶ initramfs ─▶ qemu (TCG) ─▶ serial console ─▶ ok / not ok
//!  tests/vm/init, cases/*.sh, static binaries ────┘
//!
//!  mmdebstrap ─▶ systemd, dbus (cached) ──────────┬─▶ the same with systemd as process 1
//!  tests/vm/systemd, berth-runtime ───────────────┘
//! ```
//!
//! The machine under the tests has cgroup v1; this is how the other half of the engine is tested everywhere, without
//! virtualisation hardware. Further cases: `tests/vm/cases/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_tests::vm::{
    Image, Kernel, add_systemd, binary, boot, busybox, is_static, output, sources, workspace,
};

/// Results of vm_guest.
const GUEST_CASES: usize = 22;
/// The client of the CRI that runs in the machines; a program of this package.
const PODS: &str = "vm_pods";
/// One machine at a time: each has two processors to emulate.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn cgroup_v2_machine() {
    run(|image, kernel| {
        image.file("bin/vm_guest", 0o755, &build_guest()?)?;
        image.file("bin/busybox", 0o755, &busybox()?)?;
        image.file("init", 0o755, &sources().join("init"))?;
        kernel.add_modules(image)?;
        Ok((GUEST_CASES + add_cases(image)?, "cgroup_no_v1=all"))
    });
}

#[test]
fn systemd_machine() {
    run(|image, kernel| {
        add_systemd(image)?;
        for name in ["berth-runtime", "berthd", "berth", "berth-shim", PODS] {
            let path = program(name)?.with_context(|| format!("{name} is not in BERTH_BIN_DIR"))?;
            image.file(&format!("berth/{name}"), 0o755, &path)?;
            image.libraries_of(&path)?;
        }
        kernel.add_modules(image)?;
        let mut results = 0;
        for name in ["cases.sh", "pods.sh"] {
            let script = sources().join("systemd").join(name);
            image.file(&format!("berth/{name}"), 0o755, &script)?;
            results += expected(&fs::read_to_string(script)?)?;
        }
        let arguments = "systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 systemd.unit=cases.service";
        Ok((results, arguments))
    });
}

/// Fills an image and boots it. `fill` gives the number of results to expect and arguments for the kernel.
fn run(fill: impl FnOnce(&mut Image, &Kernel) -> Result<(usize, &'static str)>) {
    // A machine that failed has nothing to do with the next.
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    try_run(fill).unwrap_or_else(|error| panic!("{error:#}"));
}

fn try_run(fill: impl FnOnce(&mut Image, &Kernel) -> Result<(usize, &'static str)>) -> Result<()> {
    let start = Instant::now();
    let kernel = Kernel::obtain()?;
    let mut image = Image::default();
    let (expected, arguments) = fill(&mut image, &kernel)?;
    let scratch = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
    let initramfs = scratch.path().join("initramfs");
    fs::write(&initramfs, image.finish())?;
    println!("# prepared in {:.1} s", start.elapsed().as_secs_f32());
    let tally = boot(&kernel.image, &initramfs, arguments)?;
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

/// The number of results a script says it has: `# expect: 4`.
fn expected(script: &str) -> Result<usize> {
    let count = script.lines().find_map(|line| line.strip_prefix("# expect:"));
    count.context("no line '# expect: N'")?.trim().parse().context("'# expect: N'")
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

/// Puts the scripts of `tests/vm/cases` in whose binaries are there; gives the number of results to expect.
fn add_cases(image: &mut Image) -> Result<usize> {
    let mut total = 0;
    let mut scripts: Vec<_> =
        fs::read_dir(sources().join("cases"))?.flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    scripts.sort();
    for script in scripts {
        let text = fs::read_to_string(&script)?;
        let header = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let needs: Vec<&str> = header("# needs:").split_whitespace().collect();
        let mut missing = Vec::new();
        for need in &needs {
            match program(need)? {
                None => missing.push(*need),
                Some(path) => {
                    image.file(&format!("bin/{need}"), 0o755, &path)?;
                    image.libraries_of(&path)?;
                }
            }
        }
        if !missing.is_empty() {
            let why = format!("{name} is left out: no {missing:?} in BERTH_BIN_DIR");
            ensure!(std::env::var_os("BERTH_VM_STRICT").is_none(), "{why}");
            println!("# {why}");
            continue;
        }
        for program in header("# programs:").split_whitespace() {
            let path = on_path(program).with_context(|| format!("{name} needs {program}"))?;
            image.file(&format!("bin/{program}"), 0o755, &path)?;
            image.libraries_of(&path)?;
        }
        for directory in header("# files:").split_whitespace() {
            for entry in
                fs::read_dir(workspace().join(directory))?.flatten().filter(|entry| entry.path().is_file())
            {
                let file = entry.file_name().to_string_lossy().into_owned();
                image.file(&format!("files/{directory}/{file}"), 0o644, &entry.path())?;
            }
        }
        total += expected(&text).with_context(|| name.clone())?;
        image.file(&format!("cases/{name}"), 0o755, &script)?;
    }
    Ok(total)
}

/// A program of Berth's, or the one of this package without its symbols: the machines have little memory.
fn program(name: &str) -> Result<Option<PathBuf>> {
    if name != PODS {
        return Ok(binary(name));
    }
    let small = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    output(Command::new("strip").arg("-o").arg(&small).arg(env!("CARGO_BIN_EXE_vm_pods")))?;
    Ok(Some(small))
}

/// A program of this machine, an administrator's too.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}
