//! From created to removed: ps, logs, stop, kill, restart, rename, pause, rm.

use std::io::Read;
use std::process::Stdio;

use super::Fixture;

const LOOP: &[&str] = &["busybox", "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"];

fn start(f: &Fixture, name: &str) {
    f.cli.ok(&[&["run", "-d", "--name", name][..], LOOP].concat());
    f.cli.eventually("its first line of log", |cli| cli.ok(&["logs", name]) == "up");
}

/// `ps` shows what runs; `-a` what ended; filters and formats work.
pub fn ps(f: &Fixture) {
    start(f, "running");
    f.cli.ok(&["run", "--name", "ended", "--label", "kind=short", "busybox", "true"]);
    let names = |args: &[&str]| f.cli.ok(&[&["ps", "--format", "{{.Names}}"][..], args].concat());
    assert_eq!(names(&[]), "running");
    assert_eq!(names(&["-a"]), "ended\nrunning");
    assert_eq!(names(&["-a", "--filter", "status=exited"]), "ended");
    assert_eq!(names(&["-a", "--filter", "label=kind=short"]), "ended");
    assert_eq!(names(&["-a", "--filter", "name=run"]), "running");
    let status = f.cli.ok(&["ps", "-a", "--format", "{{.Status}}", "--filter", "name=ended"]);
    assert!(status.starts_with("Exited (0)"), "{status}");
    let table = f.cli.ok(&["ps"]);
    assert!(table.starts_with("CONTAINER ID") && table.contains("Up "), "{table}");
    f.cli.ok(&["create", "--name", "wordy", "busybox", "sh", "-c", "echo two words"]);
    let command = ["ps", "-a", "--no-trunc", "--format", "{{.Command}}", "--filter", "name=wordy"];
    assert_eq!(f.cli.ok(&command), "\"sh -c 'echo two words'\"");
}

/// The life of a created container, step by step.
pub fn create_start_stop_remove(f: &Fixture) {
    f.cli.ok(&[&["create", "--name", "steps"][..], LOOP].concat());
    let state = |f: &Fixture| f.cli.ok(&["inspect", "--format", "{{.State.Status}}", "steps"]);
    assert_eq!(state(f), "created");
    f.cli.ok(&["start", "steps"]);
    assert_eq!(state(f), "running");
    f.cli.eventually("its first line of log", |cli| cli.ok(&["logs", "steps"]) == "up");
    f.cli.run(&["rm", "steps"]).expect_code(1).expect_text("running");
    f.cli.ok(&["stop", "steps"]);
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.State.ExitCode}}", "steps"]), "5");
    f.cli.ok(&["start", "steps"]);
    assert_eq!(state(f), "running");
    f.cli.ok(&["restart", "-t", "0", "steps"]);
    assert_eq!(state(f), "running");
    f.cli.ok(&["rename", "steps", "renamed"]);
    f.cli.ok(&["rm", "-f", "renamed"]);
    f.cli.run(&["inspect", "renamed"]).expect_code(1);
}

/// A program that ignores SIGTERM is killed when its time is up.
pub fn stop_kills_in_the_end(f: &Fixture) {
    f.cli.ok(&[
        "run",
        "-d",
        "--name",
        "deaf",
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 1; done",
    ]);
    f.cli.ok(&["stop", "-t", "1", "deaf"]);
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.State.ExitCode}}", "deaf"]), "137");
}

/// A container stops as it is configured to: by its own signal, and with its own patience.
pub fn stop_as_configured(f: &Fixture) {
    let script = "trap 'exit 3' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done";
    for (name, flag, code) in [("own", "--stop-signal=USR1", "3"), ("brief", "--stop-timeout=1", "137")] {
        f.cli.ok(&["run", "-d", "--name", name, flag, "busybox", "sh", "-c", script]);
        f.cli.eventually("its first line of log", |cli| cli.ok(&["logs", name]) == "up");
        f.cli.ok(&["stop", name]);
        assert_eq!(f.cli.ok(&["inspect", "--format", "{{.State.ExitCode}}", name]), code, "{flag}");
    }
}

/// Health is asked for as often, waited for as long and believed as late as was said.
pub fn health(f: &Fixture) {
    let checked = |name: &str, check: &str, flags: &[&str]| {
        let run =
            [&["run", "-d", "--name", name, "--health-cmd", check], flags, &["busybox", "sleep", "1000"]];
        f.cli.ok(&run.concat());
    };
    let health =
        |name: &str, field: &str| f.cli.ok(&["inspect", "--format", &format!("{{{{{field}}}}}"), name]);
    let status = |name: &str| health(name, ".State.Health.Status");
    let often = ["--health-interval", "200ms", "--health-retries", "2"];
    checked("ill", "test -e /well", &often);
    checked("slow", "sleep 1000", &["--health-interval", "200ms", "--health-timeout", "300ms"]);
    checked("young", "false", &[&often[..], &["--health-start-period", "1h"]].concat());
    f.cli.eventually("it is unhealthy", |_| status("ill") == "unhealthy");
    assert!(health("ill", ".State.Health.FailingStreak").parse::<u32>().is_ok_and(|times| times >= 2));
    f.cli.ok(&["exec", "ill", "touch", "/well"]);
    f.cli.eventually("it is healthy again", |_| status("ill") == "healthy");
    f.cli.eventually("a check takes too long", |_| {
        health("slow", "range .State.Health.Log}}{{.Output}}{{end").contains("exceeded timeout (300ms)")
    });
    f.cli.eventually("a young one has failed often", |_| {
        health("young", "len .State.Health.Log").parse::<u32>().is_ok_and(|times| times > 3)
    });
    assert_eq!(status("young"), "starting");
}

