use berth_api::options::{Events, ListContainers, RemoveContainer, StopContainer, WaitCondition};
use berth_engine::Kind;
use futures_util::StreamExt as _;

use crate::harness::{Lab, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_life_from_create_to_remove() {
    let lab = Lab::new().await;
    let id = lab.create("web", r#"{"Cmd":["sh","-c","echo out; echo err >&2; exit 3"]}"#).await;
    let created = lab.inspect("web").await;
    assert_eq!((created.state.status.as_str(), created.path.as_str()), ("created", "sh"));
    assert_eq!(created.config.hostname, &id[..12]);
    let wait = lab.engine.wait_container("web", WaitCondition::NextExit).await.unwrap();
    lab.engine.start_container("web").await.unwrap();
    assert_eq!(wait.await.status_code, 3);
    assert_eq!(lab.output("web").await, "out\nerr\n");
    let ended = lab.inspect(&id[..10]).await;
    assert_eq!((ended.state.status.as_str(), ended.state.exit_code, ended.state.pid), ("exited", 3, 0));
    assert!(ended.state.finished_at >= ended.state.started_at);
    // Again: the log goes on, the code is new.
    lab.engine.start_container("web").await.unwrap();
    assert_eq!(lab.wait("web").await, 3);
    assert_eq!(lab.output("web").await, "out\nerr\nout\nerr\n");
    lab.engine.remove_container("web", RemoveContainer::default()).await.unwrap();
    assert_eq!(lab.engine.inspect_container("web", false).await.unwrap_err().kind(), Kind::NotFound);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_forbid_what_docker_forbids() {
    let lab = Lab::new().await;
    let error = lab.engine.kill_container("nope", "").await.unwrap_err();
    assert_eq!(error.message(), "No such container: nope");
    let id = lab.create("pp", r#"{"Cmd":["sleep","1000"]}"#).await;
    let stop = StopContainer { timeout: Some(0), signal: None };
    assert_eq!(lab.engine.stop_container("pp", &stop).await.unwrap_err().kind(), Kind::NotModified);
    let not_running = format!("container {id} is not running");
    let error = lab.engine.kill_container("pp", "").await.unwrap_err();
    assert_eq!(error.message(), format!("cannot kill container: pp: {not_running}"));
    assert_eq!(lab.engine.pause_container("pp").await.unwrap_err().message(), not_running);
    assert_eq!(lab.engine.top_container("pp", "").await.unwrap_err().message(), not_running);
    lab.engine.start_container("pp").await.unwrap();
    assert_eq!(lab.engine.start_container("pp").await.unwrap_err().kind(), Kind::NotModified);
    let error = lab.engine.remove_container("pp", RemoveContainer::default()).await.unwrap_err();
    assert_eq!(
        error.message(),
        "cannot remove container \"pp\": container is running: stop the container before removing or force remove"
    );
    let error = lab.engine.unpause_container("pp").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Internal, format!("Container {id} is not paused").as_str())
    );
    lab.engine.pause_container("pp").await.unwrap();
    assert_eq!(lab.inspect("pp").await.state.status, "paused");
    let error = lab.engine.pause_container("pp").await.unwrap_err();
    assert_eq!(error.message(), format!("container {id} is already paused"));
    lab.engine.unpause_container("pp").await.unwrap();
    let error = lab.engine.kill_container("pp", "BOGUS").await.unwrap_err();
    assert_eq!(error.message(), "cannot kill container: pp: invalid signal: BOGUS");
    let error = lab.engine.rename_container("pp", "pp").await.unwrap_err();
    assert_eq!(error.message(), "Renaming a container with the same name as its current name");
    let error = lab.try_create("pp", "{}").await.unwrap_err();
    assert!(error.message().contains(&format!("is already in use by container \"{id}\"")), "{error}");
    lab.engine.rename_container("pp", "qq").await.unwrap();
    assert_eq!(lab.inspect("qq").await.id, id);
    lab.engine.stop_container("qq", &stop).await.unwrap();
    assert_eq!(lab.inspect("qq").await.state.exit_code, 137);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_and_stop() {
    let lab = Lab::new().await;
    let script = r#"{"Cmd":["sh","-c","trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done"],
                     "StopSignal":"SIGUSR1"}"#;
    lab.start("ss", script).await;
    until("ready", || async { lab.output("ss").await == "ready\n" }).await;
    lab.engine.stop_container("ss", &StopContainer::default()).await.unwrap();
    assert_eq!(lab.inspect("ss").await.state.exit_code, 5);
    assert_eq!(lab.output("ss").await, "ready\ngot\n");
    lab.engine.restart_container("ss", &StopContainer::default()).await.unwrap();
    assert!(lab.inspect("ss").await.state.running);
    lab.engine.kill_container("ss", "").await.unwrap();
    assert_eq!(lab.inspect("ss").await.state.exit_code, 137);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_starts_tell_why() {
    let lab = Lab::new().await;
    for (command, code, text) in [
        (r#"["nosuch"]"#, 127, "exec: \"nosuch\": executable file not found in $PATH"),
        (r#"["/etc/passwd"]"#, 126, "exec: \"/etc/passwd\": permission denied"),
        (r#"["/etc"]"#, 126, "is a directory"),
    ] {
        let id = lab.create("", &format!(r#"{{"Cmd":{command}}}"#)).await;
        let error = lab.engine.start_container(&id).await.unwrap_err();
        assert!(error.message().contains(text), "{error}");
        assert_eq!(error.kind(), Kind::InvalidParameter);
        let state = lab.inspect(&id).await.state;
        assert_eq!((state.status.as_str(), state.exit_code), ("created", code), "{command}");
        assert_eq!(state.error, error.message());
    }
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_remove_tells_the_code() {
    let lab = Lab::new().await;
    let json = r#"{"Cmd":["sh","-c","exit 4"],"Volumes":{"/v":{}},"HostConfig":{"AutoRemove":true}}"#;
    lab.create("gone", json).await;
    let wait = lab.engine.wait_container("gone", WaitCondition::Removed).await.unwrap();
    lab.engine.start_container("gone").await.unwrap();
    assert_eq!(wait.await.status_code, 4);
    assert!(lab.engine.inspect_container("gone", false).await.is_err());
    assert!(lab.engine.list_volumes(&Default::default()).await.unwrap().volumes.is_empty());
    // The name is free again.
    lab.create("gone", r#"{"Cmd":["nosuch"],"HostConfig":{"AutoRemove":true}}"#).await;
    lab.engine.start_container("gone").await.unwrap_err();
    until("removed", || async { lab.engine.inspect_container("gone", false).await.is_err() }).await;
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_policies() {
    let lab = Lab::new().await;
    let json = r#"{"Cmd":["sh","-c","echo x; exit 1"],"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2}}}"#;
    lab.start("ff", json).await;
    until("three runs", || async {
        lab.output("ff").await == "x\nx\nx\n" && !lab.inspect("ff").await.state.running
    })
    .await;
    assert_eq!(lab.inspect("ff").await.restart_count, 2);
    lab.start("aa", r#"{"Cmd":["false"],"HostConfig":{"RestartPolicy":{"Name":"always"}}}"#).await;
    until("a restart", || async { lab.inspect("aa").await.restart_count > 1 }).await;
    lab.engine.stop_container("aa", &StopContainer::default()).await.ok();
    let count = lab.inspect("aa").await.restart_count;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    let after = lab.inspect("aa").await;
    assert_eq!((after.restart_count, after.state.status.as_str()), (count, "exited"));
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_story() {
    let lab = Lab::new().await;
    let (code, _) = lab.run("exit 2", r#"{"Labels":{"a":"b"}}"#).await;
    assert_eq!(code, 2);
    let query = Events {
        since: Some(jiff::Timestamp::UNIX_EPOCH),
        until: Some(jiff::Timestamp::now()),
        filters: berth_api::Filters::parse(r#"{"type":["container"]}"#).unwrap(),
    };
    let events: Vec<_> = lab.engine.events(query).unwrap().collect().await;
    let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
    let die = &events[2].actor.attributes;
    assert_eq!((die["exitCode"].as_str(), die["a"].as_str(), die["image"].as_str()), ("2", "b", "busybox"));
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let lab = Lab::new().await;
    let runs = (0..20).map(|number| {
        let lab = &lab;
        async move { lab.run(&format!("echo {number}; exit {number}"), "{}").await }
    });
    for (number, (code, output)) in futures_util::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!((code, output), (number as i64, format!("{number}\n")));
    }
    let all = ListContainers { all: true, ..ListContainers::default() };
    assert!(lab.engine.list_containers(&all).await.unwrap().is_empty());
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_watched() {
    let lab = Lab::new().await;
    let json = r#"{"Cmd":["sleep","1000"],"Healthcheck":{"Test":["CMD-SHELL","echo checked; test -e /tmp/well"],
                   "Interval":100000000,"Retries":2}}"#;
    lab.start("cc", json).await;
    assert_eq!(lab.inspect("cc").await.state.health.unwrap().status, "starting");
    let is = |wanted: &'static str| {
        let lab = &lab;
        move || async move { lab.inspect("cc").await.state.health.unwrap().status == wanted }
    };
    until("unhealthy", is("unhealthy")).await;
    lab.exec("cc", r#"{"Cmd":["touch","/tmp/well"]}"#).await;
    until("healthy", is("healthy")).await;
    let health = lab.inspect("cc").await.state.health.unwrap();
    assert_eq!(
        (health.failing_streak, health.log.unwrap().last().unwrap().output.as_str()),
        (0, "checked\n")
    );
    let list = lab.engine.list_containers(&ListContainers::default()).await.unwrap();
    assert!(list[0].status.ends_with("(healthy)"), "{}", list[0].status);
    lab.finish().await;
}
