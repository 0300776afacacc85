//! The daemon is killed at random moments while containers are run, entered, stopped and removed; and thousands of
//! containers come and go. Nothing may be lost, nothing left, and what is said must be true.
//!
//! `BERTH_CHAOS_ROUNDS` and `BERTH_CHURN` make it long; the figures of a long run are in docs/benchmarks.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;

const CONTAINERS: usize = 50;
const HANDS: usize = 6;

/// xorshift64*: repeatable, and good enough to choose moments.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.store(x, Ordering::Relaxed);
        (x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What is known of a container, from what the daemon has answered.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Known {
    Absent,
    Running,
    Stopped,
    /// The daemon died in the middle of something.
    Unknown,
}

const PROGRAM: &str = "trap 'exit 7' TERM; while :; do sleep 0.1; done";

fn act(cli: &Cli, name: &str, known: Known, choice: u64) -> Known {
    let after = |code: i32, done: Known| if code == 0 { done } else { Known::Unknown };
    match (known, choice) {
        (Known::Absent, _) => {
            let run = ["run", "-d", "--name", name, "busybox", "sh", "-c", PROGRAM];
            after(cli.run(&run).code, Known::Running)
        }
        (Known::Running, 0..=3) => {
            // However it ends, for the daemon may die under it: the container goes on.
            drop(cli.run(&["exec", name, "true"]));
            Known::Running
        }
        (Known::Running, 4..=6) => after(cli.run(&["stop", "-t", "3", name]).code, Known::Stopped),
        (Known::Stopped, 0..=4) => after(cli.run(&["start", name]).code, Known::Running),
        _ => after(cli.run(&["rm", "-f", name]).code, Known::Absent),
    }
}

/// Processes whose command line names this directory.
fn processes_below(dir: &Path, program: &str) -> usize {
    let dir = dir.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let words = entries.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    words
        .filter(|words| {
            let text = String::from_utf8_lossy(words);
            text.contains(program) && text.contains(&dir)
        })
        .count()
}

/// The rows of `ps` once they hold still: a stop that the daemon had begun before it was killed ends by itself.
fn settled(cli: &Cli) -> String {
    let list = || cli.ok(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.State}} {{.ID}}"]);
    let mut seen = list();
    cli.eventually("the containers hold still", |_| {
        std::thread::sleep(Duration::from_millis(500));
        let before = std::mem::replace(&mut seen, list());
        before == seen
    });
    seen
}

/// Compares what the daemon says with what it has said before, and with the processes there are.
fn verify(cli: &Cli, daemon: &Daemon, states: &[Mutex<Known>]) {
    let list = settled(cli);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split(' ').collect()).collect();
    for (number, state) in states.iter().enumerate() {
        let name = format!("c{number}");
        let row = rows.iter().find(|row| row[0] == name);
        let mut state = state.lock().expect("no hand has panicked");
        let found = match row.map(|row| row[1]) {
            None => Known::Absent,
            Some("running") => Known::Running,
            Some("exited" | "created") => Known::Stopped,
            Some(other) => panic!("{name} is {other} and stays so"),
        };
        assert!(
            *state == Known::Unknown || *state == found,
            "{name}: the daemon had answered {state:?}, and now says {found:?}\n{}",
            daemon.log()
        );
        let inspected = |template: &str| cli.ok(&["inspect", "--format", template, &name]);
        let possible = ["exited 7 0", "exited 137 0", "created 0 0", "exited 143 0"];
        let code = || inspected("{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}");
        match (*state, found) {
            // It may have been told to stop, and do so at any moment. That end is its own; so it is brought about.
            (Known::Unknown, Known::Running) => {
                drop(cli.run(&["stop", "-t", "3", &name]));
                *state = match cli.run(&["inspect", &name]).code {
                    0 => Known::Stopped,
                    _ => Known::Absent,
                };
                assert!(*state == Known::Absent || possible.contains(&code().as_str()), "{name}: {}", code());
                continue;
            }
            (_, Known::Running) => {
                let pid = inspected("{{.State.Pid}}");
                assert!(Path::new(&format!("/proc/{pid}")).exists(), "{name} runs without its process {pid}");
                cli.ok(&["exec", &name, "true"]);
            }
            (_, Known::Stopped) => assert!(possible.contains(&code().as_str()), "{name}: {}", code()),
            (_, Known::Absent | Known::Unknown) => {}
        }
        *state = found;
    }
    let strangers: BTreeSet<&str> =
        rows.iter().map(|row| row[0]).filter(|name| !name.starts_with('c')).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    let is_running = |state: &&Mutex<Known>| *state.lock().expect("no hand has panicked") == Known::Running;
    let running = states.iter().filter(is_running).count();
    let run_root = daemon.run_root();
    cli.eventually("there is one shim for each running container", |_| {
        processes_below(&run_root, "berth-shim") == running
    });
    cli.eventually("there are no directories of containers that do not exist", |_| {
        let directories = std::fs::read_dir(daemon.root().join("containers")).expect("containers").count();
        directories == cli.ok(&["ps", "-aq"]).lines().count()
    });
}

