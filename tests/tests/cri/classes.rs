//! Classes of block I/O and RDT, which annotations ask for.

use std::path::{Path, PathBuf};

use berth_cri::v1;

use crate::harness::{Cri, container, pod};

/// A whole block device of this machine: its file and its numbers.
fn block_device() -> (PathBuf, String) {
    let devices = std::fs::read_dir("/sys/block").expect("/sys/block");
    let mut named = devices.map(|entry| {
        let name = entry.expect("a device").file_name();
        let numbers =
            std::fs::read_to_string(Path::new("/sys/block").join(&name).join("dev")).expect("its numbers");
        (Path::new("/dev").join(name), numbers.trim().to_owned())
    });
    named.find(|(file, _)| file.exists()).expect("a block device")
}

/// What the kernel limits of a container's block I/O.
async fn limits(cri: &Cri, id: &str) -> String {
    let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let info = cri.runtime().container_status(request).await.expect("a status").into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).expect("JSON");
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", info["pid"])).expect("its cgroups");
    let path = |line: &str| line.rsplit(':').next().expect("a path").to_owned();
    let file = match groups.lines().find(|line| line.contains(":blkio:")) {
        Some(line) => format!("/sys/fs/cgroup/blkio{}/blkio.throttle.read_bps_device", path(line)),
        None => format!("/sys/fs/cgroup{}/io.max", path(groups.lines().last().expect("a line"))),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[tokio::test]
async fn a_class_of_block_io_is_limits() {
    let (device, numbers) = block_device();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("blockio.yaml");
    let slow = format!("[{{Devices: [{}*], ThrottleReadBps: 50M}}]", device.display());
    std::fs::write(&file, format!("Classes:\n  slow: {slow}\n")).expect("write the classes");
    let cri = Cri::with_arguments(&["--cri-blockio-classes", file.to_str().expect("UTF-8")]);
    let mut config = pod("classes", cri.logs());
    config.annotations =
        [("blockio.resources.beta.kubernetes.io/container.one".to_owned(), "slow".to_owned())].into();
    let sandbox = cri.run(config).await.expect("run a pod");
    let one = cri.running(&sandbox, "one", "exec sleep 1000").await;
    let found = limits(&cri, &one).await;
    assert!(found.contains(&numbers) && found.contains("50000000"), "{found}");
    let other = cri.running(&sandbox, "other", "exec sleep 1000").await;
    assert!(!limits(&cri, &other).await.contains("50000000"), "it asks for no class");

    let asks = |class: &str, word: &str| {
        let mut config = container("three", "true");
        config.annotations = [(format!("io.kubernetes.cri.{word}-class"), class.to_owned())].into();
        config
    };
    let error = cri.create(&sandbox, asks("gold", "blockio")).await.expect_err("there is no such class");
    assert!(error.message().contains("it has: slow"), "{error}");
    // The file is read when it is needed.
    std::fs::write(&file, "Classes:\n  gold: [{Weight: 9000}]\n").expect("write the classes");
    let error = cri.create(&sandbox, asks("gold", "blockio")).await.expect_err("a weight that is none");
    assert!(error.message().contains("from 10 to 1000"), "{error}");
    let error = cri.create(&sandbox, asks("no-such-group", "rdt")).await.expect_err("no such group");
    assert!(error.message().contains("/sys/fs/resctrl"), "{error}");
    cri.remove_pod(&sandbox).await.expect("remove the pod");
}
