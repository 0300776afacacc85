# Pods on a host that has cgroup v2 only, with the driver cgroupfs.
# needs: berthd berth berth-shim vm_pods
# expect: 13
export BERTH_HOST=unix:///run/pods/berth.sock
mkdir -p /var/lib/pods /tmp/pods/bin /tmp/pods/etc
cp /bin/busybox /tmp/pods/bin/busybox
for applet in sh sleep cat; do ln -s busybox "/tmp/pods/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/pods/etc/passwd

# serve: a daemon, whose process is $daemon
serve() {
    berthd --root /var/lib/pods --run-root /run/pods --cni-conf-dir /nonexistent 2>>/tmp/podsd.log &
    daemon=$!
    for _ in $(seq 600); do [ -S /run/pods/berth.sock ] && [ -S /run/pods/cri.sock ] && break; sleep 0.1; done
}
# phase NAME
phase() { vm_pods /run/pods/cri.sock cgroupfs "$1" 2>/tmp/pods.err || echo "not ok pods: $1: $(cat /tmp/pods.err) $(tail -n 3 /tmp/podsd.log)"; }

serve
tar -C /tmp/pods -c . | berth import --change 'ENV PATH=/bin' - base >/dev/null 2>/tmp/import-pods.log
phase make
kill -9 "$daemon"
wait "$daemon"
# A socket that nobody listens on is there still.
rm -f /run/pods/berth.sock /run/pods/cri.sock
serve
phase again
phase end
berth system shutdown --containers >/dev/null 2>&1
wait "$daemon"
if [ -e /sys/fs/cgroup/berth ] || grep -q /run/pods /proc/mounts; then echo "not ok pods: something is left"; else echo "ok pods: nothing is left"; fi
