//! Types of the CRI from its interface definition; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/api.proto");
    let definition = protox::compile(["api.proto"], ["proto"])?;
    // Clients bring their own connection.
    tonic_prost_build::configure().build_transport(false).compile_fds(definition)?;
    Ok(())
}
