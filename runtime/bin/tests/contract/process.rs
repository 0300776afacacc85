//! The program, who it is, what it may do; exec.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{Case, is_ours};

/// The texts from which the docker command line computes 127 and 126.
#[test]
fn a_program_that_cannot_run_says_why() {
    let cases = [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", "no such file or directory"),
        ("/etc/plain", "permission denied"),
        ("/etc", "is a directory"),
    ];
    for (program, text) in cases {
        let case = Case::new(&[program]);
        fs::write(case.rootfs().join("etc/plain"), "x").unwrap();
        let said = case.run();
        // runc 1.1 calls a directory "permission denied", which docker maps to the same exit code.
        if is_ours() || !said.err.contains("permission denied") {
            said.fails_with(text);
        }
        case.call(&["state"], &[]).fails_with("does not exist");
        let created = case.call_detached(&["create"]);
        assert!(created.err.contains("unable to start container process: "), "{created:?}");
        created.fails_with("exec: ");
        case.call(&["state"], &[]).fails_with("does not exist");
    }
    let case = Case::new(&["/bin/sleep", "100"]);
    fs::write(case.rootfs().join("etc/plain"), "x").unwrap();
    case.call_detached(&["run", "-d"]).ok();
    for (program, text) in cases.iter().take(3) {
        let said = case.call(&["exec"], &[program]);
        assert_eq!(said.code, 255, "{said:?}");
        said.fails_with(text);
    }
    assert_eq!(case.status(), "running");
}

#[test]
fn a_script_without_its_interpreter_is_explained() {
    let case = Case::new(&["/etc/script"]);
    let script = case.rootfs().join("etc/script");
    fs::write(&script, "#!/bin/bash\r\necho\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    case.run().fails_with("no such file or directory");
}

#[test]
fn streams_environment_and_directory() {
    let mut case = Case::script("cat; echo to-stderr >&2; env; pwd; echo $$");
    case.config["process"]["cwd"] = json!("/new/dir");
    let input = case.path().join("input");
    fs::write(&input, "from-stdin\n").unwrap();
    let bundle = case.path().to_str().unwrap();
    let output = case
        .command(&["run", "--bundle", bundle, &case.id])
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "to-stderr\n");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "from-stdin");
    assert!(lines.contains(&"COLOUR=blue"), "{out}");
    assert!(lines.contains(&"HOME=/"), "{out}");
    assert_eq!(&lines[lines.len() - 2..], ["/new/dir", "1"]);
}

#[test]
fn a_directory_closed_to_the_user_is_entered_all_the_same() {
    let mut case = Case::new(&["/bin/sh", "-c", "pwd; grep CapEff /proc/self/status; ls . || sleep 100"]);
    let closed = case.rootfs().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    case.config["process"]["cwd"] = json!("/closed");
    case.config["process"]["user"] = json!({ "uid": 1234, "gid": 99 });
    case.call_detached(&["run", "-d"]).ok();
    let said = case.call(&["exec"], &["/bin/sh", "-c", "pwd; grep CapEff /proc/self/status; ls . 2>&1"]);
    assert!(said.out.starts_with("/closed\nCapEff:\t0000000000000000\n"), "{said:?}");
    assert!(said.out.contains("Permission denied"), "the capability that opened it is gone: {said:?}");
}

