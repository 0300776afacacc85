//! Pause, limits, counters, and daemons that come and go.

use std::{fs::File, os::fd::AsFd as _, time::Duration};

use berth_runtime_client::{
    Output, Reconnected, RunRequest, bundle,
    protocol::{FailureKind, Framing, NETNS_PLACEHOLDER, Phase, StdinMode, oci},
    run_to_completion,
};
use nix::{
    libc,
    sched::{CloneFlags, unshare},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Container, LONG, attach, container, exec, expect, interactive, process, raw, read_text, script, spawner,
    wait_until, write,
};

#[tokio::test]
async fn a_new_daemon_finds_a_running_container() {
    let container = script("while read line; do echo got $line; done; exit 6").stdin(StdinMode::OpenOnce);
    let shim = container.started().await;
    let mut stream = attach(&shim, interactive(Framing::Raw)).await;
    drop(shim);
    write(&mut stream, b"one\n").await;
    expect(&mut stream, "got one\n").await;

    let Reconnected::Alive(shim) = spawner().reconnect(&container.run).await.unwrap() else {
        panic!("it runs")
    };
    let state = shim.state().await.unwrap();
    assert_eq!(state.phase, Phase::Running);
    assert!(state.started_at.is_some());
    let mut bg = exec(&shim, "away", process(&["sh", "-c", "echo go; sleep 0.1; exit 11"]), raw()).await;
    expect(&mut bg, "go").await;
    drop(shim);
    read_text(&mut bg).await;

    let Reconnected::Alive(shim) = spawner().reconnect(&container.run).await.unwrap() else {
        panic!("it runs")
    };
    assert_eq!(shim.wait_exec("away").await.unwrap().code, 11, "an exec's end that no daemon saw");
    drop(shim);
    drop(stream);
    container.assert_gone().await;
    let found = spawner().reconnect(&container.run).await.unwrap();
    let Reconnected::Exited(record) = found else { panic!("it has ended: {found:?}") };
    assert_eq!(record.code, 6);
}

/// This test program again as a daemon that is killed: the harness' filter runs only the test below.
#[tokio::test]
async fn a_daemon_killed_with_sigkill_changes_nothing() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    bundle::write(&container.run, &serde_json::from_str(&container.config()).unwrap()).unwrap();
    let request = serde_json::to_string(&container.create).unwrap();
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "lifecycle::daemon_to_be_killed"])
        .env("BERTH_TEST_CREATE", request)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = daemon.id();
    wait_until("the other daemon has started it", || {
        daemon.try_wait().unwrap().is_some() || container.run.join("started").exists()
    })
    .await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    daemon.wait().unwrap();
    std::fs::remove_file(container.run.join("started")).unwrap();
    let Reconnected::Alive(shim) = spawner().reconnect(&container.run).await.unwrap() else {
        panic!("it runs")
    };
    let mut stream = attach(&shim, interactive(Framing::Raw)).await;
    write(&mut stream, b"still here\n").await;
    expect(&mut stream, "still here\n").await;
    shim.kill(libc::SIGKILL).await.unwrap();
    assert_eq!(container.finished(&shim).await, 137);
}

#[tokio::test]
#[ignore = "is the daemon of the test above"]
async fn daemon_to_be_killed() {
    let create: berth_runtime_client::protocol::Create =
        serde_json::from_str(&std::env::var("BERTH_TEST_CREATE").unwrap()).unwrap();
    let run = create.bundle.clone();
    let shim = spawner().spawn(&run).await.unwrap();
    shim.create(create, None).await.unwrap();
    shim.start().await.unwrap();
    std::fs::write(run.join("started"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn pause_stops_time_for_the_container() {
    let container = script("while :; do echo tick; sleep 0.02; done");
    let shim = container.created().await;
    let mut stream = attach(&shim, raw()).await;
    shim.start().await.unwrap();
    expect(&mut stream, "tick").await;
    shim.pause().await.unwrap();
    assert_eq!(shim.state().await.unwrap().phase, Phase::Paused);
    assert_eq!(shim.pause().await.unwrap_err().kind(), Some(FailureKind::Paused));
    let refused = berth_runtime_client::protocol::Exec {
        exec_id: "no".into(),
        process: process(&["true"]),
        console_size: None,
        attach: None,
    };
    assert_eq!(shim.exec(refused, None).await.unwrap_err().kind(), Some(FailureKind::Paused));
    while timeout(Duration::from_millis(150), tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]))
        .await
        .is_ok()
    {}
    shim.resume().await.unwrap();
    assert_eq!(shim.resume().await.unwrap_err().kind(), Some(FailureKind::NotPaused));
    expect(&mut stream, "tick").await;
    shim.pause().await.unwrap();
    shim.kill(libc::SIGKILL).await.unwrap();
    assert_eq!(container.finished(&shim).await, 137);
}

#[tokio::test]
async fn limits_counters_and_pids() {
    let container = script("sleep 1000 & wait").memory(64 * 1024 * 1024);
    let shim = container.started().await;
    let mut pids = Vec::new();
    let until = std::time::Instant::now() + LONG;
    while pids.len() < 2 && std::time::Instant::now() < until {
        pids = shim.pids().await.unwrap();
    }
    assert!(pids.len() >= 2, "{pids:?}");
    assert!(pids.contains(&shim.state().await.unwrap().pid.unwrap()));
    let stats = shim.stats().await.unwrap();
    assert_eq!(stats.memory.limit, Some(64 * 1024 * 1024));
    assert!(stats.memory.usage > 0 && stats.cpu.total_ns > 0 && stats.pids.current >= 2, "{stats:?}");
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit(Some(32 * 1024 * 1024));
    let mut resources = oci::LinuxResources::default();
    resources.set_memory(Some(memory)).set_devices(None);
    shim.update(resources).await.unwrap();
    assert_eq!(shim.stats().await.unwrap().memory.limit, Some(32 * 1024 * 1024));
    shim.kill(libc::SIGKILL).await.unwrap();
    assert_eq!(container.finished(&shim).await, 137);
}

#[tokio::test]
async fn the_engines_network_namespace_is_the_containers() {
    let container = container(&["cat", "/proc/self/net/dev"]).with_linux(|linux| {
        for namespace in linux.namespaces_mut().as_mut().unwrap() {
            if namespace.typ() == oci::LinuxNamespaceType::Network {
                namespace.set_path(Some(NETNS_PLACEHOLDER.into()));
            }
        }
    });
    let (netns, inode) = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&netns.metadata().unwrap());
        (netns, inode)
    })
    .join()
    .unwrap();
    let shim = container.spawned().await;
    let pid = shim.create(container.create.clone(), Some(netns.as_fd())).await.unwrap();
    drop(netns);
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("net:[{inode}]"));
    shim.start().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

