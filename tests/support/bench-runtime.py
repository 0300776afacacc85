#!/usr/bin/env python3
"""`make bench`: berth-runtime against runc and crun on one bundle, interleaved, as medians and ratios.

    RUNS=40 BENCH_RUNC=/path/to/newest/runc BENCH_CRUN=/path/to/newest/crun make bench

With BENCH_RECORD=FILE.jsonl every measurement goes there too, for `berth lab compare`.

Runs in a mount namespace of its own (`unshare --mount`): crun refuses a host with both versions of cgroups, so the
second one is unmounted here, for everybody; and everybody's state lies on a tmpfs, as /run does where systemd started. `floor` is a program that makes only the system calls which the bundle
needs (runtime/core/examples/floor.rs). CPU time is that of the runtime and all it waited for: it tells the work from
the waiting, and does not depend on what else the machine does.
"""

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = int(os.environ.get("RUNS", "30"))
# Before a command on a machine that did nothing, in seconds.
PAUSE = 0.2
PARALLEL = 100


def runtimes():
    bin_dir = os.environ["BERTH_BIN_DIR"]
    named = [
        ("berth", os.path.join(bin_dir, "berth-runtime")),
        ("crun new", os.environ.get("BENCH_CRUN")),
        ("crun", shutil.which("crun")),
        ("runc new", os.environ.get("BENCH_RUNC")),
        ("runc", shutil.which("runc")),
    ]
    return [(name, path) for name, path in named if path]


def bundle(directory, args):
    """The configuration that `runc spec` writes, for a program of busybox."""
    os.makedirs(directory)
    rootfs = os.path.join(directory, "rootfs")
    for sub in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        os.makedirs(os.path.join(rootfs, sub))
    shutil.copy("/bin/busybox", os.path.join(rootfs, "bin/busybox"))
    for applet in ("sh", "true", "sleep"):
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    subprocess.run([shutil.which("runc"), "spec"], cwd=directory, check=True)
    path = os.path.join(directory, "config.json")
    with open(path) as file:
        spec = json.load(file)
    spec["process"]["terminal"] = False
    spec["process"]["args"] = args
    with open(path, "w") as file:
        json.dump(spec, file)
    return directory


def start(command, cwd):
    """What runtimes say (runc warns of the capabilities in its own example) goes where the program's output goes."""
    null = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=cwd, stdin=null, stdout=null, stderr=null)


def call(command, cwd=None):
    if code := start(command, cwd).wait():
        sys.exit(f"{' '.join(command)}: exit code {code}")


class Cost:
    """What commands took, in milliseconds: wall clock and CPU."""

    def __init__(self):
        self.wall, self.cpu = [], []

    def measure(self, commands, cwd):
        wall = cpu = 0
        for command in commands:
            begin = time.perf_counter()
            child = start(command, cwd)
            _, status, usage = os.wait4(child.pid, 0)
            wall += time.perf_counter() - begin
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                sys.exit(f"{' '.join(command)}: exit code {child.returncode}")
            cpu += usage.ru_utime + usage.ru_stime
        self.wall.append(wall * 1000)
        self.cpu.append(cpu * 1000)


def peak_memory(command, cwd):
    """In megabytes, of a run that lasts a moment. (wait4 would tell our own size before the execve as well.)"""
    child, peak = start(command, cwd), 0
    while child.poll() is None:
        with open(f"/proc/{child.pid}/status") as status:
            peak = max([peak] + [int(line.split()[1]) for line in status if line.startswith("VmHWM")])
        time.sleep(0.01)
    return peak / 1024


def interleaved(runs, jobs, pause=0.0):
    """`jobs`: name -> (commands, cwd). All take turns, so that they see the same machine. The first turn warms up.

    One that follows another within milliseconds finds the kernel's lock on moves between cgroups as that one left it, and
    does not wait for a grace period: only after a pause, in seconds, everybody pays for what they do themselves."""
    costs = {name: Cost() for name in jobs}
    for turn in range(runs + 1):
        for name, (commands, cwd) in jobs.items():
            time.sleep(pause)
            cost = costs[name] if turn else Cost()
            cost.measure(commands, cwd)
    return costs


def record(case, unit, subject, values):
    if path := os.environ.get("BENCH_RECORD"):
        with open(path, "a", encoding="utf-8") as file:
            for value in values:
                line = {"suite": "The runtime alone", "case": case, "unit": unit, "subject": subject, "value": round(value, 4)}
                print(json.dumps(line), file=file)