#[test]
fn home_comes_from_the_passwd_file() {
    let mut case =
        Case::script("echo $HOME; id -u; id -g; id -G; umask; touch /tmp/mine; stat -c %u:%g /tmp/mine");
    fs::write(
        case.rootfs().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nme:x:1234:99::/home/me:/bin/sh\n",
    )
    .unwrap();
    fs::set_permissions(case.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    case.config["process"]["user"] =
        json!({ "uid": 1234, "gid": 99, "additionalGids": [7, 8], "umask": 0o27 });
    assert_eq!(case.run().ok(), "/home/me\n1234\n99\n99 7 8\n0027\n1234:99\n");
}

#[test]
fn capabilities_are_exactly_those_asked_for() {
    let mut case = Case::script("grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
    let set = json!(["CAP_CHOWN", "CAP_KILL"]);
    case.config["process"]["capabilities"] =
        json!({ "bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set });
    let expected = |ambient: &str| {
        format!(
            "CapInh:\t0000000000000021\nCapPrm:\t0000000000000021\nCapEff:\t0000000000000021\n\
             CapBnd:\t0000000000000021\nCapAmb:\t{ambient}\nNoNewPrivs:\t1\n"
        )
    };
    assert_eq!(case.run().ok(), expected("0000000000000021"));
    case.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    assert_eq!(
        case.run().ok(),
        expected("0000000000000021"),
        "ambient capabilities survive a change of user"
    );
    case.config["process"]["capabilities"] = json!({ "bounding": set, "effective": set, "permitted": set });
    let out = case.run().ok();
    assert!(out.contains("CapEff:\t0000000000000000\n"), "without ambient ones exec empties the sets: {out}");
}

#[test]
fn limits_and_oom_score() {
    let mut case = Case::script("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj");
    case.config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
    ]);
    case.config["process"]["oomScoreAdj"] = json!(321);
    assert_eq!(case.run().ok(), "64\n128\n0\n321\n");
}

#[test]
fn descriptors_are_closed_or_passed_on() {
    use std::os::fd::AsRawFd;
    let case =
        Case::script("ls /proc/self/fd | grep -v -E '^[012]$' | grep -c . ; cat <&3 2>/dev/null; true");
    let file = case.path().join("file");
    fs::write(&file, "passed\n").unwrap();
    let open = fs::File::open(&file).unwrap();
    let bundle = case.path().to_str().unwrap().to_owned();
    let run = |preserve: &str| {
        let shell = format!(
            "exec 3<{file:?}; exec 4<{file:?}; exec \"$0\" \"$@\" 5<&-",
            file = file.to_str().unwrap()
        );
        let runtime = case.command(&[]);
        let state = case.path().join("state");
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &shell, runtime.get_program().to_str().unwrap(), "--root", state.to_str().unwrap()])
            .args(["run", "--preserve-fds", preserve, "--bundle", &bundle, &case.id])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // One of the numbers is the listing's own directory.
    assert_eq!(run("0"), "1\n");
    assert_eq!(run("1"), "2\npassed\n");
    assert!(open.as_raw_fd() > 2);
}

#[test]
fn exec_runs_beside_the_first_process() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let exec = |flags: &[&str], command: &[&str]| {
        let mut verb = vec!["exec"];
        verb.extend(flags);
        case.call(&verb, command)
    };
    assert_eq!(exec(&[], &["/bin/sh", "-c", "exit 9"]).code, 9);
    assert_eq!(exec(&[], &["/bin/sh", "-c", "kill -15 $$"]).code, 143);
    let out = exec(&["--env", "A=1", "--cwd", "/tmp"], &["sh", "-c", "echo $A $COLOUR; pwd; hostname"]).ok();
    assert_eq!(out, "1 blue\n/tmp\ncontract\n");
    assert_eq!(exec(&["--user", "5:6"], &["id"]).ok(), "uid=5 gid=6\n");
    let seen = exec(&[], &["ps", "-o", "pid,comm"]).ok();
    assert!(seen.contains("sleep"), "it is in the pid namespace: {seen}");
    for name in ["mnt", "pid", "net", "ipc", "uts"] {
        let own = fs::read_link(format!("/proc/{}/ns/{name}", case.state()["pid"])).unwrap();
        let inside = exec(&[], &["readlink", &format!("/proc/self/ns/{name}")]).ok();
        assert_eq!(inside.trim(), own.to_str().unwrap(), "{name}");
    }
    let status = exec(&[], &["grep", "^CapEff", "/proc/self/status"]).ok();
    let first = fs::read_to_string(format!("/proc/{}/status", case.state()["pid"])).unwrap();
    assert!(first.contains(&status), "{status} / {first}");
}

