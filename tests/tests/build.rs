//! `berth build` with what is outside of it: git servers, ssh agents, registries, other platforms.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_tests::cli::{Frontend, finish};
use berth_tests::daemon::Daemon;
use berth_tests::registry::{Registry, free_port};

/// Runs a program of the machine to its end, and gives what it printed.
#[track_caller]
fn tool(program: &str, arguments: &[&str], dir: &Path) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir);
    finish(command, b"", format!("{program} {}", arguments.join(" "))).success()
}

/// A git repository with a submodule-free history of two commits and a tag, served by git's own daemon.
struct GitServer {
    child: Child,
    port: u16,
    work: PathBuf,
}

impl GitServer {
    fn start(dir: &Path) -> Self {
        let work = dir.join("project");
        std::fs::create_dir_all(work.join("sub")).expect("directories");
        let port = free_port();
        let server = Self {
            child: Command::new("git")
                .args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", dir.display()))
                .stderr(Stdio::null())
                // It forks for each connection: all of it must go with the test.
                .process_group_of_its_own()
                .spawn()
                .expect("git daemon (package git)"),
            port,
            work,
        };
        server.git(&["init", "-q", "-b", "main"]);
        server.write("Dockerfile", "FROM busybox\nCOPY sub/text /text\n");
        server.write("sub/Dockerfile", "FROM busybox\nCOPY text /text\n");
        server.commit("one");
        server.git(&["tag", "first"]);
        server.commit("two");
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "git daemon does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.work.join(name), text).expect("a file");
    }

    fn git(&self, arguments: &[&str]) -> String {
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"];
        tool("git", &[&who[..], arguments].concat(), &self.work)
    }

    fn commit(&self, text: &str) {
        self.write("sub/text", text);
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", text]);
    }

