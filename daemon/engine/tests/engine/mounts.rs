use berth_api::volume::VolumeCreateRequest;
use berth_engine::Kind;

use crate::harness::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn volumes_take_the_images_content_once() {
    let lab = Lab::new().await;
    let named = r#"{"HostConfig":{"Binds":["data:/data"]}}"#;
    let (code, output) =
        lab.run("cat /data/preset; stat -c %u:%a /data/preset; echo more >/data/new", named).await;
    assert_eq!((code, output.as_str()), (0, "from the image\n1000:640\n"));
    let (_, output) = lab.run("rm /data/preset; cat /data/new; ls /data", named).await;
    assert_eq!(output, "more\nnew\n");
    let (_, output) = lab
        .run(
            "ls /data; touch /data/x 2>/dev/null || echo ro",
            r#"{"HostConfig":{"Binds":["data:/data:ro"]}}"#,
        )
        .await;
    assert_eq!(output, "new\nro\n");
    let (_, output) = lab.run("ls /data", r#"{"HostConfig":{"Binds":["empty:/data:nocopy"]}}"#).await;
    assert_eq!(output, "");
    // Named ones stay after rm -v, anonymous ones do not.
    lab.run("true", r#"{"Volumes":{"/anon":{}}}"#).await;
    let volumes = lab.engine.list_volumes(&Default::default()).await.unwrap().volumes;
    let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["data", "empty"]);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_in_use_are_kept() {
    let lab = Lab::new().await;
    let request = VolumeCreateRequest { name: "vv".into(), ..VolumeCreateRequest::default() };
    let volume = lab.engine.create_volume(request).await.unwrap();
    assert!(std::path::Path::new(&volume.mountpoint).is_dir());
    let id = lab.create("cc", r#"{"HostConfig":{"Binds":["vv:/v"]}}"#).await;
    let error = lab.engine.remove_volume("vv", false).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Conflict, format!("remove vv: volume is in use - [{id}]").as_str())
    );
    let mount = lab.inspect("cc").await.mounts[0].clone();
    assert_eq!((mount.kind.as_str(), mount.mode.as_str(), mount.name.as_str()), ("volume", "z", "vv"));
    // Another container of the same volumes.
    let (_, output) =
        lab.run("grep -c ' /v ' /proc/mounts", r#"{"HostConfig":{"VolumesFrom":["cc:ro"]}}"#).await;
    assert_eq!(output, "1\n");
    lab.remove("cc").await;
    lab.engine.remove_volume("vv", false).await.unwrap();
    assert_eq!(lab.engine.remove_volume("vv", false).await.unwrap_err().message(), "get vv: no such volume");
    lab.engine.remove_volume("vv", true).await.unwrap();
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_and_tmpfs() {
    let lab = Lab::new().await;
    let host = lab.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "hi\n").unwrap();
    let path = host.display();
    let (_, output) = lab
        .run("cat /h/file; echo x >/h/made", &format!(r#"{{"HostConfig":{{"Binds":["{path}:/h"]}}}}"#))
        .await;
    assert_eq!((output.as_str(), host.join("made").exists()), ("hi\n", true));
    let one = format!(r#"{{"HostConfig":{{"Binds":["{path}/file:/etc/one:ro"]}}}}"#);
    assert_eq!(lab.run("cat /etc/one", &one).await.1, "hi\n");
    // -v makes a missing source, --mount refuses it.
    let made = format!(r#"{{"HostConfig":{{"Binds":["{path}/missing:/h"]}}}}"#);
    lab.run("true", &made).await;
    assert!(host.join("missing").is_dir());
    let refused =
        format!(r#"{{"HostConfig":{{"Mounts":[{{"Type":"bind","Source":"{path}/none","Target":"/h"}}]}}}}"#);
    let error = lab.try_create("", &refused).await.unwrap_err();
    assert_eq!(
        error.message(),
        format!("invalid mount config for type \"bind\": bind source path does not exist: {path}/none")
    );
    let tmpfs =
        r#"{"HostConfig":{"Tmpfs":{"/t":"size=64k,mode=700"},"Mounts":[{"Type":"tmpfs","Target":"/u"}]}}"#;
    let (_, output) = lab.run("stat -c %a /t; grep -c ' /[tu] tmpfs' /proc/mounts", tmpfs).await;
    assert_eq!(output, "700\n2\n");
    lab.finish().await;
}
