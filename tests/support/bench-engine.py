#!/usr/bin/env python3
"""`make bench`, containers: the same work on berthd, dockerd and podman, taking turns.

    RUNS=20 BENCH_RECORD=FILE.jsonl tests/support/bench-engine.py

All run in one network and one mount namespace of their own, so that nothing of them stays behind. There the second version
of control groups is unmounted if the host has both: crun, podman's runtime, refuses such a host. podman is told the limits
of files and processes: its own are above what a root without CAP_SYS_RESOURCE may set.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

RUNS = int(os.environ.get("RUNS", "15"))
AT_ONCE = 20
SUITE = "Containers"
NULL = subprocess.DEVNULL


def inside_of(script_file):
    """Starts a script again in namespaces of its own."""
    if os.environ.get("BENCH_INSIDE"):
        return
    script = 'ip link set lo up && { umount /sys/fs/cgroup/unified 2>/dev/null || true; } && exec "$@"'
    os.environ["BENCH_INSIDE"] = "1"
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    arguments = ["unshare", "--net", "--mount", "--fork", "--kill-child", "sh", "-c", script, "sh"]
    os.execvp("unshare", arguments + [sys.executable, os.path.abspath(script_file)])


class Record:
    """Lines of JSON for `berth lab compare`, and a word on standard error for whoever waits."""

    def __init__(self):
        path = os.environ.get("BENCH_RECORD")
        self.file = open(path, "a", encoding="utf-8") if path else sys.stdout

    def value(self, case, unit, subject, value):
        line = {"suite": SUITE, "case": case, "unit": unit, "subject": subject, "value": round(value, 4)}
        print(json.dumps(line), file=self.file, flush=True)

    def version(self, subject, command):
        version = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        print(json.dumps({"subject": subject, "version": version}), file=self.file, flush=True)


def call(command, check=True):
    done = subprocess.run(command, stdin=NULL, stdout=NULL, stderr=subprocess.PIPE, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.returncode


def timed(command):
    begin = time.perf_counter()
    call(command)
    return (time.perf_counter() - begin) * 1000


def taking_turns(record, case, commands, runs=RUNS):
    """`commands`: subject -> command. The first turn warms up."""
    print(f"{SUITE}: {case}", file=sys.stderr)
    for turn in range(runs + 1):
        for subject, command in commands.items():
            took = timed(command)
            if turn:
                record.value(case, "ms", subject, took)


def base_image(top):
    rootfs = os.path.join(top, "rootfs")
    for sub in ("bin", "etc", "tmp"):
        os.makedirs(os.path.join(rootfs, sub))
    shutil.copy("/bin/busybox", os.path.join(rootfs, "bin/busybox"))
    for applet in ("sh", "true", "sleep"):
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    with open(os.path.join(rootfs, "etc/passwd"), "w", encoding="utf-8") as file:
        file.write("root:x:0:0:root:/:/bin/sh\n")
    archive = os.path.join(top, "base.tar")
    subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True)
    return archive


def wait_for(command, seconds=40):
    end = time.monotonic() + seconds
    while call(command, check=False):
        if time.monotonic() > end:
            sys.exit(f"{' '.join(command)}: does not answer")
        time.sleep(0.1)


def resident(pid):
    """Kilobytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Rss:"))


