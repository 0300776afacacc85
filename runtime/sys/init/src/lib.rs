//! The init process of `--init`, as bytes.
//!
//! It runs in images that have no C library, so it must be static; and a build without further flags must make it so.
//! The build script therefore compiles `program/main.rs`, which needs nothing but the kernel, by itself.

/// The program: an executable file. Its arguments are `-- COMMAND ARGUMENT…`.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/berth-init"));

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    fn program() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        std::fs::write(&path, super::PROGRAM).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    #[test]
    fn it_passes_exit_codes_on_and_finds_programs() {
        let (_dir, init) = program();
        let code = |words: &[&str]| Command::new(&init).arg("--").args(words).status().unwrap();
        assert_eq!(code(&["true"]).code(), Some(0));
        assert_eq!(code(&["sh", "-c", "exit 7"]).code(), Some(7));
        assert_eq!(code(&["/bin/sh", "-c", "kill -9 $$"]).code(), Some(137));
        let missing = Command::new(&init).args(["--", "no-such-program"]).output().unwrap();
        assert_eq!(missing.status.code(), Some(127));
        let text = String::from_utf8_lossy(&missing.stderr).into_owned();
        assert!(text.contains("no-such-program") && text.contains("not found"), "{text}");
        assert_eq!(code(&["/etc/passwd"]).code(), Some(126));
        assert_eq!(Command::new(&init).status().unwrap().code(), Some(127), "nothing to run");
    }

    #[test]
    fn it_forwards_signals() {
        let (_dir, init) = program();
        let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = Command::new(&init)
            .args(["--", "sh", "-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(9), None));
    }

    #[test]
    fn it_is_small_and_static() {
        assert!(super::PROGRAM.len() < 64 << 10, "{} bytes", super::PROGRAM.len());
        let names_a_loader = super::PROGRAM.windows(8).any(|window| window == b"ld-linux");
        assert!(!names_a_loader);
    }
}
