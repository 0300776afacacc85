//! Images between Berth and the tools that others wrote: the same digests on every way.

use std::process::Command;

use berth_tests::base;
use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::dockerd::Dockerd;
use berth_tests::registry::Registry;

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

fn id(cli: &Cli, name: &str) -> String {
    cli.ok(&["image", "inspect", "--format", "{{.Id}}", name])
}

/// An image of several layers: files of several kinds, a layer that hides some, an owner, a link.
fn build(cli: &Cli, daemon: &Daemon, name: &str) {
    let context = daemon.scratch("context");
    std::fs::write(context.join("file"), "content\n").expect("a file");
    let steps = "FROM busybox\nCOPY --chown=1000:2000 file /srv/file\nRUN mkdir /srv/gone && touch /srv/gone/x && chmod 4755 /bin/busybox\n\
        RUN rm -r /srv/gone && ln -s file /srv/link && mkfifo /srv/fifo\nLABEL made=here\n";
    std::fs::write(context.join("Dockerfile"), steps).expect("a Dockerfile");
    cli.ok(&["build", "-q", "-t", name, &context.display().to_string()]);
}

#[test]
fn skopeo_podman_and_buildah_take_what_we_push() {
    let (daemon, registry) = (Daemon::with_busybox(), Registry::start());
    let cli = daemon.cli(Frontend::Docker);
    let name = registry.name("team/app:1");
    build(&cli, &daemon, &name);
    for (compression, tag) in [("gzip", "1"), ("zstd", "2")] {
        let name = registry.name(&format!("team/app:{tag}"));
        cli.ok(&["tag", &registry.name("team/app:1"), &name]);
        daemon.cli(Frontend::Berth).ok(&["push", "-q", "--compression", compression, &name]);
        let image = id(&cli, &name);
        let scratch = daemon.scratch(&format!("podman-{tag}")).display().to_string();
        let (root, run) = (format!("{scratch}/root"), format!("{scratch}/run"));
        let store = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        let podman = |program: &str, rest: &[&str]| tool(program, &[&store[..], rest].concat());
        podman("podman", &["pull", "-q", "--tls-verify=false", &name]);
        let theirs = podman("podman", &["image", "inspect", "--format", "{{.Id}}", &name]);
        assert_eq!(format!("sha256:{theirs}"), image, "podman, {compression}");
        let container = podman("buildah", &["from", "--pull-never", &name]);
        podman("buildah", &["rm", &container]);
        let copy = format!("oci:{scratch}/copy:app");
        tool(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                "--src-tls-verify=false",
                &format!("docker://{name}"),
                &copy,
            ],
        );
        let config = tool("skopeo", &["inspect", "--config", "--raw", &copy]);
        assert_eq!(sha256(config.as_bytes()), image, "skopeo, {compression}");
        // And back again, from skopeo's copy through the registry.
        let back = registry.name(&format!("back/app:{tag}"));
        tool(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                "--dest-tls-verify=false",
                &copy,
                &format!("docker://{back}"),
            ],
        );
        cli.ok(&["pull", "-q", &back]);
        assert_eq!(id(&cli, &back), image);
    }
}

fn sha256(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("x"), bytes).expect("a file");
    let sum = tool("sha256sum", &[&dir.path().join("x").display().to_string()]);
    format!("sha256:{}", sum.split_whitespace().next().expect("a sum"))
}

