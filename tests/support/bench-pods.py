#!/usr/bin/python3
"""`make bench`, pods: berthd and containerd through the CRI, taking turns, with the same CNI plugins; berthd on its own bridge too.

    RUNS=10 BENCH_RECORD=FILE.jsonl tests/support/bench-pods.py

A pod is a sandbox and one container of busybox, as a kubelet asks for them (process ids per container), until the program runs.
The client speaks gRPC with a few messages written by hand, so that nothing but its time is between two calls. containerd
gets a pause image of a static program that only waits. Memory is the proportional set size of daemon, shims and pause processes.
"""

import concurrent.futures
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import grpc

engine = importlib.util.spec_from_file_location("engine", os.path.join(os.path.dirname(__file__), "bench-engine.py"))
common = importlib.util.module_from_spec(engine)
engine.loader.exec_module(common)

RUNS = int(os.environ.get("RUNS", "10"))
PODS = 100
IMAGE, PAUSE = "docker.io/library/base:latest", "docker.io/library/pause:latest"


def message(*fields):
    """A protobuf message of (number, value): texts, messages and small numbers."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3, value])
            continue
        value = value.encode() if isinstance(value, str) else value
        length, rest = b"", len(value)
        while rest > 127:
            length, rest = length + bytes([rest & 127 | 128]), rest >> 7
        out += bytes([number << 3 | 2]) + length + bytes([rest]) + value
    return out


class Client:
    """The calls of the CRI that a pod's life needs."""

    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}", options=[("grpc.default_authority", "localhost")])

    def call(self, name, request):
        return self.channel.unary_unary(f"/runtime.v1.RuntimeService/{name}")(request, timeout=300, wait_for_ready=True)

    def start(self, name, top):
        own_pids = message((2, 1))
        metadata = message((1, name), (2, name), (3, "bench"))
        security = message((2, message((1, own_pids))))
        config = message((1, metadata), (2, name), (3, f"{top}/logs"), (8, security))
        sandbox = identity(self.call("RunPodSandbox", message((1, config))))
        container = message(
            (1, message((1, "c"))), (2, message((1, IMAGE))), (3, "sleep"), (3, "100000"), (11, f"{name}.log"),
            (15, message((2, message((3, own_pids))))))
        made = self.call("CreateContainer", message((1, sandbox), (2, container), (3, config)))
        self.call("StartContainer", message((1, identity(made))))
        return sandbox

    def remove(self, sandbox):
        self.call("StopPodSandbox", message((1, sandbox)))
        self.call("RemovePodSandbox", message((1, sandbox)))


def identity(answer):
    """The first field, an id of less than 128 letters."""
    return answer[2:2 + answer[1]].decode()


def milliseconds(work):
    begin = time.perf_counter()
    given = work()
    return (time.perf_counter() - begin) * 1000, given


