//! The contract of an OCI runtime, case by case, on real containers. Needs root and /bin/busybox (static).
//!
//! The same table runs against another runtime, which tests the tests:
//! `BERTH_TEST_RUNTIME=/usr/sbin/runc cargo test -p berth-runtime --test contract`.

mod checkpoint;
mod errors;
mod files;
mod harness;
mod hooks;
mod isolation;
mod kernel;
mod leftovers;
mod lifecycle;
mod mounts;
mod notify;
mod process;
mod rootless;
mod seccomp;
mod terminal;
