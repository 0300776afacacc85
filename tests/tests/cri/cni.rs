//! Pods on networks of CNI plugins, Debian's package containernetworking-plugins.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use berth_cri::v1;
use berth_tests::host::Host;
use serde_json::{Value, json};

use crate::harness::{Cri, pod, until};

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
    cri.exec(&server, "while ! netstat -ltn | grep -q :80; do sleep 0.05; done", 60).await.unwrap();
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

/// A plugin that notes what it is asked in the file `asked` of its directory, and fails what a file `fail-VERB-NAME` says.
const PLUGIN: &str = r#"#!/bin/sh
dir=${0%/*}
name=${0##*/}
config=$(cat)
printf '%s %s %s %s\n' "$CNI_COMMAND" "$name" "${CNI_CONTAINERID:--}" "$config" >>"$dir/asked"
if [ -e "$dir/fail-$CNI_COMMAND-$name" ]; then
    echo '{"cniVersion":"1.0.0","code":11,"msg":"told to fail"}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],
  \"ips\":[{\"address\":\"10.213.0.${name##*-}/24\",\"interface\":0}],\"dns\":{\"search\":[\"$CNI_ARGS\"]}}"
"#;

/// Puts plugins of these names below a directory of configurations.
fn install(dir: &Path, names: &[&str]) {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in names {
        std::fs::write(bin.join(name), PLUGIN).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// What the plugins were asked since this was called last: verb and plugin, sandbox, configuration.
fn asked(dir: &Path) -> Vec<(String, String, Value)> {
    let file = dir.join("bin/asked");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, "").unwrap();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().unwrap().to_owned();
        let (verb, name, sandbox) = (next(), next(), next());
        (format!("{verb} {name}"), sandbox, serde_json::from_str(&next()).unwrap())
    };
    text.lines().map(line).collect()
}

fn verbs(asked: &[(String, String, Value)]) -> Vec<&str> {
    asked.iter().map(|(verb, ..)| verb.as_str()).collect()
}

/// The addresses that host-local has given out.
fn leases(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("10.")).collect()
}

