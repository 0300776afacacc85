//! Messages and services from their definitions; no protoc is needed.

const PROTOS: [&str; 10] = [
    "control.proto",
    "gateway.proto",
    "ops.proto",
    "worker.proto",
    "filesync.proto",
    "fsutil.proto",
    "secrets.proto",
    "ssh.proto",
    "upload.proto",
    "health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let definition = protox::compile(PROTOS, ["proto"])?;
    // Connections are taken over from HTTP/1 on both sides: nothing here listens or dials.
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .include_file("protocol.rs")
        .compile_fds(definition)?;
    Ok(())
}
