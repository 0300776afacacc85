//! How long the shortest life of a container takes. Run it alone and optimised for numbers that mean something:
//! `cargo test --release -p berth-runtime-client --test shim speed -- --ignored --nocapture`.

use std::time::Instant;

use crate::harness::{container, exec, process, raw, read_text};

#[tokio::test]
#[ignore = "a measurement"]
async fn a_short_life_is_short() {
    const RUNS: usize = 20;
    let container = container(&["/bin/true"]);
    let mut lives = Vec::new();
    for _ in 0..RUNS {
        let begin = Instant::now();
        let shim = container.spawned().await;
        shim.create(container.create.clone(), None).await.unwrap();
        let created = begin.elapsed();
        shim.start().await.unwrap();
        let started = begin.elapsed();
        assert_eq!(shim.wait().await.unwrap().code, 0);
        lives.push((begin.elapsed(), started, created));
    }
    lives.sort();
    let (ended, started, created) = lives[RUNS / 2];
    println!("spawn to created {created:?}, started {started:?}, ended {ended:?}; best {:?}", lives[0].0);
}

#[tokio::test]
#[ignore = "a measurement"]
async fn an_exec_is_short() {
    const RUNS: usize = 20;
    let container = container(&["sleep", "1000"]);
    let shim = container.started().await;
    let mut times = Vec::new();
    for number in 0..RUNS {
        let begin = Instant::now();
        let id = format!("e{number}");
        let mut stream = exec(&shim, &id, process(&["/bin/true"]), raw()).await;
        read_text(&mut stream).await;
        shim.wait_exec(&id).await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort();
    println!("exec to its end {:?}; best {:?}", times[RUNS / 2], times[0]);
    shim.kill(nix::libc::SIGKILL).await.unwrap();
    assert_eq!(container.finished(&shim).await, 137);
}