def version(subject, program):
    if path := os.environ.get("BENCH_RECORD"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        with open(path, "a", encoding="utf-8") as file:
            print(json.dumps({"subject": subject, "version": said.split("\n")[0]}), file=file)


def report(title, costs, of=lambda cost: statistics.median(cost.wall), digits=1, case=None, values=lambda cost: cost.wall):
    if case:
        for name, cost in costs.items():
            record(*case, name, values(cost))
    ours = of(costs["berth"])
    cells = [f"{title:<34}"]
    for cost in costs.values():
        value = of(cost)
        cells.append(f"{value:9.{digits}f} ({ours / value:4.2f})")
    print("".join(f"{cell:>18}" if at else cell for at, cell in enumerate(cells)), flush=True)


def heading(names):
    title = "median (berth's share of it)"
    print(f"{title:<34}" + "".join(f"{name:>18}" for name in names), flush=True)


def parallel(path, directory, name):
    """Starts containers all at once and waits for all."""
    begin = time.perf_counter()
    children = [start([path, "run", f"{name}-{n}"], directory) for n in range(PARALLEL)]
    codes = [child.wait() for child in children]
    if any(codes):
        sys.exit(f"{path}: {sum(1 for code in codes if code)} of {PARALLEL} containers failed")
    return (time.perf_counter() - begin) * 1000


def spin():
    while True:
        pass


def main():
    if os.path.ismount("/sys/fs/cgroup/unified"):
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    all_runtimes = runtimes()
    prefix = f"berth-bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="berth-bench.") as top:
        once = bundle(os.path.join(top, "true"), ["/bin/true"])
        long = bundle(os.path.join(top, "sleep"), ["/bin/sleep", "10000"])
        # The rate of ticks decides how long the kernel's grace periods take: they are short on a busy machine.
        print(f"\nberth-runtime: {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {RUNS} runs each")
        names = [name for name, _ in all_runtimes]
        for name, path in all_runtimes:
            version(f"runtime {name}", path)

        def run_jobs():
            jobs = {name: ([[path, "run", f"{prefix}-{at}"]], once) for at, (name, path) in enumerate(all_runtimes)}
            floor = os.path.join(os.environ["BERTH_BIN_DIR"], "examples", "floor")
            jobs["floor"] = ([[floor, "rootfs", "/bin/true"]], once)
            return jobs

        heading(names + ["floor"])
        costs = interleaved(RUNS, run_jobs())
        report("run of true, ms", costs, case=("run of true", "ms"))
        report("  its CPU time, ms", costs, lambda cost: statistics.mean(cost.cpu), case=("run of true: CPU time", "ms"), values=lambda cost: cost.cpu)
        report("  after a pause, ms", interleaved(RUNS, run_jobs(), PAUSE), case=("run of true, after a pause", "ms"))
        moment = bundle(os.path.join(top, "moment"), ["/bin/sleep", "0.3"])
        jobs = run_jobs()
        peaks = {name: peak_memory(commands[0], moment) for name, (commands, _) in jobs.items() if name != "floor"}
        report("  peak memory, MB", peaks, lambda peak: peak, case=("run of true: peak memory", "MB"), values=lambda peak: [peak])
        spinners = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count())]
        for spinner in spinners:
            spinner.start()
        report("  with all cores busy, ms", interleaved(RUNS, run_jobs()), case=("run of true, all cores busy", "ms"))
        for spinner in spinners:
            spinner.kill()
            spinner.join()

        jobs = {}
        for at, (name, path) in enumerate(all_runtimes):
            box = f"{prefix}-{at}"
            jobs[name] = ([[path, "create", box], [path, "start", box], [path, "delete", "--force", box]], long)
        costs = interleaved(RUNS, jobs)
        report("create + start + delete, ms", costs, case=("create + start + delete", "ms"))
        report("  its CPU time, ms", costs, lambda cost: statistics.mean(cost.cpu), case=("create + start + delete: CPU time", "ms"), values=lambda cost: cost.cpu)

        jobs = {}
        for at, (name, path) in enumerate(all_runtimes):
            call([path, "run", "--detach", f"{prefix}-{at}"], long)
            jobs[name] = ([[path, "exec", f"{prefix}-{at}", "/bin/true"]], long)
        costs = interleaved(RUNS, jobs)
        report("exec of true, ms", costs, case=("exec of true", "ms"))
        report("  its CPU time, ms", costs, lambda cost: statistics.mean(cost.cpu), case=("exec of true: CPU time", "ms"), values=lambda cost: cost.cpu)
        report("  after a pause, ms", interleaved(RUNS, jobs, PAUSE), case=("exec of true, after a pause", "ms"))
        for at, (_, path) in enumerate(all_runtimes):
            call([path, "delete", "--force", f"{prefix}-{at}"])

        costs = {name: Cost() for name in names}
        for _ in range(max(3, RUNS // 10)):
            for at, (name, path) in enumerate(all_runtimes):
                costs[name].wall.append(parallel(path, once, f"{prefix}-{at}"))
        report(f"{PARALLEL} runs at once, ms", costs, digits=0, case=(f"{PARALLEL} runs at once", "ms"))


if __name__ == "__main__":
    main()
