//! The runtime's own program, processes and descriptors.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::Case;
use crate::intruder::Intrusion;

/// Deeper than any directory on the way.
const UP: &str = "../../../../../../../../../../../..";

fn wait_for(path: &Path) {
    for _ in 0..1000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} never appeared", path.display());
}

/// CVE-2019-5736: a program of the image leads back to the runtime's own, which another process of the container then
/// opens for writing. Here as a link, and as the interpreter of a script.
#[test]
fn the_runtime_cannot_be_overwritten() {
    let probe = Case::new(&["/bin/true"]);
    let original = PathBuf::from(probe.command(&[]).get_program());
    let place = tempfile::Builder::new().prefix("berth-escape-").tempdir().unwrap();
    let runtime = place.path().join("berth-runtime");
    fs::copy(&original, &runtime).unwrap();
    let before = fs::read(&runtime).unwrap();
    let intrusion = Intrusion::new("overwrite", &runtime);
    let case = &intrusion.case;
    let script = case.rootfs().join("bin/script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let state = case.path().join("state");
    let bundle = case.path().to_str().unwrap();
    let call = |args: &[&str]| {
        // Makes config.json, too.
        case.command(&[]);
        let mut command = Command::new(&runtime);
        command.arg("--root").arg(&state).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    };
    assert!(call(&["run", "-d", "--bundle", bundle, &case.id]).success());
    wait_for(&intrusion.loot.join("ready"));
    for _ in 0..30 {
        // It lists containers in there, and is there to be caught meanwhile.
        call(&["exec", &case.id, "/bin/self", "--root", "/tmp", "list"]);
        call(&["exec", &case.id, "/bin/script"]);
    }
    fs::write(intrusion.loot.join("stop"), "").unwrap();
    case.wait_for("stopped");
    assert!(!intrusion.found("caught").is_empty(), "nothing was caught, so nothing was tried");
    assert!(!intrusion.loot.join("overwritten").exists());
    assert!(fs::read(&runtime).unwrap() == before, "the program on the host has changed");
}

/// CVE-2016-9962: an exec enters the container's namespaces before it has given up its privileges.
#[test]
fn an_exec_cannot_be_traced_or_robbed() {
    let intrusion = Intrusion::new("rob", Path::new("/bin/true"));
    let case = &intrusion.case;
    case.call_detached(&["run", "-d"]).ok();
    wait_for(&intrusion.loot.join("ready"));
    for _ in 0..400 {
        case.call(&["exec"], &["/bin/true"]).ok();
        if intrusion.found("seen").parse().is_ok_and(|seen: u32| seen >= 5) {
            break;
        }
    }
    fs::write(intrusion.loot.join("stop"), "").unwrap();
    case.wait_for("stopped");
    assert!(!intrusion.found("seen").is_empty(), "the runtime was never seen, so nothing was tried");
    assert_eq!(intrusion.found("taken"), "");
}

/// A container that tells the secret of the host if it finds it by a descriptor's number, and its host's side.
struct Leak {
    case: Case,
}

const LAST: u32 = 24;

impl Leak {
    fn new(args: &[&str]) -> Self {
        let case = Case::new(args);
        fs::write(case.path().join("secret"), "the host's secret").unwrap();
        fs::copy("/bin/busybox", case.path().join("echo")).unwrap();
        Self { case }
    }

    /// A path of the host as seen from the descriptor.
    fn through(&self, number: u32, file: &str) -> String {
        format!("/proc/self/fd/{number}/{UP}{}/{file}", self.case.path().display())
    }

    /// The shell in the container, looking at the host from its working directory.
    fn look(&self) -> String {
        format!("cat {UP}{}/secret", self.case.path().display())
    }

    /// The runtime as a careless caller starts it: with the host's root open as descriptor 9.
    fn careless(&self, verb: &[&str], rest: &[&str]) -> String {
        let runtime = self.case.command(verb);
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "exec 9</; exec \"$0\" \"$@\""])
            .arg(runtime.get_program())
            .args(runtime.get_args());
        if verb[0] == "run" {
            shell.arg("--bundle").arg(self.case.path());
        }
        let output = shell.arg(&self.case.id).args(rest).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// CVE-2024-21626, first and third attack: the working directory, the program or its interpreter is named through a
/// descriptor that the runtime has open.
#[test]
fn leaked_descriptors_lead_nowhere() {
    let mut leak = Leak::new(&["/bin/true"]);
    let script = leak.case.rootfs().join("bin/script");
    for number in 3..LAST {
        leak.case.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        leak.case.config["process"]["args"] = json!(["/bin/sh", "-c", leak.look()]);
        assert_eq!(leak.careless(&["run"], &[]), "", "the working directory is descriptor {number}");
        leak.case.config["process"]["cwd"] = json!("/");
        let tool = leak.through(number, "echo");
        leak.case.config["process"]["args"] = json!([tool, "outside"]);
        assert_eq!(leak.careless(&["run"], &[]), "", "the program is behind descriptor {number}");
        fs::write(&script, format!("#!{tool}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        leak.case.config["process"]["args"] = json!(["/bin/script"]);
        assert_eq!(leak.careless(&["run"], &[]), "", "the interpreter is behind descriptor {number}");
    }
}

/// CVE-2024-21626, second attack: the same by an exec, whose directory may be a link in the image.
#[test]
fn an_exec_leaks_nothing() {
    let leak = Leak::new(&["/bin/sleep", "100"]);
    leak.case.call_detached(&["run", "-d"]).ok();
    for number in 3..LAST {
        let link = format!("/proc/self/fd/{number}");
        let place = leak.case.rootfs().join(format!("fd{number}"));
        std::os::unix::fs::symlink(&link, place).unwrap();
        for cwd in [&link, &format!("/fd{number}")] {
            let said = leak.careless(&["exec", "--cwd", cwd], &["/bin/sh", "-c", &leak.look()]);
            assert_eq!(said, "", "the working directory is {cwd}");
        }
        let tool = leak.through(number, "echo");
        assert_eq!(leak.careless(&["exec"], &[&tool, "outside"]), "", "the program is behind {link}");
    }
    assert_eq!(leak.careless(&["exec"], &["/bin/echo", "inside"]), "inside\n", "what is allowed works");
}
