# The whole engine on a host that has cgroup v2 only: limits, OOM, freezer, exec and a published port through berthd.
# needs: berthd berth berth-shim
# expect: 11
export BERTH_HOST=unix:///run/berth/berth.sock
mkdir -p /var/lib/berth /tmp/base/bin /tmp/base/etc /tmp/base/tmp
cp /bin/busybox /tmp/base/bin/busybox
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/tmp/base/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/base/etc/passwd

berthd --root /var/lib/berth --run-root /run/berth 2>/tmp/berthd.log &
daemon=$!
for _ in $(seq 600); do [ -S /run/berth/berth.sock ] && break; sleep 0.1; done

# check CASE FOUND WANTED
check() { if [ "$2" = "$3" ]; then echo "ok engine: $1"; else echo "not ok engine: $1: '$2' instead of '$3': $(tail -n 3 /tmp/berthd.log | tr '\n' ' ')"; fi; }
state() { berth inspect --format "{{.State.$2}}" "$1" 2>&1; }
group() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(state "$1" Pid)/cgroup")"; }

tar -C /tmp/base -c . | berth import --change 'CMD ["sh"]' - base >/dev/null 2>/tmp/import.log
check 'run' "$(berth run --rm base echo hello 2>&1)" hello

berth run -d --name limited --memory 64m --memory-swap 96m --cpus 0.5 --pids-limit 20 base sleep 1000 >/dev/null
check 'memory.max' "$(cat "$(group limited)/memory.max")" 67108864
check 'memory.swap.max' "$(cat "$(group limited)/memory.swap.max")" 33554432
check 'cpu.max' "$(cat "$(group limited)/cpu.max")" '50000 100000'
check 'pids.max' "$(cat "$(group limited)/pids.max")" 20
check 'exec sees its own limits' "$(berth exec limited cat /sys/fs/cgroup/memory.max 2>&1)" 67108864

berth pause limited >/dev/null
check 'freezer' "$(state limited Status) $(sed -n 's/^frozen //p' "$(group limited)/cgroup.events")" 'paused 1'
berth unpause limited >/dev/null
check 'thawed' "$(state limited Status) $(sed -n 's/^frozen //p' "$(group limited)/cgroup.events")" 'running 0'

berth run --name hog --memory 24m --memory-swap 24m base tail -c 200m /dev/zero >/dev/null 2>&1
check 'out of memory' "$? $(state hog OOMKilled)" '137 true'

berth run -d --name page -p 127.0.0.1:8080:80 base sh -c 'echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
for _ in $(seq 200); do page=$(wget -qO- http://127.0.0.1:8080/ 2>/dev/null) && break; sleep 0.2; done
check 'published port' "$page" page

berth system shutdown --containers >/dev/null 2>&1
wait "$daemon"
check 'nothing is left' "$(ls -d /sys/fs/cgroup/berth /sys/class/net/berth0 2>/dev/null)$(grep -c berth /proc/mounts)" 0
