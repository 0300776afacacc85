//! Containers through the real berth-shim. Needs root, a cgroup file system and a static /bin/busybox.

mod endings;
mod execs;
mod harness;
mod lifecycle;
mod speed;
mod streams;
