use berth_api::network::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use berth_engine::Kind;

use crate::harness::{Lab, until};

#[tokio::test(flavor = "multi_thread")]
async fn modes() {
    let lab = Lab::new().await;
    let (_, output) =
        lab.run("ip -o -4 addr show | grep -c eth0; grep -c $(hostname) /etc/hosts", "{}").await;
    assert_eq!(output, "1\n1\n");
    let (_, output) = lab.run("ls /sys/class/net", r#"{"HostConfig":{"NetworkMode":"none"}}"#).await;
    assert_eq!(output, "lo\n");
    let (_, inside) = lab.run("readlink /proc/self/ns/net", r#"{"HostConfig":{"NetworkMode":"host"}}"#).await;
    assert_eq!(inside.trim(), std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    lab.start("donor", r#"{"Cmd":["sleep","1000"]}"#).await;
    let pid = lab.inspect("donor").await.state.pid;
    let (_, shared) =
        lab.run("readlink /proc/self/ns/net", r#"{"HostConfig":{"NetworkMode":"container:donor"}}"#).await;
    assert_eq!(shared.trim(), std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().to_str().unwrap());
    lab.stop("donor").await;
    let id = lab.create("", r#"{"HostConfig":{"NetworkMode":"container:donor"}}"#).await;
    let error = lab.engine.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("non running container"), "{error}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_published_and_given_back() {
    let lab = Lab::new().await;
    let json = r#"{"Cmd":["nc","-ll","-p","80","-e","echo","hello"],"ExposedPorts":{"81/udp":{}},
                   "HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1"}]}}}"#;
    lab.start("web", json).await;
    let ports = lab.inspect("web").await.network_settings.ports;
    assert_eq!(ports["81/udp"], None);
    let port: u16 = ports["80/tcp"].as_ref().unwrap()[0].host_port.parse().unwrap();
    until("an answer", || async move {
        let answer = tokio::task::spawn_blocking(move || {
            use std::io::Read as _;
            let mut text = String::new();
            let stream = std::net::TcpStream::connect(("127.0.0.1", port));
            stream.and_then(|mut stream| stream.read_to_string(&mut text)).ok();
            text
        });
        answer.await.unwrap() == "hello\n"
    })
    .await;
    let taken = format!(
        r#"{{"HostConfig":{{"PortBindings":{{"80/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{port}"}}]}}}}}}"#
    );
    let other = lab.create("", &taken).await;
    let error = lab.engine.start_container(&other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(
        error.message().ends_with(&format!(
            "Bind for 127.0.0.1:{port} failed: port is already allocated by container web"
        )),
        "{error}"
    );
    assert_eq!(lab.inspect(&other).await.state.exit_code, 128);
    lab.stop("web").await;
    assert!(lab.inspect("web").await.network_settings.ports.is_empty());
    // Other tests publish on ports of the same range.
    until("the port is free", || async { lab.engine.start_container(&other).await.is_ok() }).await;
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_of_ones_own() {
    let lab = Lab::new().await;
    let request = NetworkCreateRequest { name: "mine".into(), ..NetworkCreateRequest::default() };
    let network = lab.engine.create_network(request.clone()).await.unwrap().id;
    assert_eq!(lab.engine.create_network(request).await.unwrap_err().kind(), Kind::Conflict);
    lab.start("aa", r#"{"Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"mine"}}"#).await;
    let joined = lab.inspect("aa").await.network_settings.networks["mine"].clone();
    assert_eq!(joined.network_id, network);
    // Neighbours find each other by name.
    let json = r#"{"HostConfig":{"NetworkMode":"mine"},"NetworkingConfig":{"EndpointsConfig":{"mine":{"Aliases":["other"]}}}}"#;
    let (_, output) = lab.run("busybox nslookup -type=a aa", json).await;
    assert!(output.contains(&joined.ip_address), "{output}");
    assert_eq!(lab.engine.remove_network("mine").await.unwrap_err().kind(), Kind::Forbidden);
    lab.start("bb", r#"{"Cmd":["sleep","1000"]}"#).await;
    let connect = NetworkConnectRequest { container: "bb".into(), endpoint_config: None };
    lab.engine.connect_network("mine", connect).await.unwrap();
    let (_, output) = lab.exec("bb", r#"{"Cmd":["ls","/sys/class/net"],"AttachStdout":true}"#).await;
    assert_eq!(output, "eth0\neth1\nlo\n");
    assert_eq!(lab.engine.inspect_network("mine").await.unwrap().containers.unwrap().len(), 2);
    for name in ["aa", "bb"] {
        let disconnect = NetworkDisconnectRequest { container: name.into(), force: false };
        lab.engine.disconnect_network("mine", disconnect).await.unwrap();
    }
    lab.engine.remove_network("mine").await.unwrap();
    let error = lab.engine.inspect_network("mine").await.unwrap_err();
    assert_eq!(error.message(), "network mine not found");
    lab.finish().await;
}
