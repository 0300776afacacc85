# --storage-opt size: a project quota of ext4 on a loop device bounds what a container writes into its tree. And how fast it may
# read and write that device.
# needs: berthd berth berth-shim
# programs: mkfs.ext4
# expect: 13
export BERTH_HOST=unix:///run/berth-size/berth.sock
mkdir -p /tmp/size/bin /tmp/size/etc /tmp/size/tmp /tmp/bounded
cp /bin/busybox /tmp/size/bin/
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/tmp/size/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/size/etc/passwd
dd if=/dev/zero of=/tmp/bounded.ext4 bs=1 count=0 seek=256M 2>/dev/null
mkfs.ext4 -q -F -O quota,project -E quotatype=prjquota /tmp/bounded.ext4 2>/tmp/mkfs.log
mount -t ext4 -o loop,prjquota /tmp/bounded.ext4 /tmp/bounded 2>>/tmp/mkfs.log

serve() {
    berthd --root /tmp/bounded/berth --run-root /run/berth-size "$@" 2>>/tmp/berthd-size.log &
    daemon=$!
    for _ in $(seq 100); do berth info >/dev/null 2>&1 && break; sleep 0.1; done
}
# check CASE FOUND WANTED
check() { if [ "$2" = "$3" ]; then echo "ok size: $1"; else echo "not ok size: $1: '$2' instead of '$3': $(tail -n 3 /tmp/berthd-size.log | tr '\n' ' ') $(cat /tmp/mkfs.log)"; fi; }
# What was removed is given back by and by.
settled() { for _ in $(seq 600); do [ "$(df -m /tmp/bounded | awk 'NR == 2 { print $3 }')" -lt 100 ] && return; sleep 0.1; done; }
# Writes this many MiB, and says how it went and how many came into the file.
fill='said=$(dd if=/dev/zero of=/big bs=1M count=$0 2>&1); echo $? $(($(stat -c %s /big) / 1048576)) $(echo "$said" | grep -o "Disk quota exceeded\|No space left on device")'
serve
tar -C /tmp/size -c . | berth import - base >/dev/null 2>/tmp/import-size.log

check 'less than the bound' "$(berth run --rm --storage-opt size=20M base sh -c "$fill" 10 2>&1)" '0 10'
said=$(berth run --name full --storage-opt size=20M base sh -c "$fill" 40 2>&1)
check 'beyond the bound' "$(echo "$said" | cut -d' ' -f1,3-)" '1 Disk quota exceeded'
check 'nearly all of it came' "$(echo "$said" | awk '{ print ($2 >= 18 && $2 <= 20) ? "yes" : $2 }')" yes
check 'inspect shows it' "$(berth inspect --format '{{json .HostConfig.StorageOpt}}' full)" '{"size":"20M"}'
check 'it outlives a start' "$(berth start -a full >/dev/null 2>&1; (berth inspect --format '{{.State.ExitCode}}' full; berth cp full:/big - 2>/dev/null | wc -c | awk '{ print ($1 < 22000000) ? "bound" : $1 }') | tr '\n' ' ')" '0 bound '
check 'another container has its own' "$(berth run --rm --storage-opt size=30M base sh -c "$fill" 25 2>&1)" '0 25'
check 'without the option there is none' "$(berth run --rm base sh -c "$fill" 40 2>&1)" '0 40'
check 'files move between directories' "$(berth run --rm --storage-opt size=20M base sh -c 'mkdir /a /b && echo x >/a/f && mv /a/f /b/f && mv /bin/true /b/ && rm -r /tmp && cat /b/f' 2>&1)" x
berth rm full >/dev/null
# The space is given back: as many as fill the disk, one after the other.
check 'removal frees all of it' "$(for _ in 1 2 3 4; do settled; berth run --rm --storage-opt size=100M base sh -c "$fill" 90 2>&1; done | sort | uniq -c | tr -s ' ')" ' 4 0 90'
check 'a size that is none' "$(berth run --rm --storage-opt size=big base true 2>&1 | grep -c "invalid size: 'big'")" 1
disk=$(sed -n 's/ \/tmp\/bounded .*//p' /proc/mounts)
check 'rates of a device' "$(berth run --rm --device-read-bps "$disk:1mb" --device-write-bps "$disk:2mb" --device-read-iops "$disk:100" --device-write-iops "$disk:200" base cut -d' ' -f2- /sys/fs/cgroup/io.max 2>&1)" 'rbps=1048576 wbps=2097152 riops=100 wiops=200'
berth system shutdown --containers >/dev/null 2>&1; wait "$daemon"
serve --storage-opt overlay2.size=8M
check 'a bound for all' "$(berth run --rm base sh -c "$fill" 20 2>&1 | cut -d' ' -f1,3-) $(berth run --rm --storage-opt size=30M base sh -c "$fill" 20 2>&1)" '1 Disk quota exceeded 0 20'
berth system shutdown --containers >/dev/null 2>&1; wait "$daemon"
umount /tmp/bounded
mount -t ext4 -o loop /tmp/bounded.ext4 /tmp/bounded
serve
check 'a file system without' "$(berth run --rm --storage-opt size=1M base true 2>&1 | grep -c 'the file system of /tmp/bounded/berth has no project quotas')" 1
berth system shutdown --containers >/dev/null 2>&1; wait "$daemon"
umount /tmp/bounded; rm -rf /tmp/bounded.ext4 /tmp/size
