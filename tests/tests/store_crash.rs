//! The image store survives SIGKILL: the daemon is killed at random moments of pull, load, commit, rmi and prune; after
//! each restart the store proves itself whole, and what was reported as done is there.
//!
//! `CRASH_ROUNDS` sets how often (60). A failure names its seed; `CRASH_SEED` repeats its sequence.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::scene::{Dice, IMAGES, Scene, number};

/// What we know of the store.
struct Expected {
    present: BTreeSet<String>,
}

impl Expected {
    fn check(&self, cli: &Cli, when: &str) {
        let report = cli.run(&["system", "check"]);
        assert_eq!(report.code, 0, "{when}: {} {}", report.stdout, report.stderr);
        let names = cli.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let names: BTreeSet<&str> = names.lines().collect();
        for name in &self.present {
            assert!(names.contains(name.as_str()), "{when}: {name} is lost; there are {names:?}");
        }
    }
}

/// The command of a round, the names that it brings and those that it takes.
fn choose(
    scene: &Scene,
    dice: &mut Dice,
    round: u64,
    present: &BTreeSet<String>,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let removable: Vec<&String> = present.iter().filter(|name| *name != "busybox:latest").collect();
    match dice.below(10) {
        0..=3 => {
            let name = scene.registry.name(&format!("crash:{}", dice.below(IMAGES as u64)));
            (words(&["pull", "-q", &name]), vec![name], Vec::new())
        }
        4..=5 => {
            let names = vec!["loaded:0".to_owned(), "loaded:1".to_owned()];
            (words(&["load", "-q", "-i", &scene.archive.display().to_string()]), names, Vec::new())
        }
        6 => {
            let name = format!("committed:{round}");
            (words(&["commit", "box", &name]), vec![name], Vec::new())
        }
        7..=8 if !removable.is_empty() => {
            let name = removable[dice.below(removable.len() as u64) as usize].clone();
            (words(&["rmi", &name]), Vec::new(), vec![name])
        }
        _ => {
            let gone = removable.into_iter().cloned().collect();
            (words(&["image", "prune", "-af"]), Vec::new(), gone)
        }
    }
}

#[test]
fn sigkill_at_any_moment_leaves_the_store_whole() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = number("CRASH_SEED", now as u64 | 1);
    println!("CRASH_SEED={seed}");
    let mut dice = Dice(seed);
    let mut daemon = Daemon::with_busybox();
    let (docker, berth) = (daemon.cli(Frontend::Docker), daemon.cli(Frontend::Berth));
    let scene = Scene::prepare(&docker, &mut dice, &daemon.scratch("crash"));
    docker.ok(&["run", "--name", "box", "busybox", "sh", "-c", "head -c 300000 /dev/urandom > /tmp/x"]);
    let mut expected = Expected { present: BTreeSet::from(["busybox:latest".to_owned()]) };
    let (mut finished, rounds) = (0, number("CRASH_ROUNDS", 60));
    for round in 0..rounds {
        let (command, brought, taken) = choose(&scene, &mut dice, round, &expected.present);
        expected.present.retain(|name| !taken.contains(name));
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let pause = Duration::from_micros(dice.below(250_000));
        let client = docker.clone();
        let outcome = std::thread::scope(|scope| {
            let work = scope.spawn(|| client.run(&arguments));
            std::thread::sleep(pause);
            daemon.kill();
            work.join().expect("the client does not panic")
        });
        if outcome.code == 0 {
            finished += 1;
            expected.present.extend(brought);
        }
        daemon.start_again();
        expected.check(&berth, &format!("CRASH_SEED={seed}, round {round}, killed in {command:?}"));
    }
    println!("{rounds} kills, {finished} of them after the work was done");
    // Nothing half-made stays, and what is left can be used.
    docker.ok(&["run", "--rm", "busybox", "true"]);
    for directory in ["tmp", "trash"] {
        let left = std::fs::read_dir(daemon.root().join(directory)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "left in {directory}");
    }
}
