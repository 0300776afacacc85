//! The grammar's data: every key of the Compose specification with the values it takes.

use std::fmt;

/// A set of kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NULL: Self = Self(1);
    pub(crate) const BOOL: Self = Self(2);
    pub(crate) const INT: Self = Self(4);
    pub(crate) const FLOAT: Self = Self(8);
    pub(crate) const TEXT: Self = Self(16);
    pub(crate) const LIST: Self = Self(32);
    pub(crate) const MAP: Self = Self(64);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = if self.contains(Self::FLOAT) { "a number" } else { "a whole number" };
        let names = [
            (Self::LIST, "a list"),
            (Self::MAP, "a mapping"),
            (Self::BOOL, "a boolean"),
            (Self::INT, number),
            (Self::TEXT, "a string"),
            (Self::NULL, "nothing"),
        ];
        let names: Vec<&str> =
            names.iter().filter(|(kind, _)| self.contains(*kind)).map(|(_, name)| *name).collect();
        match names.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, rest)) => write!(f, "{} or {last}", rest.join(", ")),
            None => Ok(()),
        }
    }
}

/// The values a key takes.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Scalars of these kinds.
    Scalar(Kinds),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number from one to another; or text.
    Range(Kinds, i64, i64),
    /// When to pull.
    PullPolicy,
    /// A list of equal things.
    List { item: &'static Shape, unique: bool },
    /// A mapping with keys of the user's; `names` tells that they name something.
    Map { value: &'static Shape, names: bool },
    /// A mapping with these keys; if not closed, others are passed over.
    Record { fields: &'static [(&'static str, Shape)], required: &'static [&'static str], closed: bool },
    /// One of these, which differ in the kinds they take.
    Any(&'static [Shape]),
    /// Any mapping.
    Open,
}

impl Shape {
    pub(crate) fn kinds(&self) -> Kinds {
        match self {
            Self::Scalar(kinds) | Self::Range(kinds, ..) => *kinds,
            Self::OneOf(_) | Self::PullPolicy => Kinds::TEXT,
            Self::List { .. } => Kinds::LIST,
            Self::Map { .. } | Self::Record { .. } | Self::Open => Kinds::MAP,
            Self::Any(shapes) => shapes.iter().fold(Kinds(0), |kinds, shape| kinds.and(shape.kinds())),
        }
    }
}

const S: Shape = Shape::Scalar(Kinds::TEXT);
const B: Shape = Shape::Scalar(Kinds::BOOL);
const BS: Shape = Shape::Scalar(Kinds::BOOL.and(Kinds::TEXT));
const I: Shape = Shape::Scalar(Kinds::INT);
const IS: Shape = Shape::Scalar(Kinds::INT.and(Kinds::TEXT));
const NUMBER: Kinds = Kinds::INT.and(Kinds::FLOAT);
const N: Shape = Shape::Scalar(NUMBER);
const NS: Shape = Shape::Scalar(NUMBER.and(Kinds::TEXT));
const NSB: Shape = Shape::Scalar(NUMBER.and(Kinds::TEXT).and(Kinds::BOOL));
const SCALAR: Shape = Shape::Scalar(NUMBER.and(Kinds::TEXT).and(Kinds::BOOL).and(Kinds::NULL));
const NSZ: Shape = Shape::Scalar(NUMBER.and(Kinds::TEXT).and(Kinds::NULL));
const SZ: Shape = Shape::Scalar(Kinds::TEXT.and(Kinds::NULL));
const Z: Shape = Shape::Scalar(Kinds::NULL);

const fn list(item: &'static Shape) -> Shape {
    Shape::List { item, unique: false }
}

const fn set(item: &'static Shape) -> Shape {
    Shape::List { item, unique: true }
}

const fn named(value: &'static Shape) -> Shape {
    Shape::Map { value, names: true }
}

const fn free(value: &'static Shape) -> Shape {
    Shape::Map { value, names: false }
}

const fn record(fields: &'static [(&'static str, Shape)]) -> Shape {
    Shape::Record { fields, required: &[], closed: true }
}

const fn record_with(required: &'static [&'static str], fields: &'static [(&'static str, Shape)]) -> Shape {
    Shape::Record { fields, required, closed: true }
}