/// In the beginning health is asked for at an interval of its own.
pub fn health_at_the_start(f: &Fixture) {
    let period =
        ["--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "200ms"];
    let run =
        [&["run", "-d", "--name", "new", "--health-cmd", "true"], &period[..], &["busybox", "sleep", "1000"]];
    f.cli.ok(&run.concat());
    f.cli.eventually("it is healthy", |cli| {
        cli.ok(&["inspect", "--format", "{{.State.Health.Status}}", "new"]) == "healthy"
    });
}

/// `kill` sends the signal that is named.
pub fn kill(f: &Fixture) {
    start(f, "victim");
    f.cli.ok(&["kill", "-s", "TERM", "victim"]);
    assert_eq!(f.cli.ok(&["wait", "victim"]), "5");
    f.cli.run(&["kill", "victim"]).expect_code(1).expect_text("is not running");
    f.cli.ok(&["start", "victim"]);
    f.cli.ok(&["kill", "victim"]);
    assert_eq!(f.cli.ok(&["wait", "victim"]), "137");
}

/// `logs -f` follows to the end, and then ends.
pub fn logs_follow(f: &Fixture) {
    let script = "for i in 1 2 3; do echo $i; sleep 0.2; done; echo e >&2";
    f.cli.ok(&["run", "-d", "--name", "talker", "busybox", "sh", "-c", script]);
    let mut follow = f.cli.command(&["logs", "-f", "talker"]);
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start logs -f");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("read the log");
    assert!(child.wait().expect("wait").success());
    assert_eq!(out, "1\n2\n3\n");
    assert_eq!(f.cli.ok(&["logs", "--tail", "2", "talker"]), "3");
    let stamped = f.cli.ok(&["logs", "-t", "talker"]);
    assert!(stamped.lines().all(|l| l.len() > 30 && l[..30].ends_with('Z')), "{stamped}");
}

/// A paused container makes no progress, and goes on afterwards.
pub fn pause_and_unpause(f: &Fixture) {
    start(f, "sleeper");
    f.cli.ok(&["pause", "sleeper"]);
    let status = |f: &Fixture| f.cli.ok(&["inspect", "--format", "{{.State.Status}}", "sleeper"]);
    assert_eq!(status(f), "paused");
    f.cli.run(&["exec", "sleeper", "true"]).expect_code(1).expect_text("paused");
    f.cli.ok(&["unpause", "sleeper"]);
    assert_eq!(status(f), "running");
    assert_eq!(f.cli.ok(&["exec", "sleeper", "echo", "awake"]), "awake");
}

/// Names: one each, well formed; a prefix of the id will do.
pub fn names_and_prefixes(f: &Fixture) {
    let id = f.cli.ok(&["create", "--name", "taken", "busybox"]);
    f.cli.run(&["create", "--name", "taken", "busybox"]).expect_code(1).expect_text("already in use");
    f.cli
        .run(&["create", "--name", "not good", "busybox"])
        .expect_code(1)
        .expect_text("Invalid container name");
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.Name}}", &id[..12]]), "/taken");
    f.cli.run(&["start", "nosuch"]).expect_code(1).expect_text("No such container: nosuch");
}

/// A restart policy brings a failing container back, as often as it says.
pub fn restart_policy(f: &Fixture) {
    f.cli.ok(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 1",
    ]);
    f.cli.eventually("two restarts, then an end", |cli| {
        cli.ok(&["inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "again"]) == "2 exited"
    });
    assert_eq!(f.cli.ok(&["logs", "again"]), "x\nx\nx");
}

/// `attach` joins a running container, and its end is ours.
pub fn attach(f: &Fixture) {
    let script = "while read x; do echo got-$x; [ $x = end ] && exit 4; done";
    f.cli.ok(&["run", "-d", "-i", "--name", "listener", "busybox", "sh", "-c", script]);
    f.cli.run_with_input(&["attach", "listener"], b"one\nend\n").expect_code(4).expect_text("got-one");
}

/// Events tell the life of a container in docker's words.
pub fn events(f: &Fixture) {
    f.cli.ok(&["run", "--rm", "--name", "told", "busybox", "true"]);
    let since =
        ["events", "--since", "1h", "--until", "0s", "--filter", "container=told", "--format", "{{.Action}}"];
    for action in ["create", "start", "die", "destroy"] {
        // Until now is until this second began.
        f.cli.eventually(action, |cli| cli.ok(&since).lines().any(|line| line == action));
    }
}

/// `create -a` notes down which streams are attached.
pub fn create_attached(f: &Fixture) {
    let streams = |name: &str, flags: &[&str]| {
        f.cli.ok(&[&["create", "--name", name], flags, &["busybox", "true"]].concat());
        let format =
            "{{.Config.AttachStdin}} {{.Config.AttachStdout}} {{.Config.AttachStderr}} {{.Config.StdinOnce}}";
        f.cli.ok(&["inspect", "-f", format, name])
    };
    assert_eq!(streams("plain", &[]), "false true true false");
    assert_eq!(streams("open", &["-i"]), "true true true true");
    assert_eq!(streams("out", &["-a", "stdout"]), "false true false false");
    assert_eq!(streams("one", &["-i", "-a", "STDERR"]), "true false true true");
    assert_eq!(streams("two", &["-i", "-a", "stdin", "-a", "stdout"]), "true true false true");
    f.cli.run(&["create", "-a", "nosuch", "busybox", "true"]).expect_code(125);
}
