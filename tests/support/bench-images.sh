#!/usr/bin/env bash
# `make bench`, images: pull, push, save, load and the first container, on berthd, dockerd, podman and skopeo with Debian's
# docker-registry on loopback, side by side in one run. Each line is a median; the peers take turns within a line. Under each
# wall time stands the processor time of the engine alone (by cgroup), which a busy machine disturbs less. The floor of a
# pull is what the machine itself needs: gunzip, sha256 before and after, and writing, on all processors
# (image-store/store/examples/pull_floor.rs).
#   RUNS=5 ONLY='push|load' tests/support/bench-images.sh      # lines whose name matches
#   LAYOUT=DIRECTORY                                            # where the images are kept for the next time
# With BENCH_RECORD=FILE.jsonl every measurement goes there too, for `berth lab compare`.
set -euo pipefail
if [ -z "${BENCH_INSIDE:-}" ]; then
    # One network namespace for all, so that dockerd reaches the registry on loopback and its rules stay in there.
    exec env BENCH_INSIDE=1 unshare --net --mount --fork --kill-child sh -c 'ip link set lo up && exec "$@"' sh "$0" "$@"
fi
cd "$(dirname "$0")/../.."
export PATH=$BERTH_BIN_DIR:$PATH:/usr/sbin:/sbin LC_ALL=C
runs=${RUNS:-3}
dir=$(mktemp -d "${TMPDIR:-/tmp}/berth-bench-images.XXXXXX")
layout=${LAYOUT:-$dir/layout}
# A file system of its own: what others on this machine write and delete does not slow down the allocation of inodes.
truncate -s 40G "$dir.ext4"
mkfs.ext4 -q -F "$dir.ext4"
mount -o loop "$dir.ext4" "$dir"
pids=()

