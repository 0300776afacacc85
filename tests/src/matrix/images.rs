//! Images: import, list, inspect, tag, save, load, remove, push, pull.

use super::Fixture;
use crate::base;
use crate::registry::Registry;

/// `version` and `info` answer with both halves.
pub fn version_and_info(f: &Fixture) {
    let version = f.cli.ok(&["version"]);
    assert!(version.contains("Client") && version.contains("Server"), "{version}");
    let api = f.cli.ok(&["version", "--format", "{{.Server.APIVersion}}"]);
    assert!(api.starts_with("1."), "{api}");
    let info = f.cli.ok(&["info", "--format", "{{.Driver}} {{.OSType}} {{.NCPU}}"]);
    let words: Vec<&str> = info.split(' ').collect();
    assert_eq!(words[..2], ["overlay2", "linux"], "{info}");
    assert!(words[2].parse::<u32>().expect("a number of processors") > 0);
}

/// An imported image is listed, inspected and removed.
pub fn import_list_inspect_remove(f: &Fixture) {
    let args = ["import", "--change", "ENV A=b", "--change", "CMD [\"env\"]", "-", "imported:one"];
    let id = f.cli.run_with_input(&args, &base::busybox_tar()).success();
    assert!(id.starts_with("sha256:"), "{id}");
    let listed = f.cli.ok(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
    assert!(listed.lines().any(|l| l == format!("imported:one {id}")), "{listed}");
    let config =
        f.cli.ok(&["inspect", "--format", "{{json .Config.Env}} {{json .Config.Cmd}}", "imported:one"]);
    assert!(config.contains("A=b") && config.contains("[\"env\"]"), "{config}");
    assert!(f.cli.ok(&["run", "--rm", "imported:one"]).contains("A=b"));
    f.cli.run(&["rmi", "imported:one"]).expect_code(0).expect_text("Untagged: imported:one");
    f.cli.run(&["inspect", "imported:one"]).expect_code(1).expect_text("o such");
}

/// A second tag keeps the image when the first goes.
pub fn tag_and_untag(f: &Fixture) {
    f.cli.ok(&["tag", "busybox", "example.test:5000/team/box:v2"]);
    let ids = f.cli.ok(&["images", "-q", "--no-trunc"]);
    let unique: std::collections::BTreeSet<&str> = ids.lines().collect();
    assert_eq!(unique.len(), 1, "{ids}");
    f.cli.run(&["rmi", "example.test:5000/team/box:v2"]).expect_code(0).expect_text("Untagged:");
    f.cli.ok(&["inspect", "busybox"]);
    f.cli.run(&["tag", "nosuch", "x"]).expect_code(1).expect_text("o such image: nosuch:latest");
    f.cli.run(&["tag", "busybox", "UPPER"]).expect_code(1).expect_text("must be lowercase");
}

/// An image in use is not removed, even when its container has ended.
pub fn remove_in_use_is_refused(f: &Fixture) {
    f.cli.ok(&["run", "--name", "user", "busybox", "true"]);
    f.cli.run(&["rmi", "busybox"]).expect_code(1).expect_text("conflict");
    f.cli.ok(&["rm", "user"]);
    // Under a running container an image can lose its name, but not go.
    f.cli.ok(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]);
    let image = f.cli.ok(&["inspect", "-f", "{{.Image}}", "runs"]);
    f.cli.run(&["rmi", "busybox"]).expect_code(1).expect_text("(must force)");
    assert_eq!(f.cli.ok(&["rmi", "-f", "busybox"]), "Untagged: busybox:latest");
    assert_eq!(f.cli.ok(&["images", "--no-trunc", "-q"]), image);
    f.cli.run(&["rmi", "-f", &image]).expect_code(1).expect_text("cannot be forced");
    f.cli.ok(&["tag", &image, "busybox"]);
    f.cli.ok(&["rm", "-f", "runs"]);
    f.cli.ok(&["rmi", "busybox"]);
    assert_eq!(f.cli.ok(&["images", "-q"]), "");
}

/// A saved archive loads again, with the same id.
pub fn save_and_load(f: &Fixture) {
    let archive = f.scratch.join("busybox.tar");
    let archive = archive.to_str().expect("utf-8");
    let id = f.cli.ok(&["inspect", "--format", "{{.Id}}", "busybox"]);
    f.cli.ok(&["save", "-o", archive, "busybox"]);
    f.cli.ok(&["rmi", "busybox"]);
    f.cli.run(&["load", "-i", archive]).expect_code(0).expect_text("Loaded image: busybox:latest");
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.Id}}", "busybox"]), id);
    assert_eq!(f.cli.ok(&["run", "--rm", "busybox", "echo", "loaded"]), "loaded");
    f.cli.run_with_input(&["load"], b"this is no archive").expect_code(1);
}

