//! Update: limits and restart policy of a container that exists.

use std::sync::Arc;

use berth_api::container::{Resources, ThrottleDevice, UpdateRequest, UpdateResponse};

use super::machine::Phase;
use super::{restart, validate};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::spec::resources;

impl Engine {
    /// Changes limits and restart policy; what is not given stays.
    ///
    /// # Errors
    /// Values that are refused, by the checks or by the kernel; nothing is changed then.
    pub async fn update_container(
        self: &Arc<Self>,
        name: &str,
        request: UpdateRequest,
    ) -> Result<UpdateResponse> {
        let container = self.containers.find(name)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            let failed =
                |error: EngineError| error.context(format!("Cannot update container {}", container.id));
            let mut host = container.definition().host.clone();
            validate::resources(&request.resources, &engine.facts)?;
            let lifted = merge(&mut host.resources, &request.resources).map_err(failed)?;
            validate::resources(&host.resources, &engine.facts)?;
            let mut policy = request.restart_policy;
            if !policy.name.is_empty() {
                restart::validate(&mut policy)?;
                if host.auto_remove && policy.name != "no" {
                    return Err(EngineError::invalid(
                        "Restart policy cannot be updated because AutoRemove is enabled for the container",
                    ));
                }
                host.restart_policy = policy;
            }
            if matches!(container.phase(), Phase::Removing | Phase::Dead) {
                return Err(failed(EngineError::conflict(
                    "container is marked for removal and cannot be \"update\"",
                )));
            }
            if container.phase().is_alive() {
                let mut limits = resources::limits(&with_lifted(&host.resources, lifted))?;
                if request.resources.pids_limit.is_some_and(|limit| limit <= 0) {
                    // What is not in it stays as it is; "no limit" must be said.
                    limits.set_pids(Some(resources::no_pids_limit()));
                }
                let updated = container.shim()?.update(limits).await;
                updated.map_err(|error| failed(EngineError::internal(error.to_string())))?;
            }
            container.redefine(&engine.db, |definition| definition.host = host)?;
            engine.events.publish("container", "update", &container.id, container.attributes(&[]));
            Ok(UpdateResponse { warnings: Some(Vec::new()) })
        })
        .await
    }
}

/// Limits of single devices, one list a kind, in the order of [`throttles`].
type Throttles<T> = [T; 4];

fn throttles(resources: &mut Resources) -> Throttles<&mut Option<Vec<ThrottleDevice>>> {
    [
        &mut resources.blkio_device_read_bps,
        &mut resources.blkio_device_write_bps,
        &mut resources.blkio_device_read_iops,
        &mut resources.blkio_device_write_iops,
    ]
}

/// The limits as the kernel is told them: it forgets that of a device only when it is told to.
fn with_lifted(resources: &Resources, lifted: Throttles<Vec<ThrottleDevice>>) -> Resources {
    let mut told = resources.clone();
    for (list, lifted) in throttles(&mut told).into_iter().zip(lifted) {
        if !lifted.is_empty() {
            list.get_or_insert_default().extend(lifted);
        }
    }
    told
}

