#!/usr/bin/env bash
# `make bench`: Berth beside dockerd (with containerd), podman, buildah, skopeo, runc and crun, and BuildKit where it is named.
# Every suite measures with the subjects taking turns and appends its measurements to one file; from that file `berth lab
# compare` makes one page and one set of tables in docs/benchmarks.
#
#   make bench                        everything, some twenty minutes
#   make bench SUITES="engine build"  only these, out of: engine runtime images build projects pods
#   RUNS=30 make bench                more runs of each
#   BENCH_RUNC=… BENCH_CRUN=… BUILDKIT_BIN_DIR=… make bench    newer peers than the distribution's
set -euo pipefail
cd "$(dirname "$0")/../.."

suites=${SUITES:-engine runtime images build projects pods}
output=${BENCH_OUTPUT:-docs/benchmarks}
mkdir -p "$output"
export BENCH_RECORD=${BENCH_RECORD:-$PWD/$output/measurements.jsonl}
: >"$BENCH_RECORD"

# Measured is what an installation puts down, of everybody: a file that was copied lies in the page cache in larger pieces
# than what a linker wrote bit by bit, and a program starts from it with a tenth fewer page faults.
installed=$(mktemp -d -p "$BERTH_BIN_DIR" bench.XXXXXX)
trap 'rm -rf "$installed"' EXIT
install -t "$installed" "$BERTH_BIN_DIR"/{berth,berthd,berth-shim,berth-runtime}
install -D -t "$installed/examples" "$BERTH_BIN_DIR"/examples/{floor,pull_floor}
export BERTH_BIN_DIR=$installed
for peer in BENCH_RUNC BENCH_CRUN; do
    [ -z "${!peer:-}" ] || { install -T "${!peer}" "$installed/$peer" && export "$peer=$installed/$peer"; }
done
[ -z "${BUILDKIT_BIN_DIR:-}" ] || { cp -rL "$BUILDKIT_BIN_DIR" "$installed/buildkit" && export BUILDKIT_BIN_DIR=$installed/buildkit; }

missing=0
for suite in $suites; do
    printf '\n=== %s\n' "$suite" >&2
    case $suite in
        engine) tests/support/bench-engine.py ;;
        runtime) unshare --mount tests/support/bench-runtime.py ;;
        images) RUNS=${RUNS_IMAGES:-3} tests/support/bench-images.sh ;;
        build) tests/support/bench-build.sh "${RUNS_BUILD:-3}" ;;
        projects) RUNS=${RUNS_PROJECTS:-5} tests/support/bench-projects.py ;;
        pods) RUNS=${RUNS_PODS:-10} tests/support/bench-pods.py ;;
        *) echo "no such suite: $suite (there are engine, runtime, images, build, projects, pods)" >&2; exit 2 ;;
    esac || { echo "suite $suite failed; the report is without what it had still to measure" >&2; missing=1; }
done
"$BERTH_BIN_DIR/berth" lab compare --title "Berth and its peers" --output "$output" "$BENCH_RECORD" >/dev/null
echo "report: $output/report.html, tables: $output/results.md, measurements: $BENCH_RECORD"
exit $missing
