//! Pods outlive the daemon.

use berth_cri::v1;

use crate::harness::{Cri, container, pod, until};

#[tokio::test]
async fn what_happens_while_the_daemon_is_down_is_known_afterwards() {
    let mut cri = Cri::start();
    let id = cri.run(pod("stays", cri.logs())).await.unwrap();
    let address = cri.pod_status(&id).await.unwrap().network.unwrap().ip;
    let stays = cri.running(&id, "stays", "exec sleep 1000").await;
    let gate = cri.logs().join("gate");
    let wait = format!("while [ ! -e {0}/gate ]; do sleep 0.05; done; echo last words; exit 9", "/gates");
    let mut ends = container("ends", &wait);
    ends.mounts = vec![v1::Mount {
        container_path: "/gates".to_owned(),
        host_path: cri.logs().display().to_string(),
        ..Default::default()
    }];
    let ends = cri.create(&id, ends).await.unwrap();
    cri.start_container(&ends).await.unwrap();
    let waits = cri.create(&id, container("waits", "exec sleep 1000")).await.unwrap();

    cri.kill();
    std::fs::write(&gate, "").unwrap();
    let said = || cri.log("ends.log").iter().any(|line| line.ends_with("last words"));
    until("it has spoken", said).await;
    cri.start_again();

    let ended = cri.ended(&ends).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (9, "Error"));
    assert_eq!(cri.log("ends.log"), ["stdout F last words"]);
    assert_eq!(cri.status(&stays).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    let pod_now = cri.pod_status(&id).await.unwrap();
    assert_eq!(pod_now.state(), v1::PodSandboxState::SandboxReady);
    assert_eq!(pod_now.network.unwrap().ip, address);
    assert!(cri.says(&stays, "ip -4 addr show eth0").await.contains(&address));
    // What was made before can be started after, in the same network.
    cri.start_container(&waits).await.unwrap();
    assert!(cri.says(&waits, "ip -4 addr show eth0").await.contains(&address));
    cri.stop_container(&stays, 0).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_pod_with_an_init_outlives_the_daemon() {
    let mut cri = Cri::start();
    let mut config = pod("init", cri.logs());
    config.linux = None;
    let id = cri.run(config).await.unwrap();
    cri.kill();
    cri.start_again();
    assert_eq!(cri.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
    let mut plain = container("box", "exec sleep 1000");
    plain.linux = None;
    let box_ = cri.create(&id, plain).await.unwrap();
    cri.start_container(&box_).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
}