#[test]
fn dockerd_loads_what_we_save_and_we_load_what_it_saves() {
    let (daemon, dockerd) = (Daemon::with_busybox(), Dockerd::start());
    let (ours, theirs) = (daemon.cli(Frontend::Docker), dockerd.cli(Frontend::Docker));
    build(&ours, &daemon, "app:1");
    ours.ok(&["tag", "app:1", "app:also"]);
    let archive = daemon.scratch("archives").join("ours.tar").display().to_string();
    ours.ok(&["save", "-o", &archive, "app:1", "app:also", "busybox"]);
    theirs.ok(&["load", "-q", "-i", &archive]);
    for name in ["app:1", "app:also", "busybox"] {
        assert_eq!(id(&theirs, name), id(&ours, name), "{name}");
    }
    let text = "cat /srv/file; ls /srv; stat -c %u:%g:%a /srv/file /bin/busybox";
    assert_eq!(
        theirs.ok(&["run", "--rm", "--net", "none", "app:1", "sh", "-c", text]),
        ours.ok(&["run", "--rm", "--net", "none", "app:1", "sh", "-c", text])
    );
    // The way back, with something of theirs on top.
    theirs.ok(&[
        "run",
        "--name",
        "changed",
        "--net",
        "none",
        "app:1",
        "sh",
        "-c",
        "echo more > /srv/more; rm /srv/link",
    ]);
    theirs.ok(&["commit", "changed", "app:2"]);
    let archive = daemon.scratch("archives").join("theirs.tar").display().to_string();
    theirs.ok(&["save", "-o", &archive, "app:2", "app:1"]);
    ours.ok(&["load", "-q", "-i", &archive]);
    assert_eq!(id(&ours, "app:2"), id(&theirs, "app:2"));
    assert_eq!(ours.ok(&["run", "--rm", "--net", "none", "app:2", "ls", "/srv"]), "fifo\nfile\nmore");
    daemon.cli(Frontend::Berth).ok(&["system", "check"]);
}

#[test]
fn what_is_not_there_has_docker_s_status_and_words() {
    let (daemon, registry) = (Daemon::with_busybox(), Registry::start());
    let cli = daemon.cli(Frontend::Docker);
    // The command puts this before the message of an answer that is not 200.
    let words = "Error response from daemon: manifest for";
    cli.run(&["pull", &registry.name("nosuch:1")]).expect_code(1).expect_text(words);
    cli.run(&["image", "inspect", "BIG"]).expect_code(1).expect_text("must be lowercase");
    // An image is of one platform: what asks for another finds none.
    for verb in ["inspect", "history", "save"] {
        let output = daemon.scratch(verb).join("out").display().to_string();
        let output = if verb == "save" { vec!["-o", &output] } else { Vec::new() };
        let command = [vec!["image", verb, "--platform", "linux/s390x"], output, vec!["busybox"]].concat();
        cli.run(&command).expect_code(1).expect_text("does not match the specified platform");
    }
}

#[test]
fn a_damaged_store_is_found_and_mended() {
    let (daemon, registry) = (Daemon::with_busybox(), Registry::start());
    let (docker, berth) = (daemon.cli(Frontend::Docker), daemon.cli(Frontend::Berth));
    let name = registry.name("app:1");
    build(&docker, &daemon, &name);
    docker.ok(&["push", "-q", &name]);
    docker.ok(&["rmi", "-f", &name]);
    docker.ok(&["image", "prune", "-af"]);
    docker.ok(&["pull", "-q", &name]);
    berth.ok(&["system", "check"]);
    let images = daemon.root();
    // A changed file in a layer: unpacked again. A changed blob and a lost one: fetched again.
    let file = tool("find", &[&images.join("layers").display().to_string(), "-path", "*/srv/file"]);
    std::fs::write(file.lines().next().expect("the file"), "changed").expect("damage");
    berth.run(&["system", "check"]).expect_code(1).expect_text("its files were changed");
    assert!(berth.ok(&["system", "check", "--repair"]).contains("repaired: layer"));
    berth.ok(&["system", "check"]);
    let blobs = images.join("content/blobs/sha256");
    let mut sizes: Vec<_> = std::fs::read_dir(&blobs)
        .expect("blobs")
        .map(|entry| entry.expect("a blob"))
        .map(|entry| (entry.metadata().expect("a size").len(), entry.path()))
        .collect();
    sizes.sort();
    let (_, largest) = sizes.last().expect("a blob");
    std::fs::write(largest, "damaged").expect("damage");
    berth.run(&["system", "check"]).expect_code(1).expect_text("is damaged");
    berth.ok(&["system", "check", "--repair"]);
    std::fs::remove_file(largest).expect("damage");
    berth.run(&["system", "check", "--quick"]).expect_code(1).expect_text("are missing");
    berth.ok(&["system", "check", "--repair"]);
    berth.ok(&["system", "check"]);
    assert_eq!(docker.ok(&["run", "--rm", "--net", "none", &name, "cat", "/srv/file"]), "content");
}

