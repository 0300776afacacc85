use berth_api::options::{Commit, PutArchive};
use berth_engine::Kind;
use futures_util::StreamExt as _;

use crate::harness::Lab;

async fn bytes(mut stream: berth_engine::ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

fn archive(name: &str, content: &str) -> std::io::Cursor<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_uid(12);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    std::io::Cursor::new(tar.into_inner().unwrap())
}

fn put(path: &str) -> PutArchive {
    PutArchive { path: path.into(), ..PutArchive::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out_whether_it_runs_or_not() {
    let lab = Lab::new().await;
    lab.create("cc", r#"{"Cmd":["sleep","1000"],"HostConfig":{"Binds":["vv:/vol","ww:/ro:ro"]}}"#).await;
    for round in ["stopped", "running"] {
        lab.engine.put_archive("cc", put("/tmp"), archive("f", round)).await.unwrap();
        lab.engine.put_archive("cc", put("/vol"), archive("g", round)).await.unwrap();
        let (stat, stream) = lab.engine.get_archive("cc", "/tmp/f").await.unwrap();
        assert_eq!((stat.name.as_str(), stat.size, stat.mode), ("f", round.len() as i64, 0o600));
        let tar = bytes(stream).await;
        let mut tar = tar::Archive::new(tar.as_slice());
        let entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.path().unwrap().to_str().unwrap(), entry.header().uid().unwrap()), ("f", 12));
        let in_volume = lab.dir.path().join("root/volumes/vv/_data/g");
        assert_eq!(std::fs::read_to_string(in_volume).unwrap(), round);
        let error = lab.engine.put_archive("cc", put("/ro"), archive("f", "x")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (Kind::InvalidParameter, "mounted volume is marked read-only")
        );
        let error = lab.engine.put_archive("cc", put("/nope"), archive("f", "x")).await.unwrap_err();
        assert_eq!(error.message(), "Could not find the file /nope in container cc");
        let error = lab.engine.put_archive("cc", put("/etc/passwd"), archive("f", "x")).await.unwrap_err();
        assert_eq!(error.message(), "extraction point is not a directory");
        let error = lab.engine.container_path_stat("cc", "/nope").await.unwrap_err();
        assert_eq!(error.message(), "Could not find the file /nope in container cc");
        let link = lab.engine.container_path_stat("cc", "/bin/sh").await.unwrap();
        assert_eq!(link.link_target, "/bin/busybox");
        if round == "stopped" {
            lab.engine.start_container("cc").await.unwrap();
        }
    }
    let (_, output) = lab.exec("cc", r#"{"Cmd":["cat","/tmp/f","/vol/g"],"AttachStdout":true}"#).await;
    assert_eq!(output, "runningrunning");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_commit_and_export() {
    let lab = Lab::new().await;
    lab.start("cc", r#"{"Cmd":["sh","-c","echo new >/made; rm /data/preset"]}"#).await;
    lab.wait("cc").await;
    let changes = lab.engine.container_changes("cc").await.unwrap().unwrap();
    let changes: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.kind)).collect();
    assert!(changes.contains(&("/made", 1)) && changes.contains(&("/data/preset", 2)), "{changes:?}");
    let options = Commit {
        container: "cc".into(),
        repo: "made".into(),
        changes: vec!["CMD [\"cat\",\"/made\"]".into(), "LABEL by=test".into()],
        author: "me".into(),
        ..Commit::default()
    };
    let id = lab.engine.commit(options).await.unwrap();
    let image = lab.engine.inspect_image("made", "", false).await.unwrap();
    assert_eq!((image.id, image.author.as_str()), (id.clone(), "me"));
    assert_eq!(image.root_fs.layers.len(), 2);
    let started = lab.start("dd", r#"{"Image":"made"}"#).await;
    lab.wait(&started).await;
    assert_eq!(lab.output("dd").await, "new\n");
    let error = lab.engine.remove_image("made", Default::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    let tar = bytes(lab.engine.export_container("cc").await.unwrap()).await;
    let mut tar = tar::Archive::new(tar.as_slice());
    let names: Vec<_> =
        tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|name| name.trim_start_matches('/') == "made"), "{names:?}");
    lab.remove("dd").await;
    let removed = lab.engine.remove_image("made", Default::default()).await.unwrap();
    assert_eq!(removed[0].untagged, "made:latest");
    assert!(removed.iter().any(|item| item.deleted == id));
    lab.finish().await;
}