def children(pid, name):
    found = subprocess.run(["pgrep", "-P", str(pid), name], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def at_once(record, engines, runs):
    """Starts containers all at once, then removes them by one command."""
    names = [f"burst{number}" for number in range(AT_ONCE)]
    for turn in range(runs + 1):
        for subject, engine in engines.items():
            begin = time.perf_counter()
            started = [
                subprocess.Popen(engine.run(["-d", "--name", name, "base", "sleep", "10000"]), stdin=NULL, stdout=NULL)
                for name in names
            ]
            if any([process.wait() for process in started]):
                sys.exit(f"{subject}: cannot start {AT_ONCE} containers at once")
            took = (time.perf_counter() - begin) * 1000
            removed = timed(engine.cli + ["rm", "-f"] + engine.at_once + names)
            if turn:
                record.value(f"{AT_ONCE} run -d at once", "ms", subject, took)
                record.value(f"rm -f of {AT_ONCE}", "ms", subject, removed)


class Engine:
    """A command line with its options."""

    def __init__(self, cli, run_options=(), at_once=()):
        self.cli, self.run_options, self.at_once = cli, list(run_options), list(at_once)

    def run(self, arguments):
        return self.cli + ["run"] + self.run_options + arguments


def measure(record, top, berthd, dockerd):
    ours, theirs = f"unix://{top}/berth/run/berth.sock", f"unix://{top}/docker/docker.sock"
    podman = ["podman", "--root", f"{top}/podman/root", "--runroot", f"{top}/podman/run", "--cgroup-manager", "cgroupfs"]
    engines = {
        "berth": Engine(["berth", "-H", ours]),
        "berthd by docker's CLI": Engine(["docker", "-H", ours]),
        "dockerd": Engine(["docker", "-H", theirs]),
        "podman": Engine(podman, ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"], ["-t", "0"]),
    }
    stores = ["berth", "dockerd", "podman"]
    wait_for(engines["berth"].cli + ["version"])
    wait_for(engines["dockerd"].cli + ["version"])
    archive = base_image(top)
    for store in stores:
        call(engines[store].cli + ["import", archive, "base"])
    record.version("berth", ["berth", "--version"])
    record.version("dockerd", ["docker", "-H", theirs, "version", "--format", "{{.Server.Version}}"])
    record.version("podman", ["podman", "--version"])
    everyone = engines.items()
    taking_turns(record, "run --rm IMAGE true", {s: e.run(["--rm", "base", "true"]) for s, e in everyone})
    for store in stores:
        call(engines[store].run(["-d", "--name", "target", "base", "sleep", "10000"]))
    taking_turns(record, "exec CONTAINER true", {s: e.cli + ["exec", "target", "true"] for s, e in everyone})
    taking_turns(record, "inspect CONTAINER", {s: e.cli + ["inspect", "target"] for s, e in everyone})
    print(f"{SUITE}: {AT_ONCE} at once", file=sys.stderr)
    at_once(record, engines, max(3, RUNS // 5))
    case = "memory of the daemons"
    record.value(case, "MB", "berth", resident(berthd.pid) / 1024)
    daemons = [dockerd.pid] + children(dockerd.pid, "containerd")
    record.value(case, "MB", "dockerd", sum(resident(pid) for pid in daemons) / 1024)
    for store in stores:
        call(engines[store].cli + ["rm", "-f"] + engines[store].at_once + ["target"])
    print("Engine API", file=sys.stderr)
    sockets = [f"berth={ours}", f"dockerd={theirs}"]
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench-api.py")
    words = [word.replace("unix://", "") for word in sockets] + ["--parts", os.environ.get("API_PARTS", "run,exec,parallel,memory")]
    os.environ.setdefault("BENCH_ROUNDS", "3")
    subprocess.run([sys.executable, script] + words, check=True, stdout=sys.stderr)


def main():
    inside_of(__file__)
    os.environ["PATH"] = f"{os.environ['BERTH_BIN_DIR']}:{os.environ['PATH']}"
    record = Record()
    with tempfile.TemporaryDirectory(prefix="berth-bench.") as top:
        os.makedirs(f"{top}/docker")
        log = open(f"{top}/daemons.log", "w", encoding="utf-8")
        parent = f"/berth-bench-{os.getpid()}"
        berthd = subprocess.Popen(
            ["berthd", "--root", f"{top}/berth/root", "--run-root", f"{top}/berth/run", "--log-level", "error"],
            stdout=log, stderr=log)
        dockerd = subprocess.Popen(
            ["dockerd", "--data-root", f"{top}/docker/root", "--exec-root", f"{top}/docker/exec",
             "--pidfile", f"{top}/docker.pid", "--host", f"unix://{top}/docker/docker.sock", "--cgroup-parent", parent],
            stdout=log, stderr=log)
        try:
            measure(record, top, berthd, dockerd)
        finally:
            call(["berth", "-H", f"unix://{top}/berth/run/berth.sock", "system", "shutdown", "--containers"], check=False)
            dockerd.send_signal(signal.SIGTERM)
            berthd.wait()
            dockerd.wait()
            call(["sh", "-c", f"rmdir /sys/fs/cgroup/*{parent} /sys/fs/cgroup{parent} 2>/dev/null"], check=False)


if __name__ == "__main__":
    main()
