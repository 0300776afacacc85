//! How containers end.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use berth_runtime_client::{
    ClientError, Reconnected, bundle,
    protocol::{Event, FailureKind, Phase, StdinMode, files},
    read_exit,
};
use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{attach, container, raw, read_text, script, spawner, wait_until};

#[tokio::test]
async fn exit_codes_and_records() {
    for code in [0, 1, 42, 255] {
        let container = script(&format!("exit {code}"));
        let shim = container.created().await;
        let mut events = shim.events();
        let (pid, at) = shim.start().await.unwrap();
        let record = shim.wait().await.unwrap();
        assert_eq!((record.code, record.signal, record.started_at), (code, None, Some(at)));
        assert!(record.at >= at && !record.oom_killed && record.error.is_none(), "{record:?}");
        assert_eq!(read_exit(&container.run).unwrap(), Some(record.clone()));
        assert_eq!(events.recv().await, Some(Event::Started { pid, at }));
        assert_eq!(events.recv().await, Some(Event::Exited(record)));
        assert_eq!(container.finished(&shim).await, code);
        bundle::remove(&container.run).unwrap();
        assert!(!container.run.exists());
    }
}

#[tokio::test]
async fn signals_end_with_128_more() {
    for (signal, code) in
        [(libc::SIGKILL, 137), (libc::SIGTERM, 143), (libc::SIGRTMIN() + 3, 128 + libc::SIGRTMIN() + 3)]
    {
        // As pid 1 of its namespace a process gets only those signals that it handles, but for KILL from outside.
        let container =
            script(&format!("trap 'exit {code}' 15 37; echo ready; while :; do sleep 0.02; done"));
        let shim = container.created().await;
        let mut stream = attach(&shim, raw()).await;
        shim.start().await.unwrap();
        crate::harness::expect(&mut stream, "ready").await;
        shim.kill(signal).await.unwrap();
        let record = shim.wait().await.unwrap();
        assert_eq!(record.code, code);
        assert_eq!(record.signal, (signal == libc::SIGKILL).then_some(signal));
        assert_eq!(container.finished(&shim).await, code);
    }
}

#[tokio::test]
async fn signals_to_all_reach_all() {
    let container = script(
        "trap 'wait; exit 9' USR1; (trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.02; done) & wait",
    );
    let shim = container.created().await;
    let mut stream = attach(&shim, raw()).await;
    shim.start().await.unwrap();
    crate::harness::expect(&mut stream, "ready").await;
    shim.kill_all(libc::SIGUSR1).await.unwrap();
    assert!(read_text(&mut stream).await.contains("child"));
    assert_eq!(container.finished(&shim).await, 9);
    let late = shim.kill(libc::SIGTERM).await.unwrap_err();
    assert!(matches!(late, ClientError::Gone { .. }), "{late}");
}

#[tokio::test]
async fn a_missing_program_is_told_in_runcs_words() {
    let cases = [
        ("nosuch", FailureKind::NotFound, 127, r#"exec: "nosuch": executable file not found in $PATH"#),
        ("/bin", FailureKind::IsDirectory, 126, "is a directory"),
        ("/etc/plain", FailureKind::PermissionDenied, 126, "permission denied"),
        ("/no/such", FailureKind::NotFound, 127, "no such file or directory"),
        ("/bin/garbage", FailureKind::NotExecutable, 128, "exec format error"),
    ];
    for (program, kind, code, text) in cases {
        let container = container(&[program]);
        if let berth_runtime_client::protocol::Rootfs::Overlay { lower, .. } = &container.create.rootfs {
            fs::write(lower[0].join("etc/plain"), "no program").unwrap();
            let garbage = lower[0].join("bin/garbage");
            fs::write(&garbage, "no program").unwrap();
            fs::set_permissions(garbage, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let shim = container.spawned().await;
        let mut stream = attach(&shim, raw()).await;
        let created = shim.create(container.create.clone(), None).await;
        let at_create = created.is_err();
        let error = match created {
            Err(error) => error,
            Ok(_) => shim.start().await.unwrap_err(),
        };
        assert!(error.to_string().contains(text), "{program}: {error}");
        assert_eq!(error.kind().map(|kind| (kind, kind.exit_code())), Some((kind, code)), "{program}");
        if at_create {
            assert_eq!(shim.state().await.unwrap().phase, Phase::Empty);
            drop(shim);
        } else {
            let record = shim.wait().await.unwrap();
            assert_eq!((record.code, record.started_at, record.error), (code, None, Some(error.to_string())));
        }
        assert_eq!(read_text(&mut stream).await, "");
        container.assert_gone().await;
    }
}

#[tokio::test]
async fn shutdown_removes_what_was_never_started() {
    let container = container(&["true"]);
    let shim = container.spawned().await;
    let mut stream = attach(&shim, raw()).await;
    let pid = shim.create(container.create.clone(), None).await.unwrap();
    let state = shim.state().await.unwrap();
    assert_eq!((state.phase, state.pid), (Phase::Created, Some(pid)));
    assert!(!container.cgroups().is_empty());
    shim.shutdown().await.unwrap();
    assert_eq!(read_text(&mut stream).await, "");
    container.assert_gone().await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(read_exit(&container.run).unwrap(), None);
}

#[tokio::test]
async fn sigterm_to_the_shim_spares_the_container() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let shim_pid = Pid::from_raw(shim.state().await.unwrap().shim_pid);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(shim_pid, signal).unwrap();
    }
    assert_eq!(shim.state().await.unwrap().phase, Phase::Running);
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);

    let unstarted = container_created().await;
    kill(Pid::from_raw(unstarted.1), Signal::SIGTERM).unwrap();
    unstarted.0.assert_gone().await;
}

