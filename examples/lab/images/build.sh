#!/usr/bin/env bash
# Builds the image `lab-tools` on the engine that BERTH_HOST (or the default socket) names: Debian with stress-ng and sysbench.
# With an argument, also loads it into the engine at that address: build.sh unix:///run/docker.sock
set -euo pipefail
cd "$(dirname "$0")"

suite=${LAB_SUITE:-$(. /etc/os-release; [ "$ID" = debian ] && echo "$VERSION_CODENAME" || echo stable)}
if [ -z "$(berth images -q lab-base)" ]; then
    echo "lab-base: Debian $suite by mmdebstrap"
    mmdebstrap --quiet --variant=apt "$suite" - | berth import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - lab-base >/dev/null
fi
berth build --network host -t lab-tools .
[ $# -eq 0 ] || berth save lab-tools | berth -H "$1" load
