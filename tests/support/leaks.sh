#!/usr/bin/env bash
# Finds what a run left on the machine.
#   leaks.sh snapshot FILE      what is there now
#   leaks.sh compare  FILE      fails, and names it, if something is there that was not
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

snapshot() {
    awk '{print "mount " $5 " " $9}' /proc/self/mountinfo
    ls -1 /sys/class/net | sed 's/^/link /'
    ls -1 /run/netns /var/run/netns /run/docker/netns 2>/dev/null | grep -v ':$' | sed '/^$/d;s/^/netns /' || true
    find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -type d -not -path '*/process_api*' 2>/dev/null | sed 's/^/cgroup /'
    nft list tables 2>/dev/null | sed 's/^/nft /'
    ls -1d /tmp/berth* /tmp/.tmp* /run/berth* /var/lib/berth* 2>/dev/null | sed 's/^/file /' || true
    for p in /proc/[0-9]*; do
        name=$(cat "$p/comm" 2>/dev/null) || continue
        case $name in berth*|dockerd|containerd*|docker-registry|qemu-system*) echo "process $name ${p#/proc/}" ;; esac
    done
    # Namespaces that some process still lives in are counted, not named: their numbers differ from run to run.
    echo "netns-count $(for p in /proc/[0-9]*/ns/net; do readlink "$p" 2>/dev/null || true; done | sort -u | wc -l)"
}

# Of what is new, a count of namespaces only if it rose: what ran before may have ended meanwhile.
more_namespaces_than() {
    awk -v before="$(awk '$1 == "netns-count" { print $2 }' "$1")" '$1 != "netns-count" || $2 > before + 0'
}

case ${1:-} in
    snapshot) snapshot | sort >"$2" ;;
    compare)
        # A network namespace and its veth pair are taken down by the kernel a moment after their last user.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            left=$(comm -13 "$2" <(snapshot | sort) | more_namespaces_than "$2")
            [ -n "$left" ] || { echo "leak check: nothing left"; exit 0; }
            sleep 0.5
        done
        echo "leak check: left on this machine:" >&2
        echo "$left" >&2
        exit 1 ;;
    *) echo "usage: $0 snapshot|compare FILE" >&2; exit 2 ;;
esac