    fn url(&self, rest: &str) -> String {
        format!("git://127.0.0.1:{}/project/.git{rest}", self.port)
    }
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

impl GitServer {
    /// Ends git and the daemon that it has started.
    fn stop(&mut self) {
        let group = nix::unistd::Pid::from_raw(-i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL).ok();
        self.child.wait().ok();
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn repositories_are_contexts_and_sources() {
    let daemon = Daemon::with_busybox();
    let mut server = GitServer::start(&daemon.scratch("git"));
    let cli = daemon.cli(Frontend::Berth);
    let text = |context: &str| {
        cli.ok(&["build", "-q", "-t", "from-git", context]);
        cli.ok(&["run", "--rm", "from-git", "cat", "/text"])
    };
    assert_eq!(text(&server.url("")), "two");
    assert_eq!(text(&server.url("#first")), "one");
    assert_eq!(text(&server.url("#main:sub")), "two");
    let commit = server.git(&["rev-parse", "first"]);
    let dir = daemon.scratch("context");
    let add = |flags: &str, what: &str| {
        let steps = format!("FROM busybox\nADD {flags} {what} /p/\n");
        std::fs::write(dir.join("Dockerfile"), steps).expect("a Dockerfile");
        cli.run(&["build", "-q", "-t", "added", &dir.display().to_string()])
    };
    add("", &server.url("#first")).expect_code(0);
    assert_eq!(
        cli.ok(&["run", "--rm", "added", "sh", "-c", "cat /p/sub/text; ls -a /p"]),
        "one.\n..\nDockerfile\nsub"
    );
    add("--keep-git-dir", &server.url("#first")).expect_code(0);
    assert!(cli.ok(&["run", "--rm", "added", "cat", "/p/.git/HEAD"]).starts_with(&commit));
    add(&format!("--checksum={commit}"), &server.url("#main"))
        .expect_code(1)
        .expect_text("expected checksum");
    add("", &server.url("#none")).expect_code(1).expect_text("none");
    // A full commit needs no server once it was here.
    add("", &server.url(&format!("#{commit}"))).expect_code(0);
    server.stop();
    add("--chown=1:1", &server.url(&format!("#{commit}"))).expect_code(0);
    add("", &server.url("#main")).expect_code(1).expect_text("git");
}

/// ssh-add with what it is linked against, as a root file system.
fn ssh_add(root: &Path) {
    let program = "/usr/bin/ssh-add";
    std::fs::create_dir_all(root).expect("a directory");
    let libraries = tool("ldd", &[program], root);
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain([program]) {
        let to = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("directories");
        std::fs::copy(path, to).unwrap_or_else(|e| panic!("{path}: {e}"));
    }
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn steps_use_the_callers_ssh_agent() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("ssh");
    ssh_add(&dir.join("root"));
    let socket = dir.join("agent").display().to_string();
    let agent = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn();
    let _agent = Agent(agent.expect("ssh-agent (package openssh-client)"));
    daemon.cli(Frontend::Berth).eventually("the agent listens", |_| Path::new(&socket).exists());
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "from-the-test", "-f", "key"], &dir);
    std::fs::set_permissions(dir.join("key"), std::fs::Permissions::from_mode(0o600)).expect("mode");
    let with_agent = |mut command: Command| {
        command.env("SSH_AUTH_SOCK", &socket).current_dir(&dir);
        command
    };
    let mut add = Command::new("ssh-add");
    add.args(["-q", "key"]);
    finish(with_agent(add), b"", "ssh-add".to_owned()).success();
    let steps = "FROM busybox\nCOPY root /\nUSER 1000\nRUN --mount=type=ssh,uid=1000 ssh-add -l\nRUN test ! -e /run/buildkit/ssh_agent.0\n";
    std::fs::write(dir.join("Dockerfile"), steps).expect("a Dockerfile");
    let cli = daemon.cli(Frontend::Berth);
    let build = |flags: &[&str]| {
        let command = cli
            .command(&[&["build", "--progress", "plain"], flags, &[dir.to_str().expect("utf-8")]].concat());
        finish(with_agent(command), b"", format!("build {}", flags.join(" ")))
    };
    build(&["--ssh", "default"]).expect_code(0).expect_text("from-the-test (ED25519)");
    // Without it there is no agent in the step, and the step's own failure is what is told.
    build(&["--no-cache"])
        .expect_code(2)
        .expect_text("Could not open a connection to your authentication agent");
}

#[test]
fn steps_resolve_the_names_of_their_network() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("names");
    let steps = "FROM busybox\nRUN cat /etc/resolv.conf; ping -c 1 -W 5 other\n\
        RUN cat /etc/hosts; ping -c 1 -W 5 the-server && ping -c 1 -W 5 www\n";
    std::fs::write(dir.join("Dockerfile"), steps).expect("a Dockerfile");
    let place = dir.display().to_string();
    let cli = daemon.cli(Frontend::Berth);
    cli.ok(&["network", "create", "names"]);
    cli.ok(&[
        "run",
        "-d",
        "--name",
        "the-server",
        "--network",
        "names",
        "--network-alias",
        "www",
        "busybox",
        "sleep",
        "600",
    ]);
    for frontend in [Frontend::Berth, Frontend::Docker] {
        let cli = daemon.cli(frontend);
        let build = |network: &str| {
            let flags =
                ["build", "--no-cache", "--add-host", "other:127.0.0.1", "--network", network, &place];
            cli.run(&flags)
        };
        build("names").expect_code(0);
        build("container:the-server").expect_code(0);
        // On the default network nobody has a name.
        assert_ne!(build("bridge").code, 0);
    }
    cli.ok(&["rm", "-f", "the-server"]);
    cli.ok(&["network", "rm", "names"]);
}