#[tokio::test]
async fn every_verb_of_the_specification_reaches_the_plugins() {
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), &["probe-1", "probe-2"]);
    let list = json!({"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "probed", "plugins": [
        {"type": "probe-1", "capabilities": {"portMappings": true, "bandwidth": true}, "own": 1},
        {"type": "probe-2"},
    ]});
    std::fs::write(dir.path().join("10-probed.conflist"), list.to_string()).unwrap();
    let mut cri = Cri::on(&host, dir.path());
    assert!(network(&cri).await.0);
    assert_eq!(verbs(&asked(dir.path())), ["STATUS probe-1", "STATUS probe-2"]);
    std::fs::write(dir.path().join("bin/fail-STATUS-probe-2"), "").unwrap();
    let (ready, why) = network(&cri).await;
    assert!(!ready && why.contains("probe-2") && why.contains("told to fail"), "{why}");
    std::fs::remove_file(dir.path().join("bin/fail-STATUS-probe-2")).unwrap();
    asked(dir.path());

    let mut config = pod("probed", cri.logs());
    config.port_mappings = vec![
        v1::PortMapping { container_port: 80, host_port: 8080, ..Default::default() },
        v1::PortMapping { container_port: 81, ..Default::default() },
    ];
    config.annotations = [("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned())].into();
    let id = cri.run(config).await.unwrap();
    let network = cri.pod_status(&id).await.unwrap().network.unwrap();
    assert_eq!(network.ip, "10.213.0.2", "what the last plugin of the chain answers");
    let added = asked(dir.path());
    assert_eq!(verbs(&added), ["ADD probe-1", "ADD probe-2"]);
    assert!(added.iter().all(|(_, sandbox, _)| *sandbox == id));
    let (first, second) = (&added[0].2, &added[1].2);
    assert_eq!(
        (&first["name"], &first["cniVersion"], &first["own"]),
        (&json!("probed"), &json!("1.1.0"), &json!(1))
    );
    let ports = &first["runtimeConfig"]["portMappings"];
    assert_eq!((ports.as_array().unwrap().len(), &ports[0]["hostPort"]), (1, &json!(8080)));
    assert_eq!(first["runtimeConfig"]["bandwidth"]["ingressRate"], 10_000_000);
    assert_eq!((&first["prevResult"], &second["runtimeConfig"]), (&Value::Null, &Value::Null));
    let (given, args) =
        (&second["prevResult"]["ips"][0]["address"], &second["prevResult"]["dns"]["search"][0]);
    assert_eq!(given, "10.213.0.1/24");
    for word in
        ["K8S_POD_NAMESPACE=tests", "K8S_POD_NAME=probed", "K8S_POD_UID=probed-uid", "IgnoreUnknown=1"]
    {
        assert!(args.as_str().unwrap().split(';').any(|arg| arg == word), "{word}: {args}");
    }

    // The next daemon asks whether all is as it was, and lets what no pod has be freed.
    std::fs::write(dir.path().join("bin/fail-CHECK-probe-2"), "").unwrap();
    cri.kill();
    cri.start_again();
    let mut later = Vec::new();
    until("the plugins are asked to collect garbage", || {
        later.extend(asked(dir.path()));
        later.iter().any(|(verb, ..)| verb == "GC probe-2")
    })
    .await;
    assert_eq!(verbs(&later), ["CHECK probe-1", "CHECK probe-2", "GC probe-1", "GC probe-2"]);
    assert_eq!(
        later[0].2["prevResult"]["ips"][0]["address"], "10.213.0.2/24",
        "the result of the whole chain"
    );
    assert_eq!(later[2].2["cni.dev/valid-attachments"], json!([{"containerID": id, "ifname": "eth0"}]));
    assert!(cri.daemon.log().contains("told to fail"), "a pod whose network has changed is told of");
    assert_eq!(cri.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxReady);

    cri.stop_pod(&id).await.unwrap();
    cri.stop_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    let deleted = asked(dir.path());
    assert_eq!(verbs(&deleted), ["DEL probe-2", "DEL probe-1"], "once, and in reverse order");
    assert!(deleted.iter().all(|(.., config)| config["prevResult"]["ips"][0]["address"] == "10.213.0.2/24"));
}

#[tokio::test]
async fn a_plugin_that_fails_leaves_nothing() {
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), &["probe-2"]);
    let fail = |verb: &str| dir.path().join(format!("bin/fail-{verb}-probe-2"));
    let given = dir.path().join("leases/failing");
    let list = json!({"cniVersion": "1.0.0", "name": "failing", "plugins": [
        {"type": "bridge", "bridge": "cni1", "isGateway": true, "ipam": {"type": "host-local",
            "dataDir": dir.path().join("leases"), "ranges": [[{"subnet": "10.212.0.0/24"}]]}},
        {"type": "probe-2"},
    ]});
    std::fs::write(dir.path().join("10-failing.conflist"), list.to_string()).unwrap();
    let cri = Cri::on(&host, dir.path());
    let cables = || host.links().into_iter().filter(|link| link.starts_with("veth")).count();

    std::fs::write(fail("ADD"), "").unwrap();
    let error = cri.run(pod("failing", cri.logs())).await.unwrap_err();
    assert!(error.message().contains("probe-2") && error.message().contains("told to fail"), "{error}");
    assert_eq!(verbs(&asked(dir.path())), ["ADD probe-2", "DEL probe-2"]);
    assert_eq!((leases(&given), cables()), (vec![], 0), "what the bridge had made is left");
    assert_eq!(std::fs::read_dir(cri.daemon.run_root().join("pods")).unwrap().count(), 0);
    let list = cri.runtime().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    assert!(list.into_inner().items.is_empty());

    // The retry of the orchestrator, and an end that fails at first.
    std::fs::remove_file(fail("ADD")).unwrap();
    std::fs::write(fail("DEL"), "").unwrap();
    let id = cri.run(pod("failing", cri.logs())).await.unwrap();
    assert_eq!((leases(&given).len(), cables()), (1, 1));
    let error = cri.stop_pod(&id).await.unwrap_err();
    assert!(error.message().contains("told to fail"), "{error}");
    assert_eq!((leases(&given), cables()), (vec![], 0), "the other plugins are asked all the same");
    assert_eq!(cri.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxNotready);
    std::fs::remove_file(fail("DEL")).unwrap();
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_is_missing_is_named() {
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    let list = json!({"cniVersion": "1.0.0", "name": "missing", "plugins": [{"type": "no-such-plugin"}]});
    std::fs::write(dir.path().join("10-missing.conflist"), list.to_string()).unwrap();
    let cri = Cri::on(&host, dir.path());
    let (ready, why) = network(&cri).await;
    assert!(!ready && why.contains("no-such-plugin") && why.contains("--cni-bin-dir"), "{why}");
    let error = cri.run(pod("missing", cri.logs())).await.unwrap_err();
    assert!(error.message().contains("no-such-plugin"), "{error}");
    assert_eq!(std::fs::read_dir(cri.daemon.run_root().join("pods")).unwrap().count(), 0);
}

#[tokio::test]
async fn annotations_limit_bandwidth() {
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("leases/limited");
    let list = json!({"cniVersion": "1.0.0", "name": "limited", "plugins": [
        {"type": "bridge", "bridge": "cni2", "isGateway": true, "ipam": {"type": "host-local",
            "dataDir": dir.path().join("leases"), "ranges": [[{"subnet": "10.214.0.0/24"}]]}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]});
    std::fs::write(dir.path().join("10-limited.conflist"), list.to_string()).unwrap();
    let mut cri = Cri::on(&host, dir.path());
    let mut config = pod("limited", cri.logs());
    let annotation = |way: &str, rate: &str| (format!("kubernetes.io/{way}-bandwidth"), rate.to_owned());
    config.annotations = [annotation("ingress", "10M"), annotation("egress", "5M")].into();
    let id = cri.run(config).await.unwrap();
    let limits = host.run("tc qdisc show");
    for rate in ["rate 10Mbit", "rate 5Mbit"] {
        assert!(limits.contains(rate), "{limits}");
    }
    // The plugins find everything as they made it.
    cri.kill();
    cri.start_again();
    assert_eq!(cri.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
    assert!(!cri.daemon.log().contains("is not what it was"), "{}", cri.daemon.log());
    cri.remove_pod(&id).await.unwrap();
    assert!(!host.run("tc qdisc show").contains("tbf"));
    assert!(leases(&given).is_empty());
    let made = |link: &String| link.starts_with("veth") || link.starts_with("bwp");
    assert_eq!(host.links().into_iter().filter(made).count(), 0);
}