/// Takes over what is given; zero and empty are not, but for the limits of single devices: a list of them replaces the
/// one before. Returns those that are no longer named, without a limit.
fn merge(old: &mut Resources, new: &Resources) -> Result<Throttles<Vec<ThrottleDevice>>> {
    let number = |old: &mut i64, new: i64| {
        if new != 0 {
            *old = new;
        }
    };
    let text = |old: &mut String, new: &String| {
        if !new.is_empty() {
            old.clone_from(new);
        }
    };
    if new.nano_cpus > 0 && (old.cpu_quota != 0 || old.cpu_period != 0) {
        return Err(EngineError::invalid(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota/Period has already been set",
        ));
    }
    if (new.cpu_quota != 0 || new.cpu_period != 0) && old.nano_cpus > 0 {
        return Err(EngineError::invalid(
            "Conflicting options: CPU Quota/Period cannot be updated as NanoCPUs has already been set",
        ));
    }
    // Without a limit so far (zero) there would be one of memory and none of swap, which nobody has asked for. Swap that
    // somebody has made unlimited stays so.
    if new.memory != 0 && new.memory_swap == 0 && old.memory_swap >= 0 && new.memory > old.memory_swap {
        return Err(EngineError::invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    number(&mut old.cpu_shares, new.cpu_shares);
    number(&mut old.memory, new.memory);
    number(&mut old.memory_swap, new.memory_swap);
    number(&mut old.memory_reservation, new.memory_reservation);
    number(&mut old.nano_cpus, new.nano_cpus);
    number(&mut old.cpu_period, new.cpu_period);
    number(&mut old.cpu_quota, new.cpu_quota);
    number(&mut old.cpu_realtime_period, new.cpu_realtime_period);
    number(&mut old.cpu_realtime_runtime, new.cpu_realtime_runtime);
    text(&mut old.cpuset_cpus, &new.cpuset_cpus);
    text(&mut old.cpuset_mems, &new.cpuset_mems);
    if new.blkio_weight != 0 {
        old.blkio_weight = new.blkio_weight;
    }
    match new.pids_limit {
        Some(limit) if limit <= 0 => old.pids_limit = None,
        Some(limit) => old.pids_limit = Some(limit),
        None => {}
    }
    if new.blkio_weight_device.is_some() {
        old.blkio_weight_device.clone_from(&new.blkio_weight_device);
    }
    let mut new = new.clone();
    let mut lifted: Throttles<Vec<ThrottleDevice>> = Throttles::default();
    for ((old, new), lifted) in throttles(old).into_iter().zip(throttles(&mut new)).zip(&mut lifted) {
        let Some(new) = new.take() else { continue };
        let before = old.replace(new.clone()).unwrap_or_default();
        let gone = before.into_iter().filter(|device| !new.iter().any(|other| other.path == device.path));
        lifted.extend(gone.map(|device| ThrottleDevice { rate: 0, ..device }));
    }
    Ok(lifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_changes() {
        let mut old = Resources {
            memory: 100,
            memory_swap: 200,
            cpu_shares: 7,
            pids_limit: Some(5),
            ..Resources::default()
        };
        merge(&mut old, &Resources { memory: 200, ..Resources::default() }).unwrap();
        assert_eq!((old.memory, old.cpu_shares, old.pids_limit), (200, 7, Some(5)));
        merge(&mut old, &Resources { pids_limit: Some(-1), ..Resources::default() }).unwrap();
        assert_eq!(old.pids_limit, None);
    }

    #[test]
    fn a_device_that_is_no_longer_named_is_without_a_limit() {
        let device = |path: &str, rate| ThrottleDevice { path: path.to_owned(), rate };
        let mut old = Resources {
            blkio_device_read_bps: Some(vec![device("/dev/a", 5), device("/dev/b", 5)]),
            blkio_device_write_bps: Some(vec![device("/dev/a", 7)]),
            ..Resources::default()
        };
        let new =
            Resources { blkio_device_read_bps: Some(vec![device("/dev/b", 9)]), ..Resources::default() };
        let lifted = merge(&mut old, &new).unwrap();
        assert_eq!(old.blkio_device_read_bps, Some(vec![device("/dev/b", 9)]));
        assert_eq!(old.blkio_device_write_bps, Some(vec![device("/dev/a", 7)]));
        let told = with_lifted(&old, lifted);
        assert_eq!(told.blkio_device_read_bps, Some(vec![device("/dev/b", 9), device("/dev/a", 0)]));
        assert_eq!(told.blkio_device_write_bps, old.blkio_device_write_bps);
    }

    #[test]
    fn contradictions_are_refused() {
        let mut old = Resources { memory_swap: 100, memory: 50, ..Resources::default() };
        let more = Resources { memory: 200, ..Resources::default() };
        assert!(merge(&mut old, &more).is_err());
        assert!(merge(&mut Resources::default(), &more).is_err());
        let mut unlimited = Resources { memory_swap: -1, memory: 50, ..Resources::default() };
        assert!(merge(&mut unlimited, &more).is_ok());
        let mut old = Resources { cpu_quota: 100, ..Resources::default() };
        assert!(merge(&mut old, &Resources { nano_cpus: 1, ..Resources::default() }).is_err());
    }
}