finish() {
    status=$?
    berth -H "unix://$dir/berth/run/berth.sock" system shutdown --containers >/dev/null 2>&1 || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for group in /sys/fs/cgroup/*/docker "$accounts"/berth-bench-$$-*; do rmdir "$group" 2>/dev/null || true; done
    sleep 1
    umount -l "$dir" || true
    rm -rf "$dir" "$dir.ext4"
    exit $status
}
trap finish EXIT

# A cgroup for each engine, to count its processor time.
accounts=/sys/fs/cgroup
[ ! -d /sys/fs/cgroup/cpuacct ] || accounts=/sys/fs/cgroup/cpuacct
join() { mkdir -p "$accounts/berth-bench-$$-$1" && echo "$BASHPID" >"$accounts/berth-bench-$$-$1/cgroup.procs"; }
cpu() { # ENGINE: nanoseconds so far
    local group=$accounts/berth-bench-$$-$1
    if [ -e "$group/cpuacct.usage" ]; then cat "$group/cpuacct.usage"; else awk '/^usage_usec/ { print $2 * 1000 }' "$group/cpu.stat" 2>/dev/null || echo 0; fi
}

registry() { # NAME PORT: a registry with an empty store
    printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' \
        "$dir/$1" "$2" >"$dir/$1.yml"
    docker-registry serve "$dir/$1.yml" >/dev/null 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do curl -so /dev/null "127.0.0.1:$2/v2/" && return; sleep 0.1; done
    echo "docker-registry does not listen" >&2; exit 1
}

for kind in big some tiny; do [ -d "$layout/$kind" ] || python3 tests/support/make-image.py "$layout/$kind" $kind; done
registry source 5001
for kind in big some tiny; do skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$layout/$kind:$kind" "docker://127.0.0.1:5001/$kind:1"; done

(join berthd; exec berthd --root "$dir/berth/root" --run-root "$dir/berth/run" --log-level error) &
pids+=($!)
(join dockerd; exec dockerd --data-root "$dir/docker/root" --exec-root "$dir/docker/exec" --pidfile "$dir/docker.pid" \
    --host "unix://$dir/docker.sock" >"$dir/dockerd.log" 2>&1) &
(join podman); (join skopeo); (join floor)
pids+=($!)
for _ in $(seq 300); do [ -S "$dir/docker.sock" ] && [ -S "$dir/berth/run/berth.sock" ] && break; sleep 0.1; done
B=(docker -H "unix://$dir/berth/run/berth.sock")
D=(docker -H "unix://$dir/docker.sock")
P=(podman --root "$dir/podman/root" --runroot "$dir/podman/run" --cgroup-manager cgroupfs)
for _ in $(seq 100); do "${D[@]}" version >/dev/null 2>&1 && break; sleep 0.1; done

berthd_cli() { "${B[@]}" "$@"; }
dockerd_cli() { "${D[@]}" "$@"; }
podman_cli() { "${P[@]}" "$@"; }

seconds() { # ENGINE COMMAND…: its wall time and the engine's processor time
    local begin before engine=$1; shift
    before=$(cpu "$engine") begin=$(date +%s%N)
    (case $engine in podman | skopeo | floor) join "$engine" ;; esac; "$@" "$engine") >/dev/null 2>"$dir/err" ||
        { echo "failed: $* $engine: $(tail -3 "$dir/err")" >&2; echo "nan nan"; return; }
    awk -v ns=$(($(date +%s%N) - begin)) -v cpu=$(($(cpu "$engine") - before)) 'BEGIN { printf "%.2f %.2f\n", ns / 1e9, cpu / 1e9 }'
}
# A line for `berth lab compare`: CASE UNIT SUBJECT VALUE
record() {
    [ -z "${BENCH_RECORD:-}" ] || [ "$4" = nan ] ||
        printf '{"suite": "Images", "case": "%s", "unit": "%s", "subject": "%s", "value": %s}\n' "$1" "$2" "${3/berthd/berth}" "$4" >>"$BENCH_RECORD"
}
median() { cut -d' ' -f"$2" "$1" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
compare() { # NAME PREPARE WORK ENGINE…: times `WORK ENGINE` after `PREPARE ENGINE`, engines in turn
    local name=$1 prepare=$2 work=$3 engine line; shift 3
    [[ $name =~ ${ONLY:-.} ]] || return 0
    rm -f "$dir"/times.*
    for _ in $(seq "$runs"); do
        for engine in "$@"; do
            "$prepare" "$engine" >/dev/null 2>&1 || true
            # ext4 gives inodes that were freed within the last seconds out again only after a long search.
            sync; sleep 6
            took=$(seconds "$engine" "$work")
            echo "$took" >>"$dir/times.$engine"
            record "$name" s "$engine" "${took% *}"
            record "$name: processor time" s "$engine" "${took#* }"
        done
    done
    for column in 1 2; do
        line=$(printf '%-40s' "$([ $column = 1 ] && echo "$name" || echo '  processor time')")
        for engine in berthd dockerd podman skopeo floor; do
            if [ -e "$dir/times.$engine" ]; then
                m=$(median "$dir/times.$engine" $column)
                [ "$engine" = berthd ] && ours=$m
                line+=$(printf ' %9s %-7s' "$m" "$(awk -v a="$m" -v b="$ours" 'BEGIN { printf "(%.1fx)", (b > 0 ? a / b : 0) }')")
            fi
        done
        echo "$line"
    done
}

image=127.0.0.1:5001/big:1
forget() {
    case $1 in skopeo | floor) rm -rf "$dir/copy.$1"; return ;; esac
    "$1_cli" rmi -f "$image" 127.0.0.1:5002/big:1 local:1 || true
    [ "$1" = podman ] || "$1_cli" image prune -af
}
pull() {
    case $1 in
        skopeo) skopeo --insecure-policy copy --src-tls-verify=false "docker://$image" "oci:$dir/copy.skopeo:1" ;;
        floor) "$BERTH_BIN_DIR/examples/pull_floor" "$layout/$(basename "${image%:*}")" "$dir/copy.floor" ;;
        podman) podman_cli pull --tls-verify=false "$image" ;;
        *) "$1_cli" pull "$image" ;;
    esac
}
fresh_target() {
    [ -z "${target:-}" ] || { kill "$target"; wait "$target" 2>/dev/null || true; }
    rm -rf "$dir/target"
    registry target 5002
    target=$!
}
prepare_push() { fresh_target; [ "$1" = skopeo ] || { pull "$1"; "$1_cli" tag "$image" 127.0.0.1:5002/big:1; }; }
push() {
    case $1 in
        skopeo) skopeo --insecure-policy copy --dest-tls-verify=false "oci:$layout/big:big" docker://127.0.0.1:5002/big:1 ;;
        podman) podman_cli push --tls-verify=false 127.0.0.1:5002/big:1 ;;
        *) "$1_cli" push 127.0.0.1:5002/big:1 ;;
    esac
}
save() { rm -f "$dir/$1.tar"; "$1_cli" save -o "$dir/$1.tar" "$image"; }
load() { "$1_cli" load -i "$dir/dockerd.tar"; }
prepare_first() { forget "$1"; pull "$1"; }
first() { "$1_cli" run --rm --network none "$image" /bin/true; }
# An image of one layer that nobody has compressed yet.
prepare_local() {
    fresh_target
    "$1_cli" rmi -f 127.0.0.1:5002/big:1 local:1 || true
    [ "$1" = podman ] || "$1_cli" image prune -f
    "$1_cli" import "$dir/local.tar" local:1
    "$1_cli" tag local:1 127.0.0.1:5002/big:1
}

printf '%-40s %17s %17s %17s %17s %17s\n' "median of $runs, seconds" berthd dockerd podman skopeo floor
compare "pull, 1 GB in 12 layers" forget pull berthd dockerd podman skopeo floor
compare "first container after a pull" prepare_first first berthd dockerd podman
compare "push of what was pulled" prepare_push push berthd dockerd podman skopeo
compare "save" pull save berthd dockerd
if [[ "load of dockerd's archive" =~ ${ONLY:-.} ]]; then
    [ -e "$dir/dockerd.tar" ] || { pull dockerd && save dockerd; } >/dev/null
    compare "load of dockerd's archive" forget load berthd dockerd
fi
if [[ "push of 0.4 GB made here" =~ ${ONLY:-.} ]]; then
    mkdir "$dir/content"
    for blob in $(find "$layout/big/blobs" -size +100k | sort | head -5); do tar -C "$dir/content" -xzf "$blob"; done
    tar -C "$dir/content" -cf "$dir/local.tar" . && rm -r "$dir/content"
    compare "push of 0.4 GB made here" prepare_local push berthd dockerd podman
    for engine in berthd dockerd; do forget $engine >/dev/null 2>&1; done
fi
image=127.0.0.1:5001/some:1
compare "pull, 120 tiny layers" forget pull berthd dockerd podman skopeo floor
# dockerd refuses more than 125.
image=127.0.0.1:5001/tiny:1
compare "pull, 200 tiny layers" forget pull berthd podman skopeo floor
