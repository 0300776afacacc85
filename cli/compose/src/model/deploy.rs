//! Replicas, limits, restarts.

use super::{Always, Bytes, DeviceCount, Duration, Float, Pairs};

record! {
    /// How a service is deployed.
    Deploy {
        /// `replicated` or `global` (cluster only).
        mode: String,
        /// Number of containers.
        replicas: Option<i64>,
        /// Labels of the service (cluster only).
        labels: Pairs,
        /// How it is updated.
        update_config: Option<Update>,
        /// How an update is taken back.
        rollback_config: Option<Update>,
        /// Limits and reservations.
        resources: Resources,
        /// Restart policy.
        restart_policy: Option<RestartPolicy>,
        /// Where it may run (cluster only).
        placement: Placement,
        /// `vip` or `dnsrr` (cluster only).
        endpoint_mode: String,
    }

    /// How a service is updated.
    Update {
        /// Containers at a time.
        parallelism: Option<u64>,
        /// Time between them.
        delay: Duration,
        /// `continue`, `pause`, `rollback`.
        failure_action: String,
        /// Time in which a new container may fail.
        monitor: Duration,
        /// Share of failures that is borne.
        max_failure_ratio: Float,
        /// `stop-first` or `start-first`.
        order: String,
    }

    /// Limits and reservations.
    Resources {
        /// Limits.
        limits: Option<Resource>,
        /// Reservations.
        reservations: Option<Resource>,
    }

    /// A limit or reservation.
    Resource {
        /// CPUs.
        cpus: Float,
        /// Memory.
        memory: Bytes,
        /// Processes.
        pids: i64,
        /// Devices.
        devices: Vec<DeviceRequest>,
        /// Of the user's own kinds (cluster only).
        generic_resources: Vec<GenericResource>,
    }

    /// A resource of the user's own kind.
    GenericResource {
        /// Its amount.
        discrete_resource_spec: Option<DiscreteResource>,
    }

    /// An amount of a resource.
    DiscreteResource {
        /// Kind.
        kind: Always<String>,
        /// Amount.
        value: Always<i64>,
    }

    /// Restart policy.
    RestartPolicy {
        /// `none`, `on-failure`, `any`.
        condition: String,
        /// Time between tries.
        delay: Option<Duration>,
        /// Tries.
        max_attempts: Option<u64>,
        /// Time after which a start has succeeded.
        window: Option<Duration>,
    }

    /// Where a service may run.
    Placement {
        /// Constraints.
        constraints: Vec<String>,
        /// Preferences.
        preferences: Vec<Preference>,
        /// Containers per node.
        max_replicas_per_node: u64,
    }

    /// A preference.
    Preference {
        /// Label to spread over.
        spread: String,
    }

    /// A request that a device driver resolves.
    DeviceRequest {
        /// All of these capabilities.
        capabilities: Vec<String>,
        /// Driver.
        driver: String,
        /// How many.
        count: DeviceCount,
        /// Which.
        device_ids: Vec<String>,
        /// Options.
        options: Pairs,
    }
}
