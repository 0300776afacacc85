# berth-runtime on a host that has cgroup v2 only.
# needs: berth-runtime
# expect: 8
state=/run/berth-runtime

# bundle NAME RESOURCES COMMAND: a bundle with busybox in it
bundle() {
    local dir=/tmp/$1
    mkdir -p "$dir/rootfs/bin" "$dir/rootfs/proc" "$dir/rootfs/dev" "$dir/rootfs/sys" "$dir/rootfs/tmp"
    cp /bin/busybox "$dir/rootfs/bin/sh"
    cat >"$dir/config.json" <<JSON
{"ociVersion":"1.2.0","root":{"path":"rootfs"},"hostname":"vm",
 "process":{"user":{"uid":0,"gid":0},"args":["sh","-c","$3"],"env":["PATH=/bin"],"cwd":"/"},
 "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
  {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
  {"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
  {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro","nosuid","noexec","nodev"]}],
 "linux":{"cgroupsPath":"/berth/$1","resources":$2,
  "namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network"},{"type":"cgroup"}]}}
JSON
}

# run NAME: prints the exit code
run() { (cd "/tmp/$1" && berth-runtime --root "$state" run "$1") >"/tmp/$1/out" 2>&1; echo $?; }

# check CASE FOUND WANTED NAME
check() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: $2 instead of $3: $(tr '\n' ' ' <"/tmp/$4/out")"; fi; }

bundle exit '{}' 'exit 7'
check 'runtime: exit code' "$(run exit)" 7 exit

bundle hog '{"memory":{"limit":16777216,"swap":16777216}}' 'x=a; while :; do x=\"$x$x\"; done'
check 'runtime: memory limit ends with 137' "$(run hog)" 137 hog

bundle view '{"pids":{"limit":9},"memory":{"limit":33554432}}' 'read a </sys/fs/cgroup/pids.max; read b </sys/fs/cgroup/memory.max; echo $a $b'
run view >/dev/null
check 'runtime: own cgroup namespace shows own limits' "$(cat /tmp/view/out)" '9 33554432' view

# profile NAME: the same bundle under this AppArmor profile, of which a kernel has one from its start
profile() {
    bundle profile '{}' 'read a </proc/self/attr/current; echo $a'
    sed -i "s|\"cwd\":\"/\"|&,\"apparmorProfile\":\"$1\"|" /tmp/profile/config.json
    run profile
}
check 'runtime: an AppArmor profile' "$(profile unconfined) $(cat /tmp/profile/out)" '0 unconfined' profile
check 'runtime: an AppArmor profile that is not there' "$(profile nosuch) $(grep -c 'it is not loaded' /tmp/profile/out)" '1 1' profile

(cd /tmp/view && berth-runtime --root "$state" --systemd-cgroup run sys) >/tmp/view/out 2>&1
check 'runtime: no systemd is said' "$? $(grep -c 'systemd support for managing cgroups is not available' /tmp/view/out)" '1 1' view
check 'runtime: and leaves nothing' "$(berth-runtime --root "$state" list -q)" '' view

check 'runtime: nothing is left' "$(ls /sys/fs/cgroup/berth 2>/dev/null | grep -c -x -e exit -e hog -e view -e profile)" 0 view