const STRINGS: Shape = set(&S);
const STRING_OR_LIST: Shape = Shape::Any(&[S, STRINGS]);
const LIST_OR_DICT: Shape = Shape::Any(&[free(&SCALAR), STRINGS]);
const EXTRA_HOSTS: Shape = Shape::Any(&[free(&Shape::Any(&[S, list(&S)])), STRINGS]);
const COMMAND: Shape = Shape::Any(&[Z, S, list(&S)]);
const OPTIONS: Shape = free(&NS);
const EXTERNAL: Shape = Shape::Any(&[BS, record(&[("name", S)])]);

/// A whole Compose file.
pub(crate) static FILE: Shape = record(&[
    ("version", S),
    ("name", S),
    ("include", list(&INCLUDE)),
    ("services", named(&SERVICE)),
    ("models", named(&MODEL)),
    ("networks", named(&NETWORK)),
    ("volumes", named(&VOLUME)),
    ("secrets", named(&SECRET)),
    ("configs", named(&CONFIG)),
]);

const INCLUDE: Shape = Shape::Any(&[
    S,
    record(&[("path", STRING_OR_LIST), ("env_file", STRING_OR_LIST), ("project_directory", S)]),
]);

const SERVICE: Shape = record(&[
    ("develop", DEVELOP),
    ("deploy", DEPLOY),
    ("annotations", LIST_OR_DICT),
    ("attach", BS),
    ("build", Shape::Any(&[S, BUILD])),
    ("blkio_config", BLKIO),
    ("cap_add", STRINGS),
    ("cap_drop", STRINGS),
    ("cgroup", Shape::OneOf(&["host", "private"])),
    ("cgroup_parent", S),
    ("command", COMMAND),
    ("configs", FILES),
    ("container_name", S),
    ("cpu_count", Shape::Range(Kinds::INT.and(Kinds::TEXT), 0, i64::MAX)),
    ("cpu_percent", Shape::Range(NUMBER.and(Kinds::TEXT), 0, 100)),
    ("cpu_shares", NS),
    ("cpu_quota", NS),
    ("cpu_period", NS),
    ("cpu_rt_period", NS),
    ("cpu_rt_runtime", NS),
    ("cpus", NS),
    ("cpuset", S),
    ("credential_spec", record(&[("config", S), ("file", S), ("registry", S)])),
    ("depends_on", Shape::Any(&[STRINGS, named(&DEPENDENCY)])),
    ("device_cgroup_rules", STRINGS),
    (
        "devices",
        list(&Shape::Any(&[
            S,
            record_with(&["source"], &[("source", S), ("target", S), ("permissions", S)]),
        ])),
    ),
    ("dns", STRING_OR_LIST),
    ("dns_opt", STRINGS),
    ("dns_search", STRING_OR_LIST),
    ("domainname", S),
    ("entrypoint", COMMAND),
    (
        "env_file",
        Shape::Any(&[
            S,
            list(&Shape::Any(&[S, record_with(&["path"], &[("path", S), ("format", S), ("required", BS)])])),
        ]),
    ),
    ("label_file", Shape::Any(&[S, list(&S)])),
    ("environment", LIST_OR_DICT),
    ("expose", set(&NS)),
    ("extends", Shape::Any(&[S, record_with(&["service"], &[("service", S), ("file", S)])])),
    ("provider", record_with(&["type"], &[("type", S), ("options", free(&Shape::Any(&[NSB, list(&NSB)])))])),
    ("external_links", STRINGS),
    ("extra_hosts", EXTRA_HOSTS),
    ("gpus", Shape::Any(&[Shape::OneOf(&["all"]), list(&DEVICE_REQUEST)])),
    ("group_add", set(&NS)),
    ("healthcheck", HEALTHCHECK),
    ("hostname", S),
    ("image", S),
    ("init", BS),
    ("ipc", S),
    ("isolation", S),
    ("labels", LIST_OR_DICT),
    ("links", STRINGS),
    ("logging", record(&[("driver", S), ("options", free(&NSZ))])),
    ("mac_address", S),
    ("mem_limit", NS),
    ("mem_reservation", IS),
    ("mem_swappiness", IS),
    ("memswap_limit", NS),
    ("network_mode", S),
    (
        "models",
        Shape::Any(&[STRINGS, named(&Shape::Any(&[Z, record(&[("endpoint_var", S), ("model_var", S)])]))]),
    ),
    ("networks", Shape::Any(&[STRINGS, named(&Shape::Any(&[Z, SERVICE_NETWORK]))])),
    ("oom_kill_disable", BS),
    ("oom_score_adj", Shape::Range(Kinds::INT.and(Kinds::TEXT), -1000, 1000)),
    ("pid", SZ),
    ("pids_limit", NS),
    ("platform", S),
    ("ports", set(&Shape::Any(&[NS, PORT]))),
    ("post_start", list(&HOOK)),
    ("pre_stop", list(&HOOK)),
    ("privileged", BS),
    ("profiles", STRINGS),
    ("pull_policy", Shape::PullPolicy),
    ("pull_refresh_after", S),
    ("read_only", BS),
    ("restart", S),
    ("runtime", S),
    ("scale", IS),
    ("security_opt", STRINGS),
    ("shm_size", NS),
    ("secrets", FILES),
    ("sysctls", LIST_OR_DICT),
    ("stdin_open", BS),
    ("stop_grace_period", S),
    ("stop_signal", S),
    ("storage_opt", Shape::Open),
    ("tmpfs", STRING_OR_LIST),
    ("tty", BS),
    ("ulimits", ULIMITS),
    ("use_api_socket", B),
    ("user", S),
    ("uts", S),
    ("userns_mode", S),
    ("volumes", set(&Shape::Any(&[S, MOUNT]))),
    ("volumes_from", STRINGS),
    ("working_dir", S),
]);

