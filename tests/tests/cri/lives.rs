//! The lives of pods and containers.

use std::os::unix::fs::PermissionsExt as _;

use berth_cri::v1;
use tonic::Code;

use crate::harness::{Cri, container, pod, until};

#[tokio::test]
async fn a_pod_from_its_beginning_to_its_end() {
    let cri = Cri::start();
    let version = cri.runtime().version(v1::VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("berth", "v1"));
    let status = cri.runtime().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    assert!(conditions.len() == 2 && conditions.iter().all(|condition| condition.status), "{conditions:?}");

    let id = cri.run(pod("web", cri.logs())).await.unwrap();
    let found = cri.pod_status(&id).await.unwrap();
    assert_eq!(found.state(), v1::PodSandboxState::SandboxReady);
    let address = found.network.unwrap().ip;
    assert!(address.parse::<std::net::IpAddr>().is_ok(), "{address}");

    let one = cri.create(&id, container("one", "echo out; echo err >&2; printf half; exit 7")).await.unwrap();
    assert_eq!(cri.status(&one).await.unwrap().state(), v1::ContainerState::ContainerCreated);
    cri.start_container(&one).await.unwrap();
    let ended = cri.ended(&one).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
    assert!(ended.created_at <= ended.started_at && ended.started_at <= ended.finished_at);
    let mut lines = cri.log("one.log");
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P half"]);

    let two = cri.running(&id, "two", "exec sleep 1000").await;
    assert_eq!(cri.says(&two, "hostname; cat /etc/hostname").await, "web\nweb");
    let seen = cri.says(&two, "ip -4 addr show eth0").await;
    assert!(seen.contains(&format!("inet {address}/")), "{seen}");
    let three = cri.running(&id, "three", "exec sleep 1000").await;
    cri.says(&two, "echo shared > /dev/shm/file").await;
    assert_eq!(cri.says(&three, "cat /dev/shm/file").await, "shared");
    assert_eq!(cri.says(&three, "ip -4 addr show eth0").await, seen);

    let list = cri.runtime().list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert_eq!(list.into_inner().containers.len(), 3);
    cri.stop_pod(&id).await.unwrap();
    assert_eq!(cri.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxNotready);
    assert_eq!(cri.status(&two).await.unwrap().exit_code, 137);
    cri.stop_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    assert_eq!(cri.pod_status(&id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cri.status(&one).await.unwrap_err().code(), Code::NotFound);
    let left = std::fs::read_dir(cri.daemon.run_root().join("pods")).unwrap().count();
    assert_eq!(left, 0, "the pod has left something behind");
}

#[tokio::test]
async fn what_is_done_already_is_no_failure() {
    let cri = Cri::start();
    let config = pod("twice", cri.logs());
    let (first, second) = tokio::join!(cri.run(config.clone()), cri.run(config.clone()));
    let id = first.unwrap();
    assert_eq!(second.unwrap(), id, "a retry joins what is under way");
    assert_eq!(cri.run(config).await.unwrap(), id, "and what was done");
    let (first, second) = tokio::join!(
        cri.create(&id, container("c", "sleep 1000")),
        cri.create(&id, container("c", "sleep 1000"))
    );
    let made = first.unwrap();
    assert_eq!(second.unwrap(), made);
    assert!(cri.create(&id, container("c", "something else")).await.is_err());
    for gone in ["0123456789", &made] {
        cri.stop_container(gone, 0).await.unwrap();
        cri.remove_container(gone).await.unwrap();
    }
    cri.remove_container(&made).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    cri.stop_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_container_that_cannot_be_made_or_started_says_why() {
    let cri = Cri::start();
    let id = cri.run(pod("bad", cri.logs())).await.unwrap();
    let mut missing = container("a", "true");
    missing.image.as_mut().unwrap().image = "no-such-image".to_owned();
    assert_eq!(cri.create(&id, missing).await.unwrap_err().code(), Code::NotFound);
    let mut group = container("b", "true");
    let security = group.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_group = Some(v1::Int64Value { value: 5 });
    assert!(cri.create(&id, group).await.is_err(), "a group without a user");
    let mut privileged = container("c", "true");
    privileged.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let refused = cri.create(&id, privileged).await.unwrap_err();
    assert!(refused.message().contains("no privileged container allowed"), "{refused}");
    let mut program = container("d", "");
    program.command = vec!["/no/such/program".to_owned()];
    let made = cri.create(&id, program).await.unwrap();
    let error = cri.start_container(&made).await.unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error}");
    let status = cri.status(&made).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(status.finished_at > 0);
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn exec_sync_ends_in_time_and_is_not_drowned() {
    let cri = Cri::start();
    let id = cri.run(pod("exec", cri.logs())).await.unwrap();
    let box_ = cri.running(&id, "box", "exec sleep 1000").await;
    let output = cri.exec(&box_, "echo out; echo err >&2; exit 3", 0).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..], output.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));
    let late = cri.exec(&box_, "exec sleep 4321", 1).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(cri.says(&box_, "ps -o args | grep -c '^sleep 4321' || true").await, "0", "it lives on");
    // A grandchild that keeps the pipes open holds nobody up.
    let output = cri.exec(&box_, "sleep 1000 & echo done", 60).await.unwrap();
    assert_eq!(output.stdout, b"done\n");
    // Nor does one that keeps them beyond the time limit, after the command itself was killed.
    let late = cri.exec(&box_, "sleep 5678 & exec sleep 5678", 1).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let output = cri.exec(&box_, "head -c 20000000 /dev/zero", 0).await.unwrap();
    assert_eq!((output.stdout.len(), output.exit_code), (16 << 20, 0));
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_stop_asks_first_and_the_impatient_decides() {
    let cri = Cri::start();
    let id = cri.run(pod("stop", cri.logs())).await.unwrap();
    let polite = cri
        .running(&id, "polite", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
        .await;
    until("it is ready", || !cri.log("polite.log").is_empty()).await;
    cri.stop_container(&polite, 60).await.unwrap();
    assert_eq!(cri.status(&polite).await.unwrap().exit_code, 5);
    assert_eq!(cri.log("polite.log"), ["stdout F ready", "stdout F bye"]);
    let deaf =
        cri.running(&id, "deaf", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done").await;
    until("it is ready", || !cri.log("deaf.log").is_empty()).await;
    let impatient = async {
        until("it was asked", || cri.log("deaf.log").len() == 2).await;
        cri.stop_container(&deaf, 1).await
    };
    let (patient, impatient) = tokio::join!(cri.stop_container(&deaf, 1000), impatient);
    patient.unwrap();
    impatient.unwrap();
    assert_eq!(cri.status(&deaf).await.unwrap().exit_code, 137);
    assert_eq!(cri.log("deaf.log"), ["stdout F ready", "stdout F asked"], "asked once");
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn containers_that_share_process_ids_have_an_init() {
    let cri = Cri::start();
    let mut config = pod("shared", cri.logs());
    config.linux = None;
    let id = cri.run(config).await.unwrap();
    let mut first = container("first", "exec sleep 1234");
    let mut second = container("second", "exec sleep 1000");
    (first.linux, second.linux) = (None, None);
    let first = cri.create(&id, first).await.unwrap();
    let second = cri.create(&id, second).await.unwrap();
    cri.start_container(&first).await.unwrap();
    cri.start_container(&second).await.unwrap();
    assert!(cri.says(&second, "ps -o pid,args").await.contains("sleep 1234"));
    // An orphan whose parent is gone is the init's, which reaps it.
    cri.says(&second, "(sleep 0.1 &); sleep 0.5").await;
    let states = cri.says(&second, "ps -o stat,comm | grep '^Z' | wc -l").await;
    assert_eq!(states, "0", "a zombie is left");
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn logs_are_reopened_and_limits_changed() {
    let cri = Cri::start();
    let id = cri.run(pod("more", cri.logs())).await.unwrap();
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done";
    let box_ = cri.running(&id, "box", script).await;
    until("it speaks", || cri.log("box.log").len() >= 3).await;
    let (now, old) = (cri.logs().join("box.log"), cri.logs().join("box.log.1"));
    std::fs::rename(&now, &old).unwrap();
    let request = v1::ReopenContainerLogRequest { container_id: box_.clone() };
    cri.runtime().reopen_container_log(request.clone()).await.unwrap();
    until("the new file is written", || !cri.log("box.log").is_empty()).await;
    let all: Vec<String> = [cri.log("box.log.1"), cri.log("box.log")].concat();
    for (at, line) in all.iter().enumerate() {
        assert_eq!(*line, format!("stdout F line {}", at + 1), "a line is lost or doubled");
    }
    let limits = v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let update = v1::UpdateContainerResourcesRequest {
        container_id: box_.clone(),
        linux: Some(limits),
        ..Default::default()
    };
    cri.runtime().update_container_resources(update).await.unwrap();
    let shown = cri.status(&box_).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!(shown.memory_limit_in_bytes, 64 << 20);
    let stats = cri.runtime().container_stats(v1::ContainerStatsRequest { container_id: box_.clone() }).await;
    let stats = stats.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().available_bytes.unwrap().value <= 64 << 20);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    cri.stop_container(&box_, 0).await.unwrap();
    std::fs::remove_file(&now).unwrap();
    assert!(cri.runtime().reopen_container_log(request).await.is_err());
    assert!(!now.exists(), "a log of a container that has ended is made anew");
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn images_by_all_their_names() {
    let cri = Cri::start();
    let status = |name: &str| {
        let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
        let mut images = cri.images();
        async move {
            images
                .image_status(v1::ImageStatusRequest { image, verbose: false })
                .await
                .unwrap()
                .into_inner()
                .image
        }
    };
    let image = status("busybox").await.unwrap();
    assert_eq!(image.repo_tags, ["docker.io/library/busybox:latest"]);
    for name in ["docker.io/library/busybox:latest", &image.id, image.id.trim_start_matches("sha256:")] {
        assert_eq!(status(name).await.unwrap().id, image.id, "{name}");
    }
    let image = Some(v1::ImageSpec { image: "busybox".to_owned(), ..Default::default() });
    let request = v1::ImageStatusRequest { image, verbose: true };
    let info = cri.images().image_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    assert!(info["imageSpec"]["rootfs"]["diff_ids"].is_array(), "{info}");
    assert!(status("nobody/knows:this").await.is_none());
    let used = cri.images().image_fs_info(v1::ImageFsInfoRequest::default()).await.unwrap().into_inner();
    assert!(used.image_filesystems[0].used_bytes.unwrap().value > 0);
    let remove = v1::RemoveImageRequest {
        image: Some(v1::ImageSpec { image: "busybox".to_owned(), ..Default::default() }),
    };
    cri.images().remove_image(remove.clone()).await.unwrap();
    assert!(status("busybox").await.is_none());
    cri.images().remove_image(remove).await.unwrap();
}

#[tokio::test]
async fn a_pod_with_users_of_its_own() {
    let cri = Cri::start();
    // Temporary directories are closed to others, /run is not.
    let parent = cri.daemon.run_root().parent().unwrap().to_owned();
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut config = pod("users", cri.logs());
    let ids = vec![v1::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
    let options = v1::NamespaceOption {
        pid: v1::NamespaceMode::Container as i32,
        userns_options: Some(v1::UserNamespace {
            mode: v1::NamespaceMode::Pod as i32,
            uids: ids.clone(),
            gids: ids,
        }),
        ..Default::default()
    };
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(options.clone());
    let id = cri.run(config).await.unwrap();
    let mut plain = container("box", "exec sleep 1000");
    plain.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options);
    let box_ = cri.create(&id, plain).await.unwrap();
    cri.start_container(&box_).await.unwrap();
    assert_eq!(cri.says(&box_, "id -u").await, "0");
    let map = cri.says(&box_, "cat /proc/self/uid_map").await;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "300000", "65536"]);
    // Files of the image and of the pod are root's, and root can write.
    assert_eq!(cri.says(&box_, "stat -c %u /bin/busybox /etc/hostname /dev/shm").await, "0\n0\n0");
    assert_eq!(
        cri.says(&box_, "echo x > /new && chown 5:5 /new && stat -c %u /new; hostname").await,
        "5\nusers"
    );
    let address = cri.pod_status(&id).await.unwrap().network.unwrap().ip;
    assert!(cri.says(&box_, "ip -4 addr show eth0").await.contains(&address));
    assert!(cri.says(&box_, "ip link show lo").await.contains("LOOPBACK,UP"));
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_kubelets_limits_of_huge_pages_keep_nothing_from_running() {
    let cri = Cri::start();
    let id = cri.run(pod("huge", cri.logs())).await.unwrap();
    let mut config = container("box", "exec sleep 1000");
    let none = |size: &str| v1::HugepageLimit { page_size: size.to_owned(), limit: 0 };
    config.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
        cpu_shares: 512,
        hugepage_limits: vec![none("1GB"), none("2MB")],
        ..Default::default()
    });
    let made = cri.create(&id, config).await.unwrap();
    cri.start_container(&made).await.unwrap();
    let limits = cri.status(&made).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((limits.cpu_shares, limits.hugepage_limits.len()), (512, 2));
    let change = v1::LinuxContainerResources {
        cpu_shares: 256,
        hugepage_limits: vec![none("2MB")],
        ..Default::default()
    };
    let request = v1::UpdateContainerResourcesRequest {
        container_id: made.clone(),
        linux: Some(change),
        ..Default::default()
    };
    cri.runtime().update_container_resources(request).await.unwrap();
    let limits = cri.status(&made).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!(limits.cpu_shares, 256);
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_removal_may_meet_an_end() {
    let cri = Cri::start();
    let id = cri.run(pod("race", cri.logs())).await.unwrap();
    let one = async |number: u32| {
        // They end by themselves, about when they are removed: some before, some meanwhile, some are killed.
        let script = format!("usleep {}; echo over", number * 10_000);
        let made = cri.running(&id, &format!("c{number}"), &script).await;
        let (first, second) = tokio::join!(cri.remove_container(&made), cri.remove_container(&made));
        first.unwrap();
        second.unwrap();
        assert_eq!(cri.status(&made).await.unwrap_err().code(), Code::NotFound);
    };
    futures_util::future::join_all((0..12).map(one)).await;
    let list = cri.runtime().list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert!(list.into_inner().containers.is_empty());
    assert_eq!(cri.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
    cri.remove_pod(&id).await.unwrap();
}
