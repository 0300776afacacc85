//! create, start, state, kill, delete and their errors.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Case, USER, is_ours};

#[test]
fn a_container_goes_through_its_states() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["create"]).ok();
    let state = case.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], case.id.as_str());
    assert_eq!(state["bundle"], case.path().to_str().unwrap());
    let pid = state["pid"].as_i64().unwrap();
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok());
    case.call(&["start"], &[]).ok();
    assert_eq!(case.status(), "running");
    assert_eq!(case.state()["pid"], pid);
    case.wait_for("running");
    case.call(&["kill"], &["KILL"]).ok();
    case.wait_for("stopped");
    case.call(&["delete"], &[]).ok();
    case.call(&["state"], &[]).fails_with("does not exist");
}

#[test]
fn operations_that_do_not_fit_the_state_fail() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call(&["start"], &[]).fails_with("does not exist");
    case.call(&["kill"], &["KILL"]).fails_with("does not exist");
    case.call(&["delete"], &[]).fails_with("does not exist");
    case.call_detached(&["run", "-d"]).ok();
    case.call_detached(&["create"]).fails_with("already exists");
    assert_eq!(case.status(), "running", "the failed create must not harm the first container");
    case.call(&["start"], &[]).fails_with("cannot start an already running container");
    case.call(&["delete"], &[]).fails_with("not stopped: running");
    case.call(&["resume"], &[]).fails_with("container not paused");
    case.call(&["kill"], &["NONSENSE"]).fails_with("unknown signal");
    case.call(&["kill"], &["9"]).ok();
    case.wait_for("stopped");
    case.call(&["kill"], &["TERM"]).fails_with("container not running");
    case.call(&["start"], &[]).fails_with("cannot start a container that has stopped");
    case.call(&["exec"], &["/bin/true"]).fails_with("cannot exec in a stopped container");
}

#[test]
fn a_created_container_can_be_deleted() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["create"]).ok();
    case.call(&["delete"], &[]).ok();
    case.call(&["delete", "--force"], &[]).ok();
}

#[test]
fn force_ends_a_running_container() {
    let case = Case::script("trap '' TERM; sleep 100");
    case.call_detached(&["run", "-d"]).ok();
    case.call(&["delete", "--force"], &[]).ok();
    case.call(&["state"], &[]).fails_with("does not exist");
}

#[test]
fn the_exit_code_comes_back() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        // Pid 1 of a pid namespace is immune to its own signals.
        let case = Case::script(&format!("(sh -c '{}'); exit $?", script.replace('\'', "")));
        assert_eq!(case.run().code, if code == 137 { 137 } else { code }, "{script}");
        case.call(&["state"], &[]).fails_with("does not exist");
    }
}

#[test]
fn list_shows_containers() {
    let case = Case::new(&["/bin/sleep", "100"]);
    let list = |args: &[&str]| case.command(args).output().map(crate::harness::Said::from).unwrap().ok();
    case.command(&["list"]).output().map(crate::harness::Said::from).unwrap().fails_with("state");
    std::fs::create_dir(case.path().join("state")).unwrap();
    assert_eq!(list(&["list", "-q"]), "");
    case.call_detached(&["create"]).ok();
    assert_eq!(list(&["list", "-q"]), format!("{}\n", case.id));
    let json: Value = serde_json::from_str(&list(&["list", "--format", "json"])).unwrap();
    assert_eq!(json[0]["status"], "created");
    let table = list(&["list"]);
    let words = |line: usize| table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(0), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(words(1)[0], case.id);
    assert_eq!(words(1)[2], "created");
    assert_eq!(words(1)[5], "root");
    let directory = case.path().join("state").join(&case.id);
    for (uid, owner) in [(USER, "nobody"), (4242, "#4242"), (0, "root")] {
        std::os::unix::fs::chown(&directory, Some(uid), None).unwrap();
        let json: Value = serde_json::from_str(&list(&["list", "--format", "json"])).unwrap();
        assert_eq!(json[0]["owner"], owner);
    }
}

#[test]
fn pause_and_resume() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    case.call(&["pause"], &[]).ok();
    assert_eq!(case.status(), "paused");
    case.call(&["exec"], &["/bin/true"]).fails_with("paused");
    case.call(&["resume"], &[]).ok();
    assert_eq!(case.status(), "running");
    case.call(&["pause"], &[]).ok();
    case.call(&["delete", "--force"], &[]).ok();
}

