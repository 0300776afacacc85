//! The hostile program inside the container: `intruder/main.rs`, compiled statically when the suite runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::harness::Case;

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/escapes/intruder/main.rs");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("intruder");
        let compiled = Command::new("rustc")
            .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"])
            .arg(&program)
            .arg(source)
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        program
    })
}

/// A running container whose first process is the intruder. What it finds stands in `/loot`, which is this directory of
/// the host.
pub(crate) struct Intrusion {
    pub(crate) case: Case,
    pub(crate) loot: PathBuf,
}

impl Intrusion {
    /// `runtime` is what the host uses for it.
    pub(crate) fn new(mode: &str, runtime: &Path) -> Self {
        let mut case = Case::new(&["/bin/intruder", mode]);
        fs::copy(program(), case.rootfs().join("bin/intruder")).unwrap();
        fs::set_permissions(case.rootfs().join("bin/intruder"), fs::Permissions::from_mode(0o755)).unwrap();
        let loot = case.path().join("loot");
        fs::create_dir(&loot).unwrap();
        case.push(
            "/mounts",
            json!({ "destination": "/loot", "type": "bind", "source": loot, "options": ["bind"] }),
        );
        give_libraries_of(runtime, &case.rootfs());
        symlink("/proc/self/exe", case.rootfs().join("bin/self")).unwrap();
        Self { case, loot }
    }

    pub(crate) fn found(&self, name: &str) -> String {
        fs::read_to_string(self.loot.join(name)).unwrap_or_default()
    }
}

/// The loader and the libraries of a dynamically linked program: an attacker's image would have its own.
fn give_libraries_of(program: &Path, rootfs: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = rootfs.join(&library[1..]);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, copy).unwrap();
    }
}
