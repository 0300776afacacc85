use std::os::unix::net::UnixStream;

use berth_api::options::{Attach, WaitCondition};

use crate::harness::{Lab, read_to_end, unframe, until};

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_daemon() {
    let lab = Lab::new().await;
    let json = r#"{"Cmd":["sh","-c","while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done; exit 6"],
                   "ExposedPorts":{"80/tcp":{}},"HostConfig":{"PublishAllPorts":true}}"#;
    let id = lab.start("long", json).await;
    lab.start("paused", r#"{"Cmd":["sleep","1000"]}"#).await;
    lab.engine.pause_container("paused").await.unwrap();
    let before = lab.inspect("long").await;
    let (client, theirs) = UnixStream::pair().unwrap();
    let options = Attach { stream: true, stdout: true, ..Attach::default() };
    let attach = lab.engine.prepare_attach("long", options).await.unwrap();
    attach.attach(theirs.into(), vec![], vec![]).await.unwrap();
    let lab = lab.restart_daemon().await;
    let after = lab.inspect("long").await;
    assert_eq!((after.state.pid, after.state.started_at), (before.state.pid, before.state.started_at));
    assert_eq!(after.network_settings.ports, before.network_settings.ports);
    assert_eq!(lab.inspect("paused").await.state.status, "paused");
    lab.engine.unpause_container("paused").await.unwrap();
    let wait = lab.engine.wait_container(&id, WaitCondition::NextExit).await.unwrap();
    let (code, _) = lab.exec("long", r#"{"Cmd":["touch","/tmp/go"]}"#).await;
    assert_eq!(code, 0);
    assert_eq!(wait.await.status_code, 6);
    // The stream went on all the while.
    assert_eq!(unframe(&read_to_end(client).await), b"done\n");
    assert_eq!(lab.output("long").await, "done\n");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_meanwhile_is_found() {
    let lab = Lab::new().await;
    for (name, host) in [
        ("plain", "{}"),
        ("gone", r#"{"AutoRemove":true}"#),
        ("again", r#"{"RestartPolicy":{"Name":"always"}}"#),
    ] {
        lab.start(name, &format!(r#"{{"Cmd":["sh","-c","sleep 0.7; exit 9"],"HostConfig":{host}}}"#)).await;
    }
    lab.start("lost", r#"{"Cmd":["sleep","1000"]}"#).await;
    let pid = lab.inspect("lost").await.state.pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim: i32 =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    lab.engine.shutdown(false).await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let lab = lab.restart_daemon().await;
    until("the end", || async { lab.inspect("plain").await.state.status == "exited" }).await;
    assert_eq!(lab.inspect("plain").await.state.exit_code, 9);
    until("the removal", || async { lab.engine.inspect_container("gone", false).await.is_err() }).await;
    until("the restart", || async { lab.inspect("again").await.state.running }).await;
    let state = lab.inspect("lost").await.state;
    assert_eq!((state.status.as_str(), state.exit_code), ("exited", 137));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists() || !is_alive(pid));
    lab.finish().await;
}

fn is_alive(pid: i64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}