/// An image goes to a real registry and comes back the same.
pub fn push_and_pull(f: &Fixture) {
    let registry = Registry::start();
    let name = registry.name("team/box:v1");
    let id = f.cli.ok(&["inspect", "--format", "{{.Id}}", "busybox"]);
    f.cli.ok(&["tag", "busybox", &name]);
    f.cli.run(&["push", &name]).expect_code(0).expect_text("digest: sha256:");
    f.cli.ok(&["rmi", "-f", &name, "busybox"]);
    assert_eq!(f.cli.ok(&["images", "-q"]), "");
    f.cli.run(&["pull", &name]).expect_code(0).expect_text("Downloaded newer image");
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.Id}}", &name]), id);
    f.cli.run(&["pull", &name]).expect_code(0).expect_text("Image is up to date");
    assert_eq!(f.cli.ok(&["run", "--rm", &name, "echo", "pulled"]), "pulled");
    let digests = f.cli.ok(&["inspect", "--format", "{{json .RepoDigests}}", &name]);
    assert!(digests.contains("@sha256:"), "{digests}");
}

/// What a registry does not have is said in one line.
pub fn pull_of_a_missing_image_fails(f: &Fixture) {
    let registry = Registry::start();
    f.cli.run(&["pull", &registry.name("nosuch:v1")]).expect_code(1).expect_text("not found");
}

/// `run` of an image that is not there pulls it first.
pub fn run_pulls_what_is_missing(f: &Fixture) {
    let registry = Registry::start();
    let name = registry.name("box");
    f.cli.ok(&["tag", "busybox", &name]);
    f.cli.ok(&["push", &name]);
    f.cli.ok(&["rmi", "-f", &name, "busybox"]);
    f.cli.run(&["run", "--rm", &name, "echo", "came"]).expect_code(0).expect_text("came");
    f.cli.run(&["run", "--rm", &registry.name("nosuch"), "true"]).expect_code(125);
}

/// `history` tells the steps, newest first.
pub fn history(f: &Fixture) {
    let shown = f.cli.ok(&["history", "--format", "{{.Comment}}", "busybox"]);
    assert!(shown.contains("Imported from -"), "{shown}");
    let plain = f.cli.ok(&["history", "--human=false", "--format", "{{.Size}} {{.CreatedSince}}", "busybox"]);
    let (size, at) = plain.split_once(' ').expect("two words");
    assert!(size.parse::<u64>().is_ok_and(|bytes| bytes > 0) && at.contains('T'), "{plain}");
    assert!(f.cli.ok(&["history", "-H=false", "busybox"]).contains("CREATED AT"));
}

