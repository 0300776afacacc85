# The engine with the cgroup driver systemd: pods, and containers of the Engine API. Read by cases.sh.
# expect: 22
while read -r module; do insmod "/modules/$module" || echo "# module $module did not load"; done </modules/order
export BERTH_HOST=unix:///run/berth/berth.sock
mkdir -p /var/lib/berth /tmp/base/bin /tmp/base/etc
mount -t tmpfs tmpfs /var/lib/berth
cp /berth/busybox /tmp/base/bin/busybox
for applet in sh sleep cat; do ln -s busybox "/tmp/base/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/base/etc/passwd

serve() {
    berthd --cni-conf-dir /nonexistent --exec-opt native.cgroupdriver=systemd 2>>/tmp/berthd.out &
    daemon=$!
    for _ in $(seq 600); do [ -S /run/berth/berth.sock ] && [ -S /run/berth/cri.sock ] && break; sleep 0.1; done
}
phase() { vm_pods /run/berth/cri.sock systemd "$1" 2>/tmp/pods.err || echo "not ok pods: $1: $(cat /tmp/pods.err) $(tail -n 3 /tmp/berthd.out)"; }

serve
tar -C /tmp/base -c . | berth import --change 'ENV PATH=/bin' - base >/dev/null 2>/tmp/import.out
phase make
kill -9 "$daemon"
wait "$daemon"
rm -f /run/berth/berth.sock /run/berth/cri.sock
serve
phase again
phase end

check 'the daemon says its driver' "$(berth info --format '{{.CgroupDriver}} {{.CgroupVersion}}' 2>&1)" 'systemd 2'
id=$(berth run -d --memory 64m --pids-limit 20 base sleep 1000 2>/tmp/run.out)
unit="berth-$id.scope"
value() { systemctl show --property "$1" --value "$unit"; }
check 'a container has a scope' "$(value ActiveState) $(value Slice) $(value MemoryMax) $(value TasksMax)" 'active system.slice 67108864 20'
check 'and is in it' "$(sed -n 's/^0:://p' "/proc/$(berth inspect --format '{{.State.Pid}}' "$id")/cgroup")" "/system.slice/$unit"
check 'its limit is changed' "$(berth update --memory 96m --memory-swap 96m "$id" >/tmp/update.out 2>&1; value MemoryMax)" 100663296
check 'a parent that is no slice is refused' "$(berth create --cgroup-parent /x base sleep 1 2>&1 | grep -c 'xxx.slice')" 1
berth rm -f "$id" >/dev/null 2>&1
check 'no scope is left' "$(systemctl list-units --all --plain --no-legend 'berth-*.scope')" ''
berth system shutdown --containers >/dev/null 2>&1
wait "$daemon"
