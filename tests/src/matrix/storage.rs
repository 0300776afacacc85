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
    // What was copied is told on a terminal, or where it is asked for.
    f.cli
        .run(&["cp", "--quiet=false", file, "porter:/tmp/in"])
        .expect_code(0)
        .expect_text("Successfully copied");
    f.cli
        .run(&["cp", "--quiet=false", "porter:/tmp/in", back])
        .expect_code(0)
        .expect_text("Successfully copied");
    f.cli
        .run_on_terminal(&["cp", file, "porter:/tmp/in"], b"")
        .expect_code(0)
        .expect_text("Successfully copied");
    let quiet = f.cli.run_on_terminal(&["cp", "-q", file, "porter:/tmp/in"], b"").success();
    assert!(!quiet.contains("copied"), "{quiet}");
    assert_eq!(f.cli.run(&["cp", file, "porter:/tmp/in"]).stderr, "");
    // The files that the engine makes are there before the first start, and after the end.
    f.cli.ok(&["create", "--name", "fresh", "-h", "box", "busybox", "true"]);
    f.cli.ok(&["cp", "fresh:/etc/hostname", back]);
    f.cli.ok(&["cp", "porter:/etc/hosts", back]);
    assert!(std::fs::read_to_string(back).expect("read").contains("localhost"));
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

/// Another image's files are there, whole or in part, and cannot be changed; the image is guarded.
pub fn image_mount(f: &Fixture) {
    f.cli.ok(&["tag", "busybox", "tools"]);
    let whole = "type=image,source=tools,target=/tools";
    let shell = ["busybox", "sh", "-c", "/tools/bin/busybox echo works; touch /tools/x 2>&1; true"];
    let seen = f.cli.ok(&[&["run", "--rm", "--mount", whole][..], &shell].concat());
    assert!(seen.contains("works") && seen.contains("Read-only"), "{seen}");
    let part = "type=image,source=tools,target=/accounts,image-subpath=etc";
    assert!(f.cli.ok(&["run", "--rm", "--mount", part, "busybox", "ls", "/accounts"]).contains("passwd"));
    let missing = "type=image,source=nosuch,target=/x";
    f.cli.run(&["run", "--rm", "--mount", missing, "busybox", "true"]).expect_code(125).expect_text("nosuch");
    let escape = "type=image,source=tools,target=/x,image-subpath=../..";
    f.cli.run(&["run", "--rm", "--mount", escape, "busybox", "true"]).expect_code(125).expect_text("subpath");
    f.cli.ok(&["rmi", "tools"]);
}

/// Volumes of other file systems, shared while in use; options that make no sense are refused.
pub fn volume_options(f: &Fixture) {
    let tmpfs =
        ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=0700", "--label", "kind=fast"];
    f.cli.ok(&[&["volume", "create"][..], &tmpfs, &["fast"]].concat());
    f.cli.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        "fast:/f",
        "busybox",
        "sh",
        "-c",
        "echo x > /f/x; sleep 100",
    ]);
    f.cli.eventually("the file", |cli| cli.run(&["exec", "one", "test", "-s", "/f/x"]).code == 0);
    let seen = f.cli.ok(&[
        "run",
        "--rm",
        "-v",
        "fast:/f",
        "busybox",
        "sh",
        "-c",
        "cat /f/x; grep ' /f ' /proc/mounts",
    ]);
    assert!(seen.starts_with("x\n") && seen.contains("tmpfs") && seen.contains("size=1024k"), "{seen}");
    f.cli.ok(&["rm", "-f", "one"]);
    let empty = f.cli.ok(&["run", "--rm", "-v", "fast:/f", "busybox", "ls", "/f"]);
    assert_eq!(empty, "", "a tmpfs ends with its last user");
    let device = format!("device={}", f.scratch.display());
    f.cli.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]);
    f.cli.ok(&["run", "--rm", "-v", "bound:/b", "busybox", "touch", "/b/made"]);
    assert!(f.scratch.join("made").exists());
    for (options, words) in [
        (&["-o", "bogus=1"][..], "invalid option"),
        (&["-o", "type=tmpfs"], "missing required option"),
        (&["--driver", "nosuch"], "nosuch"),
    ] {
        f.cli.run(&[&["volume", "create"][..], options, &["odd"]].concat()).expect_code(1).expect_text(words);
    }
    let bad = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=lots"];
    f.cli.ok(&[&["volume", "create"][..], &bad, &["bad"]].concat());
    f.cli.run(&["run", "--rm", "-v", "bad:/b", "busybox", "true"]).expect_code(125).expect_text("size=lots");
    let ls = |filter: &str| f.cli.ok(&["volume", "ls", "-q", "--filter", filter]);
    assert_eq!(
        (ls("label=kind=fast"), ls("name=boun"), ls("driver=nosuch")),
        ("fast".into(), "bound".into(), String::new())
    );
    f.cli.ok(&["create", "--name", "user", "-v", "bound:/b", "busybox"]);
    assert!(!ls("dangling=true").contains("bound") && ls("dangling=false").contains("bound"));
    f.cli.ok(&["rm", "user"]);
    let pruned = f.cli.ok(&["volume", "prune", "-af", "--filter", "label!=kind"]);
    assert!(pruned.contains("bound") && !pruned.contains("fast"), "{pruned}");
    assert!(f.scratch.join("made").exists(), "what a volume is bound to is not its own");
    f.cli.ok(&["volume", "rm", "fast"]);
}

