//! Pods on networks of CNI plugins, Debian's package containernetworking-plugins.

use berth_cri::v1;
use berth_tests::host::Host;

use crate::harness::{Cri, pod};

/// Whether pods can be put on the network, and why not.
async fn network(cri: &Cri) -> (bool, String) {
    let status =
        cri.runtime().status(v1::StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
    let condition =
        status.conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").unwrap();
    (condition.status, condition.message)
}

#[tokio::test]
async fn a_configuration_holds_as_soon_as_it_is_there() {
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    let cri = Cri::on(&host, dir.path());
    assert!(network(&cri).await.0, "the bridge serves");
    let before = cri.run(pod("before", cri.logs())).await.unwrap();

    let file = dir.path().join("10-test.conflist");
    std::fs::write(&file, "{").unwrap();
    let (ready, why) = network(&cri).await;
    assert!(!ready && why.contains("10-test.conflist"), "{why}");
    let leases = dir.path().join("leases");
    let text = format!(
        r#"{{"cniVersion":"1.0.0","name":"test","plugins":[
            {{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,
              "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.211.0.0/24"}}]]}}}},
            {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#,
        leases.display()
    );
    std::fs::write(&file, text).unwrap();
    assert!(network(&cri).await.0);

    let mut config = pod("cni", cri.logs());
    config.port_mappings =
        vec![v1::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
    let id = cri.run(config).await.unwrap();
    let address = cri.pod_status(&id).await.unwrap().network.unwrap().ip;
    assert!(address.starts_with("10.211.0."), "{address}");
    let script = "mkdir /www; echo served > /www/index.html; httpd -h /www; exec sleep 1000";
    let server = cri.running(&id, "server", script).await;
    cri.exec(&server, "while ! netstat -ltn | grep -q :80; do sleep 0.05; done", 30).await.unwrap();
    for url in [format!("http://{address}/"), "http://10.211.0.1:8080/".to_owned()] {
        assert_eq!(host.run(&format!("busybox wget -qO- {url}")), "served\n", "{url}");
    }
    assert!(leases.join("test").join(&address).exists());

    // A pod goes the way it came, whatever the configuration is now.
    std::fs::remove_file(&file).unwrap();
    cri.remove_pod(&id).await.unwrap();
    assert!(!leases.join("test").join(&address).exists(), "the address is not given back");
    cri.remove_pod(&before).await.unwrap();
}
