//! What the list calls are asked for. All conditions must hold.

use std::collections::HashMap;

use berth_engine::{ContainerView, Pairs, SandboxView};

use super::view;
use crate::v1;

fn selects(selector: &HashMap<String, String>, labels: &Pairs) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a sandbox is asked for.
pub(crate) fn sandbox(filter: Option<&v1::PodSandboxFilter>, sandbox: &SandboxView) -> bool {
    filter.is_none_or(|filter| {
        sandbox.id.starts_with(&filter.id)
            && filter.state.as_ref().is_none_or(|state| state.state == view::sandbox_state(sandbox) as i32)
            && selects(&filter.label_selector, &sandbox.spec.labels)
    })
}

/// Whether a container is asked for.
pub(crate) fn container(filter: Option<&v1::ContainerFilter>, container: &ContainerView) -> bool {
    filter.is_none_or(|filter| {
        container.id.starts_with(&filter.id)
            && container.sandbox.starts_with(&filter.pod_sandbox_id)
            && filter
                .state
                .as_ref()
                .is_none_or(|state| state.state == view::container_state(container) as i32)
            && selects(&filter.label_selector, &container.spec.labels)
    })
}

/// Whether a container's statistics are asked for.
pub(crate) fn stats(filter: Option<&v1::ContainerStatsFilter>, container: &ContainerView) -> bool {
    filter.is_none_or(|filter| {
        container.id.starts_with(&filter.id)
            && container.sandbox.starts_with(&filter.pod_sandbox_id)
            && selects(&filter.label_selector, &container.spec.labels)
    })
}

/// Whether a sandbox' statistics are asked for.
pub(crate) fn sandbox_stats(filter: Option<&v1::PodSandboxStatsFilter>, sandbox: &SandboxView) -> bool {
    filter.is_none_or(|filter| {
        sandbox.id.starts_with(&filter.id) && selects(&filter.label_selector, &sandbox.spec.labels)
    })
}
