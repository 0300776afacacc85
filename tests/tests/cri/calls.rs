//! The calls that only orchestrators and people at a terminal make.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_cri::v1;
use berth_tests::base::busybox_tar;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::harness::{Cri, container, pod};

#[tokio::test]
async fn events_tell_the_life_of_a_pod() {
    use v1::ContainerEventType as T;
    let cri = Cri::start();
    let mut events =
        cri.runtime().get_container_events(v1::GetEventsRequest::default()).await.unwrap().into_inner();
    let id = cri.run(pod("told", cri.logs())).await.unwrap();
    let one = cri.running(&id, "one", "exit 3").await;
    cri.ended(&one).await;
    cri.stop_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    let mut seen: BTreeMap<String, Vec<T>> = BTreeMap::new();
    let read = async {
        while !seen.get(&id).is_some_and(|kinds| kinds.contains(&T::ContainerDeletedEvent)) {
            let event = events.next().await.expect("a stream without end").expect("an event");
            let kind = event.container_event_type();
            let gone = event.container_id == id && kind == T::ContainerDeletedEvent;
            assert_eq!(event.pod_sandbox_status.map(|status| status.id), (!gone).then(|| id.clone()));
            seen.entry(event.container_id).or_default().push(kind);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("the pod's end is told");
    let life = [
        T::ContainerCreatedEvent,
        T::ContainerStartedEvent,
        T::ContainerStoppedEvent,
        T::ContainerDeletedEvent,
    ];
    assert_eq!(seen, [(id, life.to_vec()), (one, life.to_vec())].into());
}

#[tokio::test]
async fn lists_are_filtered() {
    let cri = Cri::start();
    let (red, blue) =
        (cri.run(pod("red", cri.logs())).await.unwrap(), cri.run(pod("blue", cri.logs())).await.unwrap());
    let ends = cri.running(&red, "ends", "exit 0").await;
    let stays = cri.running(&blue, "stays", "exec sleep 1000").await;
    cri.ended(&ends).await;
    cri.stop_pod(&red).await.unwrap();

    let pods = async |filter: v1::PodSandboxFilter| {
        let request = v1::ListPodSandboxRequest { filter: Some(filter.clone()) };
        let list = cri.runtime().list_pod_sandbox(request).await.unwrap().into_inner().items;
        let request = v1::StreamPodSandboxesRequest { filter: Some(filter) };
        let mut stream = cri.runtime().stream_pod_sandboxes(request).await.unwrap().into_inner();
        let mut streamed = Vec::new();
        while let Some(piece) = stream.next().await {
            streamed.extend(piece.unwrap().pod_sandboxes);
        }
        assert_eq!(list, streamed);
        list.into_iter().map(|pod| pod.id).collect::<Vec<_>>()
    };
    let ready = v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady as i32 };
    let by = v1::PodSandboxFilter::default;
    assert_eq!(pods(v1::PodSandboxFilter { state: Some(ready), ..by() }).await, [blue.as_str()]);
    assert_eq!(pods(v1::PodSandboxFilter { id: red[..12].to_owned(), ..by() }).await, [red.as_str()]);
    let labels = [("app".to_owned(), "red".to_owned())].into();
    assert_eq!(pods(v1::PodSandboxFilter { label_selector: labels, ..by() }).await, [red.as_str()]);
    assert_eq!(pods(by()).await.len(), 2);

    let containers = async |filter: v1::ContainerFilter| {
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let list = cri.runtime().list_containers(request).await.unwrap().into_inner().containers;
        list.into_iter().map(|container| container.id).collect::<Vec<_>>()
    };
    let exited = v1::ContainerStateValue { state: v1::ContainerState::ContainerExited as i32 };
    let by = v1::ContainerFilter::default;
    assert_eq!(containers(v1::ContainerFilter { state: Some(exited), ..by() }).await, [ends.as_str()]);
    assert_eq!(
        containers(v1::ContainerFilter { pod_sandbox_id: blue.clone(), ..by() }).await,
        [stays.as_str()]
    );
    assert!(
        containers(v1::ContainerFilter { id: ends, pod_sandbox_id: blue.clone(), ..by() }).await.is_empty()
    );
    cri.remove_pod(&red).await.unwrap();
    cri.remove_pod(&blue).await.unwrap();
}

#[tokio::test]
async fn what_pods_use_is_counted() {
    let cri = Cri::start();
    let id = cri.run(pod("used", cri.logs())).await.unwrap();
    let box_ = cri.running(&id, "box", "exec sleep 1000").await;
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.clone() };
    let stats = cri.runtime().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
    let linux = stats.linux.unwrap();
    assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
    assert_eq!(linux.containers.len(), 1);
    assert!(linux.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(linux.process.unwrap().process_count.unwrap().value >= 1);
    let request = v1::ListContainerStatsRequest::default();
    let list = cri.runtime().list_container_stats(request).await.unwrap().into_inner().stats;
    assert_eq!(
        list.iter().map(|stats| stats.attributes.as_ref().unwrap().id.as_str()).collect::<Vec<_>>(),
        [&box_]
    );

    let request = v1::ListMetricDescriptorsRequest::default();
    let known = cri.runtime().list_metric_descriptors(request).await.unwrap().into_inner().descriptors;
    let known: BTreeMap<String, usize> =
        known.into_iter().map(|metric| (metric.name, metric.label_keys.len())).collect();
    let request = v1::ListPodSandboxMetricsRequest::default();
    let metrics = cri.runtime().list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
    let [pod_metrics] = &metrics[..] else { panic!("{} pods", metrics.len()) };
    let all =
        pod_metrics.metrics.iter().chain(pod_metrics.container_metrics.iter().flat_map(|one| &one.metrics));
    for metric in all {
        assert_eq!(known.get(&metric.name), Some(&metric.label_values.len()), "{}", metric.name);
    }
    assert_eq!(pod_metrics.container_metrics[0].container_id, box_);
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let cri = Cri::start();
    let id = cri.run(pod("limits", cri.logs())).await.unwrap();
    let request = v1::RunPodSandboxRequest {
        config: Some(pod("handler", cri.logs())),
        runtime_handler: "kata".to_owned(),
    };
    let error = cri.runtime().run_pod_sandbox(request).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("kata"), "{error}");
    let gone = v1::ExecRequest { container_id: "0123456789".to_owned(), stdout: true, ..Default::default() };
    assert_eq!(cri.runtime().exec(gone).await.unwrap_err().code(), Code::NotFound);
    let mut config = container("class", "true");
    config.annotations = [("io.kubernetes.cri.rdt-class".to_owned(), "gold".to_owned())].into();
    let error = cri.create(&id, config).await.unwrap_err();
    assert!(error.message().contains("gold"), "{error}");

    let driver =
        cri.runtime().runtime_config(v1::RuntimeConfigRequest::default()).await.unwrap().into_inner();
    assert_eq!(driver.linux.unwrap().cgroup_driver(), v1::CgroupDriver::Cgroupfs);
    cri.runtime().update_runtime_config(v1::UpdateRuntimeConfigRequest::default()).await.unwrap();
    let request = v1::StatusRequest { verbose: true };
    let info = cri.runtime().status(request).await.unwrap().into_inner().info;
    assert!(serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["version"].is_string());
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn images_are_removed_listed_and_asked_for_at_once() {
    let cri = Cri::start();
    let cli = cri.daemon.cli(berth_tests::cli::Frontend::Berth);
    let spec = |image: &str| Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() });
    for round in 0..5 {
        for number in 0..4 {
            let label = format!("LABEL of={round}-{number}");
            let name = format!("busybox:{number}");
            drop(cli.run_with_input(&["import", "--change", &label, "-", &name], &busybox_tar()).success());
        }
        let work = async |number: usize| {
            let image = spec(&format!("busybox:{}", number % 4));
            cri.images().list_images(v1::ListImagesRequest::default()).await.unwrap();
            let request = v1::ImageStatusRequest { image: image.clone(), verbose: true };
            cri.images().image_status(request).await.unwrap();
            cri.images().remove_image(v1::RemoveImageRequest { image }).await.unwrap();
        };
        futures_util::future::join_all((0..16).map(work)).await;
        for number in 0..4 {
            let image = spec(&format!("busybox:{number}"));
            let request = v1::ImageStatusRequest { image, verbose: false };
            assert!(cri.images().image_status(request).await.unwrap().into_inner().image.is_none());
        }
    }
}
