//! Plugins of the Node Resource Interface.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use berth_cri::v1;
use berth_nri::api;
use prost::Message as _;

use crate::harness::{Cri, container, pod};
use crate::plugin::{Plugin, Reply};

use api::Event as E;

const LIFE: &[E] = &[
    E::RunPodSandbox,
    E::StopPodSandbox,
    E::RemovePodSandbox,
    E::CreateContainer,
    E::PostCreateContainer,
    E::StartContainer,
    E::PostStartContainer,
    E::UpdateContainer,
    E::PostUpdateContainer,
    E::StopContainer,
    E::RemoveContainer,
];

fn socket(cri: &Cri) -> PathBuf {
    cri.daemon.run_root().join("nri.sock")
}

fn adjusted(adjust: api::ContainerAdjustment) -> Reply {
    Reply::message(&api::CreateContainerResponse { adjust: Some(adjust), ..Default::default() })
}

fn variable(key: &str, value: &str) -> api::ContainerAdjustment {
    let env = vec![api::KeyValue { key: key.to_owned(), value: value.to_owned() }];
    api::ContainerAdjustment { env, ..Default::default() }
}

fn limits(shares: u64) -> api::LinuxResources {
    let shares = Some(api::OptionalUInt64 { value: shares });
    api::LinuxResources { cpu: Some(api::LinuxCpu { shares, ..Default::default() }), ..Default::default() }
}

fn update(container: &str, shares: u64) -> api::ContainerUpdate {
    api::ContainerUpdate {
        container_id: container.to_owned(),
        linux: Some(api::LinuxContainerUpdate { resources: Some(limits(shares)) }),
        ignore_failure: false,
    }
}

async fn shares(cri: &Cri, id: &str) -> i64 {
    cri.status(id).await.unwrap().resources.unwrap().linux.unwrap().cpu_shares
}