#[test]
fn exec_is_given_the_capabilities_that_there_are() {
    if !is_ours() {
        return;
    }
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let exec =
        case.command(&["exec", "--cap", "CAP_SYS_TIME", &case.id, "/bin/grep", "Cap", "/proc/self/status"]);
    // A runtime that lacks the capability itself, as under a hardened service manager.
    let mut without = std::process::Command::new("setpriv");
    without.args(["--bounding-set", "-sys_time"]).arg(exec.get_program()).args(exec.get_args());
    let output = without.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "the program's own stream");
    let text = String::from_utf8(output.stdout).unwrap();
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(effective, 16).unwrap() & (1 << 25), 0, "{text}");
}

#[test]
fn exec_in_the_background_is_in_the_cgroup() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let file = case.path().join("exec-pid");
    let status = case
        .command(&["exec", "-d", "--pid-file", file.to_str().unwrap(), &case.id, "/bin/sleep", "50"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = fs::read_to_string(&file).unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&case.id), "{cgroup}");
    // runc's exec may return before the program runs.
    if is_ours() {
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap(), "/bin/sleep\u{0}50\u{0}");
    }
    let pids: Vec<i64> = serde_json::from_str(&case.call(&["ps", "--format", "json"], &[]).ok()).unwrap();
    assert_eq!(pids.len(), 2);
}

#[test]
fn signals_go_through_run() {
    // The second is the first real-time signal as docker and glibc count; musl and Go have a use for it.
    for signal in if is_ours() { &["USR1", "34"][..] } else { &["USR1"] } {
        let case = Case::script(&format!("trap 'exit 5' {signal}; echo ready; while :; do sleep 0.02; done"));
        let bundle = case.path().to_str().unwrap();
        let mut child = case
            .command(&["run", "--bundle", bundle, &case.id])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let words = ["kill", &format!("-{signal}"), &child.id().to_string()];
        assert!(std::process::Command::new("/bin/busybox").args(words).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(5), "{signal}");
    }
}

/// An engine's list may be newer than the runtime; what was left out is told also when that makes the creation fail.
#[test]
fn capabilities_that_nobody_knows_are_left_out_aloud() {
    let mut case = Case::new(&["/bin/true"]);
    let text = "ignoring unknown or unavailable capabilities: [CAP_TELEPORT]";
    case.push("/process/capabilities/bounding", json!("CAP_TELEPORT"));
    let said = case.run();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains(text), "{said:?}");
    case.config["process"]["args"] = json!(["/nosuch"]);
    let said = case.run();
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains(text), "{said:?}");
}

#[test]
fn limits_of_the_program_are_not_limits_of_its_setup() {
    let mut case = Case::script("ulimit -n");
    // Go needs some more for itself.
    let limit = if is_ours() { 12 } else { 64 };
    case.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": limit, "soft": limit }]);
    case.push("/linux/namespaces", json!({ "type": "user" }));
    let ids = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
    case.config["linux"]["uidMappings"] = ids.clone();
    case.config["linux"]["gidMappings"] = ids;
    assert_eq!(case.run().ok(), format!("{limit}\n"));
}

#[test]
fn a_variable_given_twice_counts_once() {
    let mut case = Case::script("env | grep COLOUR; echo $HOME");
    case.config["process"]["env"] = json!(["COLOUR=red", "PATH=/bin", "HOME=", "COLOUR=blue"]);
    assert_eq!(case.run().ok(), "COLOUR=blue\n/\n");
}

#[test]
fn a_container_that_waits_holds_nothing_of_the_host() {
    let case = Case::new(&["/bin/true"]);
    case.call_detached(&["create"]).ok();
    let held = case.state()["pid"].to_string();
    let links = std::fs::read_dir(format!("/proc/{held}/fd")).unwrap().flatten();
    let held: Vec<String> = links
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| target.contains("/cgroup/") || target.ends_with("/acpi"))
        .collect();
    assert_eq!(held, Vec::<String>::new());
    case.call(&["start"], &[]).ok();
}
