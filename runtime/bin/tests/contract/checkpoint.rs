//! Checkpoint and restore. CRIU does it, and need not be there, nor understand this kernel: then the container goes on and
//! the error says why.

use std::fs;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::json;

use crate::harness::{Case, Said};

/// A program that counts for as long as it lives.
const COUNTS: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.02; done";

/// `criu check`: the program and the kernel understand each other.
fn criu_works() -> bool {
    let mut check = Command::new("criu");
    let status = check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn counting() -> Case {
    let mut case = Case::script(COUNTS);
    let shared = case.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "of the host").unwrap();
    let mount = json!({ "destination": "/shared", "type": "bind", "source": shared, "options": ["bind"] });
    case.push("/mounts", mount);
    case
}

/// Our ends of a container's streams.
type Pipes = (ChildStdin, ChildStdout, ChildStderr);

/// Whatever is restored finds its streams again if they are pipes.
fn with_pipes(case: &Case, verb: &[&str]) -> Pipes {
    let bundle = case.path().to_str().unwrap();
    let mut command = case.command(&[verb, &["--bundle", bundle, &case.id]].concat());
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    if !child.wait().unwrap().success() {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        panic!("{verb:?}: {said}");
    }
    (stdin, stdout, stderr)
}

fn checkpoint(case: &Case, flags: &[&str]) -> Said {
    let (images, work) = (case.path().join("images"), case.path().join("work"));
    let paths =
        ["checkpoint", "--image-path", images.to_str().unwrap(), "--work-path", work.to_str().unwrap()];
    case.call(&[&paths[..], flags].concat(), &[])
}

fn count(case: &Case) -> u64 {
    let path = case.rootfs().join("tmp/count");
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[track_caller]
fn wait_beyond(case: &Case, number: u64) {
    for _ in 0..500 {
        if count(case) > number {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not count beyond {number}");
}

#[test]
fn a_container_is_saved_and_comes_back() {
    let case = counting();
    let mut pipes = with_pipes(&case, &["run", "-d"]);
    wait_beyond(&case, 3);
    if !criu_works() {
        let said = checkpoint(&case, &[]);
        assert!(said.err.to_lowercase().contains("criu"), "{said:?}");
        said.refuses(1, "");
        assert_eq!(case.status(), "running");
        return;
    }
    checkpoint(&case, &["--leave-running", "--manage-cgroups-mode", "ignore"]).ok();
    assert_eq!(case.status(), "running");
    // With `soft`, which is the default, CRIU makes the groups, and mounts what it needs for that in its working directory.
    for mode in ["ignore", "soft"] {
        checkpoint(&case, &["--manage-cgroups-mode", mode]).ok();
        case.call(&["state"], &[]).fails_with("does not exist");
        assert_eq!(case.leftovers(), Vec::<String>::new());
        drop(pipes);
        let before = count(&case);
        let (images, work) = (case.path().join("images"), case.path().join("work"));
        let pid_file = case.path().join("pid");
        let paths = [
            "restore",
            "-d",
            "--image-path",
            images.to_str().unwrap(),
            "--work-path",
            work.to_str().unwrap(),
        ];
        let rest = ["--manage-cgroups-mode", mode, "--pid-file", pid_file.to_str().unwrap()];
        pipes = with_pipes(&case, &[&paths[..], &rest].concat());
        assert_eq!(case.status(), "running");
        assert_eq!(fs::read_to_string(pid_file).unwrap(), case.state()["pid"].to_string());
        wait_beyond(&case, before);
        assert_eq!(case.call(&["exec"], &["cat", "/shared/file"]).ok(), "of the host");
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", case.state()["pid"])).unwrap();
        assert!(cgroup.contains(&case.id), "{cgroup}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let case = counting();
    case.call_detached(&["create"]).ok();
    checkpoint(&case, &[]).fails_with("cannot be checkpointed in created state");
    case.call(&["start"], &[]).ok();
    wait_beyond(&case, 1);
    for (flag, value, text) in [
        ("--parent-path", "/absolute", "--parent-path"),
        ("--parent-path", "./no-such-directory", "--parent-path"),
        ("--page-server", "nowhere", "--page-server"),
        ("--page-server", "host:door", "nvalid port number"),
        ("--manage-cgroups-mode", "sideways", "manage-cgroups-mode"),
        ("--empty-ns", "pid", "is not supported"),
    ] {
        let images = case.path().join("images");
        let said = case.call(&["checkpoint", "--image-path", images.to_str().unwrap(), flag, value], &[]);
        said.fails_with(text);
        assert_eq!(case.status(), "running", "{flag} {value}");
    }
}

#[test]
fn a_restore_from_nothing_leaves_nothing() {
    let case = counting();
    let images = case.path().join("images");
    let said = case.call_detached(&["restore", "-d", "--image-path", images.to_str().unwrap()]);
    assert_ne!(said.code, 0, "{said:?}");
    said.refuses(1, "");
    case.call(&["state"], &[]).fails_with("does not exist");
    assert_eq!(case.leftovers(), Vec::<String>::new());
}

#[test]
fn a_machine_without_criu_is_told_so() {
    let case = counting();
    case.call_detached(&["run", "-d"]).ok();
    let images = case.path().join("images");
    let mut command = case.command(&["checkpoint", "--image-path", images.to_str().unwrap(), &case.id]);
    let said = Said::from(command.env("PATH", "/no/such/directory").output().unwrap());
    assert!(said.err.contains("criu"), "{said:?}");
    said.refuses(1, "the program criu, which is not in PATH");
    assert_eq!(case.status(), "running");
}
