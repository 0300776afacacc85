//! Builds through the crate's public face. They need root and busybox-static; those with `RUN` need berth-shim.

mod files;
mod harness;
mod solver;
mod steps;
