//! The lab: what it records is what the kernel does, on our engine and on dockerd; mistakes are told with their place.
//!
//! Downwards tolerances are wide here, since other tests use the same two processors: what a quota allows somebody else may
//! have. Upwards the kernel's word holds on a busy machine as well.

use std::fs;
use std::path::{Path, PathBuf};

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::dockerd::Dockerd;

/// Quotas far below what a busy machine can give, a memory limit to the byte, and a container that runs out of memory.
const LIMITS: &str = r#"
name: Limits
image: busybox
duration: 5s
repetitions: 2
settle: 500ms
vary:
  cpus: [0.1, 0.2]
containers:
  load: {command: [sh, -c, 'while :; do :; done'], cpus: '${cpus}', memory: 20m, stop: 100%}
  hog: {command: [sh, -c, 'sleep 1; exec tail -c 100m /dev/zero'], memory: 16m, memory_swap: 16m}
  late: {command: [sleep, '1'], start: 50%, pids: 30}
changes:
  - {at: 60%, update: load, memory: 24m}
measures:
  - {of: load.cpu, during: [45%, 95%], expect: '${cpus}', within: 60%}
  - {label: before, of: load.memory_limit, during: [10%, 58%], expect: 20m}
  - {label: after, of: load.memory_limit, during: [80%, 98%], expect: 24m}
  - {of: hog.exit_code, expect: 137}
  - {of: hog.oom_killed, expect: 1}
  - {of: late.exit_code, expect: 0}
  - {of: load.oom_killed, expect: 0}
plots:
  - {against: cpus, measures: [load.cpu]}
  - {time: memory}
"#;

fn experiment(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("limits.yaml");
    fs::write(&file, text).expect("write the experiment");
    file
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// The numbers of a measure, as `measures.csv` has them.
fn values(report: &Path, engine: &str, measure: &str) -> Vec<f64> {
    let csv = fs::read_to_string(report.join("measures.csv")).expect("measures.csv");
    csv.lines()
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|fields| fields[0] == engine && fields[2] == measure)
        .map(|fields| fields[4].parse().expect("a number"))
        .collect()
}

/// What is written of an experiment is all there, and needs nothing else.
fn report_is_whole(report: &Path) {
    let html = fs::read_to_string(report.join("report.html")).expect("report.html");
    let html = html.replace("http://www.w3.org/2000/svg", "");
    assert!(html.contains("All ") && html.contains("expectations hold"), "{html}");
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"));
    let record = fs::read_to_string(report.join("record.json")).expect("record.json");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    let samples = &record["recording"]["runs"][0]["containers"][0]["samples"];
    let (at, used) = (&samples["at"], &samples["columns"]["cpu_ns"]);
    assert!(
        at.as_array().map_or(0, Vec::len) > 10
            && at.as_array().map(Vec::len) == used.as_array().map(Vec::len)
    );
    // Sampling three containers and the machine ten times a second.
    let cost = record["recording"]["sampling_cost"].as_f64().expect("a number");
    assert!(cost < 0.02, "sampling took {cost} of a processor");
    assert!(fs::read_dir(report.join("plots")).expect("plots").count() >= 3);
    assert!(fs::read_dir(report.join("output")).expect("output").count() >= 6);
}

#[test]
fn limits_hold_on_both_engines() {
    let daemon = Daemon::with_busybox();
    let dockerd = Dockerd::start();
    let (ours, theirs) = (daemon.cli(Frontend::Berth), dockerd.cli(Frontend::Berth));
    theirs.import_busybox("busybox");
    let dir = daemon.scratch("lab");
    let (file, report) = (experiment(&dir, LIMITS), dir.join("report"));
    let engines = [format!("berth={}", daemon.host()), format!("dockerd={}", theirs.host())];
    let outcome = ours.run(&[
        "lab",
        "run",
        "--engine",
        &engines[0],
        "--engine",
        &engines[1],
        "-o",
        &text(&report),
        &text(&file),
    ]);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    report_is_whole(&report);
    for engine in ["berth", "dockerd"] {
        assert_eq!(values(&report, engine, "before"), [f64::from(20 << 20); 4], "{engine}");
        assert_eq!(values(&report, engine, "after"), [f64::from(24 << 20); 4], "{engine}");
        assert_eq!(values(&report, engine, "hog.exit_code"), [137.0; 4], "{engine}");
        let cpu = values(&report, engine, "load.cpu");
        assert!(
            cpu[..2].iter().all(|cores| *cores < 0.115) && cpu[2..].iter().all(|cores| *cores > 0.115),
            "{cpu:?}"
        );
    }
    for cli in [&ours, &theirs] {
        assert_eq!(cli.ok(&["ps", "-aq"]), "", "a lab leaves no containers");
    }
}

