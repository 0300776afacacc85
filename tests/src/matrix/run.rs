//! `run`: exit codes, streams, terminals, and the options that shape the process.

use super::Fixture;

/// Output arrives on the right streams, and the exit code is the program's.
pub fn foreground_streams_and_exit_codes(f: &Fixture) {
    let run = f.cli.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let run = run.expect_code(7);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(f.cli.ok(&["run", "--rm", "busybox", "echo", "hi"]), "hi");
    assert_eq!(f.cli.ok(&["ps", "-aq"]), "", "--rm leaves nothing");
}

/// 125, 126 and 127 as docker gives them.
pub fn failures_to_start(f: &Fixture) {
    f.cli
        .run(&["run", "--rm", "busybox", "nosuch"])
        .expect_code(127)
        .expect_text("executable file not found in $PATH");
    f.cli.run(&["run", "--rm", "busybox", "/no/such/file"]).expect_code(127).expect_text("no such file");
    f.cli.run(&["run", "--rm", "busybox", "/etc/passwd"]).expect_code(126).expect_text("permission denied");
    f.cli.run(&["run", "--rm", "--volumes-from", "nosuch", "busybox", "true"]).expect_code(125);
    assert_eq!(f.cli.ok(&["ps", "-aq"]), "", "a failed --rm run leaves nothing");
}

/// A death by signal is 128 + signal.
pub fn signals_in_exit_codes(f: &Fixture) {
    f.cli.run(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).expect_code(137);
}

/// Standard input reaches the program, and its end does too.
pub fn standard_input(f: &Fixture) {
    let run = f.cli.run_with_input(&["run", "--rm", "-i", "busybox", "cat"], b"one\ntwo\n");
    assert_eq!(run.success(), "one\ntwo");
    let run = f.cli.run_with_input(&["run", "--rm", "-i", "busybox", "wc", "-c"], &vec![b'x'; 3 << 20]);
    assert_eq!(run.success(), (3 << 20).to_string());
}

/// Nothing of a large output is lost.
pub fn large_output(f: &Fixture) {
    let run = f.cli.run(&["run", "--rm", "busybox", "sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' x"]);
    assert_eq!(run.expect_code(0).stdout.len(), 8_000_000);
}

/// `-it` gives a terminal with the size of ours, and takes what is typed.
pub fn terminal(f: &Fixture) {
    let args =
        ["run", "--rm", "-it", "busybox", "sh", "-c", "test -t 0 && test -t 1 && read x && echo got-$x"];
    f.cli.run_on_terminal(&args, b"typed\n").expect_code(0).expect_text("got-typed");
    f.cli.run_on_terminal(&["run", "--rm", "-it", "busybox", "sh", "-c", "exit 9"], b"").expect_code(9);
}

/// Environment, user, working directory, entrypoint, hostname, labels.
pub fn process_options(f: &Fixture) {
    let script = "echo $A-$B $(id -u):$(id -g) $PWD $(hostname)";
    let run = ["run", "--rm", "-e", "A=1", "-e", "B=2", "-u", "web", "-w", "/home/new", "-h", "box"];
    let out = f.cli.ok(&[&run[..], &["busybox", "sh", "-c", script]].concat());
    assert_eq!(out, "1-2 1000:1000 /home/new box");
    assert_eq!(
        f.cli.ok(&["run", "--rm", "--entrypoint", "echo", "busybox", "from", "entrypoint"]),
        "from entrypoint"
    );
    assert_eq!(f.cli.ok(&["run", "--rm", "-u", "1234:77", "busybox", "id", "-u"]), "1234");
    let groups = f.cli.ok(&["run", "--rm", "-u", "web", "--group-add", "3000", "busybox", "id", "-G"]);
    assert_eq!(groups, "1000 2000 3000");
    // Its own group is a supplementary one as well, so that setgid programs do not lose it.
    let groups = ["run", "--rm", "-u", "1234:77", "busybox", "grep", "Groups", "/proc/self/status"];
    assert_eq!(f.cli.ok(&groups).split_whitespace().last(), Some("77"));
    f.cli.run(&["run", "--rm", "-u", "nosuch", "busybox", "true"]).expect_code(125).expect_text("nosuch");
}

/// Signs by which programs know where they are; none of them is a change of the container's.
pub fn signs_of_a_container(f: &Fixture) {
    let script = "test -f /.dockerenv && awk '$2 == \"/\" { print $1, $3 }' /proc/mounts";
    assert_eq!(f.cli.ok(&["run", "--name", "signs", "busybox", "sh", "-c", script]), "overlay overlay");
    assert_eq!(f.cli.ok(&["diff", "signs"]), "");
    let ignored = f.cli.ok(&["run", "--rm", "busybox", "grep", "SigIgn", "/proc/self/status"]);
    assert_eq!(ignored.split_whitespace().last(), Some("0000000000000000"));
}

/// A detached container's id is printed, its output is in its log, and `wait` gives its exit code.
pub fn detached(f: &Fixture) {
    let id = f.cli.ok(&["run", "-d", "--name", "detached", "busybox", "sh", "-c", "echo logged; exit 3"]);
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(f.cli.ok(&["wait", "detached"]), "3");
    assert_eq!(f.cli.ok(&["logs", "detached"]), "logged");
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &id]), "exited 3");
}

/// The kernel's view from inside: namespaces, capabilities, seccomp, masked and read-only paths.
pub fn confinement(f: &Fixture) {
    let status = f.cli.ok(&["run", "--rm", "busybox", "cat", "/proc/self/status"]);
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb", "Docker's default capabilities");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("Seccomp:"), "2", "a filter is in force");
    assert_eq!(f.cli.ok(&["run", "--rm", "busybox", "sh", "-c", "echo $$"]), "1");
    assert_eq!(
        f.cli.ok(&["run", "--rm", "busybox", "sh", "-c", "ls /sys/class/net | sort | xargs"]),
        "eth0 lo"
    );
    let masked = "test -z \"$(cat /proc/kcore 2>/dev/null | head -c1)\" && ! touch /proc/sys/kernel/x 2>/dev/null && \
                  ! echo 1 2>/dev/null >/proc/sys/kernel/panic && test -z \"$(ls /proc/acpi 2>/dev/null)\" && echo closed";
    assert_eq!(f.cli.ok(&["run", "--rm", "busybox", "sh", "-c", masked]), "closed");
    f.cli.run(&["run", "--rm", "busybox", "mount", "-t", "tmpfs", "x", "/mnt"]).expect_code(1);
    f.cli.run(&["run", "--rm", "busybox", "unshare", "-m", "true"]).expect_code(1);
    let none =
        f.cli.ok(&["run", "--rm", "--cap-drop", "ALL", "busybox", "grep", "CapEff", "/proc/self/status"]);
    assert!(none.ends_with("0000000000000000"), "{none}");
    f.cli.ok(&["run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "x", "/home"]);
    f.cli
        .run(&["run", "--rm", "--read-only", "busybox", "touch", "/x"])
        .expect_code(1)
        .expect_text("Read-only");
}
