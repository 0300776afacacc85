//! Every command of the docker CLI on berthd and on a real dockerd beside it: the same outcome.

use std::path::Path;

use berth_tests::base;
use berth_tests::cli::{Cli, Frontend, Outcome};
use berth_tests::daemon::Daemon;
use berth_tests::dockerd::Dockerd;
use berth_tests::matrix::commands::{Compared, ELSEWHERE, ROWS, Row, plain};

fn prepare(dir: &Path) {
    std::fs::write(dir.join("base.tar"), base::busybox_tar()).expect("write an archive");
    std::fs::create_dir(dir.join("context")).expect("make a context");
    let text = "FROM busybox\nRUN echo built > /said\nCMD [\"cat\", \"/said\"]\n";
    std::fs::write(dir.join("context/Dockerfile"), text).expect("write a Dockerfile");
}

fn run(cli: &Cli, row: &Row, dir: &str) -> Outcome {
    let words: Vec<String> = row.words.iter().map(|word| word.replace("DIR", dir)).collect();
    cli.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What of an outcome has to be the same.
fn compared(row: &Row, outcome: &Outcome, dir: &str) -> (i32, String, String) {
    let (out, error) = (plain(&outcome.stdout, dir), plain(&outcome.stderr, dir));
    match row.compared {
        Compared::All => (outcome.code, out, error),
        Compared::Unordered => {
            let mut lines: Vec<&str> = out.lines().collect();
            lines.sort_unstable();
            (outcome.code, lines.join("\n"), error)
        }
        Compared::NotTheWords(_) => (outcome.code, out, String::new()),
        Compared::Code(_) => (outcome.code, String::new(), String::new()),
    }
}

#[test]
fn every_command_ends_as_with_dockerd() {
    let (daemon, dockerd) = (Daemon::with_busybox(), Dockerd::start());
    let (ours, theirs) = (daemon.cli(Frontend::Docker), dockerd.cli(Frontend::Docker));
    theirs.import_busybox("busybox");
    let (our_dir, their_dir) = (daemon.scratch("commands"), dockerd.scratch("commands"));
    prepare(&our_dir);
    prepare(&their_dir);
    let ours = ours.with_env("DOCKER_CONFIG", &our_dir.display().to_string());
    let theirs = theirs.with_env("DOCKER_CONFIG", &their_dir.display().to_string());
    let (our_dir, their_dir) = (our_dir.display().to_string(), their_dir.display().to_string());
    let mut differences = Vec::new();
    for row in ROWS {
        let our = compared(row, &run(&ours, row, &our_dir), &our_dir);
        let their = compared(row, &run(&theirs, row, &their_dir), &their_dir);
        if our != their {
            differences
                .push(format!("docker {}\n  ours:   {our:?}\n  theirs: {their:?}", row.words.join(" ")));
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

/// The commands that a page of help lists.
fn listed(help: &str) -> Vec<String> {
    let indented =
        |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -");
    let name = |line: &str| line.split_whitespace().next().map(|name| name.trim_end_matches('*').to_owned());
    let commands = help
        .split("Commands:")
        .skip(1)
        .flat_map(|part| part.lines().skip(1).take_while(|line| !line.is_empty()));
    commands.filter(indented).filter_map(name).collect()
}

#[test]
fn every_command_has_a_row() {
    let cli = Cli::new(Frontend::Docker, "unix:///nosuch.sock");
    let known = |command: &str| {
        let begins = |words: &[&str]| words.join(" ").starts_with(command);
        ROWS.iter().any(|row| begins(row.words))
            || ELSEWHERE.iter().any(|(name, _)| *name == command || command.starts_with(&format!("{name} ")))
    };
    let mut forgotten = Vec::new();
    for command in listed(&cli.ok(&["--help"])) {
        let below = listed(&cli.ok(&[&command, "--help"]));
        let all: Vec<String> = match below.is_empty() {
            true => vec![command],
            false => below.iter().map(|sub| format!("{command} {sub}")).collect(),
        };
        forgotten.extend(all.into_iter().filter(|command| !known(command)));
    }
    assert!(forgotten.is_empty(), "no row for {forgotten:?}");
}