def memory(top, daemon):
    """Megabytes of the daemon's processes: itself, its shims, and their pause processes."""
    def line(pid):
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()

    kilobytes = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                parent = file.read().rsplit(")", 1)[1].split()[1]
            ours = f"{top}/{daemon}" in line(pid) or (line(pid).startswith("/pause") and f"{top}/{daemon}" in line(parent))
            if ours and "bench-pods" not in line(pid):
                with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                    kilobytes += sum(int(row.split()[1]) for row in file if row.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return kilobytes / 1024


def measure(record, top, clients):
    case = "sandbox and container to running"
    print(f"{common.SUITE}: {case}", file=sys.stderr)
    for turn in range(RUNS + 1):
        for subject, (client, _) in clients.items():
            took, sandbox = milliseconds(lambda: client.start(f"one{turn}", top))
            removed, _ = milliseconds(lambda: client.remove(sandbox))
            if turn:
                record.value(case, "ms", subject, took)
                record.value("stop and remove of a pod", "ms", subject, removed)
    print(f"{common.SUITE}: {PODS} at once", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor(PODS) as threads:
        for subject, (client, daemon) in clients.items():
            names = [f"many{number}" for number in range(PODS)]
            took, sandboxes = milliseconds(lambda: list(threads.map(lambda name: client.start(name, top), names)))
            record.value(f"{PODS} pods at once", "ms", subject, took)
            time.sleep(3)
            record.value(f"memory with {PODS} idle pods", "MB", subject, memory(top, daemon))
            removed, _ = milliseconds(lambda: list(threads.map(client.remove, sandboxes)))
            record.value(f"{PODS} pods removed at once", "ms", subject, removed)


def network(top, name, number):
    """A CNI configuration: bridge with addresses, and published ports."""
    os.makedirs(f"{top}/{name}/cni")
    ipam = {"type": "host-local", "dataDir": f"{top}/{name}/ipam", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": f"10.24{number}.0.0/16"}]]}
    bridge = {"type": "bridge", "bridge": f"bench{number}", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    with open(f"{top}/{name}/cni/10-bench.conflist", "w", encoding="utf-8") as file:
        json.dump({"cniVersion": "1.0.0", "name": f"bench{number}", "plugins": plugins}, file)


def containerd_settings(top):
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    text = f"""version = 2
root = "{top}/containerd/root"
state = "{top}/containerd/state"
[grpc]
  address = "{top}/containerd/sock"
[{cri}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{top}/containerd/cni"
"""
    with open(f"{top}/containerd/config.toml", "w", encoding="utf-8") as file:
        file.write(text)


def pause_image(top):
    with open(f"{top}/pause.c", "w", encoding="utf-8") as file:
        file.write("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    os.makedirs(f"{top}/pause")
    common.call(["cc", "-static", "-Os", "-s", "-o", f"{top}/pause/pause", f"{top}/pause.c"])
    common.call(["tar", "-C", f"{top}/pause", "-cf", f"{top}/pause.tar", "."])
    return f"{top}/pause.tar"


def images(top, sockets):
    base, pause = common.base_image(top), pause_image(top)
    for socket in sockets:
        cli = ["berth", "-H", socket]
        common.wait_for(cli + ["version"])
        common.call(cli + ["import", "--change", "ENV PATH=/bin", base, "base"])
    common.call(cli + ["import", "--change", 'ENTRYPOINT ["/pause"]', pause, "pause"])
    common.call(cli + ["save", "-o", f"{top}/images.tar", "base", "pause"])
    ctr = ["ctr", "--address", f"{top}/containerd/sock", "--namespace", "k8s.io", "images"]
    common.wait_for(ctr + ["ls"])
    common.call(ctr + ["import", f"{top}/images.tar"])


def main():
    common.inside_of(__file__)
    os.environ["PATH"] = f"{os.environ['BERTH_BIN_DIR']}:{os.environ['PATH']}"
    common.SUITE = "Pods"
    record = common.Record()
    with tempfile.TemporaryDirectory(prefix="berth-bench.") as top:
        network(top, "berth", 1)
        network(top, "containerd", 2)
        containerd_settings(top)
        log = open(f"{top}/daemons.log", "w", encoding="utf-8")
        berth = {
            name: ["berthd", "--root", f"{top}/{name}/root", "--run-root", f"{top}/{name}/run", "--log-level", "error",
                   "--cni-conf-dir", f"{top}/{name}/cni"]
            for name in ("berth", "bridge")
        }
        daemons = [subprocess.Popen(command, stdout=log, stderr=log) for command in berth.values()]
        sockets = [f"unix://{top}/{name}/run/berth.sock" for name in berth]
        theirs = ["containerd", "--config", f"{top}/containerd/config.toml"]
        containerd = subprocess.Popen(theirs, stdout=log, stderr=log)
        try:
            images(top, sockets)
            record.version("berth", ["berth", "--version"])
            record.version("containerd", ["containerd", "--version"])
            measure(record, top, {
                "berth": (Client(f"{top}/berth/run/cri.sock"), "berth/"),
                "berth on its own bridge": (Client(f"{top}/bridge/run/cri.sock"), "bridge/"),
                "containerd": (Client(f"{top}/containerd/sock"), "containerd/"),
            })
        finally:
            for socket in sockets:
                common.call(["berth", "-H", socket, "system", "shutdown", "--containers"], check=False)
            for daemon in daemons:
                daemon.wait()
            containerd.send_signal(signal.SIGTERM)
            containerd.wait()


if __name__ == "__main__":
    main()