#[test]
fn the_dockerfile_may_be_outside_of_the_context() {
    let daemon = Daemon::with_busybox();
    let (context, outside) = (daemon.scratch("context"), daemon.scratch("outside"));
    std::fs::write(context.join("f"), "inside").expect("a file");
    let dockerfile = outside.join("Dockerfile").display().to_string();
    std::fs::write(&dockerfile, "FROM busybox\nCOPY . /all\nRUN ls -A /all > /seen\n").expect("a Dockerfile");
    for frontend in [Frontend::Berth, Frontend::Docker] {
        let cli = daemon.cli(frontend);
        cli.ok(&["build", "-t", "outside", "-f", &dockerfile, &context.display().to_string()]);
        assert_eq!(cli.ok(&["run", "--rm", "outside", "cat", "/seen"]), "f");
    }
}

#[test]
fn the_build_cache_has_a_cap() {
    let daemon = Daemon::with_arguments(&["--build-cache-cap", "4MB"]);
    let dir = daemon.scratch("cap");
    let cli = daemon.cli(Frontend::Berth);
    cli.import_busybox("busybox");
    for round in 0..4 {
        let step = format!("FROM busybox\nRUN head -c 1500000 /dev/urandom > /{round}\n");
        std::fs::write(dir.join("Dockerfile"), step).expect("a Dockerfile");
        cli.ok(&["build", "-q", &dir.display().to_string()]);
    }
    let left = cli.ok(&["builder", "du", "--format", "{{.Description}}"]);
    let left: Vec<&str> = left.lines().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|step| step.contains("/2") || step.contains("/3")), "the newest stay: {left:?}");
    // There is room: nothing has to go.
    cli.ok(&["builder", "prune", "-af", "--min-free-space", "1kb"]);
    assert_eq!(cli.ok(&["builder", "du", "--format", "{{.ID}}"]).lines().count(), 2);
}

#[test]
fn the_cache_goes_through_a_registry() {
    let registry = Registry::start();
    let steps = "FROM busybox\nRUN od -An -N8 -tx1 /dev/urandom > /random\nCOPY f /f\n\
        RUN --mount=type=cache,target=/c cp /f /c/kept-$(cat /f); ls /c > /seen\n";
    let reference = registry.name("team/cache:main");
    // All have the same base image, to the byte.
    let base = registry.name("team/base:1");
    let source = Daemon::with_busybox();
    source.cli(Frontend::Berth).ok(&["tag", "busybox", &base]);
    source.cli(Frontend::Berth).ok(&["push", &base]);
    let machine = || {
        let daemon = Daemon::start();
        daemon.cli(Frontend::Berth).ok(&["pull", &base]);
        daemon.cli(Frontend::Berth).ok(&["tag", &base, "busybox"]);
        let dir = daemon.scratch("context");
        std::fs::write(dir.join("Dockerfile"), steps).expect("a Dockerfile");
        std::fs::write(dir.join("f"), "1").expect("a file");
        (daemon, dir)
    };
    let to = format!("type=registry,ref={reference},mounts=true");
    let from = format!("type=registry,ref={reference}");
    let (first, dir) = machine();
    let cli = first.cli(Frontend::Berth);
    let place = dir.display().to_string();
    cli.ok(&["build", "-q", "-t", "app", "--cache-from", &from, "--cache-to", &to, &place]);
    let random = cli.ok(&["run", "--rm", "app", "cat", "/random"]);
    drop(first);
    // Another machine, with the same base image and nothing else.
    let (second, dir) = machine();
    let cli = second.cli(Frontend::Berth);
    let place = dir.display().to_string();
    cli.ok(&["build", "-q", "-t", "app", "--cache-from", &from, &place]);
    assert_eq!(cli.ok(&["run", "--rm", "app", "cat", "/random"]), random);
    std::fs::write(dir.join("f"), "2").expect("a file");
    cli.ok(&["build", "-q", "-t", "app", &place]);
    assert_eq!(
        cli.ok(&["run", "--rm", "app", "cat", "/seen"]),
        "kept-1\nkept-2",
        "the cache mount came along"
    );
    // In the image itself: whoever has the image can go on from it.
    let image = registry.name("team/app:1");
    cli.ok(&["build", "-q", "-t", &image, "--push", "--cache-to", "type=inline", &place]);
    let (third, dir) = machine();
    let cli = third.cli(Frontend::Berth);
    std::fs::write(dir.join("f"), "2").expect("a file");
    let from = format!("type=registry,ref={image}");
    cli.ok(&["build", "-q", "-t", "app", "--cache-from", &from, &dir.display().to_string()]);
    assert_eq!(cli.ok(&["run", "--rm", "app", "cat", "/random"]), random);
}

