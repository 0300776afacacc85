//! Checkpoints. CRIU takes them, and need not be there, nor understand this kernel: then the container goes on and the
//! error says why.

use std::path::Path;
use std::process::{Command, Stdio};

use berth_cri::v1;
use tonic::{Code, Status};

use crate::harness::{Cri, container, pod, until};

/// A program that counts for as long as it lives.
const COUNTS: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; echo line $i; sleep 0.05; done";

/// `criu check`: the program and the kernel understand each other.
fn criu_works() -> bool {
    let mut check = Command::new("criu");
    let status = check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

async fn checkpoint(cri: &Cri, id: &str, location: &Path, timeout: i64) -> Result<(), Status> {
    let location = location.display().to_string();
    let request = v1::CheckpointContainerRequest { container_id: id.to_owned(), location, timeout };
    cri.runtime().checkpoint_container(request).await.map(drop)
}

async fn count(cri: &Cri, id: &str) -> u64 {
    cri.says(id, "cat /count 2> /dev/null || echo 0").await.parse().expect("a number")
}

async fn counts_beyond(cri: &Cri, id: &str, number: u64) {
    let counting = async { while count(cri, id).await <= number {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), counting).await.expect("it counts on");
}

fn listed(archive: &Path) -> Vec<String> {
    let file = std::fs::File::open(archive).expect("the archive");
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().expect("a tar");
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[tokio::test]
async fn a_container_is_saved_goes_on_and_comes_back() {
    let cri = Cri::start();
    let sandbox = cri.run(pod("saved", cri.logs())).await.expect("run a pod");
    let id = cri.running(&sandbox, "one", COUNTS).await;
    counts_beyond(&cri, &id, 3).await;
    let archive = cri.logs().join("one.tar");
    let saved = checkpoint(&cri, &id, &archive, 0).await;
    let before = count(&cri, &id).await;
    counts_beyond(&cri, &id, before).await;
    if !criu_works() {
        let error = saved.expect_err("there is no CRIU that works");
        assert!(error.message().to_lowercase().contains("criu"), "{error}");
        assert!(!archive.exists());
        return;
    }
    saved.expect("a checkpoint");
    let names = listed(&archive);
    assert_eq!(names[0], "config.dump");
    for name in [
        "spec.dump",
        "status.dump",
        "rootfs-diff.tar",
        "container.log",
        "dump.log",
        "checkpoint/inventory.img",
    ] {
        assert!(names.iter().any(|listed| listed == name), "{name} is not in {names:?}");
    }

    // From the archive: its image is not asked for, its memory and its files are as they were.
    let mut again = container("two", "exit 1");
    again.image = Some(v1::ImageSpec { image: archive.display().to_string(), ..Default::default() });
    let restored = cri.create(&sandbox, again).await.expect("create from a checkpoint");
    cri.start_container(&restored).await.expect("restore");
    counts_beyond(&cri, &restored, 3).await;
    let status = cri.status(&restored).await.expect("its status");
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(status.image_id, cri.status(&id).await.expect("the first one's").image_id);
    let lines = || cri.log("two.log").last().cloned().unwrap_or_default();
    until("the restored program writes to its log", || lines().starts_with("stdout F line")).await;
    cri.stop_container(&restored, 0).await.expect("stop it");
    assert_eq!(cri.ended(&restored).await.exit_code, 137);
    cri.remove_container(&restored).await.expect("remove it");
    cri.remove_pod(&sandbox).await.expect("remove the pod");
}

#[tokio::test]
async fn what_cannot_be_saved_or_restored_is_refused() {
    let cri = Cri::start();
    let sandbox = cri.run(pod("refused", cri.logs())).await.expect("run a pod");
    let id = cri.create(&sandbox, container("one", "sleep 1000")).await.expect("create");
    let archive = cri.logs().join("one.tar");
    let error = checkpoint(&cri, &id, &archive, 0).await.expect_err("it does not run");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let error = checkpoint(&cri, "nobody", &archive, 0).await.expect_err("there is none");
    assert_eq!(error.code(), Code::NotFound, "{error}");
    cri.start_container(&id).await.expect("start");
    let nowhere = cri.logs().join("missing").join("one.tar");
    for (location, words) in
        [(Path::new("one.tar"), "absolute"), (&nowhere, "exists"), (cri.logs(), "directory")]
    {
        let error = checkpoint(&cri, &id, location, 0).await.expect_err("no place");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    for content in [&b"no archive"[..], &[0; 1024]] {
        std::fs::write(&archive, content).expect("write a file");
        let mut from = container("two", "");
        from.image = Some(v1::ImageSpec { image: archive.display().to_string(), ..Default::default() });
        let error = cri.create(&sandbox, from).await.expect_err("it is none");
        assert!(error.message().contains("checkpoint"), "{error}");
    }
    cri.remove_pod(&sandbox).await.expect("remove the pod");
}
