//! `berth compose` against both engines, ours and a real dockerd: the same files, the same behaviour.

use std::path::Path;

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::dockerd::Dockerd;
use berth_tests::project::Project;

const SHOP: &str = "\
services:
  db:
    image: busybox
    stop_signal: SIGKILL
    command: sh -c 'sleep 0.3; touch /state/ready; exec sleep 1000'
    volumes: [state:/state]
    healthcheck: {test: test -e /state/ready, interval: 1s, retries: 20}
  job:
    image: busybox
    command: sh -c 'echo migrated > /state/job'
    volumes: [state:/state]
    depends_on: {db: {condition: service_healthy}}
  web:
    image: busybox
    stop_signal: SIGKILL
    command: sleep 1000
    environment: {COLOUR: blue}
    volumes: [state:/state]
    secrets: [{source: key, target: key, mode: 0400}]
    post_start: [{command: touch /hooked}]
    depends_on:
      db: {condition: service_healthy, restart: true}
      job: {condition: service_completed_successfully}
volumes: {state: {}}
secrets: {key: {environment: COMPOSE_PROJECT_NAME}}
";

fn health_gates_plans_and_leaves_nothing(cli: &Cli, directory: &Path) {
    let project = Project::new(cli, directory, SHOP);
    project.ok(&["up", "-d"]);
    assert_eq!(project.ok(&["exec", "-T", "web", "cat", "/state/job"]).trim(), "migrated");
    assert_eq!(project.ok(&["exec", "-T", "web", "stat", "-c", "%a", "/run/secrets/key"]).trim(), "400");
    project.ok(&["exec", "-T", "web", "test", "-e", "/hooked"]);
    let before = project.ids();
    assert_eq!(before.len(), 3);

    // Nothing has changed: nothing is done, and the plan says so.
    project.ok(&["up", "-d"]);
    assert_eq!(project.ids(), before);

    // One field has changed: the plan names it, and one container is made anew.
    project.change("COLOUR: blue", "COLOUR: green");
    let plan = project.ok(&["--dry-run", "up"]);
    assert!(plan.contains("environment.COLOUR: blue → green"), "{plan}");
    assert_eq!(project.ids(), before, "a dry run changes nothing");
    project.ok(&["up", "-d"]);
    assert_eq!(project.ok(&["exec", "-T", "web", "sh", "-c", "echo $COLOUR"]).trim(), "green");
    let after = project.ids();
    assert_eq!(after.iter().filter(|id| !before.contains(id)).count(), 1);

    // A dependency is made anew: who depends on it with restart is restarted, not made anew.
    let web = project.ok(&["ps", "-q", "web"]);
    let started = |id: &str| cli.ok(&["inspect", "--format", "{{.State.StartedAt}}", id.trim()]);
    let first = started(&web);
    project.change("sleep 0.3", "sleep 0.2");
    project.ok(&["up", "-d"]);
    assert_eq!(project.ok(&["ps", "-q", "web"]), web);
    assert_ne!(started(&web), first, "the dependent was not restarted");

    project.ok(&["down", "-t", "1", "-v"]);
    assert!(project.ids().is_empty());
    assert_eq!(cli.ok(&["volume", "ls", "-q"]).trim(), "");
}

fn scales_and_runs(cli: &Cli, directory: &Path) {
    let project = Project::new(
        cli,
        directory,
        "services:\n  w: {image: busybox, stop_signal: SIGKILL, command: sh -c 'echo line; exec sleep 1000', stop_grace_period: 1s}\n",
    );
    project.ok(&["up", "-d", "--scale", "w=3"]);
    let three = project.ids();
    assert_eq!(three.len(), 3);
    project.ok(&["scale", "w=5"]);
    let five = project.ids();
    assert!(three.iter().all(|id| five.contains(id)) && five.len() == 5);
    cli.eventually("each has said its line", |_| {
        project.ok(&["logs"]).lines().filter(|line| line.ends_with("| line")).count() == 5
    });
    project.ok(&["scale", "w=1"]);
    assert_eq!(project.ids().len(), 1);
    assert_eq!(project.ok(&["run", "--rm", "-T", "w", "echo", "once"]).trim(), "once");
    assert_eq!(cli.run(&project.args(&["run", "--rm", "-T", "w", "sh", "-c", "exit 7"])).code, 7);
    assert_eq!(project.ids().len(), 1, "a container of run stayed");
    project.ok(&["stop"]);
    assert_eq!(project.ok(&["ps", "-q"]).trim(), "");
    project.ok(&["start"]);
    assert_eq!(project.ok(&["ps", "-q"]).lines().count(), 1);
    project.ok(&["down"]);
}

