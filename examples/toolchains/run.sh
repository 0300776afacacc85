#!/usr/bin/env bash
# Four projects with the toolchains and package registries of their languages: C with make, Rust with cargo, Python with pip,
# Node with npm. Each is built on a Debian that mmdebstrap makes, run, built again from the cache, and built again with
# one line changed.
#
#   make && examples/toolchains/run.sh [c rust python node]
#
# TOOLCHAINS=FILE.tar is the Debian: made if it is not there, and kept. Needs root, mmdebstrap and the network.
set -euo pipefail
cd "$(dirname "$0")"

bin=${BERTH_BIN_DIR:-$PWD/../../target/release}
projects=("${@:-c}")
[ $# -gt 0 ] || projects=(c rust python node)
scratch=$(mktemp -d /tmp/berth-toolchains.XXXXXX)
base=${TOOLCHAINS:-$scratch/toolchains.tar}
if [ ! -e "$base" ]; then
    echo "--- Debian, with compilers and package managers"
    mmdebstrap --quiet --variant=minbase \
        --include=gcc,make,libc6-dev,zlib1g-dev,cargo-web,rustc-web,python3-pip,nodejs,npm,ca-certificates \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        bookworm "$base.new"
    mv "$base.new" "$base"
fi

export BERTH_HOST=unix://$scratch/run/berth.sock
"$bin/berthd" --root "$scratch/root" --run-root "$scratch/run" > "$scratch/berthd.log" 2>&1 &
daemon=$!
finish() {
    kill "$daemon" && wait "$daemon" || true
    rm -rf "$scratch"
}
trap finish EXIT
until "$bin/berth" version > /dev/null 2>&1; do
    kill -0 "$daemon" || { cat "$scratch/berthd.log" >&2; exit 1; }
    sleep 0.1
done
"$bin/berth" import "$base" toolchains > /dev/null

# What these registries show is checked with the certificates that this machine trusts.
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
milliseconds() { # what: how long the command took
    local start
    start=$(date +%s%N)
    "${@:2}" || { echo "$1: failed" >&2; return 1; }
    echo "$1: $((($(date +%s%N) - start) / 1000000)) ms"
}
build() { # project
    "$bin/berth" build --progress plain --network host --secret "id=certificates,src=$certificates" \
        -t "hello-$1" "$scratch/$1" > "$scratch/log" 2>&1 || { tail -40 "$scratch/log" >&2; return 1; }
}
for project in "${projects[@]}"; do
    echo "--- $project"
    cp -a "$project" "$scratch/$project"
    milliseconds "built" build "$project"
    milliseconds "run" "$bin/berth" run --rm --network none "hello-$project"
    milliseconds "cached" build "$project"
    case $project in
        c) sed -i 's/hello from C/hello again/' "$scratch/c/Dockerfile"; echo '/* changed */' >> "$scratch/c/main.c" ;;
        rust) sed -i 's/from Rust/from Rust again/' "$scratch/rust/src/main.rs" ;;
        python) sed -i 's/from Flask/from Flask again/' "$scratch/python/app.py" ;;
        node) sed -i 's/from Express/from Express again/' "$scratch/node/app.js" ;;
    esac
    milliseconds "one line changed" build "$project"
    "$bin/berth" run --rm --network none "hello-$project" | grep again
done