#[test]
fn a_login_is_kept_where_docker_keeps_it() {
    let daemon = Daemon::start();
    let dir = daemon.scratch("config");
    let registry = Registry::with_login(&dir);
    let server = registry.name("x").trim_end_matches("/x").to_owned();
    let run = |frontend: Frontend, args: &[&str], input: &str| {
        let mut command = daemon.cli(frontend).command(args);
        command.env("DOCKER_CONFIG", &dir);
        berth_tests::cli::finish(command, input.as_bytes(), args.join(" "))
    };
    let login = ["login", "-u", "captain", "--password-stdin", &server];
    run(Frontend::Berth, &login, "wrong\n").expect_code(1).expect_text("unauthorized");
    let told = run(Frontend::Berth, &login, "ahoy\n").success();
    assert!(told.contains("Login Succeeded"), "{told}");
    // What berth wrote docker uses, and the other way round.
    daemon
        .cli(Frontend::Docker)
        .run_with_input(&["import", "-", &registry.name("app:1")], &base::busybox_tar())
        .success();
    run(Frontend::Docker, &["push", "-q", &registry.name("app:1")], "").success();
    run(Frontend::Berth, &["logout", &server], "").success();
    run(Frontend::Docker, &["pull", "-q", &registry.name("app:1")], "").expect_code(1);
    run(Frontend::Docker, &login, "ahoy\n").success();
    run(Frontend::Berth, &["pull", "-q", &registry.name("app:1")], "").success();
}

#[test]
fn the_cap_of_the_store_holds() {
    let daemon = Daemon::with_arguments(&["--image-cap", "20MB"]);
    let (docker, berth) = (daemon.cli(Frontend::Docker), daemon.cli(Frontend::Berth));
    docker.import_busybox("busybox");
    docker.ok(&["create", "--name", "user", "busybox", "true"]);
    let context = daemon.scratch("context");
    for n in 0..6 {
        std::fs::write(context.join("file"), vec![n; 5_000_000]).expect("a file");
        let tar = context.join("image.tar").display().to_string();
        tool("tar", &["-C", &context.display().to_string(), "-cf", &tar, "file"]);
        docker.ok(&["import", &tar, &format!("big:{n}")]);
        let (layers, blobs) = (daemon.root().join("layers"), daemon.root().join("content/blobs"));
        let files = tool(
            "find",
            &[&layers.display().to_string(), &blobs.display().to_string(), "-type", "f", "-printf", "%s\\n"],
        );
        let bytes: u64 = files.lines().map(|line| line.parse::<u64>().expect("a size")).sum();
        assert!(bytes <= 20_000_000, "{bytes} bytes after {n}");
    }
    let names = docker.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(names.contains("big:5") && !names.contains("big:0"), "the oldest went: {names}");
    assert!(names.contains("busybox:latest"), "a container uses it: {names}");
    // The refusal comes while the client is still sending, and is read all the same.
    std::fs::write(context.join("file"), vec![7; 60_000_000]).expect("a file");
    let tar = context.join("image.tar").display().to_string();
    tool("tar", &["-C", &context.display().to_string(), "-cf", &tar, "file"]);
    for cli in [&docker, &berth] {
        cli.run(&["import", &tar, "huge:1"]).expect_code(1).expect_text("--image-cap");
    }
    berth.ok(&["system", "check"]);
}
