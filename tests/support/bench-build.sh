#!/bin/bash
# The same builds by Berth and whichever other builders are installed, side by side: medians in milliseconds.
#
#   bench-build.sh [ROUNDS]      environment: BERTH_BIN_DIR; BUILDKIT_BIN_DIR (buildkitd, buildctl), if there is one;
#                                BENCH_RECORD=FILE.jsonl takes every measurement too, for `berth lab compare`;
#                                ONLY="small stages big project" chooses;
#                                the project is ripgrep, made by bench-project.sh in BENCH_PROJECT_DIR, which is kept;
#                                BENCH_PROJECT=DIR is one of your own: a Dockerfile on `project:1`, of which
#                                BENCH_PROJECT_BASE=TAR is the root file system, and BENCH_PROJECT_FILE the file in it
#                                that changes
#
# Each builder gets a file system of its own, fresh (an old one is slow for whoever comes after a large deletion), in a
# file below a new directory, which is gone at the end. Needs root, busybox-static and e2fsprogs.
set -euo pipefail

rounds=${1:-3}
bin=${BERTH_BIN_DIR:?where berth and berthd are}
buildkit=${BUILDKIT_BIN_DIR:-}
cases=${ONLY:-small stages big project}
if [[ " $cases " == *" project "* ]] && [ -z "${BENCH_PROJECT:-}" ]; then
    made=${BENCH_PROJECT_DIR:-/var/tmp/berth-bench-project}
    "$(dirname "$0")/bench-project.sh" "$made"
    BENCH_PROJECT=$made/context BENCH_PROJECT_BASE=$made/base.tar BENCH_PROJECT_FILE=crates/core/main.rs
