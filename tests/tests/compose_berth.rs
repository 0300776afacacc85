//! `berth compose` with a Berth engine: what a classic Engine API cannot do, or what takes time.

use std::path::Path;
use std::process::{Command, Stdio};

use berth_tests::cli::{Cli, Frontend, bin_dir};
use berth_tests::daemon::Daemon;
use berth_tests::project::Project;

const SECRETS: &str = "\
services:
  app:
    image: busybox
    stop_signal: SIGKILL
    user: '1000'
    read_only: true
    command: sleep 1000
    secrets:
      - {source: token, uid: '1000', gid: '2000', mode: 0400}
      - {source: token, target: /etc/token, mode: 0444}
      - {source: bound}
secrets:
  token: {environment: TOKEN}
  bound: {file: ./bound}
";

/// A secret with an owner lies in memory, is there from the beginning and after a restart, and is told nobody.
#[test]
fn secrets_are_in_memory() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth).with_env("TOKEN", "s3cr3t-of-the-test");
    let directory = daemon.scratch("secrets");
    std::fs::write(directory.join("bound"), "from a file").expect("write");
    let project = Project::new(&cli, &directory, SECRETS);
    project.ok(&["up", "-d"]);
    let look = || {
        project.ok(&["exec", "-T", "app", "sh", "-c", "cat /run/secrets/token /etc/token /run/secrets/bound"])
    };
    let all = "s3cr3t-of-the-tests3cr3t-of-the-testfrom a file";
    assert_eq!(look(), all);
    let owner = ["exec", "-T", "app", "stat", "-c", "%u %g %a", "/run/secrets/token"];
    assert_eq!(project.ok(&owner).trim(), "1000 2000 400");
    let mounts = project.ok(&["exec", "-T", "app", "cat", "/proc/mounts"]);
    assert!(
        mounts.contains("tmpfs /run/secrets tmpfs") && mounts.contains("tmpfs /etc/token tmpfs"),
        "{mounts}"
    );
    let id = project.ok(&["ps", "-q", "app"]);
    let told = cli.ok(&["inspect", id.trim()]);
    assert!(!told.contains("s3cr3t") && !told.contains("czNjcjN0"), "{told}");
    project.ok(&["restart", "-t", "1"]);
    assert_eq!(look(), all);
    // A plan with the reasons says nothing of it either.
    project.change("user: '1000'", "user: '1001'");
    let plan = project.ok(&["--dry-run", "up"]);
    assert!(plan.contains("User: 1000 → 1001") && !plan.contains("czNjcjN0"), "{plan}");
    assert!(!plan.contains("Mounts"), "the secrets are the same: {plan}");
    project.ok(&["down", "-t", "1"]);
}

const BUILDS: &str = r#"
services:
  base:
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        RUN echo of-the-base > /base
  app:
    build:
      context: .
      additional_contexts: {parent: "service:base", other: ./other}
      secrets: [token, {source: file, target: renamed}]
      no_cache: true
      args: {A: "1"}
      tags: [second-name]
      dockerfile_inline: |
        FROM parent
        ARG A
        COPY --from=other word /word
        RUN --mount=type=secret,id=token --mount=type=secret,id=renamed \
            grep -qx hidden /run/secrets/token && grep -qx filed /run/secrets/renamed && echo $$A > /done
    command: cat /base /word /done
secrets:
  token: {environment: TOKEN}
  file: {file: ./filed}
"#;

/// Builds have secrets, contexts beside their own, and the images of other services.
#[test]
fn builds_have_all_their_keys() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth).with_env("TOKEN", "hidden");
    let directory = daemon.scratch("builds");
    std::fs::create_dir(directory.join("other")).expect("a directory");
    std::fs::write(directory.join("other/word"), "word\n").expect("write");
    std::fs::write(directory.join("filed"), "filed").expect("write");
    let project = Project::new(&cli, &directory, BUILDS);
    let would = cli.run(&project.args(&["--dry-run", "build"]));
    assert!(would.stderr.contains("DRY-RUN MODE -  Image builds-app  Built"), "{}", would.stderr);
    assert!(!cli.ok(&["images"]).contains("builds-app"));
    project.ok(&["build"]);
    assert_eq!(project.ok(&["run", "--rm", "-T", "app"]), "of-the-base\nword\n1");
    assert!(cli.ok(&["images"]).contains("second-name"));
    project.ok(&["down", "--rmi", "all"]);
    assert!(!cli.ok(&["images"]).contains("builds-"));
}