const BUILD: Shape = record(&[
    ("context", S),
    ("dockerfile", S),
    ("dockerfile_inline", S),
    ("entitlements", list(&S)),
    ("args", LIST_OR_DICT),
    ("ssh", LIST_OR_DICT),
    ("labels", LIST_OR_DICT),
    ("cache_from", list(&S)),
    ("cache_to", list(&S)),
    ("no_cache", BS),
    ("additional_contexts", LIST_OR_DICT),
    ("network", S),
    ("provenance", BS),
    ("sbom", BS),
    ("pull", BS),
    ("target", S),
    ("shm_size", IS),
    ("extra_hosts", EXTRA_HOSTS),
    ("isolation", S),
    ("privileged", BS),
    ("secrets", FILES),
    ("tags", list(&S)),
    ("ulimits", ULIMITS),
    ("platforms", list(&S)),
]);

const RATE: Shape = record(&[("path", S), ("rate", IS)]);

const BLKIO: Shape = record(&[
    ("device_read_bps", list(&RATE)),
    ("device_read_iops", list(&RATE)),
    ("device_write_bps", list(&RATE)),
    ("device_write_iops", list(&RATE)),
    ("weight", IS),
    ("weight_device", list(&record(&[("path", S), ("weight", IS)]))),
]);

const DEPENDENCY: Shape = record_with(
    &["condition"],
    &[
        ("restart", BS),
        ("required", B),
        (
            "condition",
            Shape::OneOf(&["service_started", "service_healthy", "service_completed_successfully"]),
        ),
    ],
);

const FILES: Shape =
    list(&Shape::Any(&[S, record(&[("source", S), ("target", S), ("uid", S), ("gid", S), ("mode", NS)])]));

const DEVICE_FIELDS: &[(&str, Shape)] = &[
    ("capabilities", STRINGS),
    ("count", IS),
    ("device_ids", STRINGS),
    ("driver", S),
    ("options", LIST_OR_DICT),
];
const DEVICE_REQUEST: Shape = Shape::Record { fields: DEVICE_FIELDS, required: &[], closed: false };

const HEALTHCHECK: Shape = record(&[
    ("disable", BS),
    ("interval", S),
    ("retries", NS),
    ("test", Shape::Any(&[S, list(&S)])),
    ("timeout", S),
    ("start_period", S),
    ("start_interval", S),
]);

const SERVICE_NETWORK: Shape = record(&[
    ("aliases", STRINGS),
    ("interface_name", S),
    ("ipv4_address", S),
    ("ipv6_address", S),
    ("link_local_ips", STRINGS),
    ("mac_address", S),
    ("driver_opts", OPTIONS),
    ("priority", N),
    ("gw_priority", N),
]);

const PORT: Shape = record(&[
    ("name", S),
    ("mode", S),
    ("host_ip", S),
    ("target", IS),
    ("published", IS),
    ("protocol", S),
    ("app_protocol", S),
]);

const HOOK: Shape = record_with(
    &["command"],
    &[
        ("command", COMMAND),
        ("user", S),
        ("privileged", BS),
        ("working_dir", S),
        ("environment", LIST_OR_DICT),
    ],
);