fi
# In small letters: buildah makes an image's name of it.
work=/tmp/berth-bench-build.$$
mkdir "$work"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for disk in "$work"/*.disk; do umount "${disk%.disk}" || umount -l "${disk%.disk}"; done
    for group in /sys/fs/cgroup/*/docker /sys/fs/cgroup/*/buildkit; do rmdir "$group" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

disk() { # name: a file system of its own, mounted at $work/name
    mkdir "$work/$1"
    truncate -s 12G "$work/$1.disk"
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$work/$1.disk"
    mount -o loop "$work/$1.disk" "$work/$1"
}

# --- the base images, as root file systems and as an OCI layout
mkdir -p "$work/rootfs"/{bin,etc,tmp,proc,sys,dev} "$work/layout/blobs/sha256"
cp /bin/busybox "$work/rootfs/bin/busybox"
for name in sh true echo cat sleep ls; do ln -s busybox "$work/rootfs/bin/$name"; done
echo 'root:x:0:0::/root:/bin/sh' > "$work/rootfs/etc/passwd"
tar -C "$work/rootfs" -cf "$work/base.tar" .
blob() { local hash; hash=$(sha256sum "$1" | cut -d' ' -f1); cp "$1" "$work/layout/blobs/sha256/$hash"; echo "$hash"; }
manifests=() names=()
declare -A digests
image() { # name, root file system
    local layer config manifest
    layer=$(blob "$2")
    # buildah wants a history entry for each layer.
    printf '{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","config":{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2026-01-01T00:00:00Z","created_by":"bench"}]}' \
        "$layer" > "$work/config"
    config=$(blob "$work/config")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
        "$config" "$(stat -c %s "$work/config")" "$layer" "$(stat -c %s "$2")" > "$work/manifest"
    manifest=$(blob "$work/manifest")
    manifests+=("$(printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}' "$manifest" "$(stat -c %s "$work/manifest")" "$1")")
    names+=("$1")
    digests[$1]=$manifest
}
image bench:1 "$work/base.tar"
[ -z "${BENCH_PROJECT:-}" ] || image project:1 "$BENCH_PROJECT_BASE"
printf '{"schemaVersion":2,"manifests":[%s]}' "$(IFS=,; echo "${manifests[*]}")" > "$work/layout/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' > "$work/layout/oci-layout"

# --- the contexts
mkdir -p "$work"/{small,big/tree,stages}
{ echo 'FROM bench:1'; for i in $(seq 40); do echo "RUN echo $i > /f$i"; done; } > "$work/small/Dockerfile"
for d in $(seq 200); do
    mkdir "$work/big/tree/$d"
    for f in $(seq 100); do echo "$d $f" > "$work/big/tree/$d/$f"; done
done
head -c 1G /dev/urandom > "$work/big/large"
printf 'FROM bench:1\nCOPY tree /tree\nCOPY large /large\n' > "$work/big/Dockerfile"
{
    for i in $(seq 6); do printf 'FROM bench:1 AS s%s\nRUN sleep 0.5; echo %s > /out\n' "$i" "$i"; done
    echo 'FROM bench:1'
    for i in $(seq 6); do echo "COPY --from=s$i /out /out$i"; done
} > "$work/stages/Dockerfile"

[ -z "${BENCH_PROJECT:-}" ] || cp -a "$BENCH_PROJECT" "$work/project"

# --- the builders
builders=(berth)
disk berth
export BERTH_HOST=unix://$work/berth/run/berth.sock
"$bin/berthd" --root "$work/berth/root" --run-root "$work/berth/run" > "$work/berthd.log" 2>&1 &
pids+=($!)
if [ -n "$buildkit" ]; then
    builders+=(buildkit)
    disk bk
    "$buildkit/buildkitd" --root "$work/bk/root" --addr "unix://$work/bk/sock" --oci-worker-snapshotter=overlayfs \
        --containerd-worker=false > "$work/buildkitd.log" 2>&1 &
    pids+=($!)
fi
if command -v dockerd > /dev/null && command -v docker > /dev/null; then
    builders+=(classic)
    disk docker
    # In namespaces of its own, so that nothing of it stays behind.
    unshare --net --mount dockerd --data-root "$work/docker/root" --exec-root "$work/docker/exec" \
        -H "unix://$work/docker/sock" -p "$work/docker/pid" --bridge=none --iptables=false > "$work/dockerd.log" 2>&1 &
    pids+=($!)
fi
if command -v buildah > /dev/null; then
    builders+=(buildah)
    disk buildah
fi
sleep 5
tar -C "$work/layout" -cf "$work/layout.tar" .
"$bin/berth" load -q -i "$work/layout.tar" > /dev/null
docker_() { DOCKER_BUILDKIT=0 docker -H "unix://$work/docker/sock" "$@"; }
buildah_() { buildah --root "$work/buildah/root" --runroot "$work/buildah/run" --storage-driver overlay "$@"; }
for b in "${builders[@]}"; do
    for name in "${names[@]}"; do
        case $b in
            classic)
                tar=$work/base.tar
                [ "$name" = bench:1 ] || tar=$BENCH_PROJECT_BASE
                docker_ import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' "$tar" "$name" > /dev/null
                ;;
            buildah) buildah_ tag "$(buildah_ pull -q "oci:$work/layout:$name")" "$name" ;;
        esac
    done
done

build() { # builder context extra
    case $1 in
        berth) "$bin/berth" build -q --network none ${3:+--no-cache} -t out "$work/$2" ;;
        buildkit)
            "$buildkit/buildctl" --addr "unix://$work/bk/sock" build --frontend dockerfile.v0 --local "context=$work/$2" \
                --local "dockerfile=$work/$2" --oci-layout "bench=$work/layout" \
                $(for name in "${names[@]}"; do echo --opt "context:$name=oci-layout://bench@sha256:${digests[$name]}"; done) \
                --output type=image,name=out,unpack=false ${3:+--no-cache} --progress=plain ;;
        classic) docker_ build -q --network none ${3:+--no-cache} -t out "$work/$2" ;;
        buildah) buildah_ build -q --layers --network none --runtime "$(command -v runc)" ${3:+--no-cache} -t out "$work/$2" ;;
    esac > "$work/log-$1" 2>&1
}

median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
declare -A took
measure() { # name context extra change
    local b round start
    for b in "${builders[@]}"; do : > "$work/times-$b"; done
    for round in $(seq "$rounds"); do
        for b in "${builders[@]}"; do
            if [ -n "${4:-}" ]; then eval "$4"; fi
            start=$(date +%s%N)
            if build "$b" "$2" "${3:-}"; then
                took=$((($(date +%s%N) - start) / 1000000))
                echo "$took" >> "$work/times-$b"
                [ -z "${BENCH_RECORD:-}" ] ||
                    printf '{"suite": "Builds", "case": "%s", "unit": "ms", "subject": "%s", "value": %s}\n' "$1" "${b/classic/dockerd}" "$took" >> "$BENCH_RECORD"
            fi
        done
    done
    printf '| %s |' "$1"
    for b in "${builders[@]}"; do
        took[$b]=$(median < "$work/times-$b")
        printf ' %s |' "${took[$b]:-failed}"
    done
    printf '\n'
}

printf '| |'; printf ' %s |' "${builders[@]}"; printf '\n|---|'; printf -- '---|%.0s' "${builders[@]}"; printf '\n'
for case in $cases; do
    case $case in
        small)
            measure '40 small RUN steps' small cold
            measure '40 small RUN steps, cached' small
            ;;
        stages)
            measure 'six stages of half a second' stages cold
            measure 'six stages, cached' stages
            ;;
        big)
            measure 'COPY of 20,000 small files and 1 GB' big cold
            measure 'the same, cached' big
            measure 'the same, one small file changed' big '' 'echo "$RANDOM $round $b" > "$work/big/tree/7/7"'
            ;;
        project)
            measure 'a project' project cold
            measure 'the same, cached' project
            measure 'the same, one file changed' project '' 'echo "/* $round $b */" >> "$work/project/$BENCH_PROJECT_FILE"'
            ;;
        *) echo "no such case: $case (there are small, stages, big, project)" >&2; exit 2 ;;
    esac
done