/// Filters of `images` and `image prune`.
pub fn filters(f: &Fixture) {
    for (name, label) in [("old:1", "kind=a"), ("team/new:1", "kind=b"), ("team/new:2", "kind=b")] {
        let change = format!("LABEL {label} of={name}");
        f.cli.run_with_input(&["import", "--change", &change, "-", name], &base::busybox_tar()).success();
        std::thread::sleep(std::time::Duration::from_millis(20)); // for an order of creation
    }
    let shown = |filters: &[&str]| {
        let mut args = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
        filters.iter().for_each(|filter| args.extend(["--filter", filter]));
        let listed = f.cli.ok(&args);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(shown(&["label=kind=b"]), "team/new:1 team/new:2");
    assert_eq!(shown(&["label!=kind=b", "label=kind"]), "old:1");
    assert_eq!(shown(&["label=kind=b", "label=of=team/new:2"]), "team/new:2", "of labels all must match");
    assert_eq!(shown(&["reference=team/*"]), "team/new:1 team/new:2");
    assert_eq!(shown(&["reference=team/new:2", "reference=old"]), "old:1 team/new:2", "of references one");
    assert_eq!(shown(&["before=team/new:1", "label=kind"]), "old:1");
    assert_eq!(shown(&["since=old:1"]), "team/new:1 team/new:2");
    assert_eq!(shown(&["until=10m", "label=kind"]), "", "all of them are younger");
    assert_eq!(shown(&["dangling=true"]), "");
    f.cli.run(&["images", "--filter", "nosuch=1"]).expect_code(1).expect_text("invalid filter");
    f.cli.run(&["images", "--filter", "before=nosuch"]).expect_code(1).expect_text("o such image: nosuch");

    let change = "LABEL kind=c";
    f.cli.run_with_input(&["import", "--change", change, "-", "old:1"], &base::busybox_tar()).success();
    assert_eq!(shown(&["dangling=true"]), "<none>:<none>", "what was old:1");
    f.cli.ok(&["image", "prune", "-f", "--filter", "until=10m"]);
    f.cli.ok(&["image", "prune", "-f", "--filter", "label!=kind"]);
    assert_eq!(shown(&["dangling=true"]), "<none>:<none>", "neither means it");
    let pruned = f.cli.ok(&["image", "prune", "-f", "--filter", "label=kind=a"]);
    assert!(pruned.to_lowercase().contains("deleted: sha256:"), "{pruned}");
    assert_eq!(shown(&["dangling=true"]), "");
    f.cli.ok(&["image", "prune", "-af", "--filter", "label=kind=b"]);
    assert_eq!(shown(&["label=kind"]), "old:1");
    f.cli.ok(&["system", "prune", "-af", "--filter", "label=kind=c"]);
    assert_eq!(shown(&[]), "busybox:latest", "the label protects what has it not");
    f.cli
        .run(&["image", "prune", "-f", "--filter", "reference=x"])
        .expect_code(1)
        .expect_text("invalid filter");
}

/// An image is imported from an address.
pub fn import_from_url(f: &Fixture) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 4096];
            let length = std::io::Read::read(&mut stream, &mut request).expect("a request");
            let found = String::from_utf8_lossy(&request[..length]).starts_with("GET /root.tar ");
            let (status, body) =
                if found { ("200 OK", base::busybox_tar()) } else { ("404 Not Found", Vec::new()) };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let all = [head.as_bytes(), &body].concat();
            std::io::Write::write_all(&mut stream, &all).expect("the client reads");
        }
    });
    let url = format!("http://{address}/root.tar");
    f.cli.run(&["import", &url, "fetched:1"]).expect_code(0).expect_text("sha256:");
    assert_eq!(f.cli.ok(&["run", "--rm", "fetched:1", "echo", "here"]), "here");
    assert!(f.cli.ok(&["history", "fetched:1"]).contains("Imported from http://"));
    f.cli.run(&["import", &format!("http://{address}/nosuch"), "x:1"]).expect_code(1).expect_text("404");
    server.join().expect("both were asked for");
    assert!(!f.cli.ok(&["images", "-q", "x"]).contains(char::is_alphanumeric));
}

/// `system df` counts what is there.
pub fn disk_usage(f: &Fixture) {
    f.cli.ok(&["run", "--name", "writer", "busybox", "sh", "-c", "head -c 3000000 /dev/zero > /big"]);
    f.cli.ok(&["volume", "create", "vessel"]);
    let fill = "head -c 2000000 /dev/zero > /v/big";
    f.cli.ok(&["run", "--rm", "-v", "vessel:/v", "busybox", "sh", "-c", fill]);
    let df = f.cli.ok(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Size}}"]);
    for line in ["Images|1|", "Containers|1|3MB", "Local Volumes|1|2MB"] {
        assert!(df.lines().any(|l| l.starts_with(line)), "{line} is not in {df}");
    }
    // What comes later counts as well: by `cp` and by another start.
    let containers = |size: &str| {
        let df = f.cli.ok(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Size}}"]);
        assert!(df.lines().any(|l| l == format!("Containers|1|{size}")), "{size} is not in {df}");
    };
    let more = f.scratch.join("more");
    std::fs::write(&more, vec![0; 4_000_000]).expect("a file");
    f.cli.ok(&["cp", &more.display().to_string(), "writer:/more"]);
    containers("7MB");
    f.cli.ok(&["cp", &more.display().to_string(), "writer:/big"]);
    containers("8MB");
    f.cli.ok(&["start", "-a", "writer"]);
    containers("7MB");
    let verbose = f.cli.ok(&["system", "df", "-v"]);
    for word in ["writer", "vessel", "UNIQUE SIZE", "Build cache usage"] {
        assert!(verbose.contains(word), "{word} is not in {verbose}");
    }
}