/// Parts of volumes; links that others put there lead nowhere.
pub fn volume_subpath(f: &Fixture) {
    let fill = "mkdir -p /v/a/b && echo deep > /v/a/b/f && ln -s / /v/out && ln -s ../../.. /v/up";
    f.cli.ok(&["run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", fill]);
    let mount = |path: &str| format!("type=volume,source=parts,target=/p,volume-subpath={path}");
    assert_eq!(f.cli.ok(&["run", "--rm", "--mount", &mount("a/b"), "busybox", "cat", "/p/f"]), "deep");
    assert_eq!(f.cli.ok(&["run", "--rm", "--mount", &mount("a/b/f"), "busybox", "cat", "/p"]), "deep");
    for path in ["out", "up", "out/etc", "nosuch"] {
        f.cli
            .run(&["run", "--rm", "--mount", &mount(path), "busybox", "true"])
            .expect_code(125)
            .expect_text(path);
    }
    f.cli.run(&["run", "--rm", "--mount", &mount("../x"), "busybox", "true"]).expect_code(125);
    f.cli.ok(&["volume", "rm", "parts"]);
}

/// What belongs to the owner of the source on the host belongs to the container's user inside.
pub fn id_mapped(f: &Fixture) {
    let source = f.scratch.join("owned");
    std::fs::create_dir(&source).expect("mkdir");
    std::os::unix::fs::chown(&source, Some(1234), Some(2345)).expect("chown");
    let bind = format!("{}:/o:idmap=caller", source.display());
    for (user, name) in [("0:0", "root"), ("1000:1000", "web")] {
        let script = format!("touch /o/{name} && stat -c %u:%g /o/{name}");
        let seen = f.cli.ok(&["run", "--rm", "-u", user, "-v", &bind, "busybox", "sh", "-c", &script]);
        assert_eq!(seen, user);
        let metadata = std::fs::metadata(source.join(name)).expect("made by the container");
        assert_eq!(
            (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata)),
            (1234, 2345)
        );
    }
    let odd = format!("{}:/o:idmap=somebody", source.display());
    f.cli.run(&["run", "--rm", "-v", &odd, "busybox", "true"]).expect_code(125).expect_text("invalid mode");
}

/// `--volumes-from`, `nocopy`, read-only with the mounts below, propagation.
pub fn mount_options(f: &Fixture) {
    f.cli.ok(&["run", "--name", "donor", "-v", "given:/given", "busybox", "sh", "-c", "echo x > /given/x"]);
    assert_eq!(f.cli.ok(&["run", "--rm", "--volumes-from", "donor", "busybox", "cat", "/given/x"]), "x");
    f.cli.run(&["run", "--rm", "--volumes-from", "donor:ro", "busybox", "touch", "/given/y"]).expect_code(1);
    f.cli.run(&["run", "--rm", "--volumes-from", "nosuch", "busybox", "true"]).expect_code(125);
    f.cli.ok(&["rm", "donor"]);
    assert_eq!(f.cli.ok(&["run", "--rm", "-v", "none:/etc/x:nocopy", "busybox", "ls", "/etc/x"]), "");
    let source = f.scratch.display().to_string();
    let line = |options: &str| {
        let bind = format!("{source}:/b{options}");
        f.cli.ok(&["run", "--rm", "-v", &bind, "busybox", "grep", " /b ", "/proc/self/mountinfo"])
    };
    assert!(line(":ro").contains(" /b ro,"), "{}", line(":ro"));
    assert!(!line("").contains("shared:") && !line("").contains("master:"));
    assert!(line(":rslave").contains("master:") || !line(":rslave").contains("shared:"));
    let forced = format!(
        "type=bind,source={source},target=/b,readonly,bind-recursive=readonly,bind-propagation=rprivate"
    );
    f.cli.run(&["run", "--rm", "--mount", &forced, "busybox", "touch", "/b/x"]).expect_code(1);
    for bad in ["/b:rw,ro", "/b:bogus", ":/b:ro"] {
        f.cli.run(&["run", "--rm", "-v", &format!("{source}:{bad}"), "busybox", "true"]).expect_code(125);
    }
    f.cli.ok(&["volume", "rm", "given", "none"]);
}
