//! berth-runtime: the runc-compatible command line of the OCI runtime.
fn main() {}
