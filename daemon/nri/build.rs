//! Messages of the NRI from its interface definition; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/api.proto");
    let definition = protox::compile(["api.proto"], ["proto"])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(definition)?;
    Ok(())
}
