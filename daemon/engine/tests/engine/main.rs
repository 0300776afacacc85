//! The engine with real shims, real snapshots and real networks, each test with a daemon of its own in a temporary
//! directory. Needs root, `busybox` (static) on the host, and `berth-shim` built beside the tests
//! (`cargo build -p berth-shim`).

mod copy;
mod harness;
mod lifecycle;
mod limits;
mod logs;
mod mounts;
mod networks;
mod recovery;
mod streams;
