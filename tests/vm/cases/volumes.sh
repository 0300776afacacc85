# Volumes of a real NFS server, the kernel's own: both versions of the protocol, a server's name, a killed daemon.
# needs: berthd berth berth-shim
# programs: rpcbind rpc.mountd rpc.nfsd exportfs
# expect: 14
export BERTH_HOST=unix:///run/berth/berth.sock
mkdir -p /var/lib/berth-nfs /tmp/nfs/bin /tmp/nfs/etc /tmp/nfs/tmp /srv/share /srv/empty
cp /bin/busybox /tmp/nfs/bin/
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/tmp/nfs/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/nfs/etc/passwd

# What the server's programs look up.
printf 'udp tpi_clts v inet udp - -\ntcp tpi_cots_ord v inet tcp - -\nlocal tpi_cots_ord - loopback - - -\n' >/etc/netconfig
printf 'sunrpc 111/tcp portmapper\nsunrpc 111/udp portmapper\nnfs 2049/tcp\nnfs 2049/udp\n' >/etc/services
printf 'tcp 6 TCP\nudp 17 UDP\n' >/etc/protocols
printf '127.0.0.1 localhost\n127.0.0.1 fileserver\n' >/etc/hosts
printf '_rpc:x:100:65534::/:/bin/false\nstatd:x:101:65534::/:/bin/false\n' >>/etc/passwd
printf '/srv/share *(rw,no_root_squash,insecure,no_subtree_check,fsid=1)\n/srv/empty *(ro,insecure,no_subtree_check,fsid=2)\n' >/etc/exports
mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs /run/rpcbind /run/lock
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t nfsd nfsd /proc/fs/nfsd
# Nobody has anything to reclaim from a server that never ran.
echo 10 >/proc/fs/nfsd/nfsv4gracetime
rpcbind -w 2>/tmp/nfs-server.log
exportfs -a 2>>/tmp/nfs-server.log
rpc.mountd --port 20048 2>>/tmp/nfs-server.log
rpc.nfsd 2 2>>/tmp/nfs-server.log

serve() {
    berthd --root /var/lib/berth-nfs --run-root /run/berth 2>>/tmp/berthd-nfs.log &
    daemon=$!
    for _ in $(seq 100); do berth info >/dev/null 2>&1 && break; sleep 0.1; done
}
serve
# check CASE FOUND WANTED
check() { if [ "$2" = "$3" ]; then echo "ok volumes: $1"; else echo "not ok volumes: $1: '$2' instead of '$3': $(tail -n 3 /tmp/berthd-nfs.log | tr '\n' ' ') $(tail -n 3 /tmp/nfs-server.log | tr '\n' ' ')"; fi; }
# volume NAME OPTIONS [PLACE]
volume() { berth volume create -d local -o type=nfs -o o="$2" -o device=":${3:-/srv/share}" "$1" >/dev/null; }
mounts() { grep -c ' nfs4* ' /proc/mounts; }
tar -C /tmp/nfs -c . | berth import - base >/dev/null 2>/tmp/import-nfs.log

echo from the server >/srv/share/greeting
volume four addr=fileserver,vers=4.2,rw
check 'version 4, the server by its name' "$(berth run --rm -v four:/data base sh -c 'cat /data/greeting; echo from a container >/data/answer' 2>&1)" 'from the server'
check 'the server has what was written' "$(cat /srv/share/answer)" 'from a container'
check 'nothing stays mounted' "$(mounts)" 0

volume three addr=127.0.0.1,vers=3,nolock,mountport=20048,port=2049
check 'version 3' "$(berth run --rm -v three:/data base cat /data/answer 2>&1)" 'from a container'
volume bare addr=127.0.0.1,nolock
check 'a version that the kernel chooses' "$(berth run --rm -v bare:/data base cat /data/answer 2>&1)" 'from a container'

for name in one two; do berth run -d --name $name -v four:/data base sleep 1000 >/dev/null; done
berth exec one sh -c 'echo shared >/data/shared'
check 'containers share a volume' "$(berth exec two cat /data/shared) over $(mounts)" 'shared over 1'
check 'it is where inspect says' "$(cat "$(berth volume inspect --format '{{.Mountpoint}}' four)/shared")" shared
kill -9 "$daemon"; wait "$daemon" 2>/dev/null; serve
check 'it outlives the daemon' "$(berth exec two cat /data/shared) over $(mounts)" 'shared over 1'
berth rm -f one >/dev/null
check 'one container less' "$(berth exec two cat /data/shared) over $(mounts)" 'shared over 1'
berth rm -f two >/dev/null
check 'the last container takes the mount away' "$(mounts)" 0

volume looked addr=fileserver,vers=4.2,ro
check 'a volume that is read only' "$(berth run --rm -v looked:/data base sh -c 'cat /data/shared; touch /data/no' 2>&1 | sed 's/.*: //' | tr '\n' ' ')" 'shared Read-only file system '
volume lost addr=no.such.server,vers=4.2
check 'a server that nobody knows' "$(berth run --rm -v lost:/data base true 2>&1 | grep -c 'cannot resolve addr=no.such.server')" 1
volume hidden addr=fileserver,vers=4.2 /srv/secret
check 'a directory that is not exported' "$(berth run --rm -v hidden:/data base true 2>&1 | grep -c "volume 'hidden'.*/srv/secret.*ENOENT")" 1

berth system shutdown --containers >/dev/null 2>&1
wait "$daemon"
rpc.nfsd 0
check 'nothing is left' "$(mounts)" 0
