#!/usr/bin/env bash
# `make test`: every suite, then the leak check, then one closing line with the numbers of all of them.
set -uo pipefail
cd "$(dirname "$0")/../.."

: "${BERTH_BIN_DIR:?run this through make test}"
export BERTH_VM_STRICT=1
# The same tests twice are the same twice: new seeds are for the fuzz targets, and for who sets one.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
# What a test says is its message; where it says it stands in it.
export RUST_BACKTRACE=0
[ "$(id -u)" = 0 ] || { echo "make test needs root: containers, mounts, cgroups and networks are real here" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/berth-run.XXXXXX")
before=$(mktemp "${TMPDIR:-/tmp}/leak-before.XXXXXX")
log=$work/log
tests/support/leaks.sh snapshot "$before"

failed_steps=()
step() {
    local name=$1; shift
    printf '\n=== %s\n' "$name"
    local begin=$SECONDS
    "$@" 2>&1 | tee -a "$log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed_steps+=("$name")
    printf -- '--- %s: %d s\n' "$name" $((SECONDS - begin))
}

step "lint: format"  cargo fmt --all --check
step "lint: clippy"  cargo clippy --locked --workspace --all-targets -- -D warnings
# The suites of single crates run the binaries that lie beside them.
step "build for tests" cargo build --locked --workspace --bins
# Suites share the machine's two cores, its network and its cgroups: a few at a time is faster than all at once.
step "tests"         cargo test --locked --workspace --no-fail-fast -- --test-threads=4
counts=$(awk '/^test result: /{p+=$4; f+=$6; i+=$8} END{printf "%d %d %d", p, f, i}' "$log")
read -r passed failed ignored <<<"$counts"

printf '\n=== leak check\n'
tests/support/leaks.sh compare "$before" || failed_steps+=("leak check")
rm -f "$before"

printf '\n'
if [ ${#failed_steps[@]} -gt 0 ]; then
    # What failed, once more and together: the log above is long.
    awk '/^---- .* stdout ----$/{show=1} /^failures:$|^test result: /{show=0} show' "$log" | tail -n 200
    printf 'failed: %s\n' "${failed_steps[@]}"
    [ "$failed" -gt 0 ] || failed=${#failed_steps[@]}
fi
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$ignored"
rm -rf "$work"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
