#!/usr/bin/env python3
"""The engine's own speed, without a command line in between: the Engine API of berthd and dockerd, side by side.

    bench-api.py NAME=SOCKET… [--parts run,exec,parallel,list,memory,logs]

Each daemon must have the image `base` (a busybox). One line per figure: medians, in milliseconds unless said otherwise.
With BENCH_RECORD=FILE.jsonl every figure goes there too, for `berth lab compare`; BENCH_ROUNDS=3 takes each three times, the
daemons taking turns. `make bench` runs this within the suite `engine`.
"""

import concurrent.futures
import http.client
import json
import os
import socket
import statistics
import sys
import time


class Api(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self.path)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body)
        self.request(method, "/v1.41" + path, data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text[:1] in (b"{", b"[") else text


def create(api, command, **host):
    body = {"Image": "base", "Cmd": command, "HostConfig": host}
    return api.call("POST", "/containers/create", body)["Id"]


def remove(api, container):
    api.call("DELETE", f"/containers/{container}?force=1&v=1")


def median(work, runs):
    work()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def run(path):
    """create, start, wait for the end, remove"""
    api = Api(path)

    def once():
        container = create(api, ["true"])
        api.call("POST", f"/containers/{container}/start")
        api.call("POST", f"/containers/{container}/wait")
        api.call("DELETE", f"/containers/{container}")

    return {"run to its removal": median(once, 15)}


def exec_(path):
    api = Api(path)
    container = create(api, ["sleep", "1000"])
    api.call("POST", f"/containers/{container}/start")

    def once():
        made = api.call("POST", f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        body = b'{"Detach":false,"Tty":false}'
        client.sendall(
            f"POST /v1.41/exec/{made}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        while client.recv(65536):
            pass
        client.close()
        assert api.call("GET", f"/exec/{made}/json")["ExitCode"] == 0

    result = median(once, 30)
    remove(api, container)
    return {"exec to its exit code": result}


def parallel(path):
    """200 containers made before, started at once by 16 clients"""
    api = Api(path)
    made = [create(api, ["sleep", "1000"]) for _ in range(200)]
    local = [Api(path) for _ in range(16)]

    def start(number):
        for container in made[number::16]:
            local[number].call("POST", f"/containers/{container}/start")

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(start, range(16)))
    took = (time.perf_counter() - begin) * 1000
    running = len(api.call("GET", "/containers/json"))
    assert running >= 200, running

    def kill(number):
        for container in made[number::16]:
            remove(local[number], container)

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(kill, range(16)))
    return {"200 started in parallel": took, "the same removed by force": (time.perf_counter() - begin) * 1000}


def list_(path):
    api = Api(path)
    made = [create(api, ["true"]) for _ in range(1000)]
    result = median(lambda: api.call("GET", "/containers/json?all=1"), 15)
    for container in made:
        remove(api, container)
    return {"ps -a with 1000 containers": result}


def anonymous(pid):
    """Memory that only this process has, kB: what it costs to have it."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Dirty", "Private_Clean")))


def processes(*words):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = open(f"/proc/{entry}/cmdline", "rb").read().decode(errors="replace")
            except OSError:
                continue
            if all(word in text for word in words) and "bench-engine" not in text:
                yield int(entry)


def memory(path):
    """What a daemon keeps for itself, and what each of 20 running containers costs beside its own processes"""
    api = Api(path)
    root = os.path.dirname(os.path.dirname(path)) if path.endswith("berth.sock") else os.path.dirname(path)
    words = ("berth",) if path.endswith("berth.sock") else ("/",)
    before = sum(anonymous(pid) for pid in processes(root, *words))
    made = [create(api, ["sleep", "1000"]) for _ in range(20)]
    for container in made:
        api.call("POST", f"/containers/{container}/start")
    time.sleep(1)
    after = sum(anonymous(pid) for pid in processes(root, *words))
    for container in made:
        remove(api, container)
    return {"memory of the daemon, kB": before, "memory per container, kB": (after - before) / 20}


def logs(path):
    """1 GB of lines into the container's log"""
    api = Api(path)
    line = "x" * 99
    container = create(api, ["sh", "-c", f"yes {line} | head -c 1000000000"])
    begin = time.perf_counter()
    api.call("POST", f"/containers/{container}/start")
    api.call("POST", f"/containers/{container}/wait")
    took = time.perf_counter() - begin
    remove(api, container)
    return {"log, MB/s": 1000 / took}


PARTS = {"run": run, "exec": exec_, "parallel": parallel, "list": list_, "memory": memory, "logs": logs}


def record(figure, subject, value):
    """Everything but the speed of the log: there more is better."""
    path = os.environ.get("BENCH_RECORD")
    if path and not figure.endswith("MB/s"):
        case, _, unit = figure.partition(", ")
        line = {"suite": "Engine API", "case": case, "unit": unit or "ms", "subject": subject, "value": round(value, 4)}
        with open(path, "a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)


def main():
    daemons = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word and not word.startswith("--"))
    chosen = list(PARTS)
    if "--parts" in sys.argv:
        chosen = sys.argv[sys.argv.index("--parts") + 1].split(",")
    print(f"{'':34}" + "".join(f"{name:>12}" for name in daemons))
    for part in chosen:
        for _ in range(int(os.environ.get("BENCH_ROUNDS", "1"))):
            results = {name: PARTS[part](path) for name, path in daemons.items()}
            for figure in next(iter(results.values())):
                print(f"{figure:34}" + "".join(f"{results[name][figure]:12.1f}" for name in daemons), flush=True)
                for name in daemons:
                    record(figure, name, results[name][figure])


main()