const AGENTS: &str = r#"
name: agents
services:
  file:
    build:
      context: .
      ssh: ["default=${AGENT}"]
      dockerfile_inline: |
        FROM busybox
        RUN --mount=type=ssh test -S "$$SSH_AUTH_SOCK" && echo by-file > /agent
  flag:
    build:
      context: .
      args: {NAME: value}
      dockerfile_inline: |
        FROM busybox
        RUN --mount=type=ssh,id=mine test -S "$$SSH_AUTH_SOCK" && echo by-flag > /agent
"#;

/// A step reaches the caller's SSH agent, by the file's key and by the flag. What is only asked for builds nothing.
#[test]
fn builds_reach_the_ssh_agent() {
    let daemon = Daemon::with_busybox();
    let directory = daemon.scratch("agents");
    let socket = directory.join("agent.sock").display().to_string();
    let agent = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn();
    let mut agent = agent.expect("ssh-agent (package openssh-client)");
    let cli = daemon.cli(Frontend::Berth).with_env("AGENT", &socket);
    cli.eventually("the agent listens", |_| Path::new(&socket).exists());
    let project = Project::new(&cli, &directory, AGENTS);
    let bake: serde_json::Value = serde_json::from_str(&project.ok(&["build", "--print"])).expect("JSON");
    assert_eq!(bake["group"]["default"]["targets"], serde_json::json!(["file", "flag"]));
    assert_eq!(bake["target"]["file"]["ssh"], serde_json::json!([format!("default={socket}")]));
    assert_eq!(bake["target"]["flag"]["args"]["NAME"], "value");
    assert!(project.ok(&["build", "--check"]).contains("no warnings found"));
    assert!(
        cli.run(&project.args(&["build", "--dry-run"]))
            .stderr
            .contains("DRY-RUN MODE -  Image agents-flag  Built")
    );
    let refused = cli.run(&project.args(&["build", "--sbom=true"])).expect_code(1);
    assert!(refused.stderr.contains("no attestations"), "{}", refused.stderr);
    assert!(!cli.ok(&["images"]).contains("agents-"), "nothing was built so far");
    project.ok(&["build", "--ssh", &format!("mine={socket}"), "--provenance=false", "--builder", "any"]);
    for (service, found) in [("file", "by-file"), ("flag", "by-flag")] {
        assert_eq!(project.ok(&["run", "--rm", "-T", service, "cat", "/agent"]).trim(), found);
    }
    project.ok(&["down", "--rmi", "all"]);
    agent.kill().expect("end the agent");
    agent.wait().expect("reap the agent");
}

