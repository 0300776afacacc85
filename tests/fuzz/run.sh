#!/usr/bin/env bash
# Runs a fuzz target with the stable compiler, without cargo-fuzz: tests/fuzz/run.sh TARGET [SECONDS]
# Targets and what must hold: tests/fuzz/README.md. What it finds lies in tests/fuzz/artifacts; the corpus it grows in
# tests/fuzz/corpus. With cargo-fuzz and a nightly compiler, `cargo fuzz run config` adds the address sanitizer.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?usage: run.sh config|protocol|unpack|load|documents|reference [SECONDS]}
seconds=${2:-60}
triple=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
RUSTFLAGS="--cfg fuzzing --check-cfg cfg(fuzzing) $coverage" cargo build --release --target "$triple" --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target"
seeds=seeds/$target
case $target in
    config) seeds=../../runtime/spec/tests/any_config ;;
    *) ./seeds.py "$target" "$seeds" ;;
esac
# The store's targets write files: in memory, that is ten times as fast.
export TMPDIR
TMPDIR=$(mktemp -d /dev/shm/berth-fuzz.XXXXXX)
trap 'rm -rf "$TMPDIR"' EXIT
"target/$triple/release/$target" "corpus/$target" "$seeds" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -max_len=65536 -timeout=10 -use_value_profile=1
