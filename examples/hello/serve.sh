#!/bin/sh
# Serves the page, and says on its log what it is doing.
echo "serve: user $(id -u), port $PORT, directory $WWW, arguments: $*"
date > /data/started
exec /bin/busybox httpd -f -v -p "$PORT" -h "$WWW"
