//! One suite for any daemon: with `BERTH_TEST_HOST=unix:///…` set it is run against what listens there, berthd or
//! dockerd; without, it says so and passes. It needs a static busybox and removes what it makes.

use std::{collections::BTreeMap, path::Path, process::Command};

use berth_client::{
    Client, OutputStream, Upload,
    api::{
        Filters,
        container::{ContainerConfig, CreateRequest, HostConfig},
        exec::{ExecConfig, ExecStartRequest},
        options::{
            Attach, Events, Import, ListContainers, ListImages, Logs, PutArchive, RemoveContainer,
            RemoveImage, Stats, StopContainer, WaitCondition,
        },
        stdcopy::Stream as Channel,
        volume::VolumeCreateRequest,
    },
};
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

const IMAGE: &str = "berth-live-test:1";

async fn client() -> Option<Client> {
    let Ok(host) = std::env::var("BERTH_TEST_HOST") else {
        eprintln!("skipped: BERTH_TEST_HOST is not set");
        return None;
    };
    Some(Client::connect(host.parse().unwrap()).await.unwrap())
}

fn command(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

fn request(words: &[&str]) -> CreateRequest {
    let labels = BTreeMap::from([("berth-live-test".to_owned(), "1".to_owned())]);
    CreateRequest {
        config: ContainerConfig {
            image: IMAGE.to_owned(),
            cmd: command(words),
            labels,
            ..Default::default()
        },
        host_config: Some(HostConfig { network_mode: "none".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn busybox_tar() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy("/usr/bin/busybox", bin.join("busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "true"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    Command::new("tar").arg("-C").arg(dir.path()).args(["-c", "."]).output().unwrap().stdout
}

async fn import(client: &Client) {
    let options = Import {
        source: "-".to_owned(),
        repo: "berth-live-test".to_owned(),
        tag: "1".to_owned(),
        changes: vec!["ENV A=b".to_owned()],
        ..Import::default()
    };
    let mut progress = client.image_import(&options, Upload::from_bytes(busybox_tar())).await.unwrap();
    while let Some(message) = progress.next().await.unwrap() {
        assert_eq!(message.error, None);
    }
}

async fn text(mut logs: OutputStream) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((channel, bytes)) = logs.next_output().await.unwrap() {
        match channel {
            Channel::Stderr => err.extend_from_slice(&bytes),
            _ => out.extend_from_slice(&bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn a_daemon_does_what_clients_expect() {
    let Some(client) = client().await else { return };
    if !Path::new("/usr/bin/busybox").exists() {
        eprintln!("skipped: no busybox");
        return;
    }
    system(&client).await;
    import(&client).await;
    images(&client).await;
    attached_run(&client).await;
    running(&client).await;
    files(&client).await;
    volumes(&client).await;
    client.image_remove(IMAGE, &RemoveImage::default()).await.unwrap();
    let left = client.image_inspect(IMAGE).await.unwrap_err();
    assert!(left.is_not_found());
    // dockerd 20.10 says it twice.
    assert!(left.to_string().ends_with(&format!("No such image: {IMAGE}")), "{left}");
}

async fn system(client: &Client) {
    let ping = client.ping().await.unwrap();
    assert_eq!(ping.os_type, "linux");
    let version = client.version().await.unwrap();
    assert!(!version.version.is_empty() && version.os == "linux");
    let info = client.info().await.unwrap();
    assert!(info.n_cpu > 0 && info.mem_total > 0);
}

async fn images(client: &Client) {
    let image = client.image_inspect(IMAGE).await.unwrap();
    assert!(image.id.starts_with("sha256:"));
    assert_eq!(image.config.unwrap().env, Some(vec!["A=b".to_owned()]));
    let mut filters = Filters::new();
    filters.add("reference", "berth-live-test");
    let listed = client.image_list(&ListImages { filters, ..Default::default() }).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].repo_tags, [IMAGE]);
    assert_eq!(client.image_history(IMAGE, "").await.unwrap().len(), 1);
    client.image_tag(IMAGE, "berth-live-test", "2").await.unwrap();
    let removed = client.image_remove("berth-live-test:2", &RemoveImage::default()).await.unwrap();
    assert_eq!(removed[0].untagged, "berth-live-test:2");
}

/// create, attach, wait, start, half-close, output, exit: what `run -i` does.
async fn attached_run(client: &Client) {
    let mut request = request(&["sh", "-c", "cat; echo err >&2; exit 7"]);
    request.config.open_stdin = true;
    request.config.stdin_once = true;
    let id = client.container_create("", "", &request).await.unwrap().id;
    let options = Attach { stream: true, stdin: true, stdout: true, stderr: true, ..Attach::default() };
    let mut session = client.container_attach(&id, &options, false).await.unwrap();
    let wait = client.container_wait(&id, WaitCondition::NextExit).await.unwrap();
    assert!(client.container_start(&id, "").await.unwrap());
    session.input.write_all(b"typed").await.unwrap();
    session.input.shutdown().await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((channel, bytes)) = session.output.next_output().await.unwrap() {
        if channel == Channel::Stderr { err.extend_from_slice(&bytes) } else { out.extend_from_slice(&bytes) }
    }
    assert_eq!((out.as_slice(), err.as_slice()), (&b"typed"[..], &b"err\n"[..]));
    assert_eq!(wait.exit().await.unwrap().status_code, 7);
    let inspect = client.container_inspect(&id, false).await.unwrap();
    assert_eq!((inspect.state.status.as_str(), inspect.state.exit_code), ("exited", 7));
    let both = Logs { stdout: true, stderr: true, ..Logs::default() };
    let logs = text(client.container_logs(&id, &both, false).await.unwrap()).await;
    assert_eq!(logs, ("typed".to_owned(), "err\n".to_owned()));
    client.container_remove(&id, RemoveContainer::default()).await.unwrap();
    assert!(client.container_inspect(&id, false).await.unwrap_err().is_not_found());
}

async fn running(client: &Client) {
    let id = client.container_create("berth-live-1", "", &request(&["sleep", "1000"])).await.unwrap().id;
    let conflict = client.container_create("berth-live-1", "", &request(&["true"])).await.unwrap_err();
    assert!(conflict.is_conflict() && conflict.to_string().contains(&id), "{conflict}");
    let mut events = client.events(&Events::default()).await.unwrap();
    client.container_start(&id, "").await.unwrap();
    assert!(!client.container_start(&id, "").await.unwrap(), "304");
    loop {
        let event = events.next().await.unwrap().expect("events do not end");
        if event.action == "start" && event.actor.id == id {
            break;
        }
    }
    drop(events);
    let mut filters = Filters::new();
    filters.add("label", "berth-live-test=1");
    let listed = client.container_list(&ListContainers { filters, ..Default::default() }).await.unwrap();
    assert_eq!((listed.len(), listed[0].names[0].as_str()), (1, "/berth-live-1"));
    exec(client, &id).await;
    let mut stats = client.container_stats(&id, Stats { stream: false, one_shot: false }).await.unwrap();
    let sample = stats.next().await.unwrap().unwrap();
    assert!(sample.cpu_stats.online_cpus > 0 && !sample.precpu_stats.cpu_usage.total_usage.eq(&0));
    assert!(client.container_top(&id, "").await.unwrap().processes.len() == 1);
    client.container_pause(&id).await.unwrap();
    client.container_unpause(&id).await.unwrap();
    client.container_rename(&id, "berth-live-2").await.unwrap();
    let stop = StopContainer { signal: None, timeout: Some(0) };
    assert!(client.container_stop(&id, &stop).await.unwrap());
    assert!(!client.container_stop(&id, &stop).await.unwrap(), "304");
    let wait = client.container_wait(&id, WaitCondition::NotRunning).await.unwrap();
    assert_eq!(wait.exit().await.unwrap().status_code, 137);
    client
        .container_remove("berth-live-2", RemoveContainer { force: true, ..Default::default() })
        .await
        .unwrap();
}

async fn exec(client: &Client, id: &str) {
    let config = ExecConfig {
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        cmd: command(&["sh", "-c", "cat; exit 3"]),
        ..Default::default()
    };
    let exec = client.exec_create(id, &config).await.unwrap();
    let mut session = client.exec_start(&exec, &ExecStartRequest::default()).await.unwrap();
    session.input.write_all(b"in").await.unwrap();
    session.input.shutdown().await.unwrap();
    assert_eq!(session.output.next_output().await.unwrap(), Some((Channel::Stdout, Bytes::from("in"))));
    assert_eq!(session.output.next_output().await.unwrap(), None);
    assert_eq!(client.exec_inspect(&exec).await.unwrap().exit_code, Some(3));
    let nothing = client.exec_create(id, &ExecConfig::default()).await.unwrap_err();
    assert_eq!(nothing.to_string(), "No exec command specified");
}

async fn files(client: &Client) {
    let id = client.container_create("", "", &request(&["true"])).await.unwrap().id;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "content").unwrap();
    let tar = Command::new("tar").arg("-C").arg(dir.path()).args(["-c", "f"]).output().unwrap().stdout;
    let options = PutArchive { path: "/bin".to_owned(), ..Default::default() };
    client.container_archive_put(&id, &options, Upload::from_bytes(tar)).await.unwrap();
    let stat = client.container_path_stat(&id, "/bin/f").await.unwrap();
    assert_eq!((stat.name.as_str(), stat.size, stat.mode), ("f", 7, 0o644));
    let (_, mut tar) = client.container_archive_get(&id, "/bin/f").await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = tar.next_bytes().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert!(bytes.windows(7).any(|window| window == b"content"));
    assert!(client.container_path_stat(&id, "/nope").await.unwrap_err().is_not_found());
    let changes = client.container_changes(&id).await.unwrap();
    assert!(changes.iter().any(|change| change.path == "/bin/f" && change.kind == 1), "{changes:?}");
    client.container_remove(&id, RemoveContainer::default()).await.unwrap();
}

async fn volumes(client: &Client) {
    let name = "berth-live-volume".to_owned();
    let volume = client
        .volume_create(&VolumeCreateRequest { name: name.clone(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!((volume.name, volume.driver.as_str()), (name.clone(), "local"));
    assert!(
        client.volume_list(&Filters::new()).await.unwrap().volumes.iter().any(|volume| volume.name == name)
    );
    client.volume_remove(&name, false).await.unwrap();
    assert!(client.volume_inspect(&name).await.unwrap_err().is_not_found());
    client.volume_remove(&name, true).await.unwrap();
}