#[test]
fn the_daemon_is_killed_at_random_moments() {
    let rounds = setting("BERTH_CHAOS_ROUNDS", 4);
    let seed = setting("BERTH_CHAOS_SEED", u64::from(std::process::id()) | 1);
    eprintln!("BERTH_CHAOS_SEED={seed}");
    let dice = Dice(AtomicU64::new(seed));
    let mut daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Docker);
    let states: Vec<Mutex<Known>> = (0..CONTAINERS).map(|_| Mutex::new(Known::Absent)).collect();
    for round in 0..rounds {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..HANDS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let number = usize::try_from(dice.below(CONTAINERS as u64)).expect("a small number");
                        let mut state = states[number].lock().expect("no hand has panicked");
                        if *state != Known::Unknown {
                            *state = act(&cli, &format!("c{number}"), *state, dice.below(9));
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(300 + dice.below(1500)));
            daemon.kill();
            over.store(true, Ordering::Relaxed);
        });
        daemon.start_again();
        verify(&cli, &daemon, &states);
        eprintln!("round {round}: sound");
    }
}

/// What a daemon holds: memory in kB, descriptors, threads.
fn holdings(daemon: &Daemon) -> (u64, usize, usize) {
    let proc = format!("/proc/{}", daemon.pid());
    let status = std::fs::read_to_string(format!("{proc}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let count = |dir: &str| std::fs::read_dir(format!("{proc}/{dir}")).map_or(0, Iterator::count);
    (memory, count("fd"), count("task"))
}

fn mounts() -> usize {
    std::fs::read_to_string("/proc/self/mounts").expect("mounts").lines().count()
}

#[test]
fn thousands_come_and_go() {
    let all = setting("BERTH_CHURN", 200);
    let daemon = Daemon::with_busybox();
    let cli = daemon.cli(Frontend::Berth);
    let turn = |count: u64| {
        let left = AtomicU64::new(count);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                        .is_ok()
                    {
                        cli.ok(&["run", "--rm", "busybox", "true"]);
                    }
                });
            }
        });
    };
    // What is allocated once is allocated now.
    turn(100.min(all));
    std::thread::sleep(Duration::from_secs(3));
    let (before, mounts_before) = (holdings(&daemon), mounts());
    let begin = Instant::now();
    turn(all);
    let took = begin.elapsed();
    assert_eq!(cli.ok(&["ps", "-aq"]), "");
    cli.eventually("every shim is gone", |_| processes_below(&daemon.run_root(), "berth-shim") == 0);
    cli.eventually("no run directory is left", |_| {
        std::fs::read_dir(daemon.run_root().join("containers")).expect("containers").count() == 0
    });
    cli.eventually("descriptors are as many as before", |_| holdings(&daemon).1 <= before.1 + 4);
    cli.eventually("mounts are as many as before", |_| mounts() <= mounts_before);
    let after = holdings(&daemon);
    eprintln!("{all} containers in {took:?}; memory kB, descriptors, threads: {before:?}, then {after:?}");
    assert!(after.0 <= before.0 + before.0 / 4 + 2048, "memory grows: {before:?} → {after:?}");
}
