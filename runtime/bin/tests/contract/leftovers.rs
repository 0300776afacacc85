//! A creation that fails at any step leaves nothing: no mount, no cgroup, no process, no state. (Mounts, cgroups and
//! state are looked for when a case ends.)

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Case, is_ours};

/// Processes that have to do with this container.
fn processes(case: &Case) -> Vec<String> {
    let place = case.path().to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let command = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).ok();
    entries.filter_map(command).filter(|line| line.contains(place)).collect()
}

#[track_caller]
fn nothing_is_left(case: &Case, why: &str) {
    assert_eq!(processes(case), Vec::<String>::new(), "{why}");
    assert_eq!(case.leftovers(), Vec::<String>::new(), "{why}");
}

/// A change to the configuration that makes one step fail, and the step.
fn faults() -> Vec<(&'static str, &'static str, Value)> {
    let mount = |kind: &str, destination: &str, options: Value| json!({ "destination": destination, "type": kind, "source": "/no/such/source", "options": options });
    let failing = |path: &str| json!([{ "path": path }]);
    vec![
        ("compile", "/process/cwd", json!("relative")),
        ("cgroup limit", "/linux/resources", json!({ "memory": { "limit": 1 } })),
        ("cgroup value", "/linux/resources", json!({ "cpu": { "cpus": "4000" } })),
        (
            "namespace to join",
            "/linux/namespaces/1",
            json!({ "type": "network", "path": "/no/such/namespace" }),
        ),
        (
            "kind of namespace",
            "/linux/namespaces/1",
            json!({ "type": "network", "path": "/proc/self/ns/uts" }),
        ),
        ("id maps", "/linux/namespaces/1", json!({ "type": "user" })),
        ("root", "/root/path", json!("no-such-root")),
        ("root is a file", "/root/path", json!("config.json")),
        ("root propagation", "/linux/rootfsPropagation", json!("sideways")),
        ("bind", "/mounts/4", mount("bind", "/x", json!(["bind"]))),
        ("file system type", "/mounts/4", mount("no-such-fs", "/x", json!([]))),
        ("file system option", "/mounts/4", mount("tmpfs", "/x", json!(["size=much"]))),
        ("place of a mount", "/mounts/4", mount("tmpfs", "/bin/busybox/x", json!([]))),
        ("mount in /proc", "/mounts/4", mount("tmpfs", "/link", json!([]))),
        ("remount", "/mounts/4", mount("tmpfs", "/no/such/place", json!(["remount"]))),
        (
            "device",
            "/linux/devices",
            json!([{ "path": "/bin/busybox/x", "type": "c", "major": 1, "minor": 3 }]),
        ),
        (
            "device in the way",
            "/linux/devices",
            json!([{ "path": "/bin/busybox", "type": "c", "major": 1, "minor": 3 }]),
        ),
        ("prestart hook", "/hooks", json!({ "prestart": failing("/bin/false") })),
        ("missing hook", "/hooks", json!({ "createRuntime": failing("/no/such/hook") })),
        ("createContainer hook", "/hooks", json!({ "createContainer": failing("/bin/false") })),
        ("working directory", "/process/cwd", json!("/bin/busybox/x")),
        ("sysctl", "/linux/sysctl", json!({ "net.ipv4.ip_forward": "sideways" })),
        ("unknown sysctl", "/linux/sysctl", json!({ "net.no.such": "1" })),
        ("scheduler", "/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 1000 })),
        ("AppArmor", "/process/apparmorProfile", json!("no-such-profile")),
        ("SELinux", "/process/selinuxLabel", json!("no:such:label")),
        (
            "seccomp",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
        ),
        ("program", "/process/args", json!(["/no/such/program"])),
        ("program is a directory", "/process/args", json!(["/bin"])),
        ("terminal", "/process/terminal", json!(true)),
        ("startContainer hook", "/hooks", json!({ "startContainer": failing("/no/such/hook") })),
    ]
}

#[test]
fn a_failing_step_leaves_nothing() {
    // runc takes what is in the place of a device for the device.
    let ends = |step: &str| is_ours() || step != "device in the way";
    for (step, pointer, value) in faults().into_iter().filter(|(step, ..)| ends(step)) {
        let mut case = Case::new(&["/bin/true"]);
        symlink("/proc/self", case.rootfs().join("link")).unwrap();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match case.config.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            object => object[name] = value,
        }
        // The hook of start is reached by run only.
        let verbs: &[&str] = match step {
            "startContainer hook" => &["run"],
            // In front of a user, run would serve it.
            "terminal" => &["create"],
            _ => &["run", "create"],
        };
        for verb in verbs {
            let said = case.call_detached(&[verb]);
            assert_ne!(said.code, 0, "{step}: {said:?}");
            assert!(!said.err.contains("panicked"), "{step}: {said:?}");
            said.refuses(1, "");
            nothing_is_left(&case, step);
        }
    }
}

/// The same for every step that opens something: there is one descriptor less each time.
#[test]
fn nothing_is_left_wherever_descriptors_run_out() {
    let case = Case::new(&["/bin/true"]);
    for (failed, limit) in (4..64).enumerate() {
        let runtime = case.command(&["run", "--bundle", case.path().to_str().unwrap(), &case.id]);
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
            .arg(runtime.get_program())
            .args(runtime.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{limit}: {said}");
        if output.status.success() {
            assert!(failed > 3, "the limit made no difference");
            return;
        }
        nothing_is_left(&case, &format!("with {limit} descriptors: {said}"));
    }
    panic!("64 descriptors are not enough");
}

/// A runtime that is killed cannot clean up; `delete --force` does, and no process outlives it.
#[test]
fn a_killed_creation_is_swept_up() {
    // runc leaves the cgroups of some.
    if !is_ours() {
        return;
    }
    for delay in 0..24 {
        let case = Case::new(&["/bin/true"]);
        let mut child = case
            .command(&["create", "--bundle", case.path().to_str().unwrap(), &case.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(500 * delay));
        child.kill().unwrap();
        child.wait().unwrap();
        case.call(&["delete", "--force"], &[]).ok();
        nothing_is_left(&case, &format!("killed after {delay} half milliseconds"));
    }
}