async fn container_created() -> (crate::harness::Container, i32) {
    let container = container(&["true"]);
    let shim = container.created().await;
    let pid = shim.state().await.unwrap().shim_pid;
    (container, pid)
}

#[tokio::test]
async fn a_shim_without_container_ends_with_its_daemon() {
    let container = container(&["true"]);
    let shim = container.spawned().await;
    assert_eq!(shim.state().await.unwrap().phase, Phase::Empty);
    drop(shim);
    container.assert_gone().await;
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along() {
    let container = script("sleep 1000 & sleep 1000");
    let shim = container.started().await;
    let state = shim.state().await.unwrap();
    let mut pids = Vec::new();
    while pids.len() < 2 {
        pids = shim.pids().await.unwrap();
    }
    kill(Pid::from_raw(state.shim_pid), Signal::SIGKILL).unwrap();
    let error = shim.wait().await.unwrap_err();
    assert!(matches!(error, ClientError::Gone { .. }), "{error}");
    let found = spawner().reconnect(&container.run).await.unwrap();
    assert!(matches!(found, Reconnected::Lost), "{found:?}");
    wait_until("the container is dead", || {
        pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
    container.assert_gone().await;
}

#[tokio::test]
async fn stray_processes_of_a_host_pid_container_are_killed() {
    let container = script("sleep 1000 & echo $!").with_linux(|linux| {
        let namespaces = linux.namespaces_mut().as_mut().unwrap();
        namespaces.retain(|namespace| namespace.typ() != berth_spec::oci::LinuxNamespaceType::Pid);
    });
    let shim = container.started().await;
    assert_eq!(container.finished(&shim).await, 0);
    let pid = container.logged()[0].1.trim().to_owned();
    wait_until("the stray is dead", || !Path::new("/proc").join(&pid).exists()).await;
}

#[tokio::test]
async fn out_of_memory_is_noticed() {
    let container = script("x=0123456789abcdef; while :; do x=$x$x; done").memory(16 * 1024 * 1024);
    let shim = container.created().await;
    let mut events = shim.events();
    shim.start().await.unwrap();
    let record = shim.wait().await.unwrap();
    assert!(record.oom_killed, "{record:?}");
    assert_eq!(record.code, 137);
    let mut oom = false;
    while let Some(event) = events.recv().await {
        oom |= event == Event::Oom;
    }
    assert!(oom, "an event tells of it");
    assert_eq!(container.finished(&shim).await, 137);
}

#[tokio::test]
async fn a_second_shim_in_one_directory_is_refused() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let second = spawner().spawn(&container.run).await.unwrap();
    assert!(matches!(second.state().await, Err(ClientError::Gone { .. })));
    let complaint = || fs::read_to_string(container.run.join(files::SHIM_LOG)).unwrap_or_default();
    wait_until("it says why", || complaint().contains("another shim")).await;
    fs::remove_file(container.run.join(files::SHIM_LOG)).unwrap();
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}