/// Every command tells what it would do, and does nothing of it.
#[test]
fn dry_runs_do_nothing() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let text = "services:\n  a: {image: busybox, stop_signal: SIGKILL, command: sleep 1000, volumes: ['vol:/v'], pre_stop: [{command: touch /v/stopped}]}\nvolumes: {vol: {}}\n";
    let project = Project::new(&cli, &daemon.scratch("dry"), text);
    project.ok(&["up", "-d"]);
    let id = project.ok(&["ps", "-q"]).trim().to_owned();
    let state = || {
        let format = "{{.State.Status}} {{.State.StartedAt}} {{.State.Pid}}";
        (
            cli.ok(&["inspect", "--format", format, &id]),
            cli.ok(&["volume", "ls"]),
            cli.ok(&["images", "-q", "--no-trunc"]),
        )
    };
    let before = state();
    for (words, told) in [
        (&["stop"][..], "Container dry-a-1  Stopped"),
        (&["stop"], "Container a-1  Would run touch /v/stopped"),
        (&["restart"], "Container dry-a-1  Started"),
        (&["kill"], "Container dry-a-1  Killed"),
        (&["pause"], "Container dry-a-1  Paused"),
        (&["rm", "-s"], "Container dry-a-1  Removed"),
        (&["down", "-v"], "Volume dry_vol  Removed"),
        (&["pull"], "Image busybox  Pulled"),
        (&["exec", "a", "touch", "/v/x"], "Container dry-a-1  Would run touch /v/x"),
        (&["cp", "/etc/hostname", "a:/v/y"], "Container dry-a-1  Copy /etc/hostname"),
        (&["commit", "a", "made"], "Container dry-a-1  Committed to image made"),
        (&["run", "a", "touch", "/v/z"], "Service a  Would run touch /v/z"),
    ] {
        let outcome = cli.run(&project.args(&[&["--dry-run"], words].concat()));
        assert_eq!(outcome.code, 0, "{words:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(&format!("DRY-RUN MODE -  {told}")), "{words:?}: {}", outcome.stderr);
        assert_eq!(state(), before, "{words:?} did something");
    }
    assert_eq!(project.ids(), std::slice::from_ref(&id));
    assert_eq!(project.ok(&["exec", "-T", "a", "ls", "/v"]), "");
    project.ok(&["down", "-t", "1", "-v"]);
}

const WATCHED: &str = r#"
services:
  w:
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        COPY src /app
        COPY version /version
    stop_signal: SIGKILL
    command: sleep 1000
    develop:
      watch:
        - {path: ./src, action: sync, target: /app, ignore: ["*.log"]}
        - {path: ./conf, action: sync+exec, target: /conf, exec: {command: touch /reloaded}}
        - {path: ./kick, action: restart}
        - {path: ./version, action: rebuild}
"#;

/// `watch` brings each kind of change into the container in its own way.
#[test]
fn watch_follows_the_files() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let directory = daemon.scratch("watched");
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("write");
    };
    for (name, text) in [("src/a", "1"), ("conf/c", "1"), ("kick", "1"), ("version", "1")] {
        write(name, text);
    }
    let project = Project::new(&cli, &directory, WATCHED);
    let mut watching = watch(&daemon, &directory);
    cli.eventually("the project is up", |_| project.ok(&["ps", "-q"]).lines().count() == 1);
    let inside = |command: &str| cli.run(&project.args(&["exec", "-T", "w", "sh", "-c", command]));
    // The watch begins after the container runs: a change is made until it is seen.
    cli.eventually("a file is synced", |_| {
        write("src/a", "2");
        std::thread::sleep(std::time::Duration::from_millis(500));
        inside("cat /app/a").stdout == "2"
    });
    let first = project.ok(&["ps", "-q"]);
    write("src/noise.log", "x");
    write("src/new/deep", "3");
    cli.eventually("a new directory is synced", |_| inside("cat /app/new/deep").stdout == "3");
    assert_ne!(inside("test -e /app/noise.log").code, 0, "an ignored file was synced");
    std::fs::remove_file(directory.join("src/new/deep")).expect("remove");
    cli.eventually("a removed file is removed", |_| inside("test -e /app/new/deep").code == 1);
    write("conf/c", "2");
    cli.eventually("the command runs after the sync", |_| {
        inside("test -e /reloaded && cat /conf/c").stdout == "2"
    });
    let started = || cli.ok(&["inspect", "--format", "{{.State.StartedAt}}", first.trim()]);
    let before = started();
    write("kick", "2");
    cli.eventually("it is restarted", |_| started() != before);
    assert_eq!(project.ok(&["ps", "-q"]), first, "the same container");
    write("version", "2");
    cli.eventually("it is built and made anew", |_| inside("cat /version").stdout == "2");
    assert_ne!(project.ok(&["ps", "-q"]), first);
    watching.kill().expect("end the watch");
    watching.wait().expect("the watch has ended");
    project.ok(&["down", "-t", "1", "--rmi", "all"]);
}