#[test]
fn one_build_for_several_platforms() {
    let (daemon, registry) = (Daemon::with_busybox(), Registry::start());
    let dir = daemon.scratch("context");
    let steps = "FROM --platform=$BUILDPLATFORM busybox AS tools\nARG TARGETARCH\nRUN echo $TARGETARCH > /made\n\
        FROM scratch\nCOPY --from=tools /made /made\nCOPY Dockerfile /\n";
    std::fs::write(dir.join("Dockerfile"), steps).expect("a Dockerfile");
    let (place, out) = (dir.display().to_string(), daemon.scratch("out"));
    let name = registry.name("team/both:1");
    let (local, archive) =
        (out.join("files").display().to_string(), out.join("oci.tar").display().to_string());
    let platforms = ["linux/amd64", "linux/arm64"];
    let cli = daemon.cli(Frontend::Berth);
    let metadata = out.join("metadata.json");
    let outputs = [format!("type=local,dest={local}"), format!("type=oci,dest={archive}")];
    cli.ok(&[
        "build",
        "-q",
        "-t",
        &name,
        "--platform",
        &platforms.join(","),
        "--push",
        "-o",
        &outputs[0],
        "-o",
        &outputs[1],
        "--metadata-file",
        &metadata.display().to_string(),
        &place,
    ]);
    for architecture in ["amd64", "arm64"] {
        let made = std::fs::read_to_string(out.join(format!("files/linux_{architecture}/made")));
        assert_eq!(made.expect("a file for each platform").trim(), architecture);
    }
    // skopeo has an opinion of its own on what an index is.
    let pushed = format!("docker://{name}");
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &pushed], &out);
    let index: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
    let listed: Vec<String> = index["manifests"]
        .as_array()
        .expect("an index")
        .iter()
        .map(|entry| format!("linux/{}", entry["platform"]["architecture"].as_str().unwrap_or("none")))
        .collect();
    assert_eq!(listed, platforms);
    let told = std::fs::read_to_string(&metadata).expect("the metadata");
    let digest = tool("skopeo", &["inspect", "--format", "{{.Digest}}", "--tls-verify=false", &pushed], &out);
    assert!(told.contains(&digest), "{told} has not {digest}");
    for architecture in ["amd64", "arm64"] {
        for source in [pushed.clone(), format!("oci-archive:{archive}")] {
            let arguments =
                ["--override-arch", architecture, "inspect", "--config", "--tls-verify=false", &source];
            let arguments: Vec<&str> = arguments
                .into_iter()
                .filter(|argument| source.starts_with("docker:") || !argument.starts_with("--tls"))
                .collect();
            let config = tool("skopeo", &arguments, &out);
            let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
            assert_eq!(config["architecture"], architecture, "{source}");
        }
    }
    // Somebody else gets the image for the platform that is asked for.
    let other = Daemon::start();
    let cli = other.cli(Frontend::Berth);
    cli.ok(&["pull", "-q", "--platform", "linux/arm64", &name]);
    assert_eq!(cli.ok(&["inspect", "--format", "{{.Architecture}}", &name]), "arm64");
    let refused = daemon.cli(Frontend::Berth);
    refused
        .run(&["build", "--platform", "linux/amd64,linux/arm64", "-o", "type=tar,dest=/dev/null", &place])
        .expect_code(1)
        .expect_text("holds one platform");
}
