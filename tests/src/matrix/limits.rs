//! Limits on memory, processor and processes, as the kernel enforces them.

use super::Fixture;

/// Too much memory ends the container with 137, and it is told as what it was.
pub fn memory(f: &Fixture) {
    f.cli
        .run(&["run", "--name", "hog", "--memory", "32m", "busybox", "tail", "-c", "100m", "/dev/zero"])
        .expect_code(137);
    let state = f.cli.ok(&["inspect", "--format", "{{.State.OOMKilled}} {{.HostConfig.Memory}}", "hog"]);
    assert_eq!(state, "true 33554432");
    f.cli.ok(&["run", "--rm", "--memory", "32m", "busybox", "tail", "-c", "8m", "/dev/null"]);
}

/// Who wants more than a quarter of a processor is slowed down.
pub fn cpu(f: &Fixture) {
    let script = "f=/sys/fs/cgroup/cpu.stat; [ -e $f ] || f=/sys/fs/cgroup/cpu/cpu.stat; \
                  until grep -q '^nr_throttled [1-9]' $f; do :; done; echo slowed";
    let slowed = ["run", "--rm", "--cpus", "0.25", "busybox", "sh", "-c", script];
    assert_eq!(f.cli.ok(&slowed), "slowed");
}

/// A fork bomb stops at the limit.
pub fn pids(f: &Fixture) {
    let script = "for i in $(seq 40); do sleep 3 & done; wait";
    f.cli
        .run(&["run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", script])
        .expect_text("can't fork");
}

/// `update` changes a limit while the container runs.
pub fn update(f: &Fixture) {
    f.cli.ok(&[
        "run",
        "-d",
        "--name",
        "grown",
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        "busybox",
        "sleep",
        "100",
    ]);
    f.cli.ok(&["update", "--memory", "64m", "--memory-swap", "64m", "grown"]);
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.HostConfig.Memory}}", "grown"]), "67108864");
    let inside =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(f.cli.ok(&["exec", "grown", "sh", "-c", inside]), "67108864");
}

/// `stats` and `top` see the container.
pub fn stats_and_top(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "seen", "--memory", "64m", "busybox", "sleep", "1234"]);
    let stats = f.cli.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "seen"]);
    assert!(stats.starts_with("seen ") && stats.contains("/ 64MiB") && stats.ends_with(" 1"), "{stats}");
    assert!(f.cli.ok(&["top", "seen"]).contains("sleep 1234"));
}