/// A registry is searched.
pub fn search(f: &Fixture) {
    let registry = Registry::start();
    let name = registry.name("team/box:v1");
    f.cli.ok(&["tag", "busybox", &name]);
    f.cli.ok(&["push", "-q", &name]);
    let term = registry.name("box");
    let found = f.cli.ok(&["search", "--format", "{{.Name}}", &term]);
    assert_eq!(found, registry.name("team/box"));
    assert_eq!(f.cli.ok(&["search", "--format", "{{.Name}}", "--filter", "stars=1", &term]), "");
    f.cli.run(&["search", "--filter", "nosuch=1", &term]).expect_code(1).expect_text("invalid filter");
    f.cli
        .run(&["search", "--limit", "101", &term])
        .expect_code(1)
        .expect_text("outside the range of [1, 100]");
}

/// `pull -a` brings all tags of a repository.
pub fn pull_all_tags(f: &Fixture) {
    let registry = Registry::start();
    let names = ["v1", "v2"].map(|tag| registry.name(&format!("team/box:{tag}")));
    for name in &names {
        f.cli.ok(&["tag", "busybox", name]);
        f.cli.ok(&["push", name]);
        f.cli.ok(&["rmi", name]);
    }
    let repository = registry.name("team/box");
    f.cli.run(&["pull", "-a", &repository]).expect_code(0).expect_text("Downloaded newer image");
    names.iter().for_each(|name| drop(f.cli.ok(&["image", "inspect", name])));
    f.cli.run(&["pull", "-a", &names[0]]).expect_code(1).expect_text("tag can't be used with --all-tags/-a");
    f.cli.run(&["pull", "-a", &registry.name("nosuch")]).expect_code(1);
}

/// `--platform` of `history`, `save`, `load` and `rmi`: an image of another platform is not meant.
pub fn one_platform(f: &Fixture) {
    let archive = f.scratch.join("platform.tar");
    let archive = archive.to_str().expect("utf-8");
    let host = f.cli.ok(&["version", "-f", "{{.Server.Os}}/{{.Server.Arch}}"]);
    let other = if host.ends_with("s390x") { "linux/riscv64" } else { "linux/s390x" };
    f.cli.ok(&["history", "--platform", &host, "busybox"]);
    f.cli
        .run(&["history", "--platform", other, "busybox"])
        .expect_code(1)
        .expect_text("does not match the specified platform");
    f.cli
        .run(&["save", "--platform", other, "-o", archive, "busybox"])
        .expect_code(1)
        .expect_text("specified platform");
    f.cli.ok(&["save", "--platform", &host, "-o", archive, "busybox"]);
    f.cli.run(&["rmi", "--platform", other, "busybox"]).expect_code(1).expect_text("specified platform");
    f.cli
        .run(&["rmi", "--platform", &host, "busybox"])
        .expect_code(0)
        .expect_text("Untagged: busybox:latest");
    f.cli.run(&["load", "--platform", other, "-i", archive]).expect_code(1).expect_text("holds no image for");
    assert_eq!(f.cli.ok(&["images", "-q"]), "");
    f.cli
        .run(&["load", "--platform", &host, "-i", archive])
        .expect_code(0)
        .expect_text("Loaded image: busybox:latest");
    if f.cli.frontend() == crate::cli::Frontend::Berth {
        // Any of several will do; docker's command line takes one.
        f.cli.ok(&["save", "--platform", &format!("{other},{host}"), "-o", archive, "busybox"]);
        f.cli.ok(&["load", "--platform", &host, "--platform", other, "-i", archive]);
        f.cli.ok(&["rmi", "--platform", other, "--platform", &host, "busybox"]);
    }
}

/// The flags before a command.
pub fn global_flags(f: &Fixture) {
    let quiet = f.cli.run(&["-l", "error", "images", "-q"]).expect_code(0).stderr;
    assert_eq!(quiet, "");
    f.cli.run(&["-l", "loud", "images"]).expect_text("loud");
    let config = f.scratch.join("config");
    let config = config.to_str().expect("utf-8");
    f.cli.ok(&["--config", config, "context", "create", "far", "--docker", "host=tcp://127.0.0.1:1"]);
    let listed = |args: &[&str]| f.cli.ok(&[args, &["context", "ls", "--format", "{{.Name}}"]].concat());
    assert!(listed(&["--config", config]).contains("far") && !listed(&[]).contains("far"));
    if f.cli.frontend() == crate::cli::Frontend::Berth {
        for flags in [&["-D"][..], &["--log-level", "debug"]] {
            let told = f.cli.run(&[flags, &["images", "-q"]].concat()).expect_code(0).stderr;
            assert!(told.contains("GET /images/json: 200 OK"), "{told}");
        }
        assert!(f.cli.ok(&["-D", "info"]).contains("Debug Mode: true"));
    }
}
