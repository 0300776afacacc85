//! The image store survives a power cut: a virtual machine is killed at random moments of pull, load, commit, rmi and prune,
//! its disk kept. After each boot the store proves itself whole, what was reported as done is there, and what was reported
//! as removed is not.
//!
//! ```text
//!  disk image ──▶ boot: check, list ──▶ images come and go … ── SIGKILL to qemu ──┐
//!       ▲                                                                          │
//!       └──────────────── what the machine had written, not what it had cached ◀───┘
//! ```
//! `POWER_CUTS` sets how often (4).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use berth_tests::cli::{Frontend, bin_dir};
use berth_tests::daemon::Daemon;
use berth_tests::scene::{Dice, Scene, number};
use berth_tests::vm::{Image, Kernel, Machine, busybox, output, sources};

/// The longest that a boot takes on a very busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const DISK: u64 = 2 << 30;

/// What must be, as far as the machine has said.
#[derive(Debug, Default)]
struct Expected {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
    done: usize,
}

impl Expected {
    /// Takes a line of the console.
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [moment, verb, name] = words[..] else { return };
        // An archive has two images; the container keeps one of them.
        let names = if verb == "load" { vec!["loaded:0", "loaded:1"] } else { vec![name] };
        let names = || names.iter().map(|name| (*name).to_owned());
        self.done += usize::from(moment == "done");
        match (moment, verb) {
            ("begin", "rmi") => self.there.retain(|known| known != name),
            ("begin", "prune") => self.there.retain(|known| known == "loaded:0"),
            ("begin", _) => self.gone.retain(|known| !names().any(|name| name == *known)),
            ("done", "rmi") => self.gone.extend(names()),
            ("done", "prune") => {}
            ("done", _) => self.there.extend(names()),
            _ => {}
        }
    }

    fn compare(&self, have: &BTreeSet<String>, console: &[String]) -> Result<()> {
        let said = || console.join("\n");
        let lost: Vec<_> = self.there.difference(have).collect();
        ensure!(lost.is_empty(), "lost: {lost:?}; there are {have:?}; the machine had said:\n{}", said());
        let back: Vec<_> = self.gone.intersection(have).collect();
        ensure!(back.is_empty(), "back from the dead: {back:?}; the machine had said:\n{}", said());
        Ok(())
    }
}

struct Power {
    kernel: Kernel,
    initramfs: std::path::PathBuf,
    drive: String,
    arguments: String,
}

impl Power {
    fn machine(&self, more: &str) -> Result<Machine> {
        let arguments = format!("cgroup_no_v1=all {} {more}", self.arguments);
        let devices = ["-drive", &self.drive, "-nic", "user,model=virtio-net-pci"];
        Machine::start(&self.kernel.image, &self.initramfs, &arguments, &devices)
    }

    /// Boots as far as it says `until`, or until it is off, and compares what is there.
    fn boot(
        &self,
        expected: &Expected,
        console: &[String],
        until: Option<&str>,
        more: &str,
    ) -> Result<Machine> {
        let machine = self.machine(more)?;
        let deadline = Instant::now() + PATIENCE;
        let (mut have, mut checked, mut heard) = (BTreeSet::new(), false, Vec::new());
        while let Some(line) = machine.line(deadline)? {
            heard.push(line.clone());
            if let Some(name) = line.strip_prefix("have ") {
                have.insert(name.to_owned());
            }
            if let Some(said) = line.strip_prefix("check: ") {
                ensure!(said.starts_with("0 "), "{said}; before the cut:\n{}", console.join("\n"));
                expected.compare(&have, console)?;
                checked = true;
            }
            ensure!(!line.starts_with("failed: "), "{line}; before the cut:\n{}", console.join("\n"));
            if until == Some(line.as_str()) {
                ensure!(checked, "the machine did not check its store");
                return Ok(machine);
            }
        }
        ensure!(checked, "the machine went off before it had checked its store:\n{}", heard.join("\n"));
        Ok(machine)
    }
}

fn initramfs(kernel: &Kernel, archive: &Path) -> Result<Vec<u8>> {
    let mut image = Image::default();
    image.file("bin/busybox", 0o755, &busybox()?)?;
    for name in ["berthd", "berth", "berth-shim"] {
        let path = bin_dir().join(name);
        ensure!(path.exists(), "{} is not built", path.display());
        image.file(&format!("bin/{name}"), 0o755, &path)?;
        image.libraries_of(&path)?;
    }
    image.file("init", 0o755, &sources().join("powercut/init"))?;
    image.file("images.tar", 0o644, archive)?;
    kernel.add_modules(&mut image)?;
    Ok(image.finish())
}

#[test]
fn a_power_cut_at_any_moment_leaves_the_store_whole() {
    cut().unwrap_or_else(|error| panic!("{error:#}"));
}

fn cut() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 | 1;
    let mut dice = Dice(seed);
    let daemon = Daemon::with_busybox();
    let scene = Scene::prepare(&daemon.cli(Frontend::Docker), &mut dice, &daemon.scratch("power"));
    let kernel = Kernel::obtain()?;
    let scratch = tempfile::Builder::new().prefix("berth-power-").tempdir()?;
    let (initramfs_path, disk) = (scratch.path().join("initramfs"), scratch.path().join("disk"));
    std::fs::write(&initramfs_path, initramfs(&kernel, &scene.archive)?)?;
    File::create(&disk)?.set_len(DISK)?;
    output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk))?;
    let power = Power {
        kernel,
        initramfs: initramfs_path,
        drive: format!("file={},format=raw,if=virtio", disk.display()),
        arguments: format!("registry=10.0.2.2:{}", scene.registry.port()),
    };

    let (mut expected, mut console) = (Expected::default(), Vec::new());
    for round in 0..number("POWER_CUTS", 4) {
        let machine =
            power.boot(&expected, &console, Some("ready"), "").with_context(|| format!("boot {round}"))?;
        console.clear();
        let end = Instant::now() + Duration::from_millis(500 + dice.below(8000));
        // Reading goes on, so that the console never holds the machine up.
        while let Ok(line) = machine.line(end) {
            let Some(line) = line else { bail!("the machine went off by itself:\n{}", console.join("\n")) };
            // What cannot be done is not tested.
            let refused = ["# pull ", "# load ", "# commit "].iter().any(|verb| line.starts_with(verb));
            ensure!(!refused, "{line}; before:\n{}", console.join("\n"));
            expected.hear(&line);
            console.push(line);
        }
        for line in machine.cut()? {
            expected.hear(&line);
            console.push(line);
        }
        println!(
            "# cut {round}: {}; {} done so far",
            console.last().map_or("nothing", String::as_str),
            expected.done
        );
    }
    power.boot(&expected, &console, None, "last=1").context("the last boot")?;
    ensure!(expected.done > 0, "nothing was ever done");
    Ok(())
}
