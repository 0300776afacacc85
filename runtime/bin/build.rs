//! Puts what a container needs of the program first, where the linker is one that can (`order.ld`; docs/decisions/0215).

fn main() {
    println!("cargo::rerun-if-changed=order.ld");
    let musl = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl");
    if let (true, Ok(directory)) = (musl, std::env::var("CARGO_MANIFEST_DIR")) {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/order.ld");
    }
}
