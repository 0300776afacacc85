#!/usr/bin/env bash
# `make demo`: Berth's main job on this machine, from an empty store to a running, limited container and back.
# Every command is printed before it runs, so that the output doubles as a tour.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BERTH_BIN_DIR:-$PWD/target/release}
base=${DEMO_BASE:-busybox}
dir=$(mktemp -d "${TMPDIR:-/tmp}/berth-demo.XXXXXX")
export PATH=$bin:$PATH BERTH_HOST=unix://$dir/run/berth.sock
daemon=

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '\033[36m$ %s\033[0m\n' "$*"; }
run() {
    local shown= word
    for word; do case $word in *[[:space:]]*) word="'$word'" ;; esac; shown+=" $word"; done
    show "${shown# }"; "$@"
}
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

finish() {
    status=$?
    if [ -n "$daemon" ]; then
        say "Everything goes: containers, bridge, firewall table, files"
        run berth system shutdown --containers || status=1
        wait "$daemon" || true
    fi
    rm -rf "$dir"
    [ $status -ne 0 ] || say "Done. Nothing is left behind."
    exit $status
}
trap finish EXIT

[ "$(id -u)" = 0 ] || die "the engine needs root (rootless is on its way): sudo make demo"

say "A private daemon: its own root, its own socket; nothing else on this machine is touched"
show "berthd --root $dir/root --run-root $dir/run &"
berthd --root "$dir/root" --run-root "$dir/run" --log-level warn 2>"$dir/berthd.log" &
daemon=$!
for _ in $(seq 100); do [ -S "$dir/run/berth.sock" ] && break; sleep 0.05; done
[ -S "$dir/run/berth.sock" ] || { cat "$dir/berthd.log" >&2; die "the daemon did not come up"; }
run berth version

say "A base image from real files ($base)"
if [ "$base" = debian ]; then
    show "mmdebstrap --variant=essential --include=busybox bookworm - | berth import - demo-base"
    mmdebstrap --quiet --variant=essential --include=busybox "${DEMO_SUITE:-$(. /etc/os-release; echo "$VERSION_CODENAME")}" - |
        berth import - demo-base
else
    rootfs=$dir/rootfs
    mkdir -p "$rootfs"/{bin,etc,tmp,root,usr/bin,usr/sbin,sbin,var}
    chmod 1777 "$rootfs/tmp"
    cp /bin/busybox "$rootfs/bin/busybox"
    for applet in $(/bin/busybox --list); do ln -s busybox "$rootfs/bin/$applet" 2>/dev/null || true; done
    printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n' >"$rootfs/etc/passwd"
    printf 'root:x:0:\nweb:x:1000:\n' >"$rootfs/etc/group"
    show "tar -C rootfs -c . | berth import --change 'CMD [\"/bin/sh\"]' - demo-base"
    tar -C "$rootfs" -c . | berth import --change 'CMD ["/bin/sh"]' - demo-base
fi

say "Build examples/hello/Dockerfile: two stages, RUN, COPY, ENV, WORKDIR, USER, EXPOSE, VOLUME, ENTRYPOINT, CMD"
run berth build -t hello examples/hello
say "Once more: everything comes from the cache"
run berth build -q -t hello examples/hello
run berth images

say "Run it with 64 MiB of memory and half a processor, its port published on 127.0.0.1"
run berth run -d --name web --memory 64m --cpus 0.5 -p 127.0.0.1::8080 hello
run berth ps

say "The limits as the host's kernel sees them"
pid=$(berth inspect --format '{{.State.Pid}}' web)
cgroup_file() { # controller, v1 file, v2 file
    local path
    if path=$(awk -F: -v c="$1" '$2 ~ "(^|,)"c"(,|$)" {print $3}' "/proc/$pid/cgroup") && [ -n "$path" ]; then
        echo "/sys/fs/cgroup/$1$path/$2"
    else
        echo "/sys/fs/cgroup$(awk -F: '$1 == 0 {print $3}' "/proc/$pid/cgroup")/$3"
    fi
}
memory=$(cgroup_file memory memory.limit_in_bytes memory.max)
run cat "$memory"
[ "$(cat "$memory")" = $((64 << 20)) ] || die "the memory limit is not 64 MiB"
cpu=$(cgroup_file cpu cpu.cfs_quota_us cpu.max)
run cat "$cpu"
case $(cat "$cpu") in 50000 | "50000 100000") ;; *) die "the processor limit is not one half" ;; esac

say "... and from the inside: a program that wants 200 MiB is stopped by the kernel, the container goes on"
show "berth run --rm --memory 64m demo-base dd if=/dev/zero of=/dev/null bs=200M count=1"
if berth run --rm --memory 64m demo-base dd if=/dev/zero of=/dev/null bs=200M count=1; then die "nothing stopped it"; else echo "exit code $?"; fi

say "... and two loops on two processors for two seconds get one second of processor time, not four"
loops='timeout 2 sh -c "while :; do :; done & while :; do :; done"'
# cgroup v2 counts in microseconds, v1 in nanoseconds.
used='cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null | head -n 1'
show "berth run --rm --cpus 0.5 demo-base sh -c '$loops; $used'"
berth run --rm --cpus 0.5 demo-base sh -c "$loops; $used" 2>&1 | sed 's/^/    /' || true

say "Look inside"
run berth exec web id
run berth exec web sh -c 'hostname; cat /data/started; tr "\\0" " " </proc/1/cmdline; echo'

say "Fetch the page through the published port"
address=$(berth port web 8080/tcp)
show "wget -qO- http://$address/"
for _ in $(seq 50); do page=$(/bin/busybox wget -qO- "http://$address/" 2>/dev/null) && break; sleep 0.05; done
[ -n "${page:-}" ] || die "the page did not come"
printf '%s\n' "$page"
grep -q 'Hello from Berth' <<<"$page" || die "this is not the page"

say "Follow its log until it stops"
show "berth logs -f web &"
berth logs -f web &
logs=$!
run berth stop -t 2 web
wait $logs
run berth ps -a
run berth rm -v web
run berth rmi hello
