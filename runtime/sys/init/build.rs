//! Compiles the init program: static, without a C library, whatever the flags of this build are.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=program/main.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("berth-init");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["program/main.rs", "--edition", "2024", "--crate-name", "berth_init", "--crate-type", "bin"])
        .args(["--target", &variable("TARGET"), "-D", "warnings", "-o"])
        .arg(&output)
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"]);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let status = rustc.status().expect("running rustc for the init program");
    assert!(status.success(), "the init program does not compile: {rustc:?}");
}