#[test]
fn the_pid_file_names_the_process() {
    let case = Case::new(&["/bin/sleep", "100"]);
    let file = case.path().join("pid");
    case.call_detached(&["create", "--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), case.state()["pid"].to_string());
}

#[test]
fn a_run_names_its_process_before_the_program_starts() {
    let mut case = Case::script("[ -s /mnt/pid ] && : > /mnt/ran");
    let told = case.path().join("told");
    fs::create_dir(&told).unwrap();
    case.push(
        "/mounts",
        json!({ "destination": "/mnt", "type": "bind", "source": told, "options": ["bind"] }),
    );
    case.call(&["run", "--pid-file", told.join("pid").to_str().unwrap()], &[]).ok();
    fs::remove_file(told.join("ran")).expect("it ran, and found its pid");
    let nowhere = told.join("none/pid");
    assert_ne!(case.call(&["run", "--pid-file", nowhere.to_str().unwrap()], &[]).code, 0);
    assert!(!told.join("ran").exists(), "what cannot be told of does not run");
}

/// Its process may still see the host's mounts.
#[test]
fn a_run_that_is_being_made_takes_no_exec() {
    if !is_ours() {
        // There is no state of it yet.
        return;
    }
    let mut case = Case::new(&["/bin/true"]);
    let place = case.path().display().to_string();
    let script = format!("touch {place}/in; until test -e {place}/go; do sleep 0.01; done");
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    case.config["hooks"] = json!({ "createRuntime": [hook] });
    let mut run = case.command(&["run", "--bundle", &place, &case.id]).spawn().unwrap();
    while !case.path().join("in").exists() {
        assert_eq!(run.try_wait().unwrap(), None);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(case.status(), "creating");
    case.call(&["exec"], &["/bin/true"]).fails_with("cannot exec in a creating container");
    fs::write(case.path().join("go"), "").unwrap();
    assert!(run.wait().unwrap().success());
}

#[test]
fn ps_shows_the_processes() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let pids: Vec<i64> = serde_json::from_str(&case.call(&["ps", "--format", "json"], &[]).ok()).unwrap();
    assert_eq!(pids, [case.state()["pid"].as_i64().unwrap()]);
    let table = case.call(&["ps"], &[]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("sleep 100"), "{table}");
}

#[test]
fn bad_requests_leave_nothing() {
    let mut case = Case::new(&["/bin/true"]);
    let bundle = case.path().to_str().unwrap().to_owned();
    let run = case.command(&["run", "--bundle", &bundle, "../evil"]).output().unwrap();
    crate::harness::Said::from(run).fails_with("invalid container ID");
    let run = case.command(&["run", "--bundle", "/nonexistent", "x"]).output().unwrap();
    assert_ne!(run.status.code(), Some(0));
    case.config["process"]["cwd"] = json!("relative");
    assert_ne!(case.run().code, 0);
    case.call(&["state"], &[]).fails_with("does not exist");
}

#[test]
fn many_at_once() {
    let cases: Vec<Case> = (0..8).map(|n| Case::script(&format!("exit {n}"))).collect();
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let runs: Vec<_> = cases.iter().map(|case| scope.spawn(|| case.run().code)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// The gate between create and start opens for any user, without capabilities.
#[test]
fn any_user_gets_through_the_gate() {
    let case = unprivileged();
    started_as_1234(&case);
}

/// So does it where nobody mounted a /proc.
#[test]
fn the_gate_needs_no_proc() {
    // runc asks /proc for the capabilities there are.
    if !is_ours() {
        return;
    }
    let mut case = unprivileged();
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    case.config["linux"]["maskedPaths"] = json!([]);
    case.config["linux"]["readonlyPaths"] = json!([]);
    started_as_1234(&case);
}

fn unprivileged() -> Case {
    let mut case = Case::new(&["/bin/sleep", "100"]);
    case.config["process"]["user"] = json!({ "uid": 1234, "gid": 99 });
    case.config["process"]["capabilities"] = json!({});
    case
}

fn started_as_1234(case: &Case) {
    case.call_detached(&["create"]).ok();
    case.call(&["start"], &[]).ok();
    case.wait_for("running");
    let status = fs::read_to_string(format!("/proc/{}/status", case.state()["pid"])).unwrap();
    assert!(status.contains("Uid:\t1234\t1234"), "{status}");
}
