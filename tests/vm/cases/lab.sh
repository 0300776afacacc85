# Every ready experiment of the lab, shortened, on a host that has cgroup v2 only.
# needs: berthd berth berth-shim
# programs: stress-ng sysbench mkfs.ext4
# files: examples/lab
# expect: 25
export BERTH_HOST=unix:///run/lab/berth.sock
# disk NAME SIZE: a disk of compressed memory; nothing else is here
disk() { [ "$1" = zram0 ] || cat /sys/class/zram-control/hot_add >/dev/null; echo "$2" >"/sys/block/$1/disksize"; }
disk zram0 256M
disk zram1 512M
mkdir -p /var/lib/lab
mkfs.ext4 -q /dev/zram1 && mount /dev/zram1 /var/lib/lab
mkdir -p /tmp/tools/bin /tmp/tools/etc /tmp/tools/tmp
chmod 1777 /tmp/tools/tmp
cp /bin/busybox /bin/stress-ng /bin/sysbench /tmp/tools/bin/
cp -a /lib /lib64 /usr /tmp/tools/ 2>/dev/null
for applet in $(busybox --list); do [ -e "/tmp/tools/bin/$applet" ] || ln -s busybox "/tmp/tools/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/tools/etc/passwd

berthd --root /var/lib/lab --run-root /run/lab 2>/tmp/labd.log &
daemon=$!
for _ in $(seq 600); do [ -S /run/lab/berth.sock ] && break; sleep 0.1; done
tar -C /tmp/tools -c . | berth import --change 'ENV PATH=/bin' - lab-tools >/dev/null 2>/tmp/lab-import.log
rm -rf /tmp/tools

ok() { echo "ok lab: $1"; }
# not_ok CASE WHY
not_ok() { echo "not ok lab: $1: $2: $(tr '\n' ' ' </tmp/lab.log | tail -c 600)"; }

# run NAME DURATION [OPTIONS]: the experiment runs to its end and leaves a whole report.
run() { last="$*"; if experiment "$@"; then ok "$1"; else not_ok "$1" 'no report'; fi; }
experiment() {
    local name=$1 duration=$2; shift 2
    rm -rf "/tmp/lab/$name"
    berth lab run -o "/tmp/lab/$name" --duration "$duration" --repetitions 1 "$@" "/files/examples/lab/$name.yaml" >/tmp/lab.log 2>&1
    [ -s "/tmp/lab/$name/report.html" ] && ls "/tmp/lab/$name"/plots/*.svg "/tmp/lab/$name"/plots/*.png >/dev/null 2>&1
}
# again TIMES NAME DURATION [OPTIONS]: the same, so many times as long; options without spaces
again() { local times=$1 name=$2 seconds=${3%s}; shift 3; experiment "$name" "$((seconds * times))s" "$@"; }
# within NAME MEASURE LEAST MOST [SETTING]: all values lie in between. What the experiment expects within a few percent is
# asked of two emulated processors within wider bounds, and of three runs at most, the later ones longer: their host takes
# time from them at will, and a sampler that is late has nothing to say of a short while.
within() {
    local found attempt
    for attempt in 1 2 3; do
        found=$(awk -F, -v m="$2" -v l="$3" -v h="$4" -v s="${5:-}" '
            $3 == m && (s == "" || $2 == s) { n++; if ($5 < l || $5 > h) bad = bad " " $5 }
            END { if (!n) print "no value"; else if (bad) print bad }' "/tmp/lab/$1/measures.csv")
        if [ -z "$found" ]; then ok "$1: $2 $5"; return; fi
        echo "# lab: $1: $2 $5: $found in run $attempt"
        [ "$attempt" = 3 ] || again $((attempt * 3)) $last
    done
    not_ok "$1: $2 $5" "$found"
}

run cpu-quota 4s --set cpus=0.5
within cpu-quota load.cpu 0.44 0.53
# Two emulated processors of a busy machine hand out time in coarse pieces: weights show, their exact ratio does not.
run cpu-shares 6s
within cpu-shares 'high / low' 2.2 5
run cpuset 6s
within cpuset 'first alone' 0.8 1.05
within cpuset 'first shared' 0.35 0.6
run memory-oom 6s
within memory-oom 'limit of worker' 67108864 67108864
within memory-oom 'peak of worker' 67108864 67108864
within memory-oom alone.exit_code 137 137
within memory-oom inside.oom_kills 0 0
run vertical-scaling 12s
within vertical-scaling 'at 0.5' 0.4 0.53
within vertical-scaling 'at 1' 0.85 1.05
run noisy-neighbour 2s --set noise=cpu
run pids-limit 4s
within pids-limit bomb.pids_peak 60 64
within pids-limit bomb.pids_denied 1 1e12
run io-limits 5s --set rate=5m
within io-limits writer.io_write 4000000 6500000
mkswap /dev/zram0 >/dev/null 2>&1; swapon /dev/zram0 2>/tmp/lab.log
run memory-swap 6s
within memory-swap swapping.oom_kills 0 0
within memory-swap swapping.swap_peak 20000000 67108864
run startup-latency 1s --set network=none
