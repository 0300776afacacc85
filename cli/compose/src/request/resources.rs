//! Limits and devices.

use std::collections::BTreeMap;

use berth_client::api::container::{
    DeviceMapping, DeviceRequest, Resources, ThrottleDevice, Ulimit, WeightDevice,
};

use super::list;
use crate::model::{self, DeviceRate, Service};

pub(super) fn of(service: &Service) -> Resources {
    let mut resources = Resources {
        cgroup_parent: service.cgroup_parent.clone(),
        memory: service.mem_limit.0,
        memory_swap: service.memswap_limit.0,
        memory_swappiness: Some(service.mem_swappiness.0).filter(|swappiness| *swappiness != 0),
        memory_reservation: service.mem_reservation.0,
        oom_kill_disable: Some(service.oom_kill_disable),
        cpu_count: service.cpu_count,
        cpu_period: service.cpu_period,
        cpu_quota: service.cpu_quota,
        cpu_realtime_period: service.cpu_rt_period,
        cpu_realtime_runtime: service.cpu_rt_runtime,
        cpu_shares: service.cpu_shares,
        nano_cpus: nano(service.cpus.0),
        cpu_percent: whole(service.cpu_percent.0 * 100.0),
        cpuset_cpus: service.cpuset.clone(),
        device_cgroup_rules: list(service.device_cgroup_rules.clone()),
        pids_limit: Some(service.pids_limit).filter(|limit| *limit != 0),
        ulimits: list(ulimits(&service.ulimits)),
        ..Resources::default()
    };
    block_io(service, &mut resources);
    let mut requests = Vec::new();
    if let Some(deploy) = &service.deploy {
        deployed(&deploy.resources, &mut resources, &mut requests);
    }
    devices(service, &mut resources, &mut requests);
    for gpus in &service.gpus {
        let mut request = request(gpus);
        let capabilities = gpus.capabilities.iter().cloned().chain(["gpu".to_owned()]).collect();
        request.capabilities = Some(vec![capabilities]);
        requests.push(request);
    }
    resources.device_requests = list(requests);
    resources
}

#[allow(clippy::cast_possible_truncation, reason = "saturates, as it would be refused anyway")]
fn whole(number: f32) -> i64 {
    number as i64
}

/// In single precision, as docker compose computes it.
fn nano(cpus: f32) -> i64 {
    whole(cpus * 1e9)
}

pub(crate) fn ulimits(limits: &BTreeMap<String, model::Ulimit>) -> Vec<Ulimit> {
    let either = |one: i64, other: i64| if one == 0 { other } else { one };
    let each = limits.iter().map(|(name, limit)| Ulimit {
        name: name.clone(),
        soft: either(limit.soft, limit.single),
        hard: either(limit.hard, limit.single),
    });
    each.collect()
}

fn request(device: &model::DeviceRequest) -> DeviceRequest {
    DeviceRequest {
        driver: device.driver.clone(),
        count: device.count.0,
        device_ids: Some(device.device_ids.clone()).filter(|ids| !ids.is_empty()),
        capabilities: Some(vec![device.capabilities.clone()]),
        options: Some(device.options.0.clone()),
    }
}

fn deployed(deploy: &model::Resources, resources: &mut Resources, requests: &mut Vec<DeviceRequest>) {
    if let Some(limits) = &deploy.limits {
        if limits.memory.0 != 0 {
            resources.memory = limits.memory.0;
        }
        if limits.cpus.0 != 0.0 {
            resources.nano_cpus = nano(limits.cpus.0);
        }
        if limits.pids > 0 {
            resources.pids_limit = Some(limits.pids);
        }
    }
    if let Some(reserved) = &deploy.reservations {
        if reserved.memory.0 != 0 {
            resources.memory_reservation = reserved.memory.0;
        }
        requests.extend(reserved.devices.iter().map(request));
    }
}

/// Devices by path, and by the name a CDI specification gives them (`vendor/class=name`).
fn devices(service: &Service, resources: &mut Resources, requests: &mut Vec<DeviceRequest>) {
    let is_cdi = |name: &str| {
        !name.starts_with('/') && name.split_once('=').is_some_and(|(kind, _)| kind.contains('/'))
    };
    let (named, paths): (Vec<_>, Vec<_>) =
        service.devices.iter().partition(|device| device.source == device.target && is_cdi(&device.source));
    resources.devices = list(
        paths
            .into_iter()
            .map(|device| DeviceMapping {
                path_on_host: device.source.clone(),
                path_in_container: device.target.clone(),
                cgroup_permissions: device.permissions.clone(),
            })
            .collect(),
    );
    if !named.is_empty() {
        let ids = named.into_iter().map(|device| device.source.clone()).collect();
        requests.push(DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(ids),
            ..DeviceRequest::default()
        });
    }
}

fn block_io(service: &Service, resources: &mut Resources) {
    let Some(blkio) = &service.blkio_config else { return };
    let rates = |rates: &[DeviceRate]| {
        let each = rates.iter().map(|rate| ThrottleDevice {
            path: rate.path.0.clone(),
            rate: u64::try_from(rate.rate.0.0).unwrap_or(0),
        });
        list(each.collect())
    };
    resources.blkio_weight = blkio.weight;
    let weights = blkio.weight_device.iter();
    resources.blkio_weight_device = Some(
        weights.map(|device| WeightDevice { path: device.path.0.clone(), weight: device.weight.0 }).collect(),
    );
    resources.blkio_device_read_bps = rates(&blkio.device_read_bps);
    resources.blkio_device_read_iops = rates(&blkio.device_read_iops);
    resources.blkio_device_write_bps = rates(&blkio.device_write_bps);
    resources.blkio_device_write_iops = rates(&blkio.device_write_iops);
}
