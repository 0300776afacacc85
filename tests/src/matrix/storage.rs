//! Bind mounts, volumes, tmpfs, and files copied in and out.

use super::Fixture;

/// A bind mount shows the host's directory; `ro` forbids writing.
pub fn bind(f: &Fixture) {
    let source = f.scratch.join("shared");
    std::fs::create_dir(&source).expect("mkdir");
    std::fs::write(source.join("a"), "from the host").expect("write");
    let source = source.to_str().expect("utf-8");
    let volume = format!("{source}:/mnt/shared");
    assert_eq!(f.cli.ok(&["run", "--rm", "-v", &volume, "busybox", "cat", "/mnt/shared/a"]), "from the host");
    f.cli.ok(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", "echo back > /mnt/shared/b"]);
    assert_eq!(std::fs::read_to_string(format!("{source}/b")).expect("read"), "back\n");
    let read_only = format!("{volume}:ro");
    f.cli.run(&["run", "--rm", "-v", &read_only, "busybox", "touch", "/mnt/shared/c"]).expect_code(1);
    // -v makes a missing source, --mount does not.
    let missing = format!("{source}/made:/x");
    f.cli.ok(&["run", "--rm", "-v", &missing, "busybox", "true"]);
    assert!(std::path::Path::new(source).join("made").is_dir());
    let mount = format!("type=bind,source={source}/nosuch,target=/x");
    f.cli
        .run(&["run", "--rm", "--mount", &mount, "busybox", "true"])
        .expect_code(125)
        .expect_text("does not exist");
}

/// A named volume outlives its containers, takes the image's content at first, and is guarded while in use.
pub fn named_volume(f: &Fixture) {
    f.cli.ok(&["volume", "create", "keep"]);
    f.cli.ok(&["run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept > /data/f"]);
    assert_eq!(f.cli.ok(&["run", "--rm", "-v", "keep:/data", "busybox", "cat", "/data/f"]), "kept");
    assert_eq!(
        f.cli.ok(&["run", "--rm", "-v", "etc:/etc", "busybox", "head", "-n1", "/etc/group"]),
        "root:x:0:"
    );
    f.cli.ok(&["create", "--name", "holder", "-v", "keep:/data", "busybox"]);
    f.cli.run(&["volume", "rm", "keep"]).expect_code(1).expect_text("in use");
    f.cli.ok(&["rm", "holder"]);
    let names = f.cli.ok(&["volume", "ls", "-q"]);
    assert_eq!(names, "etc\nkeep");
    f.cli.ok(&["volume", "rm", "keep", "etc"]);
    assert_eq!(f.cli.ok(&["volume", "ls", "-q"]), "");
}

/// Anonymous volumes go with `--rm`, and with `rm -v`.
pub fn anonymous_volume(f: &Fixture) {
    f.cli.ok(&["run", "--rm", "-v", "/data", "busybox", "touch", "/data/f"]);
    assert_eq!(f.cli.ok(&["volume", "ls", "-q"]), "");
    f.cli.ok(&["run", "--name", "keeps", "-v", "/data", "busybox", "true"]);
    assert_eq!(f.cli.ok(&["volume", "ls", "-q"]).len(), 64);
    f.cli.ok(&["rm", "-v", "keeps"]);
    assert_eq!(f.cli.ok(&["volume", "ls", "-q"]), "");
}

/// A tmpfs is one, with its size.
pub fn tmpfs(f: &Fixture) {
    let out = f.cli.ok(&[
        "run",
        "--rm",
        "--tmpfs",
        "/scratch:size=4m",
        "busybox",
        "sh",
        "-c",
        "grep ' /scratch ' /proc/mounts; ! head -c 5m /dev/zero 2>/dev/null > /scratch/f || echo too much",
    ]);
    assert!(
        out.starts_with("tmpfs /scratch tmpfs") && out.contains("size=4096k") && !out.contains("too much"),
        "{out}"
    );
}

/// A file goes in, and comes out, running or not.
pub fn copy(f: &Fixture) {
    let file = f.scratch.join("file");
    std::fs::write(&file, "carried").expect("write");
    let file = file.to_str().expect("utf-8");
    f.cli.ok(&["create", "--name", "porter", "busybox", "cat", "/tmp/in"]);
    f.cli.ok(&["cp", file, "porter:/tmp/in"]);
    assert_eq!(f.cli.ok(&["start", "-a", "porter"]), "carried");
    let back = f.scratch.join("back");
    let back = back.to_str().expect("utf-8");
    f.cli.ok(&["cp", "porter:/etc/passwd", back]);
    assert!(std::fs::read_to_string(back).expect("read").starts_with("root:x:0:0"));
    f.cli.run(&["cp", "porter:/no/such", back]).expect_code(1);
}

/// What a container changed is listed, committed and exported.
pub fn changes_commit_export(f: &Fixture) {
    f.cli.ok(&["run", "--name", "changed", "busybox", "sh", "-c", "echo new > /home/new; rm /etc/group"]);
    let diff = f.cli.ok(&["diff", "changed"]);
    for line in ["C /home", "A /home/new", "C /etc", "D /etc/group"] {
        assert!(diff.lines().any(|l| l == line), "no {line:?} in\n{diff}");
    }
    f.cli.ok(&["commit", "-m", "why", "changed", "committed:v1"]);
    let script = "cat /home/new; test -e /etc/group || echo gone; test -e /etc/passwd && echo kept";
    assert_eq!(f.cli.ok(&["run", "--rm", "committed:v1", "sh", "-c", script]), "new\ngone\nkept");
    let archive = f.scratch.join("export.tar");
    f.cli.ok(&["export", "-o", archive.to_str().expect("utf-8"), "changed"]);
    let list = std::process::Command::new("tar").arg("-tf").arg(&archive).output().expect("tar -t");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|l| l.trim_start_matches("./") == "home/new"), "{list}");
    assert!(!list.lines().any(|l| l.ends_with("etc/group")), "{list}");
}
