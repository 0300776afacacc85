# Links and protocols that many kernels lack: macvlan, ipvlan in all its modes, SCTP.
# needs: berthd berth berth-shim
# programs: socat
# expect: 12
export BERTH_HOST=unix:///run/berth/berth.sock
mkdir -p /var/lib/berth-net /tmp/net/bin /tmp/net/etc /tmp/net/tmp
cp /bin/busybox /bin/socat /tmp/net/bin/
cp -a /lib /lib64 /usr /tmp/net/ 2>/dev/null
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/tmp/net/bin/$applet"; done
echo root:x:0:0::/:/bin/sh >/tmp/net/etc/passwd

berthd --root /var/lib/berth-net --run-root /run/berth 2>/tmp/berthd-net.log &
daemon=$!
for _ in $(seq 600); do [ -S /run/berth/berth.sock ] && break; sleep 0.1; done

# check CASE FOUND WANTED
check() { if [ "$2" = "$3" ]; then echo "ok network: $1"; else echo "not ok network: $1: '$2' instead of '$3': $(tail -n 3 /tmp/berthd-net.log | tr '\n' ' ')"; fi; }
# pings FROM ADDRESS
pings() { berth exec "$1" ping -c 3 -W 10 "$2" >/dev/null 2>&1 && echo yes || echo no; }
# on NETWORK NAME ADDRESS: a container that sleeps
on() { berth run -d --name "$2" --network "$1" --ip "$3" base sleep 1000 >/dev/null; }
tar -C /tmp/net -c . | berth import - base >/dev/null 2>/tmp/import-net.log
for parent in mac0 two0 three0; do
    # Busybox gives the far end no name of our choice.
    ip link add "$parent" type veth
    ip link set "$(ip link show "$parent" | sed -n 's/.*@\(veth[0-9]*\):.*/\1/p')" name "${parent}far"
    ip link set "$parent" up
    ip link set "${parent}far" up
done

ip address add 10.60.0.1/24 dev mac0far
berth network create -d macvlan -o parent=mac0 --subnet 10.60.0.0/24 mac >/dev/null
on mac m1 10.60.0.11
on mac m2 10.60.0.12
check 'macvlan between containers' "$(pings m1 10.60.0.12)" yes
check 'macvlan to a neighbour of the parent' "$(pings m1 10.60.0.1)" yes

ip address add 10.61.0.1/24 dev two0far
berth network create -d ipvlan -o parent=two0 --subnet 10.61.0.0/24 two >/dev/null
on two t1 10.61.0.11
on two t2 10.61.0.12
check 'ipvlan l2 between containers' "$(pings t1 10.61.0.12)" yes
check 'ipvlan l2 to a neighbour of the parent' "$(pings t1 10.61.0.1)" yes

for mode in l3 l3s; do
    for n in 1 2; do
        berth network create -d ipvlan -o parent=three0 -o ipvlan_mode=$mode --subnet 10.6$((n + 1)).0.0/24 $mode-$n >/dev/null
        on $mode-$n $mode-c$n 10.6$((n + 1)).0.11
    done
    check "ipvlan $mode between networks" "$(pings $mode-c1 10.63.0.11)" yes
    check "ipvlan $mode has no gateway" "$(berth exec $mode-c1 ip route show default | head -n 1 | sed 's/ *$//')" 'default dev eth0 scope link'
    berth rm -f $mode-c1 $mode-c2 >/dev/null
    berth network rm $mode-1 $mode-2 >/dev/null
done
check 'a mode nobody knows' "$(berth network create -d ipvlan -o parent=three0 -o ipvlan_mode=l4 --subnet 10.64.0.0/24 x 2>&1 | grep -c 'l2, l3 or l3s')" 1

berth run -d --name sctp -p 3868:3868/sctp base socat SCTP-LISTEN:3868,fork,reuseaddr SYSTEM:'echo spoken' >/dev/null
address=$(berth inspect --format '{{.NetworkSettings.Networks.bridge.IPAddress}}' sctp)
ip address add 192.0.2.1/32 dev lo
# speaks ADDRESS
speaks() { for _ in $(seq 100); do socat -u -T 10 SCTP:"$1":3868 - 2>/dev/null | grep . && return; sleep 0.2; done; }
check 'SCTP to a container' "$(speaks "$address")" spoken
check 'a published SCTP port' "$(speaks 192.0.2.1)" spoken

berth system shutdown --containers >/dev/null 2>&1
wait "$daemon"
check 'nothing is left on the parents' "$(ls -d /sys/class/net/mac0/upper_* /sys/class/net/two0/upper_* /sys/class/net/three0/upper_* 2>/dev/null)" ''
