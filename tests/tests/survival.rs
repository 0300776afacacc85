//! Containers outlive the daemon: it is killed with SIGKILL while they run, and comes back.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;

fn state(cli: &Cli, name: &str) -> String {
    cli.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name])
}

/// What ran goes on: ps, logs, exec, the published port and stop work after the restart.
#[test]
fn running_containers_go_on() {
    let mut daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Docker);
    let script = "trap 'exit 5' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    cli.ok(&["run", "-d", "--name", "lives", "busybox", "sh", "-c", script]);
    cli.eventually("a line of log", |cli| !cli.ok(&["logs", "lives"]).is_empty());
    let pid = cli.ok(&["inspect", "--format", "{{.State.Pid}}", "lives"]);
    daemon.kill();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the container died with the daemon");
    std::thread::sleep(std::time::Duration::from_millis(300));
    daemon.start_again();
    assert_eq!(state(&cli, "lives"), "running 0");
    assert_eq!(cli.ok(&["inspect", "--format", "{{.State.Pid}}", "lives"]), pid);
    assert!(cli.ok(&["ps"]).contains("lives"));
    let log = cli.ok(&["logs", "lives"]);
    let lines: Vec<usize> = log.lines().map(|l| l.parse().expect("a number")).collect();
    assert!(lines.iter().enumerate().all(|(i, n)| *n == i + 1), "a gap in the log: {lines:?}");
    cli.eventually("the log grows on", |cli| cli.ok(&["logs", "lives"]).lines().count() > lines.len());
    assert_eq!(cli.ok(&["exec", "lives", "echo", "still here"]), "still here");
    cli.ok(&["stop", "lives"]);
    assert_eq!(state(&cli, "lives"), "exited 5");
}

/// What ended meanwhile has the right exit code, log and finishing time; `--rm` is carried out.
#[test]
fn exits_that_nobody_saw_are_found() {
    let mut daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Docker);
    cli.ok(&["run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.6; echo last words; exit 42"]);
    cli.ok(&["run", "-d", "--name", "goes", "--rm", "busybox", "sleep", "0.6"]);
    daemon.kill();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    daemon.start_again();
    cli.eventually("the end is known", |cli| state(cli, "ends") == "exited 42");
    assert_eq!(cli.ok(&["logs", "ends"]), "last words");
    cli.eventually("the --rm container is gone", |cli| cli.run(&["inspect", "goes"]).code == 1);
    cli.ok(&["start", "ends"]);
    assert_eq!(cli.ok(&["wait", "ends"]), "42");
}

/// A container that is paused stays paused, and one behind a published port stays reachable.
#[test]
fn ports_and_pauses_stay() {
    let mut daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Docker);
    let server = "echo page > /tmp/index.html && exec httpd -f -p 80 -h /tmp";
    cli.ok(&["run", "-d", "--name", "server", "-p", "127.0.0.1::80", "busybox", "sh", "-c", server]);
    cli.ok(&["run", "-d", "--name", "still", "busybox", "sleep", "100"]);
    cli.ok(&["pause", "still"]);
    let address = cli.ok(&["port", "server", "80/tcp"]);
    daemon.kill();
    daemon.start_again();
    assert_eq!(state(&cli, "still"), "paused 0");
    cli.ok(&["unpause", "still"]);
    assert_eq!(cli.ok(&["port", "server", "80/tcp"]), address);
    let url = format!("http://{address}/");
    let fetched = || {
        std::process::Command::new("/bin/busybox").args(["wget", "-qO-", &url]).output().expect("wget").stdout
    };
    cli.eventually("the page", |_| fetched() == b"page\n");
    let conflict = format!("{address}:80");
    cli.run(&["run", "--rm", "-p", &conflict, "busybox", "true"])
        .expect_code(125)
        .expect_text("already allocated");
}

/// A build ends with the daemon: the next one ends its steps and takes away what it had.
#[test]
fn builds_of_a_killed_daemon_go() {
    let mut daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let context = daemon.scratch("context");
    // Nobody else sleeps so long.
    let seconds = format!("1{:08}", std::process::id());
    let text = format!("FROM busybox\nRUN exec sleep {seconds}\n");
    std::fs::write(context.join("Dockerfile"), text).expect("a Dockerfile");
    let mut build = cli.command(&["build", &context.display().to_string()]);
    build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut build = build.spawn().expect("berth build");
    let (steps, snapshots) = (daemon.run_root().join("builds"), daemon.root().join("snapshots"));
    let names = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|all| all.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    let sleeps = || {
        names(Path::new("/proc")).iter().any(|process| {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            line == format!("sleep\0{seconds}\0").as_bytes()
        })
    };
    cli.eventually("the step runs", |_| sleeps());
    assert_eq!(names(&snapshots).len(), 1);
    let unpacked = daemon.root().join("builds/tmp/build-x/tree");
    std::fs::create_dir_all(&unpacked).expect("what a build had unpacked");
    daemon.kill();
    build.wait().expect("the client ends");
    assert!(sleeps(), "the step ended with the daemon: there is nothing to be seen here");
    daemon.start_again();
    cli.eventually("the step is gone", |_| !sleeps() && names(&steps).is_empty());
    cli.eventually("nothing is left", |_| names(&snapshots).is_empty() && !unpacked.exists());
}

/// The daemon ends on SIGTERM and leaves the containers running; so it can be upgraded.
#[test]
fn a_polite_end_leaves_containers_too() {
    let mut daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    cli.ok(&["run", "-d", "--name", "lives", "busybox", "sleep", "1000"]);
    daemon.terminate();
    daemon.start_again();
    assert_eq!(state(&cli, "lives"), "running 0");
}

/// Two daemons side by side do not see each other's containers, images or networks.
#[test]
fn two_daemons_do_not_meet() {
    let (one, two) = (Daemon::with_busybox(), Daemon::start());
    let (first, second) = (one.cli(Frontend::Docker), two.cli(Frontend::Docker));
    first.ok(&["run", "-d", "--name", "same", "busybox", "sleep", "100"]);
    assert_eq!(second.ok(&["ps", "-aq"]), "");
    assert_eq!(second.ok(&["images", "-q"]), "");
    second.import_busybox("busybox");
    second.ok(&["run", "-d", "--name", "same", "busybox", "sleep", "100"]);
    first.ok(&["rm", "-f", "same"]);
    assert_eq!(second.ok(&["exec", "same", "echo", "untouched"]), "untouched");
}
