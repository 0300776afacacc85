//! `berth-runtime` in the place of runc below programs that nobody here wrote: dockerd, podman and containerd.

use berth_tests::cli::{Cli, Frontend, bin_dir};
use berth_tests::containerd::Containerd;
use berth_tests::dockerd::Dockerd;
use berth_tests::matrix::{self, Fixture};
use berth_tests::podman::Podman;

/// A name and what is done.
type Case = (&'static str, fn(&Fixture));

/// One container each: the options of `run`, a script in it, and what it says.
const OPTIONS: &[(&[&str], &str, &str)] = &[
    (&["--read-only", "--tmpfs", "/t:size=1m,mode=700"], "touch /x || touch /t/x && stat -c %a /t", "700"),
    (&["--user", "1000:2000", "--group-add", "3000"], "id -u; id -g; id -G", "1000\n2000\n2000 3000"),
    (&["--user", "web"], "id -un; grep CapEff /proc/self/status", "web\nCapEff:\t0000000000000000"),
    (&["--cap-drop", "all"], "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000000"),
    (
        &["--cap-drop", "all", "--cap-add", "net_admin"],
        "grep CapPrm /proc/self/status",
        "CapPrm:\t0000000000001000",
    ),
    (
        &["--security-opt", "no-new-privileges"],
        "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
        "NoNewPrivs:\t1\nSeccomp:\t2",
    ),
    (&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
    (&["--privileged"], "mkdir /m && mount -t tmpfs t /m && grep Seccomp: /proc/self/status", "Seccomp:\t0"),
    (
        &["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
        "ulimit -n; ulimit -Hn; ulimit -c",
        "100\n200\n0",
    ),
    (
        &["--device", "/dev/null:/dev/mine:rw"],
        "echo x >/dev/mine && stat -c %F /dev/mine",
        "character special file",
    ),
    (&["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1"),
    (&["--hostname", "called"], "hostname", "called"),
    (&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
    (&["--pid", "host"], "test $$ != 1 && test -e /proc/1/comm && echo yes", "yes"),
    (
        &["--ipc", "private", "--shm-size", "2m"],
        "grep /dev/shm /proc/mounts | grep -o size=2048k",
        "size=2048k",
    ),
    (&[], "touch /proc/sys/kernel/hostname || cat /proc/kcore | wc -c", "0"),
];

fn check_options(run: impl Fn(&[&str]) -> String) {
    for (options, script, said) in OPTIONS {
        let words = [&["run", "--rm"], *options, &["busybox", "sh", "-c", script]].concat();
        assert_eq!(run(&words), *said, "{options:?} {script:?}");
    }
}

/// The cases that hold for berthd hold for a dockerd on our runtime.
#[test]
fn dockerd() {
    let runtime = format!("berth={}", bin_dir().join("berth-runtime").display());
    let dockerd = Dockerd::start_with(&["--add-runtime", &runtime, "--default-runtime", "berth"]);
    let cli = dockerd.cli(Frontend::Docker);
    cli.import_busybox("busybox");
    let cases: &[Case] = &[
        ("streams", matrix::run::foreground_streams_and_exit_codes),
        ("failures", matrix::run::failures_to_start),
        ("signals", matrix::run::signals_in_exit_codes),
        ("stdin", matrix::run::standard_input),
        ("large", matrix::run::large_output),
        ("terminal", matrix::run::terminal),
        ("process", matrix::run::process_options),
        ("detached", matrix::run::detached),
        ("confinement", matrix::run::confinement),
        ("exec", matrix::exec::plain),
        ("exec-stdin", matrix::exec::standard_input),
        ("exec-terminal", matrix::exec::terminal),
        ("exec-detached", matrix::exec::detached),
        ("exec-confinement", matrix::exec::confinement),
        ("steps", matrix::lifecycle::create_start_stop_remove),
        ("stop", matrix::lifecycle::stop_kills_in_the_end),
        ("kill", matrix::lifecycle::kill),
        ("logs", matrix::lifecycle::logs_follow),
        ("pause", matrix::lifecycle::pause_and_unpause),
        ("restart", matrix::lifecycle::restart_policy),
        ("memory", matrix::limits::memory),
        ("pids", matrix::limits::pids),
        ("update", matrix::limits::update),
        ("stats", matrix::limits::stats_and_top),
        ("bind", matrix::storage::bind),
        ("volume", matrix::storage::named_volume),
        ("tmpfs", matrix::storage::tmpfs),
        ("copy", matrix::storage::copy),
        ("init", docker_init),
        ("health", docker_health),
        ("failures-of-exec", docker_exec_failures),
        ("many", docker_many),
    ];
    for (name, run) in cases {
        eprintln!("case {name}");
        run(&Fixture { cli: cli.clone(), scratch: dockerd.scratch(name) });
        for id in cli.ok(&["ps", "-aq"]).lines() {
            cli.ok(&["rm", "-fv", id]);
        }
    }
    check_options(|words| cli.ok(words));
    let version = cli.ok(&["info", "--format", "{{.DefaultRuntime}}"]);
    assert_eq!(version, "berth");
}

fn docker_init(f: &Fixture) {
    let run = f.cli.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/comm; exit 4"]);
    assert_eq!(run.expect_code(4).stdout, "docker-init\n");
}

fn docker_health(f: &Fixture) {
    let health = ["--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "1"];
    let words = [&["run", "-d", "--name", "ill"], &health[..], &["busybox", "sleep", "1000"]].concat();
    f.cli.ok(&words);
    let status = |cli: &Cli| cli.ok(&["inspect", "--format", "{{.State.Health.Status}}", "ill"]);
    f.cli.eventually("the check fails", |cli| status(cli) == "unhealthy");
    f.cli.ok(&["exec", "ill", "touch", "/ok"]);
    f.cli.eventually("the check succeeds", |cli| status(cli) == "healthy");
}

/// dockerd passes the runtime's words on; capabilities that nobody has are no failure.
fn docker_exec_failures(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "target", "busybox", "sleep", "1000"]);
    f.cli.run(&["exec", "target", "nosuch"]).expect_text("executable file not found in $PATH");
    f.cli.run(&["exec", "target", "/etc/passwd"]).expect_text("permission denied");
    f.cli.run(&["exec", "-w", "/nosuch", "target", "true"]).expect_text("no such file or directory");
    let privileged = f.cli.ok(&["exec", "--privileged", "target", "grep", "CapEff", "/proc/self/status"]);
    let bits = privileged.trim_start_matches("CapEff:").trim();
    let sys_admin = u64::from_str_radix(bits, 16).expect("a set of capabilities") & (1 << 21);
    assert_ne!(sys_admin, 0, "{privileged}");
    f.cli.ok(&["pause", "target"]);
    f.cli.run(&["exec", "target", "true"]).expect_code(1).expect_text("is paused");
    f.cli.ok(&["unpause", "target"]);
}

/// Ten at once start and end, each with its own exit code.
fn docker_many(f: &Fixture) {
    let start = |code: u8| {
        let cli = f.cli.clone();
        std::thread::spawn(move || {
            let script = format!("exit {code}");
            cli.run(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", &script]).code
        })
    };
    let running: Vec<_> = (1..=10).map(start).collect();
    let codes: Vec<i32> = running.into_iter().map(|thread| thread.join().expect("a run")).collect();
    assert_eq!(codes, (1..=10).collect::<Vec<_>>());
}

#[test]
fn podman() {
    let podman = Podman::start();
    podman_run(&podman);
    podman_exec(&podman);
    podman_life(&podman);
    podman_pod(&podman);
    check_options(|words| podman.ok(words));
    let mapped =
        ["run", "--rm", "--uidmap", "0:100000:65536", "busybox", "sh", "-c", "cat /proc/self/uid_map"];
    assert_eq!(podman.ok(&mapped).split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let mask = ["run", "--rm", "--security-opt", "mask=/etc/passwd", "busybox", "wc", "-c", "/etc/passwd"];
    assert_eq!(podman.ok(&mask), "0 /etc/passwd");
}

fn podman_run(podman: &Podman) {
    let run = podman.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let run = run.expect_code(7);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    podman
        .run(&["run", "--rm", "busybox", "nosuch"])
        .expect_code(127)
        .expect_text("executable file not found");
    podman
        .run(&["run", "--rm", "busybox", "/nosuch"])
        .expect_code(127)
        .expect_text("no such file or directory");
    podman.run(&["run", "--rm", "busybox", "/etc/passwd"]).expect_code(126).expect_text("permission denied");
    assert_eq!(
        podman.run_with_input(&["run", "--rm", "-i", "busybox", "wc", "-c"], &[b'x'; 70_000]).success(),
        "70000"
    );
    let script = "test -t 0 && test -t 1 && read x && echo got-$x; exit 6";
    podman
        .run_on_terminal(&["run", "--rm", "-it", "busybox", "sh", "-c", script], b"typed\n")
        .expect_code(6)
        .expect_text("got-typed");
}

fn podman_exec(podman: &Podman) {
    podman.ok(&["run", "-d", "--name", "target", "busybox", "sleep", "1000"]);
    let exec = podman.run(&["exec", "target", "sh", "-c", "echo out; echo err >&2; exit 3"]).expect_code(3);
    assert_eq!((exec.stdout.as_str(), exec.stderr.as_str()), ("out\n", "err\n"));
    podman.run(&["exec", "target", "nosuch"]).expect_code(127).expect_text("executable file not found");
    podman.run(&["exec", "target", "/etc/passwd"]).expect_code(126).expect_text("permission denied");
    let words =
        ["exec", "-u", "web", "-w", "/tmp", "-e", "A=b", "target", "sh", "-c", "echo $(id -u) $PWD $A"];
    assert_eq!(podman.ok(&words), "1000 /tmp b");
    assert_eq!(podman.run_with_input(&["exec", "-i", "target", "cat"], b"through").success(), "through");
    let script = "test -t 0 && read x && echo got-$x; exit 6";
    podman
        .run_on_terminal(&["exec", "-it", "target", "sh", "-c", script], b"typed\n")
        .expect_code(6)
        .expect_text("got-typed");
    podman.ok(&["exec", "--privileged", "target", "true"]);
    podman.ok(&["exec", "-d", "target", "touch", "/made"]);
    let wait = "for i in $(seq 100); do test -e /made && exit 0; sleep 0.1; done; exit 1";
    podman.ok(&["exec", "target", "sh", "-c", wait]);
    podman.ok(&["rm", "-f", "-t", "0", "target"]);
}

fn podman_life(podman: &Podman) {
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done";
    podman.ok(&["run", "-d", "--name", "life", "busybox", "sh", "-c", script]);
    let state = |format: &str| podman.ok(&["inspect", "--format", format, "life"]);
    assert!(podman.ok(&["top", "life"]).contains("trap"));
    podman.ok(&["pause", "life"]);
    assert_eq!(state("{{.State.Status}}"), "paused");
    podman.ok(&["unpause", "life"]);
    podman.ok(&["update", "--memory", "64m", "--cpus", "0.5", "life"]);
    let limits = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null";
    assert_eq!(podman.ok(&["exec", "life", "sh", "-c", &format!("{limits} || true")]), "67108864");
    assert!(
        podman.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "life"]).starts_with("life ")
    );
    podman.ok(&["stop", "-t", "10", "life"]);
    assert_eq!(state("{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
    assert_eq!(podman.ok(&["logs", "life"]), "up");
    podman.ok(&["start", "life"]);
    podman.ok(&["kill", "--signal", "KILL", "life"]);
    assert_eq!(podman.ok(&["wait", "life"]), "137");
    podman.ok(&["rm", "life"]);
    podman
        .run(&["run", "--rm", "--memory", "32m", "busybox", "tail", "-c", "100m", "/dev/zero"])
        .expect_code(137);
    podman.run(&["run", "--name", "again", "--restart", "on-failure:2", "busybox", "false"]).expect_code(1);
    assert_eq!(podman.ok(&["inspect", "--format", "{{.RestartCount}}", "again"]), "2");
    let health = ["--health-cmd", "test -e /ok", "--health-interval", "disable"];
    podman.ok(&[&["run", "-d", "--name", "ill"], &health[..], &["busybox", "sleep", "1000"]].concat());
    podman.run(&["healthcheck", "run", "ill"]).expect_code(1);
    podman.ok(&["exec", "ill", "touch", "/ok"]);
    podman.ok(&["healthcheck", "run", "ill"]);
    podman.ok(&["rm", "-f", "-t", "0", "ill", "again"]);
}

/// Containers that join the namespaces of another, as those of a Kubernetes pod do.
fn podman_pod(podman: &Podman) {
    podman.ok(&["run", "-d", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "1000"]);
    let joined = ["--pid", "container:first", "--ipc", "container:first", "--uts", "container:first"];
    let script = "hostname; ps -o args | grep -c '[s]leep 1000'";
    let seen = podman.ok(&[&["run", "--rm"], &joined[..], &["busybox", "sh", "-c", script]].concat());
    let hostname = podman.ok(&["exec", "first", "hostname"]);
    assert_eq!(seen, format!("{hostname}\n1"));
    podman.ok(&["rm", "-f", "-t", "0", "first"]);
}

/// Tells by its exit code that it was reached: `ctr` gives up what a process on a terminal has printed last when the
/// process ends before it is fetched, under any runtime.
const READS_FROM_TERMINAL: &str = "test -t 0 && test -t 1 && read x && test \"$x\" = typed && exit 5";

#[test]
fn containerd() {
    let containerd = Containerd::start();
    let run = |id: &str, flags: &[&str], command: &[&str]| {
        let words = containerd.container(id, flags, command);
        containerd.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let once = |id: &str, script: &str| run(id, &["--rm"], &["sh", "-c", script]);
    assert_eq!(once("out", "echo out; exit 7").expect_code(7).stdout, "out\n");
    run("none", &["--rm"], &["nosuch"]).expect_code(1).expect_text("executable file not found in $PATH");
    assert_eq!(run("read", &["--rm", "--read-only"], &["touch", "/x"]).expect_code(1).stdout, "");
    run("hog", &["--rm", "--memory-limit", "33554432"], &["tail", "-c", "100m", "/dev/zero"])
        .expect_code(137);
    let seccomp = run("seccomp", &["--rm", "--seccomp"], &["grep", "Seccomp:", "/proc/self/status"]);
    assert_eq!(seccomp.success(), "Seccomp:\t2");
    run("privileged", &["--rm", "--privileged"], &["sh", "-c", "mkdir -p /tmp/m && mount -t tmpfs t /tmp/m"])
        .success();
    let words = containerd.container("terminal", &["--rm", "-t"], &["sh", "-c", READS_FROM_TERMINAL]);
    containerd
        .run_on_terminal(&words.iter().map(String::as_str).collect::<Vec<_>>(), b"typed\n")
        .expect_code(5);
    containerd_task(&containerd);
}

fn containerd_task(containerd: &Containerd) {
    let words = containerd.container("task", &["-d"], &["sh", "-c", "sleep 1000 & wait"]);
    containerd.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let exec = |id: &str, command: &[&str]| {
        containerd.run(&[&["task", "exec", "--exec-id", id, "task"], command].concat())
    };
    assert_eq!(exec("one", &["sh", "-c", "echo in; exit 3"]).expect_code(3).stdout, "in\n");
    exec("two", &["nosuch"]).expect_code(1).expect_text("executable file not found in $PATH");
    let words = ["task", "exec", "-t", "--exec-id", "three", "task", "sh", "-c", READS_FROM_TERMINAL];
    containerd.run_on_terminal(&words, b"typed\n").expect_code(5);
    let status = || {
        let list = containerd.ok(&["task", "ls"]);
        let line = list.lines().find(|line| line.starts_with("task ")).unwrap_or_default().to_owned();
        line.split_whitespace().last().unwrap_or_default().to_owned()
    };
    assert_eq!(status(), "RUNNING");
    assert!(containerd.ok(&["task", "ps", "task"]).lines().count() >= 3, "a header and two processes");
    containerd.ok(&["task", "pause", "task"]);
    assert_eq!(status(), "PAUSED");
    containerd.ok(&["task", "resume", "task"]);
    let metrics = containerd.ok(&["task", "metrics", "--format", "json", "task"]);
    let metrics: serde_json::Value = serde_json::from_str(&metrics).expect("metrics as JSON");
    assert_eq!(metrics["pids"]["current"], 2, "{metrics}");
    containerd.ok(&["task", "kill", "--all", "--signal", "KILL", "task"]);
    let begin = std::time::Instant::now();
    while status() != "STOPPED" {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{}", status());
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    // `ctr` ends with the task's own exit code.
    containerd.run(&["task", "delete", "task"]).expect_text("137");
    containerd.ok(&["container", "rm", "task"]);
}
