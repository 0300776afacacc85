#!/usr/bin/env python3
"""`make bench`, projects and networks: `berth compose` with berthd, docker compose with dockerd, taking turns; traffic through
bridge, NAT and published port beside a bare veth pair; 500 ports, and networks.

    BENCH_COMPOSE=PROGRAM RUNS=5 BENCH_RECORD=FILE.jsonl tests/support/bench-projects.py

BENCH_COMPOSE is docker compose as a program of its own (the binary docker-compose); without it that case has no peer. Each
engine has a network namespace of its own, so that neither meets the other's firewall; iperf3 runs in the namespaces of containers.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

engine = importlib.util.spec_from_file_location("engine", os.path.join(os.path.dirname(__file__), "bench-engine.py"))
common = importlib.util.module_from_spec(engine)
engine.loader.exec_module(common)

RUNS = int(os.environ.get("RUNS", "5"))
SERVICES = 20
PORTS = 500
NETWORKS = 100
SECONDS = "4"
COMPOSE = os.environ.get("BENCH_COMPOSE")


def shell(pid, command):
    """Runs a shell command in the network namespace of a process; gives its output."""
    done = subprocess.run(["nsenter", "-t", str(pid), "-n", "sh", "-c", command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}: exit code {done.returncode}: {done.stderr.strip()}{done.stdout.strip()}")
    return done.stdout


def namespace():
    """A network namespace, held by a process."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    shell(holder.pid, "ip link set lo up")
    return holder


class Host:
    """An engine in a network namespace of its own."""

    def __init__(self, subject, top, command, address):
        self.subject, self.address = subject, address
        self.net = namespace()
        self.log = open(f"{top}/{subject}.log", "w", encoding="utf-8")
        inside = ["nsenter", "-t", str(self.net.pid), "-n"]
        self.process = subprocess.Popen(inside + command, stdout=self.log, stderr=self.log)
        self.cli = ["berth", "-H", address]

    def output(self, arguments):
        return subprocess.run(self.cli + arguments, capture_output=True, text=True, check=True).stdout.strip()


