#!/usr/bin/env python3
"""Writes runtime/bin/order.ld: which functions of berth-runtime a container needs, in the order in which it needs them.

    make order        (as root: every function of the program gets a probe, and a few commands run)

The linker puts these together at the front of the program, so that a start maps a quarter of its pages (docs/decisions/0215).
The list holds patterns without the compiler's hashes and outlives most changes of the code; a name that is gone costs nothing,
a new one lies elsewhere. Made anew it does not have to be the same: order it again when `make bench` says so.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRACING = Path("/sys/kernel/tracing")
GROUP = "berth_order"
HEAD = """/* Made by tests/support/order.py; see there. */
SECTIONS
{
  .text.first :
  {
"""
TAIL = """  }
}
INSERT BEFORE .text;
"""


def functions(program):
    """Address -> name of each function, and what is to be taken from an address for its place in the file."""
    segments = subprocess.check_output(["readelf", "-lW", program], text=True)
    offset, start, size = (int(word, 16) for word in re.search(
        r"LOAD +(\w+) (\w+) \w+ (\w+) \w+ R E", segments).groups())
    found = {}
    for line in subprocess.check_output(["nm", "--defined-only", "-n", program], text=True).splitlines():
        address, kind, name = line.split(maxsplit=2)
        if kind in "tTwW" and start <= int(address, 16) < start + size:
            found.setdefault(int(address, 16), name)
    return found, start - offset


def bundle(directory, program, arguments):
    root = directory / "rootfs"
    for name in ("bin", "dev", "proc", "sys"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in ("true", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    subprocess.run([program, "spec", "--bundle", directory], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"].update(args=arguments, terminal=False)
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def work(program, directory):
    short = bundle(directory / "short", program, ["/bin/true"])
    long = bundle(directory / "long", program, ["/bin/sleep", "1000"])

    def call(*arguments):
        subprocess.run([program, "--root", directory / "state", *arguments], check=True, stdout=subprocess.DEVNULL)

    yield
    call("run", "--bundle", short, "order-1")
    call("create", "--bundle", long, "order-2")
    call("start", "order-2")
    call("exec", "order-2", "/bin/true")
    call("state", "order-2")
    call("kill", "order-2", "KILL")
    time.sleep(0.5)
    call("delete", "order-2")


def traced(names, difference, program, steps):
    """The addresses that were reached, in that order."""
    events = TRACING / "uprobe_events"
    events.write_text("")
    descriptor = os.open(events, os.O_WRONLY | os.O_APPEND)
    for address in names:
        os.write(descriptor, f"p:{GROUP}/f{address:x} {program}:{address - difference:#x}\n".encode())
    enable = TRACING / "events" / GROUP / "enable"
    (TRACING / "buffer_size_kb").write_text("16384")
    (TRACING / "trace").write_text("")
    enable.write_text("1")
    try:
        for _ in steps:
            pass
    finally:
        # Minutes: each probe waits for all processors.
        enable.write_text("0")
    reached = re.findall(r": f([0-9a-f]+): \(0x", (TRACING / "trace").read_text())
    os.close(descriptor)
    events.write_text("")
    return dict.fromkeys(int(address, 16) for address in reached)


def pattern(name):
    for hashed, free in ((r"17h[0-9a-f]{16}E", "17h*E"), (r"\.llvm\.\d+", ".llvm.*"), (r"Cs[0-9A-Za-z]+_", "Cs*_")):
        name = re.sub(hashed, free, name)
    return name


def main():
    program, output = sys.argv[1], Path(sys.argv[2])
    names, difference = functions(program)
    with tempfile.TemporaryDirectory(prefix="berth-order-") as directory:
        steps = work(program, Path(directory))
        next(steps)
        reached = traced(names, difference, program, steps)
    patterns = dict.fromkeys(pattern(names[address]) for address in reached)
    output.write_text(HEAD + "".join(f"    *(.text.{name})\n" for name in patterns) + TAIL)
    print(f"{len(reached)} of {len(names)} functions, {len(patterns)} patterns: {output}")


main()