const ULIMITS: Shape =
    free(&Shape::Any(&[IS, record_with(&["soft", "hard"], &[("hard", IS), ("soft", IS)])]));

const MOUNT: Shape = record_with(
    &["type"],
    &[
        ("type", Shape::OneOf(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        ("source", S),
        ("target", S),
        ("read_only", BS),
        ("consistency", S),
        (
            "bind",
            record(&[
                ("propagation", S),
                ("create_host_path", BS),
                ("recursive", Shape::OneOf(&["enabled", "disabled", "writable", "readonly"])),
                ("selinux", Shape::OneOf(&["z", "Z"])),
            ]),
        ),
        ("volume", record(&[("labels", LIST_OR_DICT), ("nocopy", BS), ("subpath", S)])),
        ("tmpfs", record(&[("size", Shape::Range(Kinds::INT.and(Kinds::TEXT), 0, i64::MAX)), ("mode", NS)])),
        ("image", record(&[("subpath", S)])),
    ],
);

const DEVELOP: Shape = Shape::Any(&[
    Z,
    record(&[(
        "watch",
        list(&record_with(
            &["path", "action"],
            &[
                ("ignore", STRING_OR_LIST),
                ("include", STRING_OR_LIST),
                ("path", S),
                ("action", Shape::OneOf(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
                ("target", S),
                ("exec", HOOK),
                ("initial_sync", B),
            ],
        )),
    )]),
]);

const UPDATE: Shape = record(&[
    ("parallelism", IS),
    ("delay", S),
    ("failure_action", S),
    ("monitor", S),
    ("max_failure_ratio", NS),
    ("order", Shape::OneOf(&["start-first", "stop-first"])),
]);

const DEPLOY: Shape = Shape::Any(&[
    Z,
    record(&[
        ("mode", S),
        ("endpoint_mode", S),
        ("replicas", IS),
        ("labels", LIST_OR_DICT),
        ("rollback_config", UPDATE),
        ("update_config", UPDATE),
        (
            "resources",
            record(&[
                ("limits", record(&[("cpus", NS), ("memory", S), ("pids", IS)])),
                (
                    "reservations",
                    record(&[
                        ("cpus", NS),
                        ("memory", S),
                        (
                            "generic_resources",
                            list(&record(&[(
                                "discrete_resource_spec",
                                record(&[("kind", S), ("value", NS)]),
                            )])),
                        ),
                        ("devices", list(&record_with(&["capabilities"], DEVICE_FIELDS))),
                    ]),
                ),
            ]),
        ),
        ("restart_policy", record(&[("condition", S), ("delay", S), ("max_attempts", IS), ("window", S)])),
        (
            "placement",
            record(&[
                ("constraints", list(&S)),
                ("preferences", list(&record(&[("spread", S)]))),
                ("max_replicas_per_node", IS),
            ]),
        ),
    ]),
]);

const NETWORK: Shape = Shape::Any(&[
    Z,
    record(&[
        ("name", S),
        ("driver", S),
        ("driver_opts", OPTIONS),
        (
            "ipam",
            record(&[
                ("driver", S),
                (
                    "config",
                    list(&record(&[
                        ("subnet", S),
                        ("ip_range", S),
                        ("gateway", S),
                        ("aux_addresses", free(&S)),
                    ])),
                ),
                ("options", free(&S)),
            ]),
        ),
        ("external", EXTERNAL),
        ("internal", BS),
        ("enable_ipv4", BS),
        ("enable_ipv6", BS),
        ("attachable", BS),
        ("labels", LIST_OR_DICT),
    ]),
]);

const VOLUME: Shape = Shape::Any(&[
    Z,
    record(&[
        ("name", S),
        ("driver", S),
        ("driver_opts", OPTIONS),
        ("external", EXTERNAL),
        ("labels", LIST_OR_DICT),
    ]),
]);

const SECRET: Shape = record(&[
    ("name", S),
    ("environment", S),
    ("file", S),
    ("external", EXTERNAL),
    ("labels", LIST_OR_DICT),
    ("driver", S),
    ("driver_opts", OPTIONS),
    ("template_driver", S),
]);

const CONFIG: Shape = record(&[
    ("name", S),
    ("content", S),
    ("environment", S),
    ("file", S),
    ("external", EXTERNAL),
    ("labels", LIST_OR_DICT),
    ("template_driver", S),
]);

const MODEL: Shape =
    record_with(&["model"], &[("name", S), ("model", S), ("context_size", I), ("runtime_flags", list(&S))]);
