#!/usr/bin/env bash
# A real application from nothing to nothing: an image of Debian packages, `up --wait`, five web servers under load, `down`.
# Needs root, mmdebstrap and curl, and uses wrk if it is there. Everything is below one temporary directory and one private daemon,
# in a network namespace of its own.
#   IMAGE=visits.tar examples/compose/run.sh      keeps the image between runs: making it takes minutes
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BERTH_BIN_DIR:-$here/../../target/release}
if [ -z "${BERTH_EXAMPLE_INSIDE:-}" ]; then
    BERTH_EXAMPLE_INSIDE=1 exec unshare --net --mount "$0" "$@"
fi
ip link set lo up
dir=$(mktemp -d "${TMPDIR:-/tmp}/berth-example.XXXXXX")
image=${IMAGE:-$dir/visits.tar}
export PATH=$bin:$PATH BERTH_HOST=unix://$dir/run/berth.sock
say() { printf '\n# %s\n' "$*"; }
finish() {
    status=$?
    berth system shutdown --containers >/dev/null 2>&1 || true
    [ -z "${daemon:-}" ] || wait "$daemon" || true
    rm -rf "$dir"
    exit $status
}
trap finish EXIT

if [ ! -e "$image" ]; then
    say "An image of Debian packages: PostgreSQL, Redis, Python"
    mmdebstrap --quiet --variant=minbase --include=postgresql,redis-server,python3-redis,python3-psycopg2 \
        "$(. /etc/os-release; echo "$VERSION_CODENAME")" "$image"
fi
berthd --root "$dir/root" --run-root "$dir/run" --log-level warn 2>"$dir/berthd.log" &
daemon=$!
for _ in $(seq 600); do [ -S "$dir/run/berth.sock" ] && break; sleep 0.1; done
berth import "$image" visits-base >/dev/null
cd "$here"

say "Up: web starts when the database is healthy and migrated, and Redis is healthy"
time berth compose up -d --wait
berth compose ps
curl -sf http://127.0.0.1:8000/

say "One web server becomes five, while it is used"
load() {
    if command -v wrk >/dev/null; then wrk -t2 -c16 -d15s "http://127.0.0.1:$1/"
    else for _ in $(seq 500); do curl -sf "http://127.0.0.1:$1/" || return 1; done | tail -n 1; fi
}
load 8000 >"$dir/load" &
load=$!
sleep 2
time berth compose up -d --wait --scale web=5
for index in 1 2 3 4 5; do curl -sf "http://$(berth compose port --index $index web 8000)/"; done
berth compose up -d --wait --scale web=2
wait $load
cat "$dir/load"
! grep -E 'Socket errors|Non-2xx' "$dir/load"
berth compose exec -T db psql -h 127.0.0.1 -tc 'select host, count(*) from visits group by host order by 1'

say "Down: nothing is left"
time berth compose down --volumes
left="$(berth ps -aq)$(berth network ls -q --filter type=custom)$(berth volume ls -q)$(ip -o link | grep -E 'br-|veth' || true)"
[ -z "$left" ] || { echo "left: $left"; exit 1; }
echo nothing
