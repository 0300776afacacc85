#!/usr/bin/env bash
# Installs the system packages that a target needs and that are missing, by the distribution's package manager.
#   packages.sh demo | test | bench
set -euo pipefail

# What must be there -> the package that brings it (Debian's names).
declare -A demo=([/bin/busybox]=busybox-static [cc]=gcc [tar]=tar)
[ "${DEMO_BASE:-busybox}" != debian ] || demo[mmdebstrap]=mmdebstrap
declare -A test=(
    [docker-registry]=docker-registry [skopeo]=skopeo [umoci]=umoci [runc]=runc [crun]=crun
    [dockerd]=docker.io [containerd]=containerd [podman]=podman [buildah]=buildah [unshare]=util-linux
    [qemu-system-x86_64]=qemu-system-x86 [cpio]=cpio [mmdebstrap]=mmdebstrap [nft]=nftables [iptables]=iptables
    [ip]=iproute2 [script]=bsdutils [openssl]=openssl [zstd]=zstd [curl]=curl
    [/usr/lib/cni/bridge]=containernetworking-plugins [setfattr]=attr [xz]=xz-utils [jq]=jq [python3]=python3 [git]=git [ssh-add]=openssh-client [mkfs.ext4]=e2fsprogs
    [rpc.mountd]=nfs-kernel-server [firewalld]=firewalld [dbus-daemon]=dbus-daemon [socat]=socat [iperf3]=iperf3 [stress-ng]=stress-ng [sysbench]=sysbench
)
declare -A bench=([hyperfine]=hyperfine [/usr/lib/python3/dist-packages/grpc]=python3-grpcio)

wanted=()
need() {
    local -n list=$1
    local thing
    for thing in "${!list[@]}"; do
        if [[ $thing == /* ]]; then [ -x "$thing" ] || wanted+=("${list[$thing]}")
        else PATH=$PATH:/usr/sbin:/sbin command -v "$thing" >/dev/null || wanted+=("${list[$thing]}"); fi
    done
}

need demo
case ${1:-demo} in
    demo) ;;
    test) need test ;;
    bench) need test; need bench ;;
    *) echo "usage: $0 demo|test|bench" >&2; exit 2 ;;
esac
[ ${#wanted[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "missing packages: ${wanted[*]} -- install them, or run this as root" >&2
    exit 1
fi
echo "installing: ${wanted[*]}"
if command -v apt-get >/dev/null; then
    # A daemon that a package brings is for our private instances; the package must not start its own.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=1; fi
    trap '[ -z "$made" ] || rm -f $policy' EXIT
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
elif command -v dnf >/dev/null; then
    dnf install -y -q "${wanted[@]/busybox-static/busybox}"
elif command -v pacman >/dev/null; then
    pacman -S --noconfirm --needed "${wanted[@]/busybox-static/busybox}"
else
    echo "no package manager that this script knows; install by hand: ${wanted[*]}" >&2
    exit 1
fi