fn attached_ends_with_the_exit_code(cli: &Cli, directory: &Path) {
    let project = Project::new(
        cli,
        directory,
        "services:\n  a: {image: busybox, stop_signal: SIGKILL, command: sleep 1000, stop_grace_period: 1s}\n  b: {image: busybox, command: sh -c 'echo from b; exit 3'}\n",
    );
    let up = cli.run(&project.args(&["up", "--exit-code-from", "b"]));
    assert_eq!(up.code, 3, "{}{}", up.stdout, up.stderr);
    assert!(up.stdout.contains("| from b"), "{}", up.stdout);
    assert!(up.stdout.contains("b-1 exited with code 3"), "{}", up.stdout);
    project.ok(&["down"]);
}

fn failures_say_what_is_wrong(cli: &Cli, directory: &Path) {
    let wrong = |name: &str, text: &str, words: &[&str]| {
        let project = Project::new(cli, &directory.join(name), text);
        let outcome = cli.run(&project.args(words));
        assert_ne!(outcome.code, 0, "{text}");
        project.ok(&["down", "-t", "1"]);
        outcome.stderr
    };
    let unhealthy = "services:\n  a: {image: busybox, stop_signal: SIGKILL, command: sleep 1000, healthcheck: {test: 'false', interval: 1s, retries: 1}}\n  b: {image: busybox, command: 'true', depends_on: {a: {condition: service_healthy}}}\n";
    assert!(wrong("unhealthy", unhealthy, &["up", "-d"]).contains("unhealthy-a-1 is unhealthy"));
    let failed = "services:\n  a: {image: busybox, command: sh -c 'exit 4'}\n  b: {image: busybox, command: 'true', depends_on: {a: {condition: service_completed_successfully}}}\n";
    assert!(wrong("failed", failed, &["up", "-d"]).contains("didn't complete successfully: exit 4"));
    let provider = "services:\n  a: {provider: {type: x}}\n";
    assert!(wrong("provider", provider, &["up", "-d"]).contains("berth runs no plug-ins"));
    let publish = wrong("publish", "services: {a: {image: busybox}}\n", &["publish", "--yes", "me/app"]);
    assert!(publish.contains("berth compose publishes no projects"), "{publish}");
    let external =
        "services:\n  a: {image: busybox, networks: [n]}\nnetworks: {n: {external: true, name: nosuch}}\n";
    assert!(
        wrong("external", external, &["up", "-d"])
            .contains("network nosuch declared as external, but could not be found")
    );
}

fn all(cli: &Cli, directory: &Path) {
    health_gates_plans_and_leaves_nothing(cli, &directory.join("shop"));
    scales_and_runs(cli, &directory.join("scaled"));
    attached_ends_with_the_exit_code(cli, &directory.join("attached"));
    failures_say_what_is_wrong(cli, directory);
}

#[test]
fn on_berthd() {
    let daemon = Daemon::with_busybox();
    all(&daemon.cli(Frontend::Berth), &daemon.scratch("compose"));
}

#[test]
fn on_dockerd() {
    let dockerd = Dockerd::start();
    let cli = dockerd.cli(Frontend::Berth);
    cli.import_busybox("busybox");
    all(&cli, &dockerd.scratch("compose"));
}
