//! Update: limits and restart policy of a container that exists.

use std::sync::Arc;

use berth_api::container::{Resources, UpdateRequest, UpdateResponse};

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
            merge(&mut host.resources, &request.resources)?;
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
                let mut limits = resources::limits(&host.resources)?;
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

/// Takes over what is given; zero and empty are not.
fn merge(old: &mut Resources, new: &Resources) -> Result<()> {
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
    if new.memory != 0 && new.memory_swap == 0 && old.memory_swap > 0 && new.memory > old.memory_swap {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_changes() {
        let mut old = Resources { memory: 100, cpu_shares: 7, pids_limit: Some(5), ..Resources::default() };
        merge(&mut old, &Resources { memory: 200, ..Resources::default() }).unwrap();
        assert_eq!((old.memory, old.cpu_shares, old.pids_limit), (200, 7, Some(5)));
        merge(&mut old, &Resources { pids_limit: Some(-1), ..Resources::default() }).unwrap();
        assert_eq!(old.pids_limit, None);
    }

    #[test]
    fn contradictions_are_refused() {
        let mut old = Resources { memory_swap: 100, memory: 50, ..Resources::default() };
        assert!(merge(&mut old, &Resources { memory: 200, ..Resources::default() }).is_err());
        let mut old = Resources { cpu_quota: 100, ..Resources::default() };
        assert!(merge(&mut old, &Resources { nano_cpus: 1, ..Resources::default() }).is_err());
    }
}