const RESTARTED: &str = r#"
services:
  w:
    image: busybox
    stop_signal: SIGKILL
    command: sh -c 'echo begun; exec sleep 1000'
    develop:
      watch:
        - {path: ./src, action: sync+restart, target: /app, initial_sync: true}
        - {path: ./other, action: sync, target: /other}
"#;

/// `up --watch` brings what is there at first, goes on when it restarts its only container, and shows what that says then.
#[test]
fn up_watches_through_a_restart() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let directory = daemon.scratch("restarted");
    for name in ["src", "other"] {
        std::fs::create_dir(directory.join(name)).expect("a directory");
        std::fs::write(directory.join(name).join("a"), "1").expect("write");
    }
    let project = Project::new(&cli, &directory, RESTARTED);
    let log = directory.join("log");
    let mut up = Command::new(bin_dir().join("berth"))
        .args(["compose", "up", "--watch"])
        .current_dir(&directory)
        .env("BERTH_HOST", daemon.host())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("start berth compose up --watch");
    let inside = |command: &str| cli.run(&project.args(&["exec", "-T", "w", "sh", "-c", command])).stdout;
    let said = || std::fs::read_to_string(&log).expect("the log").matches("| begun").count();
    cli.eventually("what is there at first is synced", |_| inside("cat /app/a") == "1");
    assert_eq!(inside("ls /other 2>/dev/null"), "", "no initial sync was asked for there");
    std::fs::write(directory.join("src/a"), "2").expect("write");
    cli.eventually("it is synced", |_| inside("cat /app/a") == "2");
    let begun = || cli.ok(&["logs", "restarted-w-1"]).matches("begun").count();
    cli.eventually("what it says after the restart is shown, once", |_| begun() >= 2 && said() == begun());
    std::fs::write(directory.join("other/a"), "2").expect("write");
    cli.eventually("the watch goes on", |_| inside("cat /other/a") == "2");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("interrupt it");
    cli.eventually("it ends when it is told", |_| up.try_wait().expect("wait for it").is_some());
    assert_eq!(project.ok(&["ps", "-q"]), "");
    project.ok(&["down"]);
}

fn watch(daemon: &Daemon, directory: &Path) -> std::process::Child {
    Command::new(bin_dir().join("berth"))
        .args(["compose", "watch"])
        .current_dir(directory)
        .env("BERTH_HOST", daemon.host())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start berth compose watch")
}

const HOOKED: &str = "\
services:
  db:
    image: busybox
    stop_signal: SIGKILL
    command: sleep 1000
    volumes: ['log:/log']
    post_start: [{command: sh -c 'echo db-up >> /log/l'}]
    pre_stop: [{command: sh -c 'echo db-down >> /log/l'}]
    healthcheck: {test: test -e /log/l, interval: 1s, retries: 20}
  app:
    image: busybox
    stop_signal: SIGKILL
    command: sleep 1000
    volumes: ['log:/log']
    post_start: [{command: sh -c 'echo app-up >> /log/l', user: '0'}]
    pre_stop: [{command: sh -c 'echo app-down >> /log/l'}]
    depends_on: {db: {condition: service_healthy}}
volumes: {log: {}}
";

/// Hooks run when they should: up in the order of dependencies, down in the reverse.
#[test]
fn hooks_follow_the_order() {
    let daemon = Daemon::with_busybox();
    let cli: Cli = daemon.cli(Frontend::Berth);
    let project = Project::new(&cli, &daemon.scratch("hooked"), HOOKED);
    project.ok(&["up", "-d", "--wait"]);
    project.ok(&["down", "-t", "1"]);
    let said = cli.ok(&["run", "--rm", "-v", "hooked_log:/log", "busybox", "cat", "/log/l"]);
    assert_eq!(said, "db-up\napp-up\napp-down\ndb-down");
    project.change("echo app-up >> /log/l", "exit 3");
    let failed = cli.run(&project.args(&["up", "-d"]));
    assert!(failed.code != 0 && failed.stderr.contains("app hook exited with status 3"), "{}", failed.stderr);
    project.ok(&["down", "-t", "1", "-v"]);
}
