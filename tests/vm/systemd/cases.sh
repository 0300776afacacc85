# berth-runtime --systemd-cgroup under systemd, on cgroup v2, and at last the whole engine (pods.sh).
# expect: 31
exec </dev/null >/dev/ttyS0 2>&1
export PATH=/berth:/usr/bin:/bin:/usr/sbin:/sbin
busybox --install -s /berth
cd /tmp
slice=/sys/fs/cgroup/berth.slice/berth-pod.slice
echo
echo "# up after $(cut -d' ' -f1 /proc/uptime) s: $(systemctl --version | head -n 1), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"

# bundle NAME RESOURCES COMMAND [ANNOTATIONS] [HOOKS] [CGROUP OPTIONS]
bundle() {
    local dir=/tmp/$1
    mkdir -p "$dir/rootfs/bin" "$dir/rootfs/proc" "$dir/rootfs/dev" "$dir/rootfs/sys" "$dir/rootfs/tmp"
    cp /berth/busybox "$dir/rootfs/bin/busybox"
    for applet in sh cat ls sleep stat; do ln -sf busybox "$dir/rootfs/bin/$applet"; done
    local resources="$2" command="$3" annotations="${4:-{\}}" hooks="${5:-{\}}" option="${6:-ro}"
    cat >"$dir/config.json" <<JSON
{"ociVersion":"1.2.0","root":{"path":"rootfs"},"hostname":"vm","annotations":$annotations,"hooks":$hooks,
 "process":{"user":{"uid":0,"gid":0},"args":["sh","-c","$command"],"env":["PATH=/bin"],"cwd":"/"},
 "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
  {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
  {"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
  {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","$option"]}],
 "linux":{"cgroupsPath":"berth-pod.slice:vm:$1","resources":$resources,
  "namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network"},{"type":"cgroup"}]}}
JSON
}

runtime() { berth-runtime "$@"; }
# create NAME: runs it in the background
create() { (cd "/tmp/$1" && runtime --systemd-cgroup run -d "$1") >"/tmp/$1.out" 2>&1 </dev/null; echo $?; }
# property UNIT NAME
property() { systemctl show --property "$2" --value "vm-$1.scope"; }
gone() { [ -z "$(systemctl list-units --all --plain --no-legend "vm-$1.scope")" ] && [ ! -e "$slice/vm-$1.scope" ] && echo gone; }
# check CASE FOUND WANTED
check() { if [ "$2" = "$3" ]; then echo "ok systemd: $1"; else echo "not ok systemd: $1: '$2' instead of '$3': $(cat /tmp/*.out | tail -n 3 | tr '\n' ' ')"; fi; }

bundle one '{"memory":{"limit":33554432,"swap":67108864,"reservation":16777216},"cpu":{"shares":2048,"quota":20000,"period":50000,"cpus":"0"},"pids":{"limit":20}}' 'exec sleep 1000'
check 'a container runs' "$(create one)" 0
check 'its scope is active in the slice' "$(property one ActiveState) $(property one Slice)" 'active berth-pod.slice'
check 'slices lie in each other' "$(property one ControlGroup)" /berth.slice/berth-pod.slice/vm-one.scope
check 'it is delegated' "$(property one Delegate)" yes
check 'systemd knows the limits' "$(property one MemoryMax) $(property one MemorySwapMax) $(property one MemoryLow) $(property one TasksMax) $(property one CPUWeight) $(property one CPUQuotaPerSecUSec) $(property one AllowedCPUs)" '33554432 33554432 16777216 20 174 400ms 0'
group=$slice/vm-one.scope
limits() { echo "$(cat $group/memory.max) $(cat $group/memory.swap.max) $(cat $group/pids.max) $(cat $group/cpu.weight) $(cat $group/cpu.max) $(cat $group/cpuset.cpus)"; }
check 'the kernel has the limits' "$(limits)" '33554432 33554432 20 174 20000 50000 0'
pid=$(runtime state one | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
check 'init alone is in it' "$(cat $group/cgroup.procs)" "$pid"
check 'no socket of the bus is in the container' "$(runtime exec one ls /proc/1/fd | tr '\n' ' ')" '0 1 2 '
check 'exec joins the scope, without a flag' "$(runtime exec one cat /proc/self/cgroup) $(runtime exec one sh -c 'cat /sys/fs/cgroup/pids.current')" '0::/ 2'
check 'ps' "$(runtime ps --format json one)" "[$pid]"
runtime pause one
check 'pause' "$(cat $group/cgroup.freeze) $(runtime state one | sed -n 's/.*"status": "\([a-z]*\)".*/\1/p')" '1 paused'
runtime resume one
check 'update' "$(runtime update --memory 50331648 --pids-limit 30 --cpu-quota 30000 one 2>&1)" ''
check 'systemd knows the update' "$(property one MemoryMax) $(property one MemorySwapMax) $(property one TasksMax) $(property one CPUQuotaPerSecUSec)" '50331648 16777216 30 600ms'
systemctl daemon-reload
check 'limits outlive a daemon-reload' "$(limits)" '50331648 16777216 30 174 30000 50000 0'
runtime exec one sh -c 'cat /dev/null' >/tmp/null.out 2>&1
check 'devices outlive a daemon-reload' "$?" 0
runtime kill one KILL
while [ "$(runtime state one | grep -c '"stopped"')" = 0 ]; do sleep 0.2; done
check 'delete' "$(runtime delete one 2>&1)" ''
check 'the unit goes with it' "$(gone one)" gone

bundle hog '{"memory":{"limit":16777216,"swap":16777216}}' 'x=a; while :; do x=\"$x$x\"; done'
check 'memory limit ends with 137' "$( (cd hog && runtime --systemd-cgroup run hog >/tmp/hog.out 2>&1); echo $?)" 137
check 'nothing is left of run' "$(gone hog)" gone

bundle single '{"pids":{"limit":1}}' 'exec sleep 1000'
check 'room for one process is enough' "$(create single) $(cat $slice/vm-single.scope/pids.max) $(property single TasksMax)" '0 1 1'
runtime delete --force single

bundle broken '{}' 'exec sleep 1000' '{}' '{"createRuntime":[{"path":"/berth/busybox","args":["false"]}]}'
(cd broken && runtime --systemd-cgroup create broken) >/tmp/broken.out 2>&1
check 'a failed create leaves no unit' "$? $(gone broken) $(runtime list -q)" '1 gone '

bundle short '{}' 'exec sleep 1000' '{"org.systemd.property.RuntimeMaxSec":"1","org.systemd.property.TimeoutStopSec":"uint32 1"}'
create short >/tmp/short.code
for _ in $(seq 600); do [ "$(property short ActiveState)" = failed ] && break; sleep 0.2; done
check 'properties by annotation' "$(cat /tmp/short.code) $(property short RuntimeMaxUSec) $(property short ActiveState)" '0 1s failed'
runtime delete --force short
check 'delete forgets a failed unit' "$(gone short)" gone

bundle owner '{}' 'exec sleep 1000' '{}' '{}' rw
sed -i 's|"namespaces":\[|"uidMappings":[{"containerID":0,"hostID":100000,"size":1000}],"gidMappings":[{"containerID":0,"hostID":100000,"size":1000}],"namespaces":[{"type":"user"},|' owner/config.json
chmod -R a+rX /tmp/owner
check 'a writable group belongs to the mapped root' "$(create owner) $(stat -c %u $slice/vm-owner.scope $slice/vm-owner.scope/cgroup.procs $slice/vm-owner.scope/memory.max | tr '\n' ' ')" '0 100000 100000 0 '
runtime delete --force owner

sed 's|berth-pod.slice:vm:single|/no/unit|' single/config.json >/tmp/config.json && mv /tmp/config.json single/config.json
create single >/tmp/path.code
check 'a path of another form is refused' "$(cat /tmp/path.code) $(grep -c 'slice:prefix:name' single.out)" '1 1'

# A user's own systemd, below a group that is theirs.
echo 'user:x:1000:1000::/:/bin/sh' >>/etc/passwd
echo 'user:x:1000:' >>/etc/group
mkdir -p /run/user/1000 mine/rootfs/bin
for applet in sh cat sleep; do cp /berth/busybox "mine/rootfs/bin/$applet"; done
chown -R 1000:1000 /run/user/1000 mine
manager=/usr/lib/systemd/systemd
[ -x $manager ] || manager=/lib/systemd/systemd
systemd-run -q --unit=manager -p User=user -p Delegate=yes -p Environment=XDG_RUNTIME_DIR=/run/user/1000 $manager --user
for _ in $(seq 600); do [ -S /run/user/1000/systemd/private ] && break; sleep 0.2; done
user() {
    systemd-run -q --pipe --wait --collect -p User=user -p WorkingDirectory=/tmp/mine \
        -p Environment="XDG_RUNTIME_DIR=/run/user/1000 PATH=$PATH" berth-runtime --root /run/user/1000/state "$@" 2>&1
}
user spec --rootless
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sleep", "1000"/; s/"linux": {/"linux": { "cgroupsPath": ":vm:mine", "resources": {"pids": {"limit": 9}}, /' mine/config.json
user --systemd-cgroup run -d mine >/tmp/mine.out </dev/null
theirs=/sys/fs/cgroup/system.slice/manager.service/user.slice/vm-mine.scope
check "a user's systemd makes the scope" "$(cat /tmp/mine.out $theirs/pids.max) $(grep -c . $theirs/cgroup.procs)" '9 1'
check 'and changes it' "$(user update --pids-limit 12 mine; cat $theirs/pids.max)" 12
check 'and exec finds the way' "$(user exec mine sleep 0; echo $?)" 0
check 'and nothing is left' "$(user delete --force mine; ls -d $theirs 2>/dev/null)" ''
systemctl stop manager.service

. /berth/pods.sh

systemctl stop dbus.socket dbus.service 2>/dev/null
bundle direct '{"pids":{"limit":20}}' 'exec sleep 1000'
check 'no message bus is needed' "$(create direct) $(cat $slice/vm-direct.scope/pids.max)" '0 20'
runtime delete --force direct
check 'nor to delete' "$(gone direct)" gone
echo "# done after $(cut -d' ' -f1 /proc/uptime) s"