def projects(record, hosts, top):
    directory = os.path.join(top, "project")
    os.makedirs(directory)
    lines = [f"  s{n}: {{image: base, command: sleep 1000, stop_signal: SIGKILL}}" for n in range(SERVICES)]
    path = os.path.join(directory, "compose.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write("name: bench\nservices:\n" + "\n".join(lines) + "\n")
    commands = {host.subject: host.cli + ["compose", "-f", path] for host in hosts.values()}
    if COMPOSE:
        address = hosts["dockerd"].address
        commands["dockerd"] = ["env", f"DOCKER_HOST={address}", COMPOSE, "-f", path]
    print("Projects", file=sys.stderr)
    for turn in range(RUNS + 1):
        for subject, command in commands.items():
            for case, words in (("compose up -d", ["up", "-d"]), ("compose down", ["down"])):
                took = common.timed(command + words)
                if turn:
                    record.value(f"{case}, {SERVICES} services", "ms", subject, took)


def rate(client, server, address, port=5201):
    """Gigabits a second from one namespace to another."""
    listening = subprocess.Popen(
        ["nsenter", "-t", str(server), "-n", "iperf3", "-s", "-1"], stdout=common.NULL, stderr=common.NULL)
    time.sleep(0.3)
    said = json.loads(shell(client, f"iperf3 -J -t {SECONDS} -c {address} -p {port}"))
    listening.wait()
    return said["end"]["sum_received"]["bits_per_second"] / 1e9


def traffic(record, hosts):
    outside = namespace()
    left = namespace()
    subprocess.run(
        ["ip", "link", "add", "bare0", "netns", str(left.pid), "type", "veth", "peer", "name", "bare1", "netns",
         str(outside.pid)], check=True)
    shell(left.pid, "ip address add 192.0.2.1/24 dev bare0 && ip link set bare0 up")
    shell(outside.pid, "ip address add 192.0.2.2/24 dev bare1 && ip link set bare1 up")
    ends = {}
    for number, host in enumerate(hosts.values()):
        up, net = f"up{number}", f"198.51.{100 + number}"
        subprocess.run(
            ["ip", "link", "add", up, "netns", str(host.net.pid), "type", "veth", "peer", "name", up, "netns",
             str(outside.pid)], check=True)
        shell(host.net.pid, f"ip address add {net}.1/24 dev {up} && ip link set {up} up")
        shell(outside.pid, f"ip address add {net}.2/24 dev {up} && ip link set {up} up")
        pids = []
        for name, options in (("server", ["-p", "5999:5201"]), ("client", [])):
            common.call(host.cli + ["run", "-d", "--name", name] + options + ["base", "sleep", "10000"])
            pids.append(int(host.output(["inspect", "-f", "{{.State.Pid}}", name])))
        address = host.output(
            ["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "server"])
        ends[host.subject] = (*pids, address, net)
    print("Traffic", file=sys.stderr)
    for _ in range(max(2, RUNS // 2)):
        bare = rate(outside.pid, left.pid, "192.0.2.1")
        for subject, (server, client, address, net) in ends.items():
            for case, measured in (
                ("bridge", rate(client, server, address)),
                ("NAT", rate(client, outside.pid, f"{net}.2")),
                ("published port", rate(outside.pid, server, f"{net}.1", 5999)),
            ):
                record.value(f"iperf3, {case}", "Gbit/s", subject, measured)
                record.value(f"iperf3, {case}, of a bare veth pair", "%", subject, 100 * measured / bare)
    for host in hosts.values():
        common.call(host.cli + ["rm", "-f", "server", "client"])
    for holder in (outside, left):
        holder.kill()


def many(record, hosts):
    print("Ports and networks", file=sys.stderr)
    for subject, host in hosts.items():
        ports = f"20000-{20000 + PORTS - 1}:20000-{20000 + PORTS - 1}"
        run = host.cli + ["run", "-d", "--name", "many", "-p", ports, "base", "sleep", "10000"]
        record.value(f"run -d with {PORTS} ports", "ms", subject, common.timed(run))
        record.value(f"rm -f with {PORTS} ports", "ms", subject, common.timed(host.cli + ["rm", "-f", "many"]))
        begin = time.perf_counter()
        for number in range(NETWORKS):
            common.call(host.cli + ["network", "create", "--subnet", f"10.77.{number}.0/24", f"n{number}"])
        record.value("network create", "ms", subject, (time.perf_counter() - begin) * 1000 / NETWORKS)
        joined = host.cli + ["run", "--rm", "--network", f"n{NETWORKS - 1}", "base", "true"]
        record.value(f"run --rm with {NETWORKS} networks", "ms", subject, common.timed(joined))
        common.call(host.cli + ["network", "prune", "-f"])


def main():
    os.environ["PATH"] = f"{os.environ['BERTH_BIN_DIR']}:{os.environ['PATH']}:/usr/sbin:/sbin"
    common.SUITE = "Projects and networks"
    record = common.Record()
    with tempfile.TemporaryDirectory(prefix="berth-bench.") as top:
        parent = f"/berth-bench-{os.getpid()}"
        hosts = {
            "berth": Host("berth", top, [
                "berthd", "--root", f"{top}/berth/root", "--run-root", f"{top}/berth/run", "--log-level", "error",
            ], f"unix://{top}/berth/run/berth.sock"),
            "dockerd": Host("dockerd", top, [
                "unshare", "--mount", "dockerd", "--data-root", f"{top}/docker/root", "--exec-root", f"{top}/docker/exec",
                "--pidfile", f"{top}/docker.pid", "--host", f"unix://{top}/docker.sock", "--cgroup-parent", parent,
            ], f"unix://{top}/docker.sock"),
        }
        try:
            archive = common.base_image(top)
            for host in hosts.values():
                common.wait_for(host.cli + ["version"])
                common.call(host.cli + ["import", archive, "base"])
            projects(record, hosts, top)
            traffic(record, hosts)
            many(record, hosts)
        finally:
            common.call(hosts["berth"].cli + ["system", "shutdown", "--containers"], check=False)
            hosts["dockerd"].process.send_signal(signal.SIGTERM)
            for host in hosts.values():
                host.process.wait()
                host.net.kill()
                host.net.wait()
            common.call(["sh", "-c", f"rmdir /sys/fs/cgroup/*{parent} /sys/fs/cgroup{parent} 2>/dev/null"], check=False)


if __name__ == "__main__":
    main()