#[test]
fn what_does_not_hold_is_the_exit_code() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let dir = daemon.scratch("lab");
    let wrong = "
name: n
image: busybox
repetitions: 1
containers: {a: {command: 'false'}}
measures: [{of: a.exit_code, expect: 0}]
";
    let (file, report) = (experiment(&dir, wrong), dir.join("report"));
    let outcome = cli.run(&["lab", "run", "-o", &text(&report), &text(&file)]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("FAILS"), "{}", outcome.stdout);
    assert!(report.join("report.html").exists());
    assert_eq!(cli.ok(&["ps", "-aq"]), "");
}

#[test]
fn mistakes_are_told_with_file_line_field_and_remedy() {
    let daemon = Daemon::start();
    let cli = daemon.cli(Frontend::Berth);
    let dir = daemon.scratch("lab");
    let file = experiment(&dir, &LIMITS.replace("load.cpu]", "load.cpus]"));
    let outcome = cli.run(&["lab", "check", &text(&file)]);
    let place = format!("{}:24:21: plots[0].measures: ", file.display());
    assert!(outcome.code == 1 && outcome.stderr.contains(&place), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("did you mean \"load.cpu\"?"), "{}", outcome.stderr);
    // No such image: the engine's words, and nothing is left.
    let file = experiment(&dir, &LIMITS.replace("busybox", "nosuch"));
    let outcome = cli.run(&["lab", "run", "-o", &text(&dir.join("r")), &text(&file)]);
    assert!(outcome.code == 1 && outcome.stderr.contains("nosuch"), "{}", outcome.stderr);
    assert_eq!(cli.ok(&["ps", "-aq"]), "");
}

/// Every experiment that comes with Berth is one.
#[test]
fn the_ready_experiments_are_valid() {
    let daemon = Daemon::start();
    let cli = daemon.cli(Frontend::Berth);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/lab");
    let files = fs::read_dir(examples).expect("examples/lab").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let told = cli.ok(&["lab", "check", &text(&file)]);
        assert!(told.contains("runs on each engine"), "{told}");
    }
}

fn busy(cli: &Cli, name: &str) {
    cli.ok(&[
        "run",
        "-d",
        "--name",
        name,
        "--cpus",
        "0.2",
        "--memory",
        "32m",
        "busybox",
        "sh",
        "-c",
        "while :; do :; done",
    ]);
}

#[test]
fn stats_are_recorded_and_drawn() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let dir = daemon.scratch("stats");
    busy(&cli, "web");
    let (csv, html) = (dir.join("stats.csv"), dir.join("stats.html"));
    let outcome =
        cli.run(&["stats", "--record", &text(&csv), "--plot", &text(&html), "--for", "1500ms", "web"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("% of one processor"), "{}", outcome.stderr);
    let csv = fs::read_to_string(csv).expect("the recording");
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("container,seconds,cpu_ns,cpu_limit,"), "{}", lines[0]);
    assert!(lines.len() > 8 && lines[1].starts_with("web,") && lines[1].contains(",0.2,"), "{csv}");
    let html = fs::read_to_string(html).expect("the page");
    assert!(html.contains("processor time (cores)") && html.contains("memory ("));
    let outcome = cli.run(&["stats", "--record", "x.txt"]);
    assert!(outcome.code == 1 && outcome.stderr.contains(".csv or .json"), "{}", outcome.stderr);
    cli.ok(&["rm", "-f", "web"]);
}

#[test]
fn top_shows_containers_live_and_takes_keys() {
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    busy(&cli, "web");
    cli.ok(&["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]);
    // Long enough for two renewals between the keys: the filter takes `web`, then the view ends.
    let keys = "sleep 2; printf '/web\\r'; sleep 1; printf q";
    let berth = cli.command(&["top"]);
    let mut words = vec![berth.get_program().to_string_lossy().into_owned()];
    words.extend(berth.get_args().map(|word| word.to_string_lossy().into_owned()));
    let inner = format!("stty cols 160 rows 20; {}", words.join(" "));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("({keys}) | script -qefc '{inner}' /dev/null")]).env("TERM", "xterm");
    let outcome = berth_tests::cli::finish(shell, b"", "top".to_owned());
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    // Blanks are not drawn where the screen is blank already: words only.
    for wanted in ["THROTTLED", "web", "idle", "containers", "MiB", "0.20", "filter:", "\u{1b}[?1049l"] {
        assert!(outcome.stdout.contains(wanted), "{wanted:?} is not in {:?}", outcome.stdout);
    }
    let outcome = cli.run(&["top"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("needs a terminal"), "{}", outcome.stderr);
    cli.ok(&["rm", "-f", "web", "idle"]);
}
