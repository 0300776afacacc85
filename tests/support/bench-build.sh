#!/bin/bash
# The same builds by Berth and whichever other builders are installed, side by side: medians in milliseconds.
#
#   bench-build.sh [ROUNDS]      environment: BERTH_BIN_DIR; BUILDKIT_BIN_DIR (buildkitd, buildctl), if there is one;
#                                BENCH_RECORD=FILE.jsonl takes every measurement too, for `berth lab compare`
#
# Each builder gets a root of its own below a new directory, which is gone at the end. Needs root and busybox-static.
set -euo pipefail

rounds=${1:-3}
bin=${BERTH_BIN_DIR:?where berth and berthd are}
buildkit=${BUILDKIT_BIN_DIR:-}
# In small letters: buildah makes an image's name of it.
work=/tmp/berth-bench-build.$$
mkdir "$work"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for group in /sys/fs/cgroup/*/docker /sys/fs/cgroup/*/buildkit; do rmdir "$group" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

# --- the base image, as a root file system and as an OCI layout
mkdir -p "$work/rootfs"/{bin,etc,tmp,proc,sys,dev} "$work/layout/blobs/sha256"
cp /bin/busybox "$work/rootfs/bin/busybox"
for name in sh true echo cat sleep ls; do ln -s busybox "$work/rootfs/bin/$name"; done
echo 'root:x:0:0::/root:/bin/sh' > "$work/rootfs/etc/passwd"
tar -C "$work/rootfs" -cf "$work/base.tar" .
blob() { local hash; hash=$(sha256sum "$1" | cut -d' ' -f1); cp "$1" "$work/layout/blobs/sha256/$hash"; echo "$hash"; }
layer=$(blob "$work/base.tar")
printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$layer" > "$work/config"
config=$(blob "$work/config")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
    "$config" "$(stat -c %s "$work/config")" "$layer" "$(stat -c %s "$work/base.tar")" > "$work/manifest"
manifest=$(blob "$work/manifest")
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"bench:1"}}]}' \
    "$manifest" "$(stat -c %s "$work/manifest")" > "$work/layout/index.json"
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

# --- the builders
builders=(berth)
export BERTH_HOST=unix://$work/berth/run/berth.sock
"$bin/berthd" --root "$work/berth/root" --run-root "$work/berth/run" > "$work/berthd.log" 2>&1 &
pids+=($!)
if [ -n "$buildkit" ]; then
    builders+=(buildkit)
    "$buildkit/buildkitd" --root "$work/bk/root" --addr "unix://$work/bk/sock" --oci-worker-snapshotter=overlayfs \
        --containerd-worker=false > "$work/buildkitd.log" 2>&1 &
    pids+=($!)
fi
if command -v dockerd > /dev/null && command -v docker > /dev/null; then
    builders+=(classic)
    mkdir -p "$work/docker"
    # In namespaces of its own, so that nothing of it stays behind.
    unshare --net --mount dockerd --data-root "$work/docker/root" --exec-root "$work/docker/exec" \
        -H "unix://$work/docker/sock" -p "$work/docker/pid" --bridge=none --iptables=false > "$work/dockerd.log" 2>&1 &
    pids+=($!)
fi
command -v buildah > /dev/null && builders+=(buildah)
sleep 5
tar -C "$work/layout" -cf "$work/layout.tar" .
"$bin/berth" load -q -i "$work/layout.tar" > /dev/null
docker_() { DOCKER_BUILDKIT=0 docker -H "unix://$work/docker/sock" "$@"; }
buildah_() { buildah --root "$work/buildah/root" --runroot "$work/buildah/run" --storage-driver overlay "$@"; }
for b in "${builders[@]}"; do
    case $b in
        classic) docker_ import -c 'ENV PATH=/bin' "$work/base.tar" bench:1 > /dev/null ;;
        buildah) buildah_ pull -q "oci:$work/layout:bench:1" > /dev/null; buildah_ tag "$(buildah_ images -q | head -1)" bench:1 ;;
    esac
done

build() { # builder context extra
    case $1 in
        berth) "$bin/berth" build -q --network none ${3:+--no-cache} -t out "$work/$2" ;;
        buildkit)
            "$buildkit/buildctl" --addr "unix://$work/bk/sock" build --frontend dockerfile.v0 --local "context=$work/$2" \
                --local "dockerfile=$work/$2" --oci-layout "bench=$work/layout" --opt "context:bench:1=oci-layout://bench@sha256:$manifest" \
                --output type=image,name=out,unpack=false ${3:+--no-cache} --progress=plain ;;
        classic) docker_ build -q --network none ${3:+--no-cache} -t out "$work/$2" ;;
        buildah) buildah_ build -q --layers --network host --isolation chroot ${3:+--no-cache} -t out "$work/$2" ;;
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
measure '40 small RUN steps' small cold
measure '40 small RUN steps, cached' small
measure 'six stages of half a second' stages cold
measure 'six stages, cached' stages
measure 'COPY of 20,000 small files and 1 GB' big cold
measure 'the same, cached' big
measure 'the same, one small file changed' big '' 'echo "$RANDOM $round $b" > "$work/big/tree/7/7"'
