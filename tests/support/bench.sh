#!/usr/bin/env bash
# `make bench`: the same work on berthd, dockerd and podman, side by side in one run, as medians and ratios.
# dockerd and podman get network and mount namespaces of their own, so that nothing of them stays behind.
#   RUNS=20 make bench
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$BERTH_BIN_DIR:$PATH:/usr/sbin:/sbin LC_ALL=C
runs=${RUNS:-15}
dir=$(mktemp -d "${TMPDIR:-/tmp}/berth-bench.XXXXXX")
pids=()

finish() {
    status=$?
    BERTH_HOST=unix://$dir/berth/run/berth.sock berth system shutdown --containers >/dev/null 2>&1 || true
    if [ -S "$dir/docker.sock" ]; then
        docker -H "unix://$dir/docker.sock" ps -aq | xargs -r docker -H "unix://$dir/docker.sock" rm -f >/dev/null 2>&1 || true
    fi
    [ ! -f "$dir/docker.pid" ] || kill "$(cat "$dir/docker.pid")" 2>/dev/null || true
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for group in /sys/fs/cgroup/*/docker /sys/fs/cgroup/*/libpod_parent/conmon /sys/fs/cgroup/*/libpod_parent; do rmdir "$group" 2>/dev/null || true; done
    rm -rf "$dir"
    exit $status
}
trap finish EXIT

mkdir -p "$dir/rootfs"/{bin,etc,tmp}
cp /bin/busybox "$dir/rootfs/bin/busybox"
for applet in $(/bin/busybox --list); do ln -s busybox "$dir/rootfs/bin/$applet" 2>/dev/null || true; done
echo 'root:x:0:0:root:/:/bin/sh' >"$dir/rootfs/etc/passwd"
tar -C "$dir/rootfs" -cf "$dir/base.tar" .

berthd --root "$dir/berth/root" --run-root "$dir/berth/run" --log-level error &
pids+=($!)
unshare --net --mount --fork sh -c 'ip link set lo up && exec "$@"' sh dockerd --data-root "$dir/docker/root" \
    --exec-root "$dir/docker/exec" --pidfile "$dir/docker.pid" --host "unix://$dir/docker.sock" >"$dir/dockerd.log" 2>&1 &
pids+=($!)
for _ in $(seq 300); do [ -S "$dir/docker.sock" ] && [ -S "$dir/berth/run/berth.sock" ] && break; sleep 0.1; done
berth_docker() { docker -H "unix://$dir/berth/run/berth.sock" "$@"; }
dockerd_docker() { docker -H "unix://$dir/docker.sock" "$@"; }
for _ in $(seq 100); do dockerd_docker version >/dev/null 2>&1 && break; sleep 0.1; done
berth_docker import "$dir/base.tar" base >/dev/null
dockerd_docker import "$dir/base.tar" base >/dev/null
# podman needs no daemon: a script in its namespaces runs the measured loop itself.
podman_args="--root $dir/podman/root --runroot $dir/podman/run --cgroup-manager cgroupfs"

cat >"$dir/measure.py" <<'PY'
import statistics, subprocess, sys, time
runs, command = int(sys.argv[1]), sys.argv[2:]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
times = []
for _ in range(runs):
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    times.append((time.perf_counter() - begin) * 1000)
print(f"{statistics.median(times):.1f}")
PY
measure() { python3 "$dir/measure.py" "$runs" "$@"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", a / b }'; }
row() { printf '%-34s %10s %10s %10s %12s %12s\n' "$@"; }

row "median of $runs, ms" berthd dockerd podman "dockerd/ours" "podman/ours"
B="docker -H unix://$dir/berth/run/berth.sock" D="docker -H unix://$dir/docker.sock"
b=$(measure $B run --rm base true)
d=$(measure $D run --rm base true)
p=$(unshare --net --mount --fork sh -c "ip link set lo up; podman $podman_args import -q $dir/base.tar base >/dev/null 2>&1;
    python3 $dir/measure.py $runs podman $podman_args run --rm base true" 2>/dev/null || echo nan)
row "run --rm IMAGE true" "$b" "$d" "$p" "$(ratio "$d" "$b")" "$(ratio "$p" "$b")"
own=$(measure berth -H "unix://$dir/berth/run/berth.sock" run --rm base true)
row "  the same, by the berth CLI" "$own" "" "" "$(ratio "$d" "$own")" "$(ratio "$p" "$own")"

$B run -d --name target base sleep 10000 >/dev/null
$D run -d --name target base sleep 10000 >/dev/null
b=$(measure $B exec target true)
d=$(measure $D exec target true)
row "exec CONTAINER true" "$b" "$d" "" "$(ratio "$d" "$b")" ""
own=$(measure berth -H "unix://$dir/berth/run/berth.sock" exec target true)
row "  the same, by the berth CLI" "$own" "" "" "$(ratio "$d" "$own")" ""

burst() { # CLI words
    begin=$(date +%s%N)
    for i in $(seq 20); do "$@" run -d --name "burst$i" base sleep 10000 >/dev/null & jobs_[i]=$!; done
    for i in $(seq 20); do wait "${jobs_[i]}"; done
    echo $((($(date +%s%N) - begin) / 1000000))
}
b=$(burst $B) d=$(burst $D)
row "20 run -d at once" "$b" "$d" "" "$(ratio "$d" "$b")" ""
sweep() { begin=$(date +%s%N); "$@" rm -f $(seq -f 'burst%g' 20) >/dev/null; echo $((($(date +%s%N) - begin) / 1000000)); }
b=$(sweep $B) d=$(sweep $D)
row "rm -f of 20" "$b" "$d" "" "$(ratio "$d" "$b")" ""

memory() { awk '/^Rss:/{s+=$2} END{printf "%.1f", s/1024}' "/proc/$1/smaps_rollup"; }
b=$(memory "${pids[0]}") d=$(memory "$(cat "$dir/docker.pid")")
c=$(memory "$(pgrep -P "$(cat "$dir/docker.pid")" containerd | head -n 1)")
row "memory of the daemon(s), MB" "$b" "$(awk -v a="$d" -v b="$c" 'BEGIN{print a+b}')" "" "" ""
shim=$(pgrep -P "${pids[0]}" berth-shim | head -n 1)
[ -z "$shim" ] || row "PSS of a container's shim, kB" "$(awk '/^Pss:/{print $2}' "/proc/$shim/smaps_rollup")" "" "" "" ""
