//! Experiments that are right, and mistakes with their places.

use super::*;

const QUOTA: &str = "
name: Quota
duration: 8s
repetitions: 2
vary:
  cpus: [0.25, 0.5]
image: tools
containers:
  load:
    command: [stress-ng, --cpu, '2', --timeout, '${duration}']
    cpus: ${cpus}
  late: {command: sleep, start: 50%, memory: 64m}
changes:
  - {at: 75%, update: load, cpus: 2}
measures:
  - {of: load.cpu, expect: '${cpus}', within: 2%}
  - {label: ratio, of: load.cpu, over: late.cpu, at_least: 1}
plots:
  - {time: cpu}
  - {against: cpus, measures: [load.cpu]}
";

fn wrong(text: &str) -> String {
    let mut sources = Sources::default();
    let file = sources.add(FilePath::new("e.yaml"));
    match experiment(text, file, &Overrides::default()) {
        Ok(_) => "fine".to_owned(),
        Err(fault) => sources.problem(fault).to_string(),
    }
}

#[test]
fn an_experiment() {
    let experiment = experiment(QUOTA, 0, &Overrides::default()).expect("valid");
    assert_eq!(experiment.cells.len(), 2);
    let cell = &experiment.cells[1];
    assert_eq!(cell.label(), "cpus = 0.5");
    let [load, late] = cell.scenario.containers.as_slice() else { panic!("two containers") };
    assert_eq!(load.command.last().map(String::as_str), Some("8"));
    assert_eq!((load.limits.cpus, late.start), (Some(0.5), Duration::from_secs(4)));
    assert_eq!(late.limits.memory, Some(64 << 20));
    assert_eq!(cell.scenario.changes[0].at, Duration::from_secs(6));
    let measure = &cell.scenario.measures[0];
    assert_eq!(measure.expect, Some(Expectation::Equals { value: 0.5, within: Tolerance::Relative(0.02) }));
    assert_eq!((measure.label.as_str(), measure.unit()), ("load.cpu", Unit::Cores));
}

#[test]
fn the_command_line_overrides() {
    let overrides = Overrides {
        duration: Some(Duration::from_secs(2)),
        repetitions: Some(1),
        image: None,
        variables: IndexMap::from([("cpus".to_owned(), "0.75".to_owned())]),
    };
    let experiment = experiment(QUOTA, 0, &overrides).expect("valid");
    assert_eq!((experiment.cells.len(), experiment.repetitions), (1, 1));
    assert_eq!(experiment.cells[0].scenario.containers[0].limits.cpus, Some(0.75));
    assert_eq!(experiment.settle, Duration::from_millis(500));
}

#[test]
fn mistakes_are_told_with_place_field_and_remedy() {
    let base = "name: n\ncontainers:\n  web: {image: x}\n";
    for (text, message) in [
        ("containers: {a: {image: x}}", "e.yaml:1:1: \"name\" is missing"),
        (
            "name: n\nrepetition: 3\ncontainers: {a: {image: x}}",
            "e.yaml:2:1: unknown key \"repetition\"; did you mean \"repetitions\"?",
        ),
        (
            "name: n\ncontainers:\n  a: {command: x}",
            "e.yaml:3:3: containers.a: \"image\" is missing; one for all containers can stand at the top",
        ),
        (
            "name: n\ncontainers:\n  a: {image: x, cpu: 1}",
            "e.yaml:3:17: containers.a: unknown key \"cpu\"; did you mean \"cpus\"?",
        ),
        (
            "name: n\ncontainers:\n  a: {image: x, memory: lots}",
            "e.yaml:3:17: containers.a.memory: must be a number of bytes, such as 64m, not \"lots\"",
        ),
        (
            "name: n\ncontainers:\n  a: {image: x, cpus: '${cpu}'}\nvary: {cpus: [1]}",
            "e.yaml:3:17: containers.a.cpus: ${cpu} has no value; did you mean ${cpus}?",
        ),
        (
            "name: n\nrate: 100\ncontainers:\n  a: {image: x}",
            "e.yaml:2:1: rate: must be from 0.1 to 10 samples a second",
        ),
        ("name: [", "e.yaml:2:1: this is not YAML: while parsing a node, did not find expected node content"),
    ] {
        assert_eq!(wrong(text), message);
    }
    for (more, message) in [
        (
            "measures: [{of: wbe.cpu}]",
            "e.yaml:4:13: measures[0].of: there is no container \"wbe\"; did you mean \"web\"?",
        ),
        (
            "measures: [{of: web.cpus}]",
            "e.yaml:4:13: measures[0].of: there is no metric \"cpus\"; did you mean \"cpu\"?",
        ),
        (
            "changes: [{at: 1s, update: web}]",
            "e.yaml:4:20: changes[0].update: changes no limit; add one, such as cpus: 1.5",
        ),
        (
            "changes: [{at: soon, pause: web}]",
            "e.yaml:4:12: changes[0].at: must be a time, such as 20s, or a part of the duration, such as 50%, not \"soon\"",
        ),
        (
            "plots: [{time: cpus}]",
            "e.yaml:4:10: plots[0].time: there is nothing called \"cpus\" to draw over time; did you mean \"cpu\"?",
        ),
        (
            "measures: [{of: web.cpu}]\nplots: [{bars: [web.cpus]}]",
            "e.yaml:5:10: plots[0].bars: there is no measure \"web.cpus\"; did you mean \"web.cpu\"?",
        ),
    ] {
        assert_eq!(wrong(&format!("{base}{more}\n")), message);
    }
}

#[test]
fn expectations_hold() {
    let two_percent = Expectation::Equals { value: 2.0, within: Tolerance::Relative(0.02) };
    assert!(two_percent.holds(2.039) && two_percent.holds(1.961) && !two_percent.holds(2.041));
    assert!(Expectation::AtLeast(1.0).holds(1.0) && !Expectation::AtMost(1.0).holds(1.1));
    assert!(!two_percent.holds(f64::NAN));
}
