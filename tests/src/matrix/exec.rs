//! `exec` into a running container.

use super::Fixture;

fn start(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "target", "-e", "FROM_RUN=yes", "busybox", "sleep", "1000"]);
}

/// Output, exit code, environment, user and directory of an exec.
pub fn plain(f: &Fixture) {
    start(f);
    assert_eq!(f.cli.ok(&["exec", "target", "echo", "hi"]), "hi");
    let run = f.cli.run(&["exec", "target", "sh", "-c", "echo out; echo err >&2; exit 3"]).expect_code(3);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    let args = [
        "exec",
        "-e",
        "X=1",
        "-w",
        "/tmp",
        "-u",
        "web",
        "target",
        "sh",
        "-c",
        "echo $FROM_RUN $X $PWD $(id -u)",
    ];
    assert_eq!(f.cli.ok(&args), "yes 1 /tmp 1000");
    assert_eq!(f.cli.ok(&["exec", "target", "hostname"]), f.cli.ok(&["ps", "-q"]));
}

/// What cannot run says why, with docker's codes.
pub fn failures(f: &Fixture) {
    start(f);
    f.cli
        .run(&["exec", "target", "nosuch"])
        .expect_code(127)
        .expect_text("executable file not found in $PATH");
    f.cli.run(&["exec", "target", "/etc/passwd"]).expect_code(126).expect_text("permission denied");
    f.cli.run(&["exec", "nosuch", "true"]).expect_code(1).expect_text("No such container: nosuch");
    f.cli.ok(&["stop", "-t", "0", "target"]);
    f.cli.run(&["exec", "target", "true"]).expect_code(1).expect_text("is not running");
}

/// Input goes in and ends.
pub fn standard_input(f: &Fixture) {
    start(f);
    let run = f.cli.run_with_input(&["exec", "-i", "target", "wc", "-c"], &vec![b'x'; 1 << 20]);
    assert_eq!(run.success(), (1 << 20).to_string());
}

/// `exec -it` has a terminal.
pub fn terminal(f: &Fixture) {
    start(f);
    let script = "test -t 0 && test -t 1 && read x && echo got-$x; exit 6";
    f.cli
        .run_on_terminal(&["exec", "-it", "target", "sh", "-c", script], b"typed\n")
        .expect_code(6)
        .expect_text("got-typed");
}

/// `exec -d` goes on by itself.
pub fn detached(f: &Fixture) {
    start(f);
    f.cli.ok(&["exec", "-d", "target", "sh", "-c", "sleep 0.2; echo done > /tmp/done"]);
    f.cli.eventually("the file of the detached exec", |cli| {
        cli.run(&["exec", "target", "cat", "/tmp/done"]).stdout == "done\n"
    });
}

/// An exec is in the same cgroup and under the same confinement as its container.
pub fn confinement(f: &Fixture) {
    start(f);
    let status = f.cli.ok(&["exec", "target", "cat", "/proc/self/status"]);
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let same = f.cli.ok(&["exec", "target", "sh", "-c", "cmp /proc/1/cgroup /proc/self/cgroup && echo same"]);
    assert_eq!(same, "same");
}