/// What a container could reach of the shim by `/proc/<pid>/exe` cannot be written (CVE-2019-5736).
#[tokio::test]
async fn the_shims_program_is_out_of_reach() {
    let container = container(&["sleep", "100"]);
    let shim = container.created().await;
    let init = shim.state().await.unwrap().pid.unwrap();
    // It has not become its program yet: this is the shim's.
    let exe = File::open(format!("/proc/{init}/exe")).unwrap();
    let flags = nix::sys::statvfs::fstatvfs(&exe).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
    let written = File::options().write(true).open(format!("/proc/{init}/exe"));
    assert!(written.is_err());
    shim.start().await.unwrap();
    shim.kill(libc::SIGKILL).await.unwrap();
    container.finished(&shim).await;
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let container = container(&["true"]).with_process(|process| {
        process.set_cwd("relative/is/invalid".into());
    });
    let shim = container.spawned().await;
    let error = shim.create(container.create.clone(), None).await.unwrap_err();
    assert!(error.to_string().contains("cwd"), "{error}");
    let early = shim.start().await.unwrap_err();
    assert_eq!(early.kind(), Some(FailureKind::NotCreated));
    shim.shutdown().await.unwrap();
    container.assert_gone().await;
}

#[tokio::test]
async fn one_directory_serves_one_container_after_the_other() {
    let container = script("exit 3");
    for _ in 0..3 {
        let shim = container.started().await;
        assert_eq!(shim.wait().await.unwrap().code, 3);
        // At once: whoever has the record may start anew.
    }
    let shim = container.started().await;
    assert_eq!(container.finished(&shim).await, 3);
}

async fn run(container: &Container, cancel: CancellationToken) -> (i32, Vec<u8>, Vec<u8>) {
    bundle::write(&container.run, &serde_json::from_str(&container.config()).unwrap()).unwrap();
    let (sender, mut receiver) = mpsc::channel(1);
    let request = RunRequest {
        dir: container.run.clone(),
        create: container.create.clone(),
        netns: None,
        output: sender,
        cancel,
    };
    let collect = async {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some((stream, bytes)) = receiver.recv().await {
            match stream {
                Output::Stdout => out.extend_from_slice(&bytes),
                Output::Stderr => err.extend_from_slice(&bytes),
            }
        }
        (out, err)
    };
    let spawner = spawner();
    let (record, (out, err)) = tokio::join!(run_to_completion(&spawner, request), collect);
    (record.unwrap().code, out, err)
}

#[tokio::test]
async fn a_build_step_runs_to_its_end() {
    let container = script("seq 1 20000; echo warning >&2; exit 5");
    let (code, out, err) = run(&container, CancellationToken::new()).await;
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert_eq!((code, err.as_slice()), (5, &b"warning\n"[..]));
    assert!(out == expected.as_bytes());
    wait_until("nothing is left", || container.cgroups().is_empty()).await;
}

#[tokio::test]
async fn a_build_step_can_be_cancelled() {
    let container = script("echo begun; sleep 1000");
    let cancel = CancellationToken::new();
    let (log, token) = (container.log.clone(), cancel.clone());
    tokio::spawn(async move {
        wait_until("it has begun", || log.metadata().is_ok_and(|metadata| metadata.len() > 0)).await;
        token.cancel();
    });
    let (code, out, _) = run(&container, cancel).await;
    assert_eq!((code, out.as_slice()), (137, &b"begun\n"[..]));
    assert!(container.cgroups().is_empty());
}

#[tokio::test]
async fn a_dropped_build_step_is_killed() {
    let container = script("echo begun; sleep 1000");
    let begun = || container.log.metadata().is_ok_and(|metadata| metadata.len() > 0);
    tokio::select! {
        _ = run(&container, CancellationToken::new()) => panic!("it ended by itself"),
        () = wait_until("it has begun", begun) => {}
    }
    wait_until("it is killed", || container.cgroups().is_empty() && container.run.join("exit.json").exists())
        .await;
}