/// One thing of each kind.
fn everything(hooked: &str) -> api::ContainerAdjustment {
    api::ContainerAdjustment {
        annotations: [("plugin".to_owned(), "was here".to_owned())].into(),
        mounts: vec![api::Mount {
            destination: "/plugin".to_owned(),
            r#type: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options: vec!["size=1m".to_owned()],
        }],
        hooks: Some(api::Hooks {
            create_runtime: vec![api::Hook {
                path: "/bin/sh".to_owned(),
                args: ["sh", "-c", &format!("touch {hooked}")].map(str::to_owned).to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        rlimits: vec![api::PosixRlimit { r#type: "RLIMIT_NOFILE".to_owned(), hard: 77, soft: 66 }],
        linux: Some(api::LinuxContainerAdjustment {
            devices: vec![api::LinuxDevice {
                path: "/dev/extra".to_owned(),
                r#type: "c".to_owned(),
                major: 1,
                minor: 5,
                ..Default::default()
            }],
            resources: Some(limits(333)),
            oom_score_adj: Some(api::OptionalInt { value: 555 }),
            ..Default::default()
        }),
        ..variable("FROM_PLUGIN", "yes")
    }
}

#[tokio::test]
async fn a_plugin_adjusts_a_container_and_sees_its_life() {
    let cri = Cri::start();
    let hooked = cri.logs().join("hooked");
    let adjust = everything(&hooked.display().to_string());
    let names = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&names);
    let plugin = Plugin::join(&socket(&cri), "10", "all", LIFE, move |method, payload| match method {
        "CreateContainer" => {
            let asked = api::CreateContainerRequest::decode(payload).unwrap();
            let (pod, container) = (asked.pod.unwrap(), asked.container.unwrap());
            assert_eq!(container.args[..2], ["sh", "-c"]);
            noted.lock().unwrap().extend([pod.name, pod.namespace, pod.uid, container.name]);
            assert!(container.mounts.iter().any(|mount| mount.destination == "/etc/hosts"));
            adjusted(adjust.clone())
        }
        _ => Reply::nothing(),
    });
    let id = cri.run(pod("adjusted", cri.logs())).await.unwrap();
    let box_ = cri.running(&id, "box", "exec sleep 1000").await;
    assert_eq!(*names.lock().unwrap(), ["adjusted", "tests", "adjusted-uid", "box"]);
    let script = "echo $FROM_PLUGIN; grep -c ' /plugin tmpfs' /proc/mounts; \
                  grep 'Max open files' /proc/1/limits | tr -s ' '; head -c 3 /dev/extra | od -An -tx1; \
                  cat /proc/1/oom_score_adj";
    assert_eq!(
        cri.says(&box_, script).await.lines().map(str::trim).collect::<Vec<_>>(),
        ["yes", "1", "Max open files 66 77 files", "00 00 00", "555"]
    );
    assert!(hooked.exists(), "the hook did not run");
    assert_eq!(shares(&cri, &box_).await, 333);
    cri.stop_container(&box_, 0).await.unwrap();
    cri.remove_container(&box_).await.unwrap();
    let short = cri.running(&id, "short", "exit 3").await;
    cri.ended(&short).await;
    cri.stop_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    let life = ["CreateContainer", "PostCreateContainer", "StartContainer", "PostStartContainer"];
    let mut seen: Vec<String> = plugin.seen();
    // The second one may have ended before its start was told to have succeeded.
    let last = seen.split_off(11);
    let expected = ["Configure", "Synchronize", "RunPodSandbox"].iter().chain(&life);
    let expected =
        expected.chain(&["StopContainer", "RemoveContainer", "CreateContainer", "PostCreateContainer"]);
    assert_eq!(seen, expected.map(|one| (*one).to_owned()).collect::<Vec<_>>());
    let mut middle = last[..3].to_vec();
    middle.sort();
    assert_eq!(middle, ["PostStartContainer", "StartContainer", "StopContainer"]);
    assert_eq!(last[3..], ["StopPodSandbox", "RemoveContainer", "RemovePodSandbox"]);
}

#[tokio::test]
async fn plugins_are_asked_by_index_and_must_not_be_at_odds() {
    let cri = Cri::start();
    let id = cri.run(pod("two", cri.logs())).await.unwrap();
    let create = &[E::CreateContainer];
    let later = Plugin::join(&socket(&cri), "20", "later", create, |method, payload| match method {
        "CreateContainer" => {
            let asked = api::CreateContainerRequest::decode(payload).unwrap().container.unwrap();
            assert!(asked.env.contains(&"A=earlier".to_owned()), "{:?}", asked.env);
            adjusted(variable("A", "later"))
        }
        _ => Reply::nothing(),
    });
    let earlier = Plugin::join(&socket(&cri), "10", "earlier", create, |method, _| match method {
        "CreateContainer" => adjusted(variable("A", "earlier")),
        _ => Reply::nothing(),
    });
    let error = cri.create(&id, container("odds", "true")).await.unwrap_err();
    assert!(error.message().contains("10-earlier and 20-later both set Env (A)"), "{error}");
    let all = cri.runtime().list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert!(all.into_inner().containers.is_empty(), "a container that was refused is left");
    drop(later);
    let replaces = Plugin::join(&socket(&cri), "30", "replaces", create, |method, _| match method {
        "CreateContainer" => {
            let mut adjust = variable("-A", "");
            adjust.env.extend(variable("A", "replaced").env);
            adjusted(adjust)
        }
        _ => Reply::nothing(),
    });
    // The one that left may be asked once more, before its end is noticed.
    let made = cri.running(&id, "box", "exec sleep 1000").await;
    assert_eq!(cri.says(&made, "echo $A").await, "replaced");
    assert!(earlier.seen().len() >= 4 && replaces.seen().len() == 3);
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_hangs_is_dropped_and_one_that_refuses_is_heard() {
    let cri = Cri::start();
    let hangs = Plugin::join(&socket(&cri), "00", "hangs", &[E::RunPodSandbox], |method, _| match method {
        "RunPodSandbox" => Reply::Silence,
        _ => Reply::nothing(),
    });
    let id = cri.run(pod("one", cri.logs())).await.unwrap();
    hangs.dropped();
    let says_no = Plugin::join(&socket(&cri), "00", "no", &[E::RunPodSandbox], |method, _| match method {
        "RunPodSandbox" => Reply::Refusal("not on my node"),
        _ => Reply::nothing(),
    });
    let error = cri.run(pod("two", cri.logs())).await.unwrap_err();
    assert!(error.message().contains("00-no refused RunPodSandbox: not on my node"), "{error}");
    drop(says_no);
    let validator =
        Plugin::join(&socket(&cri), "90", "judge", &[E::ValidateContainerAdjustment], |method, payload| {
            match method {
                "ValidateContainerAdjustment" => {
                    let asked = api::ValidateContainerAdjustmentRequest::decode(payload).unwrap();
                    let owner = asked.owners.unwrap().owners.into_values().next();
                    let reject = owner.is_some();
                    let reason = "no adjustments here".to_owned();
                    Reply::message(&api::ValidateContainerAdjustmentResponse { reject, reason })
                }
                _ => Reply::nothing(),
            }
        });
    cri.create(&id, container("plain", "true")).await.unwrap();
    let adjusts =
        Plugin::join(&socket(&cri), "10", "adjusts", &[E::CreateContainer], |method, _| match method {
            "CreateContainer" => adjusted(variable("A", "1")),
            _ => Reply::nothing(),
        });
    let error = cri.create(&id, container("judged", "true")).await.unwrap_err();
    assert!(error.message().contains("90-judge rejected the container's adjustment"), "{error}");
    drop((validator, adjusts));
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn a_late_plugin_sees_what_there_is_and_changes_and_evicts_it() {
    let cri = Cri::start();
    let id = cri.run(pod("late", cri.logs())).await.unwrap();
    let one = cri.running(&id, "one", "exec sleep 1000").await;
    let two = cri.running(&id, "two", "exec sleep 1000").await;
    let shown = Arc::new(Mutex::new(None));
    let (noted, first) = (Arc::clone(&shown), one.clone());
    let plugin = Plugin::join(&socket(&cri), "10", "late", LIFE, move |method, payload| match method {
        "Synchronize" => {
            *noted.lock().unwrap() = Some(api::SynchronizeRequest::decode(payload).unwrap());
            let update = vec![update(&first, 111)];
            Reply::message(&api::SynchronizeResponse { update, more: false })
        }
        "UpdateContainer" => {
            let asked = api::UpdateContainerRequest::decode(payload).unwrap();
            let wanted = asked.linux_resources.unwrap().cpu.unwrap().shares.unwrap().value;
            let container = asked.container.unwrap().id;
            let update = vec![update(&container, wanted * 2)];
            Reply::message(&api::UpdateContainerResponse { update, evict: vec![] })
        }
        _ => Reply::nothing(),
    });
    let shown = shown.lock().unwrap().take().unwrap();
    assert_eq!(shown.pods.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&id]);
    let mut ids: Vec<_> = shown.containers.iter().map(|container| container.id.clone()).collect();
    ids.sort();
    let mut expected = vec![one.clone(), two.clone()];
    expected.sort();
    assert_eq!(ids, expected);
    assert!(shown.containers.iter().all(|one| one.state() == api::ContainerState::ContainerRunning));

    let failed = plugin.update(&api::UpdateContainersRequest {
        update: vec![update(&two, 222), update("no-such-container", 5)],
        evict: vec![],
    });
    assert_eq!(failed.iter().map(|one| one.container_id.as_str()).collect::<Vec<_>>(), ["no-such-container"]);
    assert_eq!(shares(&cri, &two).await, 222);
    let request = v1::UpdateContainerResourcesRequest {
        container_id: one.clone(),
        linux: Some(v1::LinuxContainerResources { cpu_shares: 150, ..Default::default() }),
        ..Default::default()
    };
    cri.runtime().update_container_resources(request).await.unwrap();
    assert_eq!(shares(&cri, &one).await, 300, "the plugin doubles what is asked for");

    let eviction = api::ContainerEviction { container_id: two.clone(), reason: "a test".to_owned() };
    plugin.update(&api::UpdateContainersRequest { update: vec![], evict: vec![eviction] });
    assert_eq!(cri.ended(&two).await.exit_code, 137);
    cri.remove_pod(&id).await.unwrap();
}
